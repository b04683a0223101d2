"""Reads the messages of a batch, from a list or from a file that is streamed, not loaded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import lines_of
from airflow_provider_fluxomail.client.errors import FluxomailStorageError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.text_fields import field_name
from airflow_provider_fluxomail.client.unexpected import unexpected
from airflow_provider_fluxomail.sending.attachments import NO_PATHS, read_attachments
from airflow_provider_fluxomail.sending.batch.row_files import (
    FIELDS,
    READERS,
    BadRow,
    check_format,
    format_of,
    unknown_field,
)
from airflow_provider_fluxomail.sending.idempotency_key import named_part, recipient_part
from airflow_provider_fluxomail.sending.storage import check_is_file, open_path, shown, storage_errors

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath

#: Invalid rows that an error names; it only counts the others.
MAX_NAMED: Final = 20


@dataclasses.dataclass(frozen=True)
class Row:
    """One message of a batch.

    :param where: its position, for people: ``line 7`` of a file, ``messages[7]`` of a list.
    :param message: the message.
    :param key: the name that its author gave it, ``None`` if it is identified by its recipient.
    :param part: distinguishes it in an idempotency key, the same in every try and in any order.
    """

    where: str
    message: EmailMessage = dataclasses.field(repr=False)
    key: str | None = dataclasses.field(repr=False)
    part: str = dataclasses.field(repr=False)


class Rows:
    """The messages of a batch. Can be iterated more than once.

    ::

        for row in Rows("invitations.csv", defaults={"subject": "Welcome"}).check():
            print(row.where, row.message.subject)

    The arguments are those of :class:`.FluxomailSendBatchOperator`, and which of them the Dag's author wrote.

    :param own_rows: rows of a list may attach any file; those of a file only below ``attachment_folder``.
    :param own_defaults: the defaults may attach any file.
    :raises FluxomailValidationError: the source or the defaults are invalid; says what to use instead.
    """

    @private
    def __init__(
        self,
        source: object,
        *,
        defaults: Mapping[str, Any] | None = None,
        file_format: str | None = None,
        attachment_folder: object = None,
        own_rows: bool = True,
        own_defaults: bool = True,
    ) -> None:
        self.source = source
        self._defaults = _checked_defaults(defaults, None if own_defaults else attachment_folder or NO_PATHS)
        self._items: Iterable[Any] = ()
        self._path: Path | ObjectStoragePath | None = None
        if file_format:
            check_format(file_format)
        if isinstance(source, str) or hasattr(source, "open"):
            self._path = _file(source)
            self._format = file_format or format_of(self._path.name)
        elif isinstance(source, Mapping | bytes) or not isinstance(source, Iterable) or isinstance(source, Iterator):
            raise FluxomailValidationError(
                f"messages must be a list of messages or the path of a file, not {type(source).__name__}"
            )
        else:
            self._items = source
        own_rows = own_rows and self._path is None
        self._folder = attachment_folder or (None if own_rows else NO_PATHS)

    def __iter__(self) -> Iterator[Row | BadRow]:
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
            except FluxomailStorageError as error:
                # About the storage, not about the row.
                raise FluxomailStorageError(f"{where}: {error.message}") from error
            except OSError:
                raise
            except Exception as error:  # noqa: BLE001 - about this row only
                yield BadRow(where, unexpected(error).message)
                continue
            part = recipient_part(message.to, 0) if key is None else named_part(key)
            if key is None:
                seen[part] += 1
                part = recipient_part(message.to, seen[part] - 1)
            yield Row(where, message, key, part)

    @private
    def check(self) -> Iterator[Row]:
        """Iterate over all rows before anything is sent; after the last, raise an error that names the invalid ones."""
        bad: list[str] = []
        count = 0
        keys: dict[str, str] = {}
        unnamed: dict[str, tuple[int, str]] = {}
        for row in self:
            if isinstance(row, Row):
                why = _not_told_apart(row, keys, unnamed)
                if why is None:
                    yield row
                    continue
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
        for number, (name, value) in enumerate(fields.items(), start=1):
            if not _is_absent(value) and name not in FIELDS:
                raise FluxomailValidationError(unknown_field(name, number))
        given = given_fields(fields, folder=self._folder)
        key = _key(given.pop("key", None))
        return EmailMessage.of({**self._defaults, **given}), key

    def _raw(self) -> Iterator[tuple[str, Any]]:
        if self._path is None:
            for index, item in enumerate(self._items):
                yield f"messages[{index}]", item
            return
        with storage_errors("messages", self._path):
            try:
                with self._path.open("r", encoding="utf-8", newline="") as file:
                    yield from READERS[self._format](lines_of(file))
            except UnicodeDecodeError as error:
                found = " but UTF-16" if error.object[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
                raise FluxomailValidationError(
                    f"messages: {shown(self._path.name)} is not UTF-8{found}: save it as UTF-8"
                ) from None


def _not_told_apart(row: Row, keys: dict[str, str], unnamed: dict[str, tuple[int, str]]) -> str | None:
    """Return why a row could be taken for an earlier one in another try, ``None`` if it cannot.

    :param keys: position of the row that has each key.
    :param unnamed: by recipient, the first row without a key: its content and position.
    """
    if row.key is not None:
        first = keys.setdefault(row.key, row.where)
        return None if first == row.where else f"has the same key as {first}: give each message its own"
    # By their position, such rows would take each other's idempotency keys when one is added, removed or moved.
    message = row.message
    files = [(file.filename, file.data, file.content_type) for file in message.attachments]
    texts = (message.subject, message.content, message.html_content, message.policy_key)
    content = hash((*texts, *message.cc, "", *message.bcc, *files, repr(message.extra_fields)))
    known, first = unnamed.setdefault(recipient_part(message.to, 0), (content, row.where))
    if known == content:
        return None
    return f"has the recipient of {first} and another content: give it a 'key' of its own, the same in every try"


def given_fields(fields: Mapping[str, Any], *, folder: object = None) -> dict[str, Any]:
    """Return the fields with a value, with attachments read, see :func:`.read_attachments`."""
    given = {name: value for name, value in fields.items() if not _is_absent(value)}
    if "attachments" in given:
        given["attachments"] = read_attachments(given["attachments"], folder=folder)
    return given


def _is_absent(value: object) -> bool:
    """Return whether a table has no value: ``None``, or what pandas has for it, NaN, NaT and NA."""
    if value is None or type(value).__name__ == "NAType":
        return True
    # Of all scalars, only these are not equal to themselves.
    return not isinstance(value, str | Iterable) and bool(value != value)


def _checked_defaults(defaults: object, folder: object) -> dict[str, Any]:
    if defaults is None:
        return {}
    if not isinstance(defaults, Mapping):
        raise FluxomailValidationError("defaults must be a mapping of a message's fields")
    for number, name in enumerate(defaults, start=1):
        if name not in FIELDS or name == "key":
            raise FluxomailValidationError(f"defaults holds {field_name(name, number)!r}: use {', '.join(FIELDS[:-1])}")
    # Attachments are read once, not for every message.
    return given_fields(defaults, folder=folder)


def _file(source: Any) -> Path | ObjectStoragePath:
    if isinstance(source, str) and (source.lstrip()[:1] in ("[", "{", "(") or "\n" in source):
        raise FluxomailValidationError(
            "messages came out as text, not as a list: give the list itself, the output of the task that makes it "
            "(messages=make.output), or set render_template_as_native_obj=True in the Dag"
        )
    path = open_path(source, "messages")
    check_is_file(path, "messages")
    return path


def _key(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.strip():
        raise FluxomailValidationError("key must be text that is not empty, or left out")
    return value
