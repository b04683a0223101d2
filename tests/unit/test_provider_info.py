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


def test_package_name_is_the_distributions_name() -> None:
    """A mismatch stops every Airflow command."""
    name = get_provider_info()["package-name"]
    assert metadata.metadata(name)["Name"] == name
    assert re.sub(r"[-_.]+", "-", name).lower() == name
    assert metadata.version(name) == __version__


def test_the_entry_point_gives_the_info() -> None:
    (entry,) = metadata.entry_points(group="apache_airflow_provider", module="airflow_provider_fluxomail")
    assert entry.load() is get_provider_info


def test_every_module_that_the_info_names_exists() -> None:
    info = get_provider_info()
    for kind in ("hooks", "operators", "sensors", "triggers"):
        for group in info[kind]:
            for module in group["python-modules"]:
                importlib.import_module(module)
    for path in info["email-backends"]:
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    for decorator in info["task-decorators"]:
        module, _, name = decorator["class-name"].rpartition(".")
        assert callable(getattr(importlib.import_module(module), name))
    module, _, name = info["connection-types"][0]["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), name).conn_type == info["connection-types"][0]["connection-type"]


def providers_manager() -> Any:
    from airflow.providers_manager import ProvidersManager

    manager: Any = ProvidersManager
    return manager()


def test_the_info_matches_airflows_schema() -> None:
    providers = providers_manager().providers
    assert providers["airflow-provider-fluxomail"].version == __version__


def test_airflow_finds_the_connection_type_and_its_form() -> None:
    manager = providers_manager()
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
    widgets: dict[str, Any] = {
        name: widget.field
        for name, widget in providers_manager().connection_form_widgets.items()
        if name.startswith("extra__fluxomail__")
    }
    assert len(widgets) == len(CONNECTION_FIELDS)
    for name, field in widgets.items():
        # Airflow 3.2 and later: what the UI gets. Before: a field of WTForms.
        held = (
            [field["value"], field["schema"].get("default")]
            if isinstance(field, dict)
            else [field.kwargs.get("default")]
        )
        assert not any(value is not None for value in held), name


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


def test_secrets_in_the_form_are_masked() -> None:
    assert CONNECTION_FIELDS["proxies"]["schema"]["format"] == "password", "a proxy's URL holds a password"


@pytest.mark.parametrize("module", ["airflow_provider_fluxomail"])
def test_discovery_imports_nothing_heavy(module: str) -> None:
    heavy = ["requests", "httpx", "tenacity", "fastapi", "uvicorn", "airflow", "lxml", "asyncio"]
    code = f"import sys, {module}; {module}.get_provider_info(); print([m for m in {heavy!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout.strip() == "[]"


def test_parsing_a_dag_imports_no_http_library_that_airflow_does_not() -> None:
    """A Dag parse sends nothing, so it must not pay for what sending needs."""
    code = (
        "import sys\n"
        "from airflow_provider_fluxomail.airflow_compat import BaseOperator, BaseSensorOperator, BaseHook, conf\n"
        "import airflow.triggers.base, tenacity\n"
        "before = set(sys.modules)\n"
        "import airflow_provider_fluxomail.operators, airflow_provider_fluxomail.sensors\n"
        "new = set(sys.modules) - before\n"
        "print([m for m in ('requests', 'aiohttp', 'fastapi', 'lxml', 'inscriptis') if m in new])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert answer.stdout.strip().splitlines()[-1] == "[]"


def test_parsing_a_dag_imports_nothing_that_only_a_worker_needs() -> None:
    """Airflow parses each Dag file again and again, each time in a new process."""
    code = (
        "import sys, airflow_provider_fluxomail.operators, airflow_provider_fluxomail.sensors\n"
        "print(*sorted(m for m in sys.modules if m.startswith('airflow_provider_fluxomail.')))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    imported = {name.partition(".")[2] for name in answer.stdout.strip().splitlines()[-1].split()}
    # Airflow 3.3 itself reads it in each process.
    imported -= {"provider_info", "configuration.form"}
    classes = {"operators", "operators.batch", "operators.send", "sensors"}
    shared = {
        "airflow_compat", "client", "client.defaults", "client.errors", "client.event_types", "client.redaction",
        "configuration", "configuration.airflow_cfg", "configuration.old_arguments", "configuration.options", "links",
        "retry_policy", "tasks",
    }  # fmt: skip
    assert imported == classes | shared


def test_the_package_is_typed_and_licensed() -> None:
    files = {str(file) for file in metadata.files("airflow-provider-fluxomail") or []}
    assert (ROOT / "airflow_provider_fluxomail" / "py.typed").exists()
    assert any(name.endswith("LICENSE") for name in files)
    meta = metadata.metadata("airflow-provider-fluxomail")
    assert meta["License-Expression"] == "Apache-2.0"
    classifiers = meta.get_all("Classifier") or []
    for wanted in (
        "Framework :: Apache Airflow :: Provider",
        "Typing :: Typed",
        "Programming Language :: Python :: 3.13",
    ):
        assert wanted in classifiers
