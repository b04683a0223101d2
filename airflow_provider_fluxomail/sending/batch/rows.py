"""Reads the messages of a batch, from a list or from a file that is streamed, not loaded."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import difflib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import lines_of
from airflow_provider_fluxomail.client.addresses import one_address
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.sending.attachments import open_path, read_attachments
from airflow_provider_fluxomail.sending.idempotency_key import named_part, recipient_part, row_part

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath

FIELDS: Final = (*(field.name for field in dataclasses.fields(EmailMessage)), "key")
FORMATS: Final[Mapping[str, str]] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
#: Invalid rows that an error names; it only counts the others.
MAX_NAMED: Final = 20
#: Longest cell of a CSV file, in characters: a quote that is not closed must not load the rest of the file.
MAX_CELL: Final = 2**24
#: Cells of a CSV file that contain JSON.
_JSON_CELLS: Final = frozenset({"attachments", "extra_fields"})


@dataclasses.dataclass(frozen=True)
class Row:
    """One message of a batch.

    :param where: its name for people: ``line 7`` of a file, ``messages[7]`` of a list.
    :param message: the message.
    :param key: the name that its author gave it, ``None`` if it is identified by its recipient.
    :param part: distinguishes it in an idempotency key, the same in every try and in any order.
    """

    where: str
    message: EmailMessage = dataclasses.field(repr=False)
    key: str | None
    part: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True)
class BadRow:
    """An invalid row; ``why`` names the field and says how to fix it, without the field's value."""

    where: str
    why: str


