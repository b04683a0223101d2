"""The events of one connection, for all triggers that follow them: one stream, however many assets are watched.

:class:`EventSource` is a producer of Airflow's shared streams (3.3) in their acknowledging mode: Airflow calls it when
the outcome of an event is in its database. Only then does a trigger's cursor move past the event.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailConnectionError, FluxomailError
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from airflow_provider_fluxomail.client.retries import jittered
from airflow_provider_fluxomail.client.watching.event_feed import EventFeed, FeedTiming
from airflow_provider_fluxomail.configuration.connection import look_up

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.events import EventPage, FeedEvent

log = logging.getLogger(__name__)

#: A trigger that starts also gets the recent events of the stream, because the list may lag behind it: those of the
#: last ``RECENT`` seconds, at most ``RECENT_EVENTS``.
RECENT: Final = 60.0
RECENT_EVENTS: Final = 2_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventTiming:
    """Intervals, timeouts and limits of event sources and their triggers. Times in seconds."""

    #: Longest time between two batches, when nothing happens.
    tick: float = 10.0
    #: Least time between two batches: a trigger's queue holds 1,024 of them, and a trigger may be reading the list.
    pause: float = 0.2
    #: Wait after a key was not accepted. The connection is read again each time.
    auth_wait: float = 60.0
    #: Wait after events were not available (402, 403, 404, no such connection).
    refused_wait: float = 300.0
    #: Wait after Airflow could not return the connection.
    outage_wait: float = 10.0
    #: An event may become visible this late when only the stream was interrupted.
    feed: FeedTiming = dataclasses.field(default_factory=lambda: FeedTiming(overlap=60.0))
    #: An event may become visible this long after its own time: the list is read from that much earlier.
    overlap: float = 300.0
    #: How many fired events a trigger remembers, and how many are stored with the cursor (11 KB; Airflow warns at 64).
    kept: int = 20_000
    stored: int = 1_000
    #: How far a cursor may lag behind when no event comes.
    save_every: float = 60.0
    #: Least time between two changes of an asset. Airflow 3.3 lets a Dag run see the events until it first learned of a
    #: change; later ones wait for the next change. So events close together make one change.
    spacing: float = 5.0
    #: Most events of one change: Airflow stores and logs them as one text.
    together: int = 500
    #: Most pages of the list read for one batch, and the time for it: Airflow fails a trigger after 300 s.
    pages: int = 10
    reading: float = 60.0
    #: Longest wait after the list could not be read.
    longest_pause: float = 300.0


#: What triggers use. Tests replace it.
_timing = EventTiming()


def event_timing() -> EventTiming:
    """Return the timing of event sources in this process."""
    return _timing


class BatchPosition(NamedTuple):
    """A batch's number, and the time (Fluxomail's clock) before which every event is in it or in an earlier batch."""

    number: int
    reached_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class EventBatch:
    """New events for the triggers; empty if it only reports progress.

    :param recent: events of the last minute, including ``events``.
    :param generation: changes when the stream may have lost events that only the list has.
    :param confirmed: the last batch whose events are all in Airflow's database.
    """

    source: EventSource
    position: BatchPosition
    events: tuple[FeedEvent, ...]
    recent: tuple[FeedEvent, ...]
    generation: int
    confirmed: BatchPosition


class EventSource:
    """Follows a connection's events until closed; keeps trying after any error."""

    def __init__(self, conn_id: str, domain: str | None, *, timing: EventTiming | None = None) -> None:
        self._conn_id = conn_id
        self._wanted = EventFilter(domain=domain)
        self._timing = timing or event_timing()
        self._client: AsyncFluxomailClient | None = None
        self._turns: Turns | None = None
        self._feed: EventFeed | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._pending: list[FeedEvent] = []
        self._recent: collections.deque[tuple[float, FeedEvent]] = collections.deque(maxlen=RECENT_EVENTS)
        self._number = 0
        self._confirmed = BatchPosition(0, 0)
        self._wake_at = 0
        self._last_problem: str | None = None

    async def open_stream(self) -> AsyncGenerator[tuple[EventBatch, BatchPosition]]:
        """Follow the events; yield a batch when there are new events, or after ``tick`` seconds. Never ends."""
        # In a context of its own: Airflow starts it in that of the first trigger.
        self._task = asyncio.create_task(
            self._follow(), name=f"fluxomail-events-{self._conn_id}", context=contextvars.Context()
        )
        self._task.add_done_callback(lambda _: self._woken.set())
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._timing.tick):
                        await self._woken.wait()
                self._woken.clear()
                if self._task.done():
                    self._task.result()
                if self._feed is not None and self._feed.generation:
                    batch = self._next_batch(self._feed)
                    yield batch, batch.position
                    await asyncio.sleep(self._timing.pause)
        finally:
            await self.aclose()

    async def advance(self, batch: Sequence[Any]) -> None:
        """Note that the events of some batches are in Airflow's database, or that their trigger has failed.

        A failed trigger gets no more batches, so it does not rely on this: it continues from its cursor.

        :param batch: items of a trigger's queue, as Airflow passes them.
        """
        self.confirm(batch[-1].broker_payload)

    def confirm(self, position: BatchPosition) -> None:
        """Note that the events of all batches up to this one are stored."""
        self._confirmed = position
        if self._wake_at and self._confirmed.number >= self._wake_at:
            self._wake_at = 0
            self._woken.set()

    def get_advance_lane(self, payload: BatchPosition) -> None:
        """Return no lane: batches are confirmed in order."""

    async def aclose(self) -> None:
        """Stop following. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def wake_when_confirmed(self, position: BatchPosition) -> None:
        """Yield a batch soon after this one is confirmed: cursors then move, and triggers that catch up continue."""
        self._wake_at = max(self._wake_at, position.number)

    def wake_in(self, seconds: float) -> None:
        """Yield a batch in this many seconds at the latest."""
        asyncio.get_running_loop().call_later(seconds, self._woken.set)

    def server_ms(self, moment: float) -> int:
        """Convert a time of this machine's clock to milliseconds of Fluxomail's. Only after the first batch."""
        assert self._feed is not None
        return self._feed.server_ms(moment)

    async def read_page(self, wanted: EventFilter, *, since_ms: int, cursor: str | None) -> EventPage:
        """Read a page of the list, within the connection's share of the rate limit."""
        if self._client is None or self._turns is None:
            raise FluxomailConnectionError("the event stream is not connected", ambiguous=False)
        async with self._turns.turn():
            return await self._client.list_events(wanted, since_ms=since_ms, cursor=cursor, max_attempts=1)

    def _next_batch(self, feed: EventFeed) -> EventBatch:
        self._number += 1
        oldest = time.monotonic() - RECENT
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
        events, self._pending = tuple(self._pending), []
        return EventBatch(
            source=self,
            position=BatchPosition(self._number, feed.reached_ms or 0),
            events=events,
            recent=tuple(event for _, event in self._recent),
            generation=feed.generation,
            confirmed=self._confirmed,
        )

    def _receive(self, events: Sequence[FeedEvent]) -> None:
        now = time.monotonic()
        self._pending += events
        self._recent.extend((now, event) for event in events)
        if events:
            self._woken.set()

    def _changed(self) -> None:
        if self._feed is not None and self._feed.live:
            if self._last_problem is not None:
                log.info("Following the events of connection %s again.", self._conn_id)
            self._last_problem = None
            self._woken.set()

    async def _follow(self) -> None:
        """Follow the events, without ever ending: Airflow would restart a trigger that ends, again and again."""
        refused = 0
        while True:
            try:
                await self._run_feed()
            except FluxomailAuthError as error:
                # The key may just have been replaced: the first time, the connection is read again at once.
                refused = refused + 1 if self._last_problem else 1
                self._report(logging.ERROR, error)
                await asyncio.sleep(jittered(self._timing.auth_wait) if refused > 1 else 1.0)
            except FluxomailError as error:
                outage = isinstance(error, FluxomailConnectionError)
                self._report(logging.WARNING if outage else logging.ERROR, error)
                await asyncio.sleep(jittered(self._timing.outage_wait if outage else self._timing.refused_wait))
            except Exception as error:
                # Only its type: its text, or its variables, may hold what must not be logged.
                self._report(logging.ERROR, FluxomailError(f"a bug in this package: {type(error).__name__}"))
                log.debug("Following the events failed", exc_info=True)
                await asyncio.sleep(self._timing.auth_wait)

    async def _run_feed(self) -> None:
        connection = await look_up(self._conn_id, used_before=self._feed is not None)
        if self._turns is None:
            self._turns = Turns(Pacer(share=connection.poll_share))
        async with AsyncFluxomailClient(connection.settings, on_response=self._turns.pacer.on_response) as client:
            if self._feed is None:
                self._feed = EventFeed(
                    client,
                    self._wanted,
                    turns=self._turns,
                    receive=self._receive,
                    on_change=self._changed,
                    timing=self._timing.feed,
                )
            self._feed.client = self._client = client
            try:
                await self._feed.run()
            finally:
                self._client = None

    def _report(self, level: int, error: FluxomailError) -> None:
        """Log a problem, once."""
        problem = f"{type(error).__name__}: {error.message}"
        if problem != self._last_problem:
            self._last_problem = problem
            log.log(level, "Cannot follow the events of connection %s: %s", self._conn_id, error)
