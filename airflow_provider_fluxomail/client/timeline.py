"""A send's timeline: every wire form becomes one, and one rule says what it means.

The API shows a timeline in two forms (rows with ``type`` and ``ts``, or envelopes with ``email.*`` types and ISO
times, see https://docs.fluxomail.com/api-reference/fluxomail/get-send); both end as :class:`Event`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import redact
from airflow_provider_fluxomail.client.event_types import TARGETS

_STAGES: Final = ("sent", "delayed", "delivered", "opened", "clicked")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_REASON_FIELDS = (
    "reason",
    "diagnosticCode",
    "smtpCode",
    "bounceType",
    "subtype",
    "bounceSubType",
    "providerReason",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened to a message.

    :param type: without the ``email.`` prefix; unknown types are kept as they come.
    :param time: when, in UTC; ``None`` if the API gave no readable time.
    :param reason: why, for a failure: SMTP code, bounce type, provider's words, without any address.
    """

    type: str
    time: datetime | None
    id: str | None = None
    provider_message_id: str | None = None
    reason: str | None = None

    @classmethod
    def parse(cls, row: object) -> Event | None:
        """Read a row of either form; ``None`` if it is not an event."""
        if not isinstance(row, Mapping) or not isinstance(row.get("type"), str) or not row["type"]:
            return None
        data = row.get("data")
        facts: dict[str, Any] = {**data, **row} if isinstance(data, Mapping) else dict(row)
        time = parse_time(row.get("ts"))
        return cls(
            type=row["type"].removeprefix("email."),
            time=time if time is not None else parse_time(row.get("created")),
            id=_text(row.get("id")),
            provider_message_id=_text(facts.get("providerMessageId")),
            reason=_reason(facts),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timeline:
    """One send and its events, in order of their time (events without a time last).

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
        """Read a page in any form. Unknown fields are ignored, rows that are no events are passed over.

        :raises ValueError: when it has no list of events at all.
        """
        rows = payload.get("events")
        if rows is None:
            rows = payload.get("rawEvents")
        if not isinstance(rows, list):
            raise ValueError("the answer holds no list of events")  # noqa: TRY004 - a wrong answer, not a wrong call
        events = [event for row in rows if (event := Event.parse(row))]
        if not events and isinstance(raw := payload.get("rawEvents"), list):
            events = [event for row in raw if (event := Event.parse(row))]
        send = payload.get("send")
        head: Mapping[str, Any] = send if isinstance(send, Mapping) else {}
        return cls(
            send_id=send_id,
            events=in_order(events),
            recipient=_text(head.get("toEmail")),
            subject=_text(head.get("subject")),
            status=_text(head.get("status")),
            idempotency_key=_text(head.get("idempotencyKey")),
            created=parse_time(head.get("createdAt")),
            next_cursor=_text(payload.get("nextCursor")),
        )

    def joined(self, page: Timeline) -> Timeline:
        """Return this timeline with the events of a further page."""
        return dataclasses.replace(self, events=in_order([*self.events, *page.events]), next_cursor=page.next_cursor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a timeline means to somebody who waits: the deciding event, and whether it is the one hoped for."""

    event: Event
    reached: bool


def judge(timeline: Timeline, target: str, fail_on: Collection[str]) -> Outcome | None:
    """Say whether ``timeline`` decides a wait for ``target``; ``None`` means: not yet.

    Events are judged in order of their time. The first that satisfies the target or is a failure decides; at equal
    times the failure does. So a bounce after the delivery no longer fails the wait, and a click before it does not
    have to wait for the delivery to be reported.

    :param target: a name of :data:`~.targets.TARGETS`.
    :param fail_on: names of :data:`~.targets.FAILURES`.
    """
    proofs = TARGETS[target]
    deciding = [event for event in timeline.events if event.type in proofs or event.type in fail_on]
    if not deciding:
        return None
    first = min(deciding, key=lambda event: (_when(event), event.type not in fail_on))
    return Outcome(event=first, reached=first.type not in fail_on)


def in_order(events: Iterable[Event]) -> tuple[Event, ...]:
    """Sort by time and drop repeats: pages overlap, and the API repeats events.

    Events of the same millisecond come in the order in which a message goes through them, whatever that of the page.
    """
    unique = {(event.id, event.type, event.time, event.provider_message_id): event for event in events}
    return tuple(sorted(unique.values(), key=lambda event: (_when(event), _stage(event))))


def parse_time(value: object) -> datetime | None:
    """Read a time as the API writes it: milliseconds since 1970 (seconds below 10^11), or ISO 8601."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        text = value.strip()
        try:
            value = float(text)
        except ValueError:
            try:
                moment = datetime.fromisoformat(text)
                return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
            except (ValueError, OverflowError):
                return None
    if not isinstance(value, int | float):
        return None
    try:
        return _EPOCH + timedelta(seconds=value / 1000 if abs(value) >= 1e11 else value)
    except (ValueError, OverflowError):
        return None


def _when(event: Event) -> datetime:
    return event.time or datetime.max.replace(tzinfo=UTC)


def _stage(event: Event) -> int:
    return _STAGES.index(event.type) if event.type in _STAGES else len(_STAGES)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _reason(facts: Mapping[str, Any]) -> str | None:
    told: list[str] = []
    for name in _REASON_FIELDS:
        part = str(facts[name]).strip() if isinstance(facts.get(name), str | int) else ""
        # "550 5.1.1 no such user" says the code already.
        if part and not any(part in earlier for earlier in told):
            told.append(part)
    return redact(", ".join(told)) or None
