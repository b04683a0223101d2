"""Cursors of event triggers over pages that a test writes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

from airflow_provider_fluxomail.asset_events.cursor import CursorStore, TriggerCursor
from airflow_provider_fluxomail.asset_events.source import BatchPosition, EventBatch, EventTiming
from airflow_provider_fluxomail.client.events import EventFilter, EventPage, FeedEvent
from airflow_provider_fluxomail.client.models import Event

T = 1_767_225_600
WANTED = EventFilter(types=("email.bounced",))


class Source:
    """A source whose list says what a test wants."""

    def __init__(self, *pages: EventPage | Exception) -> None:
        self.pages = list(pages)
        self.requested: list[tuple[EventFilter, int, str | None]] = []
        self.number = 0

    async def read_page(self, wanted: EventFilter, *, since_ms: int, cursor: str | None) -> EventPage:
        self.requested.append((wanted, since_ms, cursor))
        response = self.pages.pop(0) if self.pages else page()
        if isinstance(response, Exception):
            raise response
        return response

    def server_ms(self, moment: float) -> int:
        return T * 1000

    def wake_when_confirmed(self, position: BatchPosition) -> None: ...

    def wake_in(self, seconds: float) -> None: ...

    def batch(
        self,
        *events: FeedEvent,
        recent: tuple[FeedEvent, ...] = (),
        generation: int = 1,
        confirmed: int | None = None,
    ) -> EventBatch:
        """Return the next batch; all before it are confirmed, or those up to a number."""
        self.number += 1
        confirmed = self.number - 1 if confirmed is None else confirmed
        return EventBatch(
            source=cast("Any", self),
            position=BatchPosition(self.number, (T + self.number) * 1000),
            events=events,
            recent=recent or events,
            generation=generation,
            confirmed=BatchPosition(confirmed, (T + confirmed) * 1000),
        )


class Store:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    async def aget(self, key: str) -> Any:
        return self.value

    async def aset(self, key: str, value: Any) -> None:
        self.value = value


def event(number: int, event_type: str = "bounced", **fields: Any) -> FeedEvent:
    moment = datetime.fromtimestamp(T + number, tz=UTC)
    return FeedEvent(f"s{number}", Event(**{"type": event_type, "time": moment, "id": f"s{number}:1", **fields}))


def page(*events: FeedEvent, cursor: str | None = None) -> EventPage:
    return EventPage(events=events, cursor=cursor)


def trigger_cursor(store: Store | None = None, **timing: Any) -> TriggerCursor:
    when = EventTiming(**{"spacing": 0.0, **timing})
    return TriggerCursor(WANTED, CursorStore(store or Store(), []), timing=when)
