"""Imports run downwards only: Airflow face, connection, client; the sandbox stands apart."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent.parent / "airflow_provider_fluxomail"
NAME = "airflow_provider_fluxomail"
#: Lower layers first; a module imports its own layer and those below.
LAYERS = {
    "__init__": 0,
    "client": 0,
    "airflow_compat": 0,
    "fleet": 0,
    "old_arguments": 0,
    "tasks": 1,
    "metrics": 1,
    "idempotency": 1,
    "connections": 1,
    "connection_test": 1,
    "extras": 1,
    "attachments": 1,
    "replays": 1,
    "sendstate": 1,
    "links": 1,
    "alerts": 1,
    "failed_tasks": 1,
    "alert_sending": 1,
    "hooks": 1,
    "one_by_one": 1,
    "retry_policy": 1,
    "batch": 1,
    "watchers": 1,
    "event_source": 2,
    "event_cursor": 2,
    "event_trigger": 2,
    "triggers": 2,
    "delivery": 3,
    "operators": 4,
    "sensors": 4,
    "email_backend": 4,
    "decorators": 5,
    "notifications": 4,
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_run_downwards_only(path: Path) -> None:
    own = layer(path)
    for name in imports(path):
        if not name.startswith(NAME):
            continue
        parts = name.split(".")
        other = parts[1] if len(parts) > 1 and (parts[1] in LAYERS or parts[1] == "sandbox") else "__init__"
        if own == "sandbox":
            assert other == "sandbox" or name.startswith(f"{NAME}.client.timeline") or other == "__init__", name
        else:
            assert other != "sandbox", f"only the sandbox imports the sandbox: {path}"
            assert LAYERS[other] <= LAYERS[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", [path for path in MODULES if layer(path) in ("client", "sandbox")], ids=str)
def test_client_and_sandbox_know_nothing_of_airflow(path: Path) -> None:
    assert not [name for name in imports(path) if name.split(".")[0] == "airflow"]


#: The same in every supported Airflow.
ALIKE = {"airflow.__version__", "airflow.triggers.base"}


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "airflow_compat.py"], ids=str)
def test_what_differs_between_airflows_is_imported_from_one_module(path: Path) -> None:
    used = {name for name in imports(path) if name.split(".")[0] == "airflow"}
    assert not {name for name in used if name not in ALIKE and name.rpartition(".")[0] not in ALIKE}
    assert f"{NAME}.airflow_compat.AIRFLOW_VERSION" not in imports(path), "ask what Airflow has, not which it is"


def test_every_module_has_a_layer() -> None:
    assert {layer(path) for path in MODULES} - {"sandbox"} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_stay_short(path: Path) -> None:
    assert len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) <= 400
