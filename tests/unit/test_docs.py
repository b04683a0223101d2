"""What the documents say is what the code has."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
import textwrap
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail import client
from airflow_provider_fluxomail.alerts import alert
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.configuration.options import EXTRAS, SECTION
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.retry_policy import FluxomailRetryPolicy
from airflow_provider_fluxomail.sandbox import Bounds
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailEventTrigger

ROOT = Path(__file__).parent.parent.parent
PAGES = [str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


PUBLIC = [
    FluxomailSendOperator, FluxomailSendBatchOperator, FluxomailSendDecoratedOperator, FluxomailDeliverySensor,
    FluxomailNotifier, FluxomailEventTrigger, FluxomailHook, FluxomailRetryPolicy, ClientSettings, EmailMessage,
    Attachment, send_email,
]  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """The extension that makes tables of docstrings and options."""
    pytest.importorskip("sphinx", reason="needs the dependency group docs")
    return runpy.run_path(str(ROOT / "docs" / "_ext" / "tables.py"))


@pytest.mark.parametrize("public", PUBLIC)
def test_docstrings_describe_each_parameter(public: Any, tables: dict[str, Any]) -> None:
    function = vars(public)["__init__"] if isinstance(public, type) else public
    taken = {
        name
        for name, item in inspect.signature(inspect.unwrap(function)).parameters.items()
        if name not in {"self", "multiple_outputs"} and item.kind not in (item.VAR_KEYWORD, item.VAR_POSITIONAL)
    }
    rows = {name.strip("`") for name, *_ in tables["parameter_rows"](public)}
    assert taken - rows == set()


def test_tables_have_meanings_defaults_units_and_cures(tables: dict[str, Any]) -> None:
    parameters = {name.strip("`"): row for name, *row in tables["parameter_rows"](FluxomailSendOperator)}
    assert all(meaning for meaning, _ in parameters.values())
    assert [parameters[name][1] for name in ("to", "cc", "wait_timeout")] == ["required", "", "``3600``"]
    options = {name.strip("`"): row for name, *row in tables["option_rows"]("connection")}
    assert options.keys() == set(EXTRAS)
    assert options["timeout"][1:] == ["``15``", "seconds"]
    assert options["allow_http"][1:] == ["``false``", "true or false"]
    assert {name.strip("`") for name, *_ in tables["option_rows"]("section")} == set(SECTION)
    errors = {name.rpartition(".")[2].strip("`"): row for name, *row in tables["error_rows"]()}
    assert len(errors) > 15
    assert (errors["FluxomailAuthError"][1], errors["FluxomailServerError"][1]) == ("yes", "no")
    assert all(when and cure for when, _, cure in errors.values())
    assert "further line" in tables["documented_parameters"](_described)["first"]
    with pytest.raises(ValueError, match="_described has no parameter third"):
        list(tables["parameter_rows"](_described))


def _described(first: str, second: int = 2) -> None:
    """Text.

    :param first: one line,
        and a further line.
    :param second: a number.
    :param third: does not exist.
    """


def test_the_reference_has_every_public_name_of_the_client(tables: dict[str, Any]) -> None:
    page = text("docs/reference/reference.md")
    shown = set(re.findall(r"auto\w+:: airflow_provider_fluxomail\.client(?:\.\w+)?\.(\w+)", page))
    if ".. error-classes::" in page:
        shown |= {error.__name__ for error in tables["errors"]()}
    # A value, not a class of its own to read about.
    assert set(client.__all__) - {"BatchCounts"} <= shown


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/start/how-it-works.md"])
def test_modules_that_are_named_exist(page: str) -> None:
    package = ROOT / "airflow_provider_fluxomail"
    contents = text(page)
    if page == "CONTRIBUTING.md":
        contents = contents.split("\n## Where is X decided\n")[1].split("\n## ")[0]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", contents)
    assert len(named) > 20
    assert [path for path in named if not (package / path).exists()] == []


def test_the_bounds_of_the_sandbox_are_documented() -> None:
    section = text("docs/guides/sandbox.md").split("## Bounds")[1]
    for value in vars(Bounds)["__dataclass_fields__"].values():
        unit, name = next(
            (unit, name) for unit, name in ((1024**2, " MiB"), (1024, " KiB"), (1, "")) if value.default % unit == 0
        )
        assert f"{value.default // unit:,}{name}" in section, value.name


def test_the_readme_shows_the_example_as_it_is() -> None:
    source = text("example_dags/fluxomail_send_and_wait.py")
    shown = source.split("# [START howto_send_and_wait]\n")[1].split("    # [END")[0]
    assert textwrap.dedent(shown) in textwrap.dedent(text("README.md").replace("\n    ", "\n"))


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_examples_in_the_documents_are_python_and_have_their_markers(page: str) -> None:
    for block in re.findall(r"```python\n(.*?)```", text(page), re.DOTALL):
        ast.parse(block)
    for quoted in re.finditer(r"```\{literalinclude\} (?:\.\./)+(\S+)\n(.*?)```", text(page), re.DOTALL):
        source = text(quoted[1])
        for marker in re.findall(r'"(# \[(?:START|END) \w+\])"', quoted[2]):
            assert source.count(marker) == 1, (page, marker)


def test_every_kind_of_alert_and_all_that_templates_know_of_one_is_documented() -> None:
    page = text("docs/guides/alerts.md")
    callbacks = page.split("## Callbacks")[1].split("\n## ")[0]
    assert [kind for kind in alert.TITLES if f"`{kind}`" not in callbacks] == []
    names = {field.name for field in dataclasses.fields(alert.Alert)} - {"occasion", "question", "body"}
    templates = page.split("## Your own text")[1]
    assert [name for name in names | {"title", "name", "link_text"} if f"`{name}`" not in templates] == []
