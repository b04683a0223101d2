"""Follows the organization's event stream for the waits of a watcher.

A wait relies on the stream only once every event since its last poll is known: from the recent events, from the list,
or from a poll while the stream is up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError, as_response_error
from airflow_provider_fluxomail.client.event_types import DECIDING
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.client.retries import jittered
from airflow_provider_fluxomail.client.watching.event_feed import EventFeed
from airflow_provider_fluxomail.client.watching.event_load import Availability, EventLoad
from airflow_provider_fluxomail.client.watching.recent_events import RecentEvents
from airflow_provider_fluxomail.client.watching.wait import now

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
    from airflow_provider_fluxomail.client.events import FeedEvent
    from airflow_provider_fluxomail.client.pacing import Turns
    from airflow_provider_fluxomail.client.watching.background import BackgroundTasks
    from airflow_provider_fluxomail.client.watching.watched_wait import WatchedWait, WatchedWaits, WatchTiming

log = logging.getLogger(__name__)

#: How far before a wait's last poll the list is read: the clocks of machines differ. Seconds.
CLOCK_MARGIN: Final = 30.0
#: The list is not read further back than this: polling a timeline takes only one request. Seconds.
LONGEST_BACK: Final = 3600.0
#: One page of the list may be read for this many joining waits; fewer are polled. A page takes one request, as a poll
#: does, and up to 30 KB instead of 1 KB.
WAITS_PER_PAGE: Final = 5


class EventFollower:
    """Follows the event stream; moves waits from polling to the stream and back.

    :param client: passes its responses to the pacer of ``turns``.
    :param availability: of the stream, as far as it is known.
    """

    def __init__(
        self,
        client: AsyncFluxomailClient,
        turns: Turns,
        waits: WatchedWaits,
        tasks: BackgroundTasks,
        *,
        timing: WatchTiming,
        availability: Availability,
    ) -> None:
        self._client = client
        self._turns = turns
        self._waits = waits
        self._tasks = tasks
        self._timing = timing
        self._task: asyncio.Task[None] | None = None
        self._feed: EventFeed | None = None
        self._availability = availability
        self._load = EventLoad(timing)
        self._down_since: float | None = None
        #: Incremented when events may have been lost. 0 until a stream has been up.
        self.generation = 0
        self._feed_generation = 0
        self._recent = RecentEvents()
        # Waits that were polled to join since the list was read last.
        self._joined_by_poll = 0
        self._catching_up: asyncio.Task[None] | None = None

    def adjust(self) -> None:
        """Start to follow events; poll instead if there are too many of them, or the stream is down for too long."""
        waits = len(self._waits)
        if self._task is None:
            known = self._availability
            if waits and (now() >= known.not_before or 0 < known.rate <= self._load.most(waits)):
                self._start()
        elif self._feed is not None and self._feed.live:
            self._load.update(self._feed.streamed)
            if self._load.is_too_much(waits):
                text = "The event stream carries %.0f events a second, too many for so few waits (%d): polling instead"
                log.info(text, self._load.rate, waits)
                self._hold(rate=self._load.rate)
                self._task.cancel()
        if self._down_since is not None and now() > self._down_since + self._timing.patience:
            self._waits.stream_down()

    def _start(self) -> None:
        self._feed = EventFeed(
            self._client,
            EventFilter(types=DECIDING),
            turns=self._turns,
            receive=self._receive,
            on_change=self._on_change,
            timing=self._timing.feed,
        )
        self._down_since, self._availability.rate = now(), 0.0
        self._task = self._tasks.start(self._run(self._feed))

    def _hold(self, *, rate: float = 0.0) -> None:
        """Do not request the stream again for some minutes."""
        self._availability.not_before = now() + jittered(self._timing.retry_events)
        self._availability.rate = rate

    def join(self, watched: WatchedWait, *, polled_in: int | None = None) -> None:
        """Let a wait follow the stream, once every event since its last poll (in generation ``polled_in``) is known."""
        if self._feed is None or not self._waits.stream_is_up or watched.wait.seen is None:
            return
        known_ms = self._recent.complete_since_ms
        if polled_in == self.generation:
            self._waits.follow(watched)
        elif known_ms is not None and known_ms <= self._joins_at_ms(self._feed, watched):
            self._waits.follow(watched, self._recent.of(watched.wait.send_id))
        else:
            self._waits.join(watched)
            if self._catching_up is None or self._catching_up.done():
                self._catching_up = self._tasks.start(self._catch_up())

    async def _run(self, feed: EventFeed) -> None:
        try:
            await feed.run()
        except FluxomailAuthError:
            raise
        except FluxomailError as error:
            log.info("The event stream is not available, polling timelines instead: %s", error)
            self._hold()
        finally:
            self._feed = self._task = self._down_since = None
            self._feed_generation = 0
            self._waits.stream_down()

    def _on_change(self) -> None:
        """The stream went up or down."""
        feed = self._feed
        if feed is None:
            return
        if not feed.live:
            self._down_since = now()
            return
        self._down_since = None
        self._load.start(feed.streamed)
        new = feed.generation != self._feed_generation
        if new:
            self._feed_generation = feed.generation
            self.generation += 1
            self._recent.clear(feed.server_ms(now()))
            self._joined_by_poll = 0
        self._waits.stream_up()
        for watched in self._waits:
            if new or not watched.follows:
                self.join(watched)

    def _receive(self, events: Sequence[FeedEvent]) -> None:
        for received in events:
            if received.event.type in DECIDING:
                self._recent.add(received)
                self._waits.on_event(received)

    def _joins_at_ms(self, feed: EventFeed, watched: WatchedWait) -> int:
        """Return the time since which every event must be known before a wait may follow the stream."""
        return feed.server_ms((watched.wait.seen or 0.0) - CLOCK_MARGIN)

    async def _catch_up(self) -> None:
        """Find out what happened between the last polls of the joining waits and the start of the stream."""
        while self._waits.joining and (feed := self._feed):
            # One read of the list serves all waits that join at about the same time.
            await asyncio.sleep(self._timing.settle)
            if not feed.live:
                continue
            # Those that were polled before count too: waits may come one by one.
            count, generation = self._joined_by_poll + len(self._waits.joining), self.generation
            pages = count // WAITS_PER_PAGE
            try:
                reached_ms = await self._read_list(feed, pages) if pages else feed.server_ms(now())
            except FluxomailAuthError:
                raise
            except Exception as failure:  # noqa: BLE001 - whatever the list holds, the timelines are readable
                error = as_response_error(failure)
                self._turns.on_error(error)
                if not error.permanent:
                    continue
                reached_ms = feed.server_ms(now())
            if generation == self.generation:
                self._joined_by_poll = 0 if pages else count
                for watched in list(self._waits.joining):
                    if reached_ms <= self._joins_at_ms(feed, watched):
                        self._waits.follow(watched, self._recent.of(watched.wait.send_id))
                    else:
                        self._waits.poll(watched)

    async def _read_list(self, feed: EventFeed, pages: int) -> int:
        """Read the list back to the last polls of the joining waits; return the time since which it was read."""
        oldest = min((watched.wait.seen or 0.0 for watched in self._waits.joining), default=now())
        # Somewhat further back than needed: the next waits that join were polled a little earlier or later.
        since_ms = feed.server_ms(max(oldest, now() - LONGEST_BACK) - 2 * CLOCK_MARGIN)
        known_ms, generation = self._recent.complete_since_ms, self.generation
        reached_ms = await feed.read_back(since_ms, pages, partly=False)
        if generation == self.generation and known_ms is not None and known_ms == self._recent.complete_since_ms:
            # Otherwise there were so many events that some were dropped again.
            self._recent.complete_since_ms = min(known_ms, reached_ms)
        return reached_ms
