"""What Airflow sees of the package at discovery."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail import __version__, get_provider_info
from airflow_provider_fluxomail.configuration.form import CONNECTION_FIELDS
from airflow_provider_fluxomail.configuration.options import OPTIONS
from airflow_provider_fluxomail.provider_info import CONFIGURATION
from tests.support.airflow_facts import HAS_CONNECTION_FORM

ROOT = Path(__file__).parent.parent.parent


def test_the_package_name_is_the_distributions_name() -> None:
    """A mismatch stops every Airflow command."""
    name = get_provider_info()["package-name"]
    assert metadata.metadata(name)["Name"] == name
    assert re.sub(r"[-_.]+", "-", name).lower() == name
    assert metadata.version(name) == __version__
    (entry,) = metadata.entry_points(group="apache_airflow_provider", module="airflow_provider_fluxomail")
    assert entry.load() is get_provider_info


def test_every_module_that_the_info_names_exists() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for group in info[kind]:
            for module in group["python-modules"]:
                importlib.import_module(module)
    (connection_type,) = info["connection-types"]
    decorators = [decorator["class-name"] for decorator in info["task-decorators"]]
    for path in (*info["email-backends"], *decorators, connection_type["hook-class-name"]):
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        assert callable(found)
    assert found.conn_type == connection_type["connection-type"]


def providers_manager() -> Any:
    from airflow.providers_manager import ProvidersManager

    manager: Any = ProvidersManager
    return manager()


def test_airflow_finds_the_connection_type_and_its_form() -> None:
    manager = providers_manager()
    assert manager.providers["airflow-provider-fluxomail"].version == __version__, "the info matches Airflow's schema"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow 3 wants task code to look elsewhere; this is no task code.
        hook = manager.hooks["fluxomail"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Fluxomail", "fluxomail_conn_id")
    if not HAS_CONNECTION_FORM:
        # Of no provider; docs/operate/troubleshooting.md says what helps.
        assert "fluxomail" not in manager.field_behaviours
        return
    behaviour = manager.field_behaviours["fluxomail"]
    assert behaviour["relabeling"]["password"] == "API key"
    widgets = {name.rpartition("fluxomail__")[2] for name in manager.connection_form_widgets if "fluxomail__" in name}
    assert widgets == set(CONNECTION_FIELDS)


@pytest.mark.skipif(not HAS_CONNECTION_FORM, reason="before Airflow 3.2, only the FAB provider brings a form")
def test_a_field_of_the_form_that_is_left_alone_is_empty() -> None:
    """A form stores what its fields hold, and a stored default would outrank the section ``[fluxomail]``."""
    widgets = providers_manager().connection_form_widgets
    fields: list[Any] = [widgets[f"extra__fluxomail__{name}"].field for name in CONNECTION_FIELDS]
    for field in fields:
        if isinstance(field, dict):  # Airflow 3.2 and later: what the UI gets
            assert (field["value"], field["schema"].get("default")) == (None, None), field
        else:  # a field of WTForms
            assert field.kwargs.get("default") is None, field


def test_the_form_shows_the_defaults() -> None:
    for name, field in CONNECTION_FIELDS.items():
        option = OPTIONS[name]
        shown = field["description"].partition("Default: ")[2]
        assert shown.endswith(f"{option.default_text}." if option.default_text else ""), name
        assert bool(shown) is bool(option.default_text), name
        assert (f"[fluxomail] {name}" in field["description"]) is (name in CONFIGURATION), name
    (connection_type,) = get_provider_info()["connection-types"]
    placeholders = connection_type["ui-field-behaviour"]["placeholders"]
    assert placeholders["timeout"] == "15"
    assert "max_wait" not in placeholders, "another default may hold"

    assert CONNECTION_FIELDS["proxies"]["schema"]["format"] == "password", "a proxy's URL holds a password"


def printed_words(code: str) -> list[set[str]]:
    """Run code in a new process; return the words of each line that it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_discovery_imports_nothing_heavy() -> None:
    (imported,) = printed_words(
        "import sys, airflow_provider_fluxomail as package; package.get_provider_info(); print(*sys.modules)"
    )
    heavy = {"requests", "httpx", "tenacity", "fastapi", "uvicorn", "airflow", "lxml", "asyncio"}
    assert imported & heavy == set()


def test_parsing_a_dag_imports_nothing_that_only_a_worker_needs() -> None:
    """Airflow parses each Dag file again and again, each time in a new process, and a parse sends nothing."""
    *_, imported, new = printed_words(
        "import sys\n"
        "from airflow_provider_fluxomail.airflow_compat import BaseOperator, BaseSensorOperator, BaseHook, conf\n"
        "import airflow.triggers.base, tenacity\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_fluxomail.operators, airflow_provider_fluxomail.sensors\n"
        "print(*sys.modules)\n"
        "print(*set(sys.modules) - before)"
    )
    assert new & {"requests", "aiohttp", "fastapi", "lxml", "inscriptis"} == set()
    own = {name.partition(".")[2] for name in imported if name.startswith("airflow_provider_fluxomail.")}
    # Airflow 3.3 itself reads it in each process.
    own -= {"provider_info", "configuration.form"}
    classes = {"operators", "operators.batch", "operators.send", "operators.templates", "sensors"}
    shared = {
        "airflow_compat", "client",
        "client.defaults", "client.errors", "client.event_types", "client.redaction",
        "configuration", "configuration.airflow_cfg", "configuration.old_arguments", "configuration.options", "links",
        "retry_policy", "tasks",
    }  # fmt: skip
    assert own == classes | shared


def test_the_package_is_typed_and_licensed() -> None:
    files = {str(file) for file in metadata.files("airflow-provider-fluxomail") or []}
    assert (ROOT / "airflow_provider_fluxomail" / "py.typed").exists()
    assert any(name.endswith("LICENSE") for name in files)
    meta = metadata.metadata("airflow-provider-fluxomail")
    assert meta["License-Expression"] == "Apache-2.0"
    wanted = {"Framework :: Apache Airflow :: Provider", "Typing :: Typed", "Programming Language :: Python :: 3.13"}
    assert wanted <= {*(meta.get_all("Classifier") or [])}
