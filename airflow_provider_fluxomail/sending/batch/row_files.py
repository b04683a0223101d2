"""The rows of a file, JSON Lines or CSV. What cannot be read for certain is a bad row, and is not quoted."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.text_fields import field_name

FIELDS: Final = (*(field.name for field in dataclasses.fields(EmailMessage)), "key")
#: Longest cell of a CSV file, in characters: a quote that is not closed must not load the rest of the file.
MAX_CELL: Final = 2**24

#: Cells of a CSV file that contain JSON.
_JSON_CELLS: Final = frozenset({"attachments", "extra_fields"})
#: What pandas, spreadsheets and databases write for a missing value.
_MISSING: Final = frozenset({"", "nan", "nat", "<na>", "#n/a", "null", "[null]", "\\n"})
#: What a spreadsheet writes for a formula that failed.
_FAILED_FORMULA: Final = re.compile(r"\s*#(?:REF!|VALUE!|DIV/0!|NUM!|NAME\?|NULL!|SPILL!|CALC!)\s*")
#: What spreadsheets write between cells. The names of the fields show which.
_DELIMITERS: Final = (",", ";", "\t", "|")
_DECLARED_DELIMITER: Final = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_PERSON: Final = re.compile(r'\s*"*(?:[^<>@]*<)?[^\s<>@"]+@[^\s<>@"]+>?"*\s*')
#: Spreadsheets begin a file with it; joined files have it in the middle.
_BYTE_ORDER_MARK: Final = "\ufeff"

Source = Iterator[tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class BadRow:
    """An invalid row; ``why`` names the field and says how to fix it, without the field's value."""

    where: str
    why: str


def json_rows(lines: Iterable[str]) -> Source:
    for number, line in enumerate(lines, start=1):
        where = f"line {number}"
        text = line.strip(_BYTE_ORDER_MARK)
        if text.strip():
            try:
                yield where, parse_json(text)
            except ValueError as error:
                yield where, BadRow(where, f"{error}: each line holds one object")


def csv_rows(lines: Iterable[str]) -> Source:
    # The limit applies to the whole process, and others may have raised it. Some newsletters exceed 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    lines = iter(lines)
    declared: str | None = None
    before = 0
    for line in lines:
        before += 1
        header = line.strip(_BYTE_ORDER_MARK + " \r\n")
        if match := _DECLARED_DELIMITER.fullmatch(header):
            declared = match[1]
        elif header:
            break
    else:
        return
    names, delimiter = _header(header, (declared,) if declared else _DELIMITERS, f"line {before}")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    while True:
        # A cell may contain line breaks: a row is named by the line that it starts on.
        where = f"line {before + reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield where, BadRow(where, f"is not CSV: {_csv_error(error)}")
            continue
        if cells is None:
            return
        if any(cells):
            yield where, _cells(where, names, cells, delimiter)


def _header(line: str, delimiters: Sequence[str], where: str) -> tuple[list[str], str]:
    """Return the names of the columns and the delimiter: the one with which the most columns are fields."""
    found: list[tuple[int, list[str], str, int]] = []
    why = ""
    for delimiter in delimiters:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
        except csv.Error as error:
            why = _csv_error(error)
            continue
        names = [_BY_LETTERS.get(_letters(cell), "") for cell in cells]
        # Spreadsheets write columns without names after the last one; a row must have nothing there.
        named = max((number for number, cell in enumerate(cells, start=1) if cell.strip()), default=len(cells))
        found.append((sum(map(bool, names)), names, delimiter, named))
    if not found:
        raise FluxomailValidationError(f"messages: {where} is not CSV: {why}")
    _, names, delimiter, named = max(found, key=lambda one: one[0])
    if any(cell.strip().startswith("'") for cell in line.split(delimiter)):
        raise FluxomailValidationError(f"messages: {where} has single quotes around its cells: use double quotes")
    for number, name in enumerate(names[:named], start=1):
        if not name:
            # Not quoted: without a header, the first line contains an address.
            cell = line.split(delimiter)[number - 1] if len(names) == line.count(delimiter) + 1 else ""
            raise FluxomailValidationError(
                f"messages: column {number} in {where} is no field: {meant(cell)} (the first line holds the names of "
                f"the fields, with one of these between them: {' '.join(map(_shown_delimiter, delimiters))})"
            )
    if len(set(names[:named])) != named:
        raise FluxomailValidationError(f"messages: {where} names a column twice")
    return names, delimiter


