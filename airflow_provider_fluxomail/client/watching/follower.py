"""What the organization's event stream tells of the waits that follow it.

Nothing is judged by halves: a wait counts on the stream only from when every event since somebody last looked at its
timeline is known, from those kept, or from the list.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import dataclasses
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.event_types import DECIDING
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.client.models import Timeline, in_order
from airflow_provider_fluxomail.client.watching.event_feed import Feed, FeedTiming
from airflow_provider_fluxomail.client.watching.recent_events import RecentEvents
from airflow_provider_fluxomail.client.watching.wait import now

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
    from airflow_provider_fluxomail.client.events import FeedEvent
    from airflow_provider_fluxomail.client.pacing import Turns
    from airflow_provider_fluxomail.client.watching.poll_queue import Watched

log = logging.getLogger(__name__)

#: The list is asked for what came so long before a wait's last look: clocks of machines differ. Seconds.
CLOCK_MARGIN: Final = 30.0
#: The list is not asked for what is older; a timeline tells the same in one request. Seconds.
LONGEST_BACK: Final = 3600.0
#: Pages of the list that are read for those who join: at least so many, and one for so many waits.
_LEAST_PAGES: Final = 10
_WAITS_PER_PAGE: Final = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class FollowTiming:
    """When a follower does what. In seconds.

    :param settle: from an event to its judgement: a sibling of it may be right behind.
    :param patience: without the stream after which nobody counts on it.
    :param ask_again: after which the events are asked for again where they could not be had.
    :param feed: of the event stream.
    """

    settle: float = 0.2
    patience: float = 60.0
    ask_again: float = 600.0
    feed: FeedTiming = dataclasses.field(default_factory=FeedTiming)


class Follower:
    """Follows the events while it is on, and judges the waits that they are about.

    :param waits: those who wait, by the id of their send.
    :param start: runs something as a task.
    :param look: reads a wait's timeline soon; what the events tell of it is not enough.
    :param covered: told of each wait that counts on the events from now on.
    :param on_mode: told when waits begin and cease to count on the events.
    :param on_error: told what went wrong with a request, and whether the key was refused.
    """

    def __init__(
        self,
        client: AsyncFluxomailClient,
        turns: Turns,
        waits: Mapping[str, Sequence[Watched]],
        *,
        timing: FollowTiming,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        look: Callable[[Watched], None],
        covered: Callable[[Watched], None],
        on_mode: Callable[[], None],
        on_error: Callable[[FluxomailError], None],
    ) -> None:
        self._client = client
        self._turns = turns
        self._waits = waits
        self._timing = timing
        self._start = start
        self._look = look
        self._covered = covered
        self._on_mode = on_mode
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._feed: Feed | None = None
        self._not_before = 0.0
        self._lost_at: float | None = None
        #: True while waits can count on the events.
        self.counts = False
        #: Tells one unbroken knowledge of the events from the next; 0 while there is none.
        self.generation = 0
        self._recent = RecentEvents()
        self._joining: list[Watched] = []
        self._settling: collections.deque[tuple[float, Watched]] = collections.deque()

    def turn_on(self) -> None:
        """Begin to follow, unless the events could not be had a while ago."""
        if self._task is None and now() >= self._not_before:
            self._feed = Feed(
                self._client,
                EventFilter(types=DECIDING),
                turns=self._turns,
                receive=self._receive,
                timing=self._timing.feed,
            )
            self._feed.on_change = self._feed_changed
            self._lost_at = now()
            self._task = self._start(self._follow(self._feed))

    def turn_off(self) -> None:
        """Follow no more."""
        if self._task is not None:
            self._task.cancel()

    def covers(self, watched: Watched) -> bool:
        """True when the events tell all that happens to a wait."""
        return self.counts and not watched.joining and 0 < watched.generation == self.generation

    def join(self, waits: Iterable[Watched]) -> None:
        """Let waits that were looked at before count on the events, once nothing is missing in between."""
        feed = self._feed
        if feed is None or not self.generation:
            return
        for watched in waits:
            if watched.wait.seen is None or watched.joining:
                continue
            known = self._recent.complete_since_ms
            if known is not None and known <= feed.server_ms(watched.wait.seen - CLOCK_MARGIN):
                self._cover(watched)
            else:
                watched.joining = True
                if not self._joining:
                    self._start(self._catch_up(feed))
                self._joining.append(watched)

    def check(self) -> None:
        """Give up counting on a stream that is away for too long. To be called now and then."""
        if self._lost_at is not None and now() > self._lost_at + self._timing.patience:
            self._count_no_more()

    async def _follow(self, feed: Feed) -> None:
        try:
            await feed.run()
        except FluxomailAuthError as error:
            self._on_error(error)
        except FluxomailError as error:
            log.info("The events cannot be followed, timelines are read instead: %s", error)
            self._not_before = now() + self._timing.ask_again * random.uniform(0.8, 1.2)
        finally:
            self._feed = self._task = self._lost_at = None
            self.generation = 0
            self._joining.clear()
            self._count_no_more()

    def _feed_changed(self) -> None:
        feed = self._feed
        if feed is None:
            return
        if not feed.live:
            self._lost_at = now()
            return
        self._lost_at = None
        if feed.generation != self.generation:
            self.generation = feed.generation
            self._recent.clear(feed.server_ms(now()))
        if not self.counts:
            self.counts = True
            self._on_mode()
        self.join([watched for watched in self._all() if watched.generation != self.generation])

    def _count_no_more(self) -> None:
        if self.counts:
            self.counts = False
            self._joining.clear()
            for watched in self._all():
                watched.joining = False
            self._on_mode()

    def _all(self) -> Iterable[Watched]:
        return (watched for waits in self._waits.values() for watched in waits)

    def _cover(self, watched: Watched) -> None:
        watched.joining, watched.generation = False, self.generation
        watched.events = self._recent.of(watched.wait.send_id)
        self._settle_soon(watched)
        self._covered(watched)

    async def _catch_up(self, feed: Feed) -> None:
        """Read from the list what came between the last looks of those who join and the stream."""
        while self._joining and feed is self._feed:
            # Those who join together are read for together.
            await asyncio.sleep(self._timing.settle)
            if not feed.live:
                continue
            joining, generation = len(self._joining), self.generation
            oldest = min((watched.wait.seen or 0.0 for watched in self._joining), default=now())
            # Somewhat more than needed: whoever joins next was looked at a little earlier or later.
            since_ms = feed.server_ms(max(oldest, now() - LONGEST_BACK) - 2 * CLOCK_MARGIN)
            try:
                reached_ms = await feed.read_back(since_ms, pages=max(_LEAST_PAGES, joining // _WAITS_PER_PAGE))
            except FluxomailError as error:
                self._on_error(error)
                if not error.permanent:
                    continue
                reached_ms = feed.server_ms(now())
            if generation == self.generation:
                known = self._recent.complete_since_ms
                self._recent.complete_since_ms = reached_ms if known is None else min(known, reached_ms)
                self._join_listed(feed, reached_ms)

    def _join_listed(self, feed: Feed, reached_ms: int) -> None:
        joined, self._joining = self._joining, []
        for watched in joined:
            if watched.ending is None and watched.joining:
                if watched.wait.seen and reached_ms <= feed.server_ms(watched.wait.seen - CLOCK_MARGIN):
                    self._cover(watched)
                else:
                    watched.joining = False
                    self._look(watched)

    def _receive(self, events: Sequence[FeedEvent]) -> None:
        for told in events:
            if told.event.type in DECIDING:
                self._recent.add(told)
                for watched in self._waits.get(told.send_id, ()):
                    watched.events = (*watched.events, told.event)
                    self._settle_soon(watched)

    def _settle_soon(self, watched: Watched) -> None:
        if watched.events and not watched.settling and watched.ending is None:
            watched.settling = True
            if not self._settling:
                self._loop.call_later(self._timing.settle, self._settle, context=contextvars.Context())
            self._settling.append((self._loop.time() + self._timing.settle, watched))

    def _settle(self) -> None:
        """Judge what the events have told a while ago."""
        while self._settling and self._settling[0][0] <= self._loop.time() + 0.01:
            watched = self._settling.popleft()[1]
            watched.settling = False
            if watched.ending is None and not watched.joining:
                events, watched.events = in_order(watched.events), ()
                if not self.covers(watched):
                    # Something may be missing before it: the timeline knows.
                    self._look(watched)
                elif ending := watched.wait.saw(Timeline(send_id=watched.wait.send_id, events=events)):
                    watched.end(ending)
        if self._settling:
            self._loop.call_at(self._settling[0][0], self._settle, context=contextvars.Context())
