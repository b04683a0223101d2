"""What the documentation takes from the code: tables of options, parameters and errors, and the classes of errors.

A table of your own is a function that returns rows, and a subclass of :class:`TableDirective` that names it::

    class SwitchTable(TableDirective):
        headers = ("Switch", "Default", "Meaning")

        def rows(self) -> Iterable[Row]:
            return switch_rows()

Cells are reStructuredText. In a Markdown page, directives stand in an ``{eval-rst}`` block.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from airflow_provider_fluxomail.client import errors as client_errors
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.configuration.options import EXTRAS, OPTIONS, SECTION

if TYPE_CHECKING:
    from sphinx.application import Sphinx

Row = Sequence[str]

#: Defaults that a class reads from Airflow's configuration when a Dag is parsed.
_CONFIGURED: Final[Mapping[str, str]] = {
    "deferrable": "``[operators] default_deferrable``",
    "timeout": "``[sensors] default_timeout``, 7 days",
}
#: Types of options, as the documentation names them.
_TYPES: Final[Mapping[str, str]] = {"boolean": "true or false", "integer": "whole number"}
#: JSON, placeholders, schemes and names in the help of an option.
_CODE: Final = re.compile(r"(\{.*?\}|https?://|\b[a-z]+(?:_[a-z]+)+\b)")
_PARAMETER: Final = re.compile(r"^:param (\w+): *(.*(?:\n(?: +.*)?$)*)", re.MULTILINE)
_CURE: Final = "\nWhat to do: "


def option_rows(kind: str) -> Iterator[Row]:
    """Yield name, meaning, default and unit of each option.

    :param kind: ``connection`` for the extras, ``section`` for the options of ``[fluxomail]``.
    """
    for name in {"connection": EXTRAS, "section": SECTION}[kind]:
        option = OPTIONS[name]
        unit = option.unit or _TYPES.get(option.type, option.type)
        yield _literal(name), _CODE.sub(r"``\1``", option.help), _literal(option.default_text) or "none", unit


def errors() -> Iterator[type[FluxomailError]]:
    """Yield every class of error that users meet, in the order of the module."""
    for error in vars(client_errors).values():
        if isinstance(error, type) and issubclass(error, FluxomailError) and error is not FluxomailError:
            yield error


def error_rows() -> Iterator[Row]:
    """Yield class, cause, permanence and cure of each error, by its docstring.

    :raises ValueError: an error's docstring does not say what to do.
    """
    for error in errors():
        text = inspect.cleandoc(error.__doc__ or "")
        when, _, rest = text.partition(_CURE)
        if not rest:
            raise ValueError(f"the docstring of {error.__name__} does not say '{_CURE.strip()}'")
        yield (
            f":exc:`~{error.__module__}.{error.__qualname__}`",
            when.strip(),
            "yes" if error.permanent else "no",
            rest.partition("\n\n")[0],
        )


def parameter_rows(described: Any) -> Iterator[Row]:
    """Yield name, meaning and default of each parameter of a class or function, by its docstring.

    :raises ValueError: the docstring describes a parameter that does not exist.
    """
    parameters = signature(described)
    for name, meaning in documented_parameters(described).items():
        if name not in parameters:
            raise ValueError(f"{described.__name__} has no parameter {name}")
        yield _literal(name), meaning, _default(parameters[name])


def documented_parameters(described: Any) -> dict[str, str]:
    """Return the meaning of each parameter that the docstring describes."""
    found = _PARAMETER.findall(inspect.cleandoc(described.__doc__ or ""))
    return {name: " ".join(text.split()) for name, text in found}


def signature(described: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function, or of a class and its bases; Airflow wraps those of operators."""
    functions = [described]
    if inspect.isclass(described):
        functions = [vars(base)["__init__"] for base in described.__mro__ if "__init__" in vars(base)]
    found: dict[str, inspect.Parameter] = {}
    for function in functions:
        for name, parameter in inspect.signature(inspect.unwrap(function)).parameters.items():
            found.setdefault(name, parameter)
    return found


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if parameter.name in _CONFIGURED:
        return _CONFIGURED[parameter.name]
    if value is parameter.empty:
        return "" if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) else "required"
    if isinstance(value, str | bool | int):
        return _literal(str(value))
    if isinstance(value, tuple | frozenset):
        return ", ".join(map(_literal, sorted(value)))
    return _literal(f"{value:g}") if isinstance(value, float) else ""


def _literal(text: str) -> str:
    return f"``{text}``" if text else ""


class TableDirective(SphinxDirective):
    """A table whose rows the code has."""

    headers: ClassVar[Row]

    def rows(self) -> Iterable[Row]:
        """Return the rows, as many cells each as there are headers."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        return parsed(self, self.lines())

    def lines(self) -> Iterator[str]:
        """Yield the table as reStructuredText."""
        yield from (".. list-table::", "   :header-rows: 1", "")
        for row in (self.headers, *self.rows()):
            if len(row) != len(self.headers):
                raise self.error(f"{row} has not one cell for each of {self.headers}")
            for mark, cell in zip("*" + " " * (len(row) - 1), row, strict=True):
                first, *further = cell.splitlines() or [""]
                yield f"   {mark} - {first}".rstrip()
                yield from (f"       {line}".rstrip() for line in further)


def parsed(directive: SphinxDirective, lines: Iterable[str]) -> list[nodes.Node]:
    """Parse reStructuredText in the place of a directive."""
    source, number = directive.get_source_info()
    text = list(lines)
    container = nodes.container()
    content = StringList(text, items=[(source, number)] * len(text))
    directive.state.nested_parse(content, directive.content_offset, container)
    return list(container.children)


class OptionTable(TableDirective):
    """``.. option-table:: connection`` or ``section``."""

    required_arguments = 1
    headers = ("Name", "Meaning", "Default", "Type")

    def rows(self) -> Iterable[Row]:
        """See :func:`option_rows`."""
        return option_rows(self.arguments[0])


class ErrorTable(TableDirective):
    """``.. error-table::``."""

    headers = ("Error", "When", "Permanent", "What to do")

    def rows(self) -> Iterable[Row]:
        """See :func:`error_rows`."""
        return error_rows()


class ErrorClasses(SphinxDirective):
    """``.. error-classes::``: every error with its docstring."""

    def run(self) -> list[nodes.Node]:
        """Called by docutils."""
        lines = (f".. autoexception:: {error.__module__}.{error.__qualname__}" for error in errors())
        return parsed(self, (part for line in lines for part in (line, "   :show-inheritance:", "")))


class ParameterTable(TableDirective):
    """``.. parameter-table:: airflow_provider_fluxomail.operators.FluxomailSendOperator``."""

    required_arguments = 1
    headers = ("Name", "Meaning", "Default")

    def rows(self) -> Iterable[Row]:
        """See :func:`parameter_rows`."""
        module, _, name = self.arguments[0].rpartition(".")
        return parameter_rows(getattr(importlib.import_module(module), name))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("option-table", OptionTable)
    app.add_directive("error-table", ErrorTable)
    app.add_directive("error-classes", ErrorClasses)
    app.add_directive("parameter-table", ParameterTable)
    return {"parallel_read_safe": True}