class Rows:
    """The messages of a batch. Can be iterated more than once.

    ::

        for row in Rows("invitations.csv", defaults={"subject": "Welcome"}).check():
            print(row.where, row.message.subject)

    The arguments are those of :class:`.FluxomailSendBatchOperator`.

    :raises FluxomailValidationError: the source or the defaults are invalid; says what to use instead.
    """

    def __init__(
        self, source: object, *, defaults: Mapping[str, Any] | None = None, file_format: str | None = None
    ) -> None:
        self.source = source
        self._defaults = _checked_defaults(defaults)
        self._items: Iterable[Any] = ()
        self._differing: set[str] | None = None
        self._path: Path | ObjectStoragePath | None = None
        if file_format:
            check_format(file_format)
        if isinstance(source, str) or hasattr(source, "open"):
            self._path = _file(source)
            self._format = file_format or _format_of(self._path.name)
        elif isinstance(source, Mapping | bytes) or not isinstance(source, Iterable) or isinstance(source, Iterator):
            raise FluxomailValidationError(
                f"messages must be a list of messages or the path of a file, not {type(source).__name__}"
            )
        else:
            self._items = source

    def __iter__(self) -> Iterator[Row | BadRow]:
        if self._differing is None:
            self._differing = self._find_differing()
        seen: Counter[str] = Counter()
        for where, fields in self._raw():
            if isinstance(fields, BadRow):
                yield fields
                continue
            try:
                message, key = self._read(fields)
            except FluxomailValidationError as error:
                yield BadRow(where, error.message)
                continue
            if key is not None:
                part = named_part(key)
            else:
                name = recipient_part(message.to, 0)
                name = row_part(message, 0) if name in self._differing else name
                part = (
                    row_part(message, seen[name]) if name.startswith("row:") else recipient_part(message.to, seen[name])
                )
                seen[name] += 1
            yield Row(where, message, key, part)

    def _find_differing(self) -> set[str]:
        """Return the parts of recipients that rows without a key share although they differ in more than their order.

        Such rows are told apart by their content: the first of them must know of the others.
        """
        seen: dict[str, int] = {}
        differing: set[str] = set()
        for _, fields in self._raw():
            given = vars(fields) if isinstance(fields, EmailMessage) else fields
            if not isinstance(given, Mapping) or given.get("key") is not None:
                continue
            # A row that cannot be read is named later.
            with contextlib.suppress(FluxomailValidationError, ValueError, TypeError, RecursionError):
                values = {**self._defaults, **{name: value for name, value in given.items() if value is not None}}
                part = recipient_part(one_address(values.pop("to", None)), 0)
                content = hash(json.dumps(values, sort_keys=True, default=_comparable))
                if seen.setdefault(part, content) != content:
                    differing.add(part)
        return differing

    def check(self) -> Iterator[Row]:
        """Iterate over all rows before anything is sent; after the last, raise an error that names the invalid ones."""
        bad: list[str] = []
        count = 0
        keys: dict[str, str] = {}
        for row in self:
            if isinstance(row, Row):
                first = row.where if row.key is None else keys.setdefault(row.key, row.where)
                if first == row.where:
                    yield row
                    continue
                why = f"has the same key as {first}: give each message its own"
            else:
                why = row.why
            count += 1
            if count <= MAX_NAMED:
                bad.append(f"{row.where}: {why}")
        if count > MAX_NAMED:
            bad.append(f"and {count - MAX_NAMED} more")
        if bad:
            raise FluxomailValidationError(
                f"{count} messages are invalid, nothing was sent: {'; '.join(bad)}. Fix them and run the task again"
                if count > 1
                else f"1 message is invalid, nothing was sent: {bad[0]}. Fix it and run the task again"
            )

    def _read(self, fields: object) -> tuple[EmailMessage, str | None]:
        if isinstance(fields, EmailMessage):
            return fields, None
        if not isinstance(fields, Mapping):
            raise FluxomailValidationError(f"is {type(fields).__name__}, not a mapping of a message's fields")
        for name, value in fields.items():
            if value is not None and name not in FIELDS:
                raise FluxomailValidationError(f"unknown field {str(name)[:40]!r}: {_meant(str(name))}")
        given = given_fields(fields)
        key = _key(given.pop("key", None))
        return EmailMessage.of({**self._defaults, **given}), key

    def _raw(self) -> Iterator[tuple[str, Any]]:
        if self._path is None:
            for index, item in enumerate(self._items):
                yield f"messages[{index}]", item
            return
        try:
            # Spreadsheets start their files with a byte order mark.
            with self._path.open("r", encoding="utf-8-sig", newline="") as file:
                lines = lines_of(file)
                yield from _csv(lines) if self._format == "csv" else _json_lines(lines)
        except UnicodeDecodeError:
            raise FluxomailValidationError(f"messages: {self._path.name} is not UTF-8: save it as UTF-8") from None
        except (OSError, ImportError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise FluxomailValidationError(f"messages: cannot read {str(self._path)!r}: {why}") from None


def _comparable(value: object) -> object:
    return vars(value) if isinstance(value, Attachment) else repr(value)


def given_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with a value (JSON written from a table has nulls), with attachments read."""
    given = {name: value for name, value in fields.items() if value is not None}
    if "attachments" in given:
        given["attachments"] = read_attachments(given["attachments"])
    return given


def _checked_defaults(defaults: object) -> dict[str, Any]:
    if defaults is None:
        return {}
    if not isinstance(defaults, Mapping):
        raise FluxomailValidationError("defaults must be a mapping of a message's fields")
    for name in defaults:
        if name not in FIELDS or name == "key":
            raise FluxomailValidationError(f"defaults holds {str(name)[:40]!r}: use {', '.join(FIELDS[:-1])}")
    # Attachments are read once, not for every message.
    return given_fields(defaults)


def _file(source: Any) -> Path | ObjectStoragePath:
    if isinstance(source, str) and (source.lstrip()[:1] in ("[", "{", "(") or "\n" in source):
        raise FluxomailValidationError(
            "messages came out as text, not as a list: give the list itself, the output of the task that makes it "
            "(messages=make.output), or set render_template_as_native_obj=True in the Dag"
        )
    path = open_path(source, "messages")
    try:
        there = path.is_file()
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise FluxomailValidationError(f"messages: cannot read {str(source)!r}: {error}") from error
    if not there:
        raise FluxomailValidationError(
            f"messages: there is no file {str(path)!r} on this worker: give a path that every worker sees, such as a "
            "shared volume or an ObjectStoragePath"
        )
    return path


def check_format(file_format: object) -> None:
    """Raise a :class:`.FluxomailValidationError` if it is no known format."""
    if file_format not in FORMATS.values():
        raise FluxomailValidationError("file_format must be jsonl or csv")


def _format_of(name: str) -> str:
    found = next((kind for ending, kind in FORMATS.items() if name.lower().endswith(ending)), None)
    if found is None:
        raise FluxomailValidationError(
            f"messages: {name!r} does not show the format of the file: use {', '.join(FORMATS)}, or set file_format"
        )
    return found


def _json_lines(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError):
            # Without the parser's message, which quotes the line.
            yield where, BadRow(where, "is not JSON: each line holds one object")


def _csv(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    # The limit applies to the whole process, and others may have raised it. Some newsletters exceed 128 KiB.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    reader = csv.reader(lines)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise FluxomailValidationError(f"messages: line 1 is not CSV: {error}") from None
    for number, name in enumerate(names, start=1):
        if name not in FIELDS:
            # Not quoted: without a header, the first line contains an address.
            raise FluxomailValidationError(
                f"messages: column {number} in line 1 is no field: the first line holds the names of the fields; "
                f"{_meant(name)}"
            )
    if len(set(names)) != len(names):
        raise FluxomailValidationError("messages: line 1 names a column twice")
    while True:
        # A cell may contain line breaks: a row is named by the line that it starts on.
        where = f"line {reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield where, BadRow(where, f"is not CSV: {error}")
            continue
        if cells is None:
            return
        if any(cells):
            yield where, _cells(where, names, cells)


def _cells(where: str, names: list[str], cells: list[str]) -> dict[str, Any] | BadRow:
    if len(cells) != len(names):
        return BadRow(where, f"has {len(cells)} cells, and the first line {len(names)}")
    fields: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=True):
        if not cell.strip():
            continue
        fields[name] = cell
        if name in _JSON_CELLS:
            try:
                fields[name] = json.loads(cell)
            except (ValueError, RecursionError):
                return BadRow(where, f"{name} is not JSON")
    return fields


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, FIELDS, n=1)
    return f"did you mean {close[0]!r}?" if close else f"use {', '.join(FIELDS)}"


def _key(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise FluxomailValidationError("key must be text that is not empty, or left out")
    return value
