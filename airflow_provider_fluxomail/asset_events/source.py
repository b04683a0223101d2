"""The events of one connection, for all triggers that follow them: one stream, however many assets are watched.

It plays the producer of Airflow's shared streams (3.3), in their acknowledging mode: Airflow says when what came of an
event is in its database. Only then may a trigger's cursor go past it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import dataclasses
import logging
import random
import time
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import (
    FluxomailAuthError,
    FluxomailConnectionError,
    FluxomailError,
)
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from airflow_provider_fluxomail.client.watching.event_feed import Feed, FeedTiming
from airflow_provider_fluxomail.waiting.watcher_pool import look_up

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.events import EventPage, FeedEvent

log = logging.getLogger(__name__)

#: Seconds between two parts when nothing happens.
TICK: Final = 10.0
#: Least seconds between two parts: a trigger's queue holds 1,024 of them, and a trigger may be reading the list.
PAUSE: Final = 0.2
#: What a trigger that joins gets of the stream's past, as the list may lag behind it: of so many seconds, at most so
#: many events.
RECENT: Final = 60.0
RECENT_EVENTS: Final = 2_000
#: Seconds by which an event may become visible late when only the stream was interrupted.
OVERLAP: Final = 60.0
#: Seconds until a key that is not accepted is tried again. The connection is read anew each time.
AUTH_WAIT: Final = 60.0
#: Seconds until events that cannot be had (not in the plan, no permission, no such connection) are asked for again.
REFUSED_WAIT: Final = 300.0
#: Seconds until a connection that Airflow cannot give now is asked for again.
OUTAGE_WAIT: Final = 10.0


class Mark(NamedTuple):
    """A part, and the moment that it reaches: everything before it is in it or in the parts before.

    :param number: of the part.
    :param reached_ms: milliseconds of Fluxomail's clock.
    """

    number: int
    reached_ms: int


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Part:
    """What the triggers get: events, or none when it only tells how far things are.

    :param recent: events of the last minute, these among them.
    :param generation: another one than before: events may be missing that only the list has.
    :param safe: the last part of which everything is in Airflow's database, as of now.
    """

    source: EventSource
    mark: Mark
    events: tuple[FeedEvent, ...]
    recent: tuple[FeedEvent, ...]
    generation: int
    safe: Mark


class _Resolved(Protocol):
    """Airflow's ``AdvanceItem``."""

    @property
    def broker_payload(self) -> Mark: ...


