"""Sphinx extension: the sandbox's OpenAPI document, and its tables of options, switches and faults, from the models.

In a page:

    ```{sandbox-table} switches
    ```
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from airflow_provider_fluxomail.sandbox.app import openapi_document
from airflow_provider_fluxomail.sandbox.cli import build_parser
from airflow_provider_fluxomail.sandbox.faults.models import MODELS, Fault
from airflow_provider_fluxomail.sandbox.switches import Switches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydantic.fields import FieldInfo
    from sphinx.application import Sphinx


def options() -> list[str]:
    """The options of ``fluxomail-sandbox``."""
    rows = []
    for action in build_parser()._actions:
        if action.dest != "help":
            value = f" {action.metavar}" if action.metavar else ""
            default = f"`{_shown(action.default)}`" if action.default else ""
            rows.append((f"`{action.option_strings[0]}{value}`", action.help or "", default))
    return _table(("Option", "Meaning", "Default"), rows)


def switches() -> list[str]:
    """The switches."""
    rows = [
        (f"`{name}`", _values(field), f"`{_shown(field.default)}`", field.description or "")
        for name, field in Switches.model_fields.items()
    ]
    return _table(("Switch", "Values", "Default", "Meaning"), rows)


def faults(*, stream: bool = False) -> list[str]:
    """The faults of requests, or those of event streams."""
    rows = []
    for model in MODELS:
        if model.stream is stream:
            (kind,) = get_args(model.model_fields["kind"].annotation)
            fields = {name: field for name, field in model.model_fields.items() if name not in Fault.model_fields}
            further = "; ".join(_field(name, field) for name, field in fields.items())
            stored = "by `after_store`" if "after_store" in fields else "yes" if model.stored else "no"
            meaning = inspect.cleandoc(model.__doc__ or "")
            rows.append((f"`{kind}`", meaning, *(() if stream else (stored,)), further))
    return _table(("`kind`", "What happens", *(() if stream else ("Stored",)), "Further fields"), rows)


TABLES: Final[dict[str, Callable[[], list[str]]]] = {
    "options": options,
    "switches": switches,
    "faults": faults,
    "stream-faults": lambda: faults(stream=True),
}


def _field(name: str, field: FieldInfo) -> str:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = f" ({_shown(value)})" if value else ""
    meaning = (field.description or "").rstrip(".")
    return f"`{name}`{default}" + (f": {meaning[:1].lower()}{meaning[1:]}" if meaning else "")


def _values(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{_shown(value)}`" for value in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    kinds = get_args(field.annotation) or (field.annotation,)
    if any(kind is str or get_origin(kind) is Annotated for kind in kinds):
        return "text, `null`"
    return ("seconds" if float in kinds else "number") + (", `null`" if type(None) in kinds else "")


def _shown(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines]


class SandboxTable(SphinxDirective):
    """``{sandbox-table}``: one of :data:`TABLES`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table as nodes."""
        if self.arguments[0] not in TABLES:
            raise self.error(f"sandbox-table takes one of {', '.join(TABLES)}, not {self.arguments[0]!r}")
        parent = nodes.container()
        self.state.nested_parse(StringList(TABLES[self.arguments[0]](), "sandbox-table"), 0, parent)
        children: list[nodes.Node] = parent.children
        return children


def _write_openapi(app: Sphinx) -> None:
    target = Path(app.srcdir) / "openapi.json"
    text = json.dumps(openapi_document(), indent=2) + "\n"
    # Unchanged, it stays as it is: a watching build would start again.
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        target.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.add_directive("sandbox-table", SandboxTable)
    app.connect("builder-inited", _write_openapi)
    return {"parallel_read_safe": True}
