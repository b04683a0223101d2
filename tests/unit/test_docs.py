"""What the documents say is what the code has."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from airflow_provider_fluxomail.alerts import alert
from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.configuration.options import OPTIONS
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.provider_info import CONNECTION_FIELDS
from airflow_provider_fluxomail.sandbox import Bounds
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailEventTrigger

ROOT = Path(__file__).parent.parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("extra", CONNECTION_FIELDS)
def test_every_extra_is_documented_with_its_default(extra: str) -> None:
    (row,) = [
        line for line in text("docs/connection.md").split("## One setting")[0].splitlines() if f"| `{extra}` |" in line
    ]
    default = OPTIONS[extra].default_text or "empty"
    assert row.split(" | ")[-2].strip("`") == default


@pytest.mark.parametrize(
    ("page", "task"),
    [
        ("docs/sending.md", FluxomailSendOperator),
        ("docs/batch.md", FluxomailSendBatchOperator),
        ("docs/waiting.md", FluxomailDeliverySensor),
        ("docs/alerts.md", FluxomailNotifier),
        ("docs/event-driven.md", FluxomailEventTrigger),
    ],
)
def test_every_argument_is_documented(page: str, task: type) -> None:
    wrapped = inspect.unwrap(task.__init__)  # type: ignore[misc]
    arguments = set(inspect.signature(wrapped).parameters) - {"self", "kwargs", "multiple_outputs"}
    assert len(arguments) >= 3
    for name in arguments:
        assert f"`{name}`" in text(page), name
        assert f":param {name}:" in (task.__doc__ or ""), name


def test_every_error_is_documented() -> None:
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.FluxomailError) and value is not errors.FluxomailError:
            assert f"| `{name}` |" in text("docs/guarantees.md"), name
            assert name in (errors.__doc__ or ""), name


def test_the_bounds_of_the_sandbox_are_documented() -> None:
    section = text("docs/sandbox.md").split("## Bounds")[1]
    for value in vars(Bounds)["__dataclass_fields__"].values():
        shown = f"{value.default // 1024**2} MiB" if value.default >= 1024**2 else f"{value.default:,}"
        assert shown in section, value.name


def test_the_readme_shows_the_example_as_it_is() -> None:
    source = text("example_dags/fluxomail_send_and_wait.py")
    shown = source.split("# [START howto_send_and_wait]\n")[1].split("    # [END")[0]
    assert textwrap.dedent(shown) in textwrap.dedent(text("README.md").replace("\n    ", "\n"))


@pytest.mark.parametrize("page", ["README.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))])
def test_python_in_the_documents_is_python(page: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", text(page), re.DOTALL):
        ast.parse(block)


@pytest.mark.parametrize("page", [str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")])
def test_quoted_examples_have_their_markers(page: str) -> None:
    for quoted in re.finditer(r"```\{literalinclude\} \.\./(\S+)\n(.*?)```", text(page), re.DOTALL):
        source = text(quoted[1])
        for marker in re.findall(r'"(# \[(?:START|END) \w+\])"', quoted[2]):
            assert source.count(marker) == 1, (page, marker)


@pytest.mark.parametrize("kind", alert.TITLES)
def test_every_kind_of_alert_is_documented(kind: str) -> None:
    assert f"`{kind}`" in text("docs/alerts.md").split("## Callbacks")[1].split("\n## ")[0]


def test_all_that_templates_know_of_an_alert_is_documented() -> None:
    names = {field.name for field in dataclasses.fields(alert.Alert)} - {"occasion", "question", "body"}
    for name in names | {"title", "name", "link_text"}:
        assert f"`{name}`" in text("docs/alerts.md").split("## Words of your own")[1], name
