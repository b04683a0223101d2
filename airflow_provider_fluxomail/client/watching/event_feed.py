"""Reads the organization's events: reopens the stream when it breaks, and reads what it missed from the events list.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailNotFoundError,
    FluxomailRateLimitError,
    FluxomailRequestError,
    FluxomailValidationError,
    as_response_error,
)
from airflow_provider_fluxomail.client.retries import Backoff

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient, EventStream
    from airflow_provider_fluxomail.client.events import EventFilter, FeedEvent
    from airflow_provider_fluxomail.client.pacing import Turns

log = logging.getLogger(__name__)

#: The first polls wait for the stream for this long, in seconds: once it is up, they need not be repeated. A proxy may
#: hold its response back for ever.
_OPENING: Final = 3.0
#: Events that arrive close together are collected for this long, in seconds, and read in one go.
_COLLECT_FOR: Final = 0.3
#: What was read in less than this many seconds had arrived before.
_AT_ONCE: Final = 0.01
#: After so many events that had arrived before, there may be more: the client reads 64 KB at a time.
_FULL: Final = 200
#: Errors by which a server may refuse an event id or a filter that it does not know.
_REFUSALS: Final = (FluxomailValidationError, FluxomailRequestError, FluxomailNotFoundError)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeedTiming:
    """Timeouts and limits of a feed. Times in seconds.

    :param silence: a stream without a byte for this long counts as broken. Fluxomail documents no heartbeat; if there
        is none, the stream is reopened this often.
    :param overlap: how far before a break the list is read again: events become visible with a delay.
    :param backoff: longest wait between two attempts to open the stream.
    :param gap_pages: most pages of the list that are read to close one gap.
    :param stable: a stream that was live for this long resets the count of failures. Receiving an event does not: a
        stream may close after each event. Nor does the time in which the list was read for what had been missed.
    :param most_refusals: so many times in a row the stream may be refused by a rate limit, or closed before it was
        ``stable``, before that counts as an error: another client of the key may have its place. ``None``: any number.
    """

    silence: float = 45.0
    overlap: float = 10.0
    backoff: float = 30.0
    gap_pages: int = 50
    stable: float = 20.0
    most_refusals: int | None = None


class EventFeed:
    """Reads the organization's events, from the stream and the list. An event may be received twice, and out of order.

    :param client: passes its responses to the pacer of ``turns``.
    :param on_change: called after :attr:`live` has changed.
    :param since_ms: where to begin, in milliseconds of Fluxomail's clock; by default when the stream opens.
    """

    def __init__(
        self,
        client: AsyncFluxomailClient,
        wanted: EventFilter,
        *,
        turns: Turns,
        receive: Callable[[Sequence[FeedEvent]], None],
        on_change: Callable[[], None] = lambda: None,
        since_ms: int | None = None,
        timing: FeedTiming | None = None,
    ) -> None:
        #: May be replaced while the feed is not running, for example after its key was replaced.
        self.client = client
        self._wanted = wanted
        self._turns = turns
        self._receive = receive
        self._on_change = on_change
        self._timing = timing or FeedTiming()
        self._last_id: str | None = None
        self._failures = 0
        # How often in a row the stream was refused by a rate limit, or closed soon.
        self._refusals = 0
        #: Every event up to this time has been received. Milliseconds of Fluxomail's clock.
        self.reached_ms = since_ms
        #: Whether a stream is open and nothing is missing before it.
        self.live = False
        # Monotonic seconds.
        self._live_since = math.inf
        #: Incremented when events may have been lost, so that only timelines have them. 0 before the first stream.
        self.generation = 0
        #: Fluxomail's clock minus this machine's, seconds.
        self.clock_offset = 0.0
        #: How many events the streams have carried.
        self.streamed = 0

    async def run(self) -> None:
        """Read events until cancelled, across outages of any length; raise permanent errors (401, 402, 403...)."""
        while True:
            self._live_since = math.inf
            error: FluxomailError | None = None
            refused = True
            try:
                await self._follow()
            except Exception as failure:
                error = as_response_error(failure)
                if isinstance(error, _REFUSALS) and self._drop_refused_option():
                    continue
                if error.permanent:
                    raise
                refused = self.live
                if isinstance(error, FluxomailRateLimitError):
                    refused = True
                    self._turns.hold(error.retry_after or 0.0)
                log.info("The event stream is interrupted: %s", error)
            finally:
                self._set_live(live=False)
            stable = time.monotonic() - self._live_since >= self._timing.stable
            self._failures = 0 if stable else self._failures + 1
            self._refusals = self._refusals + 1 if refused and not stable else 0
            if self._timing.most_refusals is not None and self._refusals > self._timing.most_refusals:
                reason = error or "the server closes it"
                raise FluxomailError(f"the stream was refused {self._refusals} times in a row: {reason}")
            backoff = Backoff(first=0.5, longest=self._timing.backoff, jitter=0.8)
            await asyncio.sleep(backoff.seconds(self._failures, at_least=error.retry_after if error else 0.0))

    async def read_back(self, since_ms: int, pages: int, *, partly: bool = True) -> int:
        """Receive the events of the list since a given time, newest first, from at most ``pages`` pages.

        :param partly: read as much as ``pages`` allows. If not, stop once it shows that far more would be needed.
        :return: the time since which everything was read: ``since_ms``, or later if there are more pages.
        """
        cursor: str | None = None
        seen: set[str] = set()
        reached = 0
        span_ms = self.server_ms(time.time()) - since_ms
        for number in range(1, pages + 1):
            async with self._turns.turn():
                page = await self.client.list_events(self._wanted, since_ms=since_ms, cursor=cursor, max_attempts=1)
            self._receive(page.events)
            times = [int(event.event.time.timestamp() * 1000) for event in page.events if event.event.time]
            # Do not read forever from a server that lists the oldest events first or repeats a cursor.
            if not page.cursor or page.cursor in seen or (times and max(times) < since_ms):
                return since_ms
            seen.add(page.cursor)
            cursor = page.cursor
            reached = min(times, default=reached)
            if not partly and number * span_ms > 2 * pages * (since_ms + span_ms - reached):
                break
        return max(reached, since_ms)

    async def _follow(self) -> None:
        """Open the stream, read from the list what came before it, then read the stream."""
        async with contextlib.AsyncExitStack() as until_closed:
            async with self._turns.turn(at_most=_OPENING):
                opening = self.client.stream_events(self._wanted, since=self._last_id, silence=self._timing.silence)
                stream = await until_closed.enter_async_context(opening)
            await self._close_gap(stream)
            began, collected = time.monotonic(), 0
            try:
                async for events in stream:
                    waited = time.monotonic() - began > _AT_ONCE
                    self.reached_ms = max(self.reached_ms or 0, self.server_ms(time.time()))
                    if events:
                        self.streamed += len(events)
                        self._receive(events)
                        # Waking up costs more than an event, so those that arrive during a pause are read in one go.
                        if waited and collected < _FULL:
                            await asyncio.sleep(_COLLECT_FOR)
                        collected = len(events) + (0 if waited else collected)
                    began = time.monotonic()
            finally:
                self._last_id = stream.last_id

    async def _close_gap(self, stream: EventStream) -> None:
        """Read missed events from the list. The stream's first events wait in the socket, so they come after these."""
        self.clock_offset = stream.opened_at - time.time()
        opened_ms = int(stream.opened_at * 1000)
        complete = True
        if self.reached_ms is not None:
            since_ms = self.reached_ms - int(self._timing.overlap * 1000)
            complete = await self.read_back(since_ms, self._timing.gap_pages) <= since_ms
        self.reached_ms = max(self.reached_ms or 0, opened_ms)
        if not complete or not self.generation:
            self.generation += 1
        self._set_live(live=True)

    def server_ms(self, moment: float) -> int:
        """Convert a time of this machine's clock, epoch seconds, to milliseconds of Fluxomail's clock."""
        return int((moment + self.clock_offset) * 1000)

    def _drop_refused_option(self) -> bool:
        """Drop a request option that the server may have refused; return False if there is none left.

        First the event id to continue from, which the server may have forgotten (the list has what came after it), then
        the filter by type, which not every server may know.
        """
        if self._last_id is not None:
            self._last_id = None
            return True
        if self._wanted.types:
            self._wanted = dataclasses.replace(self._wanted, types=())
            return True
        return False

    def _set_live(self, *, live: bool) -> None:
        if self.live != live:
            self.live = live
            if live:
                self._live_since = time.monotonic()
            self._on_change()