class EventSource:
    """Follows a connection's events until it is closed. It waits out every fault.

    :param conn_id: id of the connection.
    :param domain: of the recipients, if only theirs.
    """

    def __init__(self, conn_id: str, domain: str | None, *, timing: FeedTiming | None = None) -> None:
        self._conn_id = conn_id
        self._wanted = EventFilter(domain=domain)
        self._timing = timing or FeedTiming(overlap=OVERLAP)
        self._client: AsyncFluxomailClient | None = None
        self._turns: Turns | None = None
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._pending: list[FeedEvent] = []
        self._recent: collections.deque[tuple[float, FeedEvent]] = collections.deque(maxlen=RECENT_EVENTS)
        self._number = 0
        self._safe = Mark(0, 0)
        self._asked_for = 0
        self._trouble: str | None = None

    async def open_stream(self) -> AsyncGenerator[tuple[Part, Mark]]:
        """Follow the events, and give a part whenever there are some, or none for a while. Never ends."""
        # In no context of a trigger's: Airflow starts it within the first one.
        self._task = asyncio.create_task(self._follow(), name=f"fluxomail-events-{self._conn_id}", context=_nobodys())
        self._task.add_done_callback(lambda _: self._woken.set())
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TICK):
                        await self._woken.wait()
                self._woken.clear()
                if self._task.done():
                    self._task.result()
                if self._feed is not None and self._feed.generation:
                    part = self._next_part(self._feed)
                    yield part, part.mark
                    await asyncio.sleep(PAUSE)
        finally:
            await self.aclose()

    async def advance(self, batch: Sequence[_Resolved]) -> None:
        """Take note that all of some parts is in Airflow's database, or that the trigger which owes it has failed.

        One that has failed gets no part any more, so it never hears of this. It goes on from its cursor.
        """
        self._safe = batch[-1].broker_payload
        if self._asked_for and self._safe.number >= self._asked_for:
            self._asked_for = 0
            self._woken.set()

    def get_advance_lane(self, payload: Mark) -> None:
        """Parts are confirmed in their order."""

    async def aclose(self) -> None:
        """End what is running. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def tell_when_safe(self, mark: Mark) -> None:
        """Give a part soon after this one is safe, so that cursors move and what is behind goes on."""
        self._asked_for = max(self._asked_for, mark.number)

    def wake_in(self, seconds: float) -> None:
        """Give a part after some seconds, if none comes before."""
        asyncio.get_running_loop().call_later(seconds, self._woken.set)

    def server_ms(self, moment: float) -> int:
        """Return a moment of this machine's clock, epoch seconds, in milliseconds of Fluxomail's. Not before a part."""
        assert self._feed is not None
        return self._feed.server_ms(moment)

    async def read_page(self, wanted: EventFilter, *, since_ms: int, cursor: str | None) -> EventPage:
        """Read a page of the list, within the connection's share of the rate limit.

        :raises FluxomailError: it cannot be had now.
        """
        if self._client is None or self._turns is None:
            raise FluxomailConnectionError("the event stream is not connected", ambiguous=False)
        async with self._turns.turn():
            return await self._client.list_events(wanted, since_ms=since_ms, cursor=cursor, max_attempts=1)

    def _next_part(self, feed: Feed) -> Part:
        self._number += 1
        oldest = time.monotonic() - RECENT
        while self._recent and self._recent[0][0] < oldest:
            self._recent.popleft()
        events, self._pending = tuple(self._pending), []
        return Part(
            source=self,
            mark=Mark(self._number, feed.reached_ms or 0),
            events=events,
            recent=tuple(event for _, event in self._recent),
            generation=feed.generation,
            safe=self._safe,
        )

    def _receive(self, events: Sequence[FeedEvent]) -> None:
        now = time.monotonic()
        self._pending += events
        self._recent.extend((now, event) for event in events)
        if events:
            self._woken.set()

    def _changed(self) -> None:
        if self._feed is not None and self._feed.live:
            if self._trouble is not None:
                log.info("The events of connection %s are followed again.", self._conn_id)
            self._trouble = None
            self._woken.set()

    async def _follow(self) -> None:
        """Follow the events for ever: Airflow starts a trigger that has ended anew at once, again and again."""
        refused = 0
        while True:
            try:
                await self._run_feed()
            except FluxomailAuthError as error:
                # The key may just have been replaced: the first time, the connection is read anew at once.
                refused = refused + 1 if self._trouble else 1
                self._tell(logging.ERROR, error)
                await asyncio.sleep(AUTH_WAIT * random.uniform(0.8, 1.0) if refused > 1 else 1.0)
            except FluxomailConnectionError as error:
                self._tell(logging.WARNING, error)
                await asyncio.sleep(OUTAGE_WAIT * random.uniform(0.5, 1.0))
            except FluxomailError as error:
                self._tell(logging.ERROR, error)
                await asyncio.sleep(REFUSED_WAIT * random.uniform(0.8, 1.0))
            except Exception as error:
                # By its type alone: its text, or its variables, may hold what no log may.
                self._tell(logging.ERROR, FluxomailError(f"a fault of this package: {type(error).__name__}"))
                log.debug("Following the events failed", exc_info=True)
                await asyncio.sleep(AUTH_WAIT)

    async def _run_feed(self) -> None:
        connection = await look_up(self._conn_id)
        if self._turns is None:
            self._turns = Turns(Pacer(share=connection.poll_share))
        async with AsyncFluxomailClient(connection.settings, on_response=self._turns.pacer.on_response) as client:
            if self._feed is None:
                self._feed = Feed(client, self._wanted, turns=self._turns, receive=self._receive, timing=self._timing)
                self._feed.on_change = self._changed
            self._feed.client = self._client = client
            try:
                await self._feed.run()
            finally:
                self._client = None

    def _tell(self, level: int, error: FluxomailError) -> None:
        """Write the trouble to the log, once."""
        told = f"{type(error).__name__}: {error.message}"
        if told != self._trouble:
            self._trouble = told
            log.log(level, "The events of connection %s cannot be followed: %s", self._conn_id, error)


def _nobodys() -> contextvars.Context:
    return contextvars.Context()