def _cells(where: str, names: list[str], cells: list[str], delimiter: str) -> dict[str, Any] | BadRow:
    if len(cells) != len(names):
        return BadRow(where, f"has {len(cells)} cells, and the first line {len(names)}")
    fields: dict[str, Any] = {}
    for column, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if cell.strip().lower() in _MISSING:
            continue
        if not name:
            return BadRow(where, f"has a value in column {column + 1}, which has no name in the first line")
        if _FAILED_FORMULA.fullmatch(cell):
            return BadRow(where, f"{name} is an error of a spreadsheet's formula: fix it in the spreadsheet")
        if "to" in names and _holds_a_row(cell, column, names, delimiter):
            return BadRow(
                where,
                f"{name} holds a line that looks like another row: close the quote of this cell, or use JSON Lines if "
                "that line is part of it",
            )
        fields[name] = cell
        if name in _JSON_CELLS:
            try:
                fields[name] = parse_json(cell)
            except ValueError as error:
                return BadRow(where, f"{name} {error}")
    return fields


def _holds_a_row(cell: str, column: int, names: list[str], delimiter: str) -> bool:
    """Tell whether a quote that was not closed made the next rows part of a cell: some later quote closed it."""
    first, *lines = cell.splitlines()
    to = names.index("to")
    rest = first.split(delimiter)
    if lines and to > column and len(rest) == len(names) - column and _PERSON.fullmatch(rest[to - column]):
        # The rest of this row, if the last line is the start of another.
        return len(lines[-1].split(delimiter)) == column + 1
    for number, line in enumerate(lines, start=1):
        if "@" in line:
            parts = line.split(delimiter)
            # The rest of the last one has become further cells.
            expected = column + 1 if number == len(lines) else len(names)
            if len(parts) == expected and to < len(parts) and _PERSON.fullmatch(parts[to]):
                return True
    return False


def parse_json(text: str) -> Any:
    """Return the value of a JSON text; a ``ValueError`` says why there is none, without quoting it."""
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except _TwiceError:
        raise ValueError("names a field twice") from None
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


class _TwiceError(Exception):
    """An object has two fields with one name: which one is meant is unknown."""


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _TwiceError
    return fields


def unknown_field(name: object, number: int) -> str:
    """Return the error of a field that no message has."""
    return f"unknown field {field_name(name, number)!r}: {meant(str(name))}"


def meant(name: str) -> str:
    """Return which field a name may stand for, or all of them."""
    close = difflib.get_close_matches(_letters(name), _BY_LETTERS, n=1)
    return f"did you mean {_BY_LETTERS[close[0]]!r}?" if close else f"use {', '.join(FIELDS)}"


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


#: ``HTML Content`` and ``htmlContent`` can only be ``html_content``.
_BY_LETTERS: Final[Mapping[str, str]] = {_letters(name): name for name in FIELDS}


def _csv_error(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return "a quote that opens in this row is not closed"
    return f"{error} (a quote within a quoted cell is written twice)"


def _shown_delimiter(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else delimiter


#: The readers of each format, and the endings that show it.
READERS: Final[Mapping[str, Callable[[Iterable[str]], Source]]] = {"jsonl": json_rows, "csv": csv_rows}
FORMATS: Final[Mapping[str, str]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}


def check_format(file_format: object) -> None:
    """Raise a :class:`.FluxomailValidationError` if it is no known format."""
    if file_format not in READERS:
        raise FluxomailValidationError("file_format must be jsonl or csv")


def format_of(name: str) -> str:
    """Return the format that the name of a file shows."""
    found = next((kind for ending, kind in FORMATS.items() if name.lower().endswith(ending)), None)
    if found is None:
        raise FluxomailValidationError(
            f"messages: {name!r} does not show the format of the file: use {', '.join(FORMATS)}, or set file_format"
        )
    return found
