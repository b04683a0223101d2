"""What :class:`~airflow_provider_fluxomail.sandbox.testing.FluxomailSandbox` shows: messages, requests and faults.

As rows of the control API, made into objects, and as tables for the errors of a test.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from http.client import responses
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_ROWS: Final = 10
"""Most rows of a table."""
_WIDTH: Final = 40
"""Most characters of a cell."""


@dataclass(frozen=True)
class Event:
    """Something that happened to a message.

    :param type: such as ``delivered``.
    :param at: when, in seconds since the epoch of the sandbox clock.
    :param data: its further fields, such as ``reason``.
    """

    type: str
    at: float
    data: dict[str, Any]


@dataclass(frozen=True)
class Attachment:
    """A file that came with a message.

    :param size: bytes. :param sha256: of the bytes, in hex.
    """

    filename: str
    content_type: str | None
    size: int
    sha256: str
    _load: Callable[[], bytes] = field(repr=False, compare=False)

    @cached_property
    def content(self) -> bytes:
        """The decoded bytes, fetched from the sandbox at the first use.

        :raises ValueError: the message is gone, as after a reset.
        """
        return self._load()


@dataclass(frozen=True)
class Message:
    """A message that the sandbox has accepted, as it was when it was asked for.

    :param to: as it was sent, which may be ``Name <address>``. :param content: the text body.
    :param endpoint: ``send`` or ``send-global``.
    :param created_at: when, in seconds since the epoch of the sandbox clock.
    :param extra_fields: fields of the request that Fluxomail's contract does not name.
    :param events: those that have happened, oldest first.
    """

    to: str
    subject: str
    content: str
    html_content: str | None
    cc: list[str]
    bcc: list[str]
    attachments: list[Attachment]
    policy_key: str | None
    idempotency_key: str | None
    send_id: str
    message_id: str
    organization: str
    endpoint: str
    created_at: float
    extra_fields: dict[str, Any]
    events: list[Event]

    @property
    def event_types(self) -> list[str]:
        """The types of its events, such as ``["sent", "delivered"]``."""
        return [event.type for event in self.events]


@dataclass(frozen=True)
class Fault:
    """A fault that waits for its requests.

    :param met: requests that it has met. :param remaining: those that it will still meet; None for no end.
    :param match: what must hold of a request. :param options: the further fields of the fault.
    """

    id: int
    kind: str
    met: int
    remaining: int | None
    match: dict[str, str]
    options: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A request that the API has seen.

    :param at: when it arrived, real time in seconds since the epoch.
    :param status: the answer's status; None if there was none, as when the connection was cut.
    :param fault: the kinds of the faults that met it, joined by ``+``.
    :param headers: by name in lower case, without the credentials.
    :param gap: seconds since the request before it in the list; None for the first.
    """

    at: float
    method: str
    path: str
    query: str
    status: int | None
    idempotency_key: str | None
    fault: str | None
    headers: dict[str, str]
    gap: float | None


class RequestList(list[Request]):
    """Requests, oldest first."""

    @property
    def gaps(self) -> list[float]:
        """Seconds between each request and the next."""
        return [after.at - before.at for before, after in pairwise(self)]


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without those that are None."""
    return {name: value for name, value in values.items() if value is not None}


def message_of(row: Mapping[str, Any], load: Callable[[int], bytes]) -> Message:
    """A message from its row.

    :param load: fetches the bytes of the attachment at a position.
    """
    events = [
        Event(event["type"], event["at"], {name: event[name] for name in event if name not in ("type", "at")})
        for event in row["events"]
    ]
    attachments = [
        Attachment(**item, _load=partial(load, position)) for position, item in enumerate(row["attachments"])
    ]
    return Message(**_picked(Message, row) | {"events": events, "attachments": attachments})


def request_of(row: Mapping[str, Any]) -> Request:
    """A request from its row."""
    return Request(**_picked(Request, row))


def fault_of(row: Mapping[str, Any]) -> Fault:
    """A fault from its row."""
    own = {name: row[name] for name in ("id", "kind", "met", "remaining")}
    options = {name: value for name, value in row.items() if name not in own and name != "match"}
    return Fault(**own, match=given(row["match"]), options=options)


def messages_told(messages: Sequence[Message]) -> list[str]:
    """The newest messages as lines of a table."""
    if not messages:
        return ["the sandbox holds no message"]
    head = ("to", "subject", "idempotency key", "last event")
    rows = [(one.to, one.subject, one.idempotency_key or "-", (one.event_types or ["-"])[-1]) for one in messages]
    return [f"the sandbox holds {counted(len(messages))}:", *_table(rows, head)]


def failures_told(requests: Sequence[Request]) -> list[str]:
    """The newest requests that failed as lines of a table; none if all went well."""
    rows = [(one.method, one.path, _answer(one)) for one in requests if one.status is None or one.status >= 400]
    return ["requests that failed:", *_table(rows)] if rows else []


def counted(number: int) -> str:
    """A number of messages in words."""
    return f"{number or 'no'} message{'' if number == 1 else 's'}"


def _picked(kind: type[Message | Request], row: Mapping[str, Any]) -> dict[str, Any]:
    return {one.name: row[one.name] for one in fields(kind)}


def _answer(request: Request) -> str:
    status = request.status
    told = "no answer" if status is None else f"{status} {responses.get(status, '')}".rstrip()
    return f"{told} (fault {request.fault})" if request.fault else told


def _table(rows: Sequence[tuple[str, ...]], *head: tuple[str, ...]) -> list[str]:
    shown = [*head, *rows[-_ROWS:]]
    cells = [[text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..." for text in row] for row in shown]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    if len(rows) > _ROWS:
        lines.insert(len(head), f"  ... and {len(rows) - _ROWS} before these")
    return lines
