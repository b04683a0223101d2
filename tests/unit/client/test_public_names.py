"""What ``airflow_provider_fluxomail.client`` exports, lazily."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import airflow_provider_fluxomail
from airflow_provider_fluxomail import client
from airflow_provider_fluxomail.client import errors

NAME: Final = client.__name__


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

    with pytest.raises(AttributeError, match="FluxomailClint"):
        client.FluxomailClint  # noqa: B018


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
