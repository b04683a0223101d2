"""What import-linter's contract (``make lint``) does not hold: names of Airflow, and the size of modules."""

from __future__ import annotations

import ast
import functools
import gc
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parent.parent.parent / "airflow_provider_fluxomail"
MODULES: Final = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
#: The same in every supported Airflow.
ALIKE: Final = {"airflow.__version__", "airflow.triggers.base"}


@functools.cache
def imports(path: Path) -> set[str]:
    # A finalizer that formats a traceback in the middle of ast.parse makes it fail (python/cpython#106905).
    gc.disable()
    try:
        tree = ast.parse((PACKAGE / path).read_text(encoding="utf-8"))
    finally:
        gc.enable()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "airflow_compat.py"], ids=str)
def test_what_differs_between_airflows_is_imported_from_one_module(path: Path) -> None:
    used = {name for name in imports(path) if name.split(".")[0] == "airflow"}
    assert not {name for name in used if name not in ALIKE and name.rpartition(".")[0] not in ALIKE}
    assert "airflow_provider_fluxomail.airflow_compat.AIRFLOW_VERSION" not in imports(path), (
        "check what Airflow has, not which version it is"
    )


def test_modules_stay_short() -> None:
    assert [path for path in MODULES if len((PACKAGE / path).read_text(encoding="utf-8").splitlines()) > 400] == []
