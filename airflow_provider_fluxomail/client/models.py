"""What clients take and return, as data: requests, responses, send results, events and timelines.

The API shows a timeline in two forms (rows with ``type`` and ``ts``, or envelopes with ``email.*`` types and ISO
times, see https://docs.fluxomail.com/api-reference/fluxomail/get-send); :class:`Event` reads both.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow_provider_fluxomail.client import headers
from airflow_provider_fluxomail.client.event_types import STAGES, without_prefix
from airflow_provider_fluxomail.client.redaction import identifier, redact

#: Most events of one page, and of a timeline before another page is read: parsing more would block the event loop.
MAX_EVENTS: Final = 10_000
#: Longest cursor, which becomes part of the URL. Characters.
MAX_CURSOR: Final = 4096

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REASON_FIELDS = ("reason", "diagnosticCode", "smtpCode", "bounceType", "subtype", "bounceSubType", "providerReason")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One request, without its credentials.

    :param idempotency_key: the key among the headers.
    :param optional_fields: names of optional API fields in the body that a plan or a policy may refuse.
    :param private: strings of this request that no error may print.
    """

    method: str
    path: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: bytes | None = dataclasses.field(default=None, repr=False)
    idempotency_key: str | None = None
    optional_fields: tuple[str, ...] = ()
    private: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    @property
    def repeatable(self) -> bool:
        """True when repeating it after an unknown outcome cannot send a second email."""
        return self.method == "GET" or self.idempotency_key is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
    """One response: status, headers (names in lower case), body (bounded)."""

    status: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    content: bytes = dataclasses.field(repr=False)

    @property
    def request_id(self) -> str | None:
        """Fluxomail's id of the request, safe for a log line."""
        return headers.request_id(self.headers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SendResult:
    """What the API returned for one send.

    ::

        sent = client.send(message, idempotency_key="nightly-load-2026-01-01")
        print(sent.send_id, "was sent before" if sent.reused else "is new")

    :param send_id: identifies the send; its timeline is read with it.
    :param message_id: of the email provider; ``None`` until there is one.
    :param status: usually ``sent``, which means accepted, not delivered.
    :param reused: the key was used before, and this is the result of that first request (a replay).
    :param own_replay: an earlier attempt of this same call may have used it.
    """

    send_id: str
    message_id: str | None
    status: str | None
    reused: bool
    idempotency_key: str | None
    request_id: str | None
    own_replay: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to a message.

    ::

        for event in client.get_timeline(send_id).events:
            print(event.time, event.type, event.reason or "")

    :param type: such as ``delivered``, without the ``email.`` prefix; unknown types are kept.
    :param time: when, in UTC; ``None`` if the API gave no readable time.
    :param provider_message_id: the email provider's id of the message.
    :param reason: why it failed (SMTP code, bounce type, the provider's text), without any address.
    """

    type: str
    time: datetime | None
    id: str | None = None
    provider_message_id: str | None = None
    reason: str | None = None

    @classmethod
    def parse(cls, row: object) -> Event | None:
        """Read a row of either form; ``None`` if it is not an event."""
        if not isinstance(row, Mapping) or not (name := identifier(row.get("type"))):
            return None
        data = row.get("data")
        facts: dict[str, Any] = {**data, **row} if isinstance(data, Mapping) else dict(row)
        time = parse_time(row.get("ts"))
        return cls(
            type=without_prefix(name),
            time=time if time is not None else parse_time(row.get("created")),
            id=identifier(row.get("id")),
            provider_message_id=identifier(facts.get("providerMessageId")),
            reason=_reason(facts),
        )

    @property
    def sort_time(self) -> datetime:
        """When it happened; without a time, after everything else."""
        return self.time or datetime.max.replace(tzinfo=UTC)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """One send and its events, in order of their time (events without a time last).

    ::

        timeline = client.get_timeline(send_id)
        print([event.type for event in timeline.events])  # ["sent", "delivered", "opened"]

    Recipient and subject are left out of ``repr``: timelines end up in logs.
    """

    send_id: str
    events: tuple[Event, ...]
    recipient: str | None = dataclasses.field(default=None, repr=False)
    subject: str | None = dataclasses.field(default=None, repr=False)
    status: str | None = None
    idempotency_key: str | None = None
    created: datetime | None = None
    next_cursor: str | None = None

    @classmethod
    def parse(cls, send_id: str, payload: Mapping[str, Any]) -> Timeline:
        """Read a page in either form. Unknown fields and rows that are not events are ignored.

        :raises ValueError: the page has no list of events at all, too many events, or an invalid cursor.
        """
        lists = event_lists(payload, "events", "rawEvents")
        parsed = ([event for row in rows if (event := Event.parse(row))] for rows in lists)
        events = next(filter(None, parsed), [])
        send = payload.get("send")
        head: Mapping[str, Any] = send if isinstance(send, Mapping) else {}
        return cls(
            send_id=send_id,
            events=in_order(events),
            recipient=_text(head.get("toEmail")),
            subject=_text(head.get("subject")),
            status=identifier(head.get("status")),
            idempotency_key=identifier(head.get("idempotencyKey")),
            created=parse_time(head.get("createdAt")),
            next_cursor=read_cursor(payload),
        )

    def joined(self, page: Timeline) -> Timeline:
        """Return this timeline with the events of another page."""
        return dataclasses.replace(self, events=in_order([*self.events, *page.events]), next_cursor=page.next_cursor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a timeline decides a wait, see :func:`.judge`.

    :param event: the deciding event.
    :param reached: whether it satisfies the target; otherwise it is a failure.
    """

    event: Event
    reached: bool


def in_order(events: Iterable[Event]) -> tuple[Event, ...]:
    """Sort by time and drop repeats: pages overlap, and the API repeats events.

    Events of the same millisecond are in the order in which a message goes through them, whatever the page's order.
    """
    unique = {(event.id, event.type, event.time, event.provider_message_id): event for event in events}
    return tuple(sorted(unique.values(), key=lambda event: (event.sort_time, _stage(event))))


def event_lists(payload: Mapping[str, Any], *names: str) -> list[list[Any]]:
    """Return the lists of events under ``names``, at least one.

    :raises ValueError: there is none, or one is longer than :data:`MAX_EVENTS`.
    """
    lists = [rows for name in names if isinstance(rows := payload.get(name), list)]
    if not lists:
        raise ValueError("the response holds no list of events")
    if max(map(len, lists)) > MAX_EVENTS:
        raise ValueError(f"the response holds more than {MAX_EVENTS} events")
    return lists


def read_cursor(payload: Mapping[str, Any]) -> str | None:
    """Return the cursor of the next page, ``None`` after the last page.

    :raises ValueError: it is too long or not printable, so that no request can hold it.
    """
    cursor = payload.get("nextCursor")
    if not isinstance(cursor, str | int) or isinstance(cursor, bool) or not cursor:
        return None
    if identifier(str(cursor), MAX_CURSOR) is None:
        raise ValueError("nextCursor is too long, or not readable")
    return str(cursor)


def parse_time(value: object) -> datetime | None:
    """Read a time as the API writes it: milliseconds since 1970 (seconds below 10^11), or ISO 8601."""
    with contextlib.suppress(ValueError, OverflowError):
        if isinstance(value, str):
            text = value.strip()
            try:
                value = float(text)
            except ValueError:
                moment = datetime.fromisoformat(text)
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _EPOCH + timedelta(seconds=value / 1000 if abs(value) >= 1e11 else value)
    return None


def _stage(event: Event) -> int:
    return STAGES.index(event.type) if event.type in STAGES else len(STAGES)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _reason(facts: Mapping[str, Any]) -> str | None:
    parts: list[str] = []
    for name in _REASON_FIELDS:
        part = str(facts[name]).strip() if isinstance(facts.get(name), str | int) else ""
        # "550 5.1.1 no such user" includes the code already.
        if part and not any(part in earlier for earlier in parts):
            parts.append(part)
    return redact(", ".join(parts)) or None
