"""What ``airflow_provider_fluxomail.client`` exports, lazily, and that nothing in it imports in a circle."""

from __future__ import annotations

import ast
import graphlib
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

import airflow_provider_fluxomail
from airflow_provider_fluxomail import client
from airflow_provider_fluxomail.client import errors

NAME: Final = client.__name__
FOLDER: Final = Path(client.__file__).parent


def subclasses(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(subclasses(sub) for sub in kind.__subclasses__()))


def typed_names() -> dict[str, str]:
    """Return what type checkers see: the module of each name."""
    (block,) = (node for node in ast.parse(Path(client.__file__).read_text()).body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names), "explicit re-exports"
    return {alias.name: str(node.module).rpartition(".")[2] for node in imports for alias in node.names}


def test_every_name_can_be_imported_and_is_what_its_module_has() -> None:
    assert typed_names() == client._MODULES
    assert sorted(typed_names()) == client.__all__
    for name in client.__all__:
        exported = getattr(client, name)
        assert exported is getattr(importlib.import_module(f"{NAME}.{client._MODULES[name]}"), name), name
        assert name in dir(client)
        assert getattr(exported, "__module__", NAME).startswith(NAME), name


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="FluxomailClint"):
        client.FluxomailClint  # noqa: B018
    with pytest.raises(ImportError):
        exec(f"from {NAME} import FluxomailClint")


def test_all_errors_of_the_package_live_in_one_module_and_are_exported() -> None:
    for module in pkgutil.walk_packages(airflow_provider_fluxomail.__path__, "airflow_provider_fluxomail."):
        if ".sandbox" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    own = {kind for kind in subclasses(errors.FluxomailError) if kind.__module__.startswith("airflow_provider")}
    assert len(own) > 15
    assert {kind.__module__ for kind in own} == {errors.__name__}
    assert {kind.__name__ for kind in own} <= set(client.__all__)


def test_importing_the_package_alone_imports_no_module_of_it() -> None:
    code = f"import sys, {NAME}; print(*sorted(name for name in sys.modules if name.startswith({NAME!r})))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.split() == [NAME]


def imported(path: Path) -> set[str]:
    """Return the modules of the client that a file imports: at the top, in functions and for annotations."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules |= {name if is_module(name) else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {name for name in modules if name.startswith(f"{NAME}.")}


def is_module(name: str) -> bool:
    path = FOLDER.parent.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def test_no_circle_of_imports_not_even_for_annotations() -> None:
    """import-linter judges what is imported at run time."""
    graph = {
        ".".join(path.relative_to(FOLDER.parent.parent).with_suffix("").parts): imported(path)
        for path in FOLDER.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert len(graph) > 20
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index(f"{NAME}.errors") < order.index(f"{NAME}.models") < order.index(f"{NAME}.wire")


def test_the_test_sees_modules() -> None:
    assert isinstance(importlib.import_module(f"{NAME}.wire"), ModuleType)
    assert {f"{NAME}.errors", f"{NAME}.headers", f"{NAME}.models"} <= imported(FOLDER / "wire.py")
