"""The last events of the stream, kept for the waits that join later."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.events import FeedEvent
    from airflow_provider_fluxomail.client.models import Event

#: A wait reaches the triggerer seconds after its worker's last poll, or minutes if Airflow is busy.
KEEP_SECONDS: Final = 300.0
KEEP_EVENTS: Final = 10_000


class RecentEvents:
    """The events of the last minutes, by their send."""

    def __init__(self) -> None:
        #: No event after this time is missing, in milliseconds of Fluxomail's clock; ``None`` if nothing is known.
        self.complete_since_ms: int | None = None
        self._by_send: dict[str, dict[tuple[str | None, str], Event]] = {}
        self._order: collections.deque[tuple[float, str, tuple[str | None, str]]] = collections.deque()

    def add(self, received: FeedEvent) -> None:
        """Keep an event, once."""
        events = self._by_send.setdefault(received.send_id, {})
        name = (received.event.id, received.event.type)
        if name not in events:
            events[name] = received.event
            self._order.append((time.monotonic(), received.send_id, name))
        while self._order and (len(self._order) > KEEP_EVENTS or time.monotonic() - self._order[0][0] > KEEP_SECONDS):
            _, send_id, name = self._order.popleft()
            event = self._by_send[send_id].pop(name)
            if not self._by_send[send_id]:
                del self._by_send[send_id]
            if self.complete_since_ms is not None:
                # An event without a time may have happened at any time, so nothing before now is certain.
                moment = event.time.timestamp() if event.time else time.time()
                self.complete_since_ms = max(self.complete_since_ms, int(moment * 1000) + 1)

    def of(self, send_id: str) -> tuple[Event, ...]:
        """Return the events of a send."""
        return tuple(self._by_send.get(send_id, {}).values())

    def clear(self, complete_since_ms: int) -> None:
        """Drop all events: some before this time may have been missed."""
        self._by_send.clear()
        self._order.clear()
        self.complete_since_ms = complete_since_ms
