"""Whose turn it is: of many waits under one cap, which is looked at next.

A wait is due when its interval is over. Where more are due than the cap allows, young waits come before old ones: most
mail is delivered within a minute, and who has waited for a day does not mind ten minutes. Nobody waits for ever, as the
time for which somebody has been due counts too.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.models import Event
    from airflow_provider_fluxomail.client.watching.wait import Ending, Wait

#: A wait is young for so long, in seconds; from then on it yields to younger ones in proportion to its age.
YOUNG: Final = 60.0
#: How many intervals an old wait yields at most.
MOST_YIELDED: Final = 10.0
#: Forgotten plans are swept out once there are so many more plans than waits.
_SWEEP: Final = 256


class Watched:
    """One wait that a watcher looks after.

    :param wait: what is waited for.
    :param interval: seconds between looks.
    """

    __slots__ = ("due", "ending", "events", "generation", "interval", "joining", "notes", "settling", "wait", "woken")

    def __init__(self, wait: Wait, interval: float, loop: asyncio.AbstractEventLoop) -> None:
        self.wait = wait
        self.interval = interval
        #: Epoch seconds of the next look that is planned; 0 if none is.
        self.due = 0.0
        #: Generation of the feed that has told all since the last look; 0 if none has.
        self.generation = 0
        #: Whether the list is still to be asked for what came before the feed.
        self.joining = False
        #: What the feed has told and nobody has judged yet.
        self.events: tuple[Event, ...] = ()
        self.settling = False
        self.ending: Ending | FluxomailError | None = None
        #: Lines for the log of whoever waits: level, text.
        self.notes: tuple[tuple[int, str], ...] = ()
        self.woken = loop.create_future()

    def note(self, level: int, text: str) -> None:
        """Give whoever waits a line for its log."""
        self.notes = (*self.notes, (level, text))
        self.wake()

    def end(self, ending: Ending | FluxomailError) -> None:
        """End the wait, once."""
        if self.ending is None:
            self.ending = ending
            self.wake()

    def wake(self) -> None:
        """Let whoever waits go on."""
        if not self.woken.done():
            self.woken.set_result(None)

    def age(self, now: float) -> float:
        """Seconds since the wait's first look."""
        return max(0.0, now - self.wait.started)


class Looks:
    """The looks that are planned, and those that are due."""

    def __init__(self) -> None:
        self._planned: list[tuple[float, int, Watched]] = []
        self._due: list[tuple[float, int, Watched]] = []
        # Heaps compare what follows; no two are alike.
        self._number = itertools.count()

    def plan(self, watched: Watched, due: float) -> None:
        """Plan the next look of a wait, in place of the one that was planned; never after its deadline.

        :param due: epoch seconds.
        """
        due = min(due, watched.wait.deadline)
        if watched.due != due:
            watched.due = due
            heapq.heappush(self._planned, (due, next(self._number), watched))

    def forget(self, watched: Watched) -> None:
        """Plan no look of it any more."""
        watched.due = 0.0

    def take(self, now: float) -> Watched | None:
        """Return the wait that is looked at next, ``None`` if none is due."""
        self._sort_out(now)
        while self._due:
            watched = heapq.heappop(self._due)[-1]
            if 0 < watched.due <= now:
                watched.due = 0.0
                return watched
        return None

    def next_due(self, now: float) -> float | None:
        """Return when the next look is due, epoch seconds, ``None`` if none is planned."""
        self._sort_out(now)
        while self._due and not 0 < self._due[0][-1].due <= now:
            heapq.heappop(self._due)
        if self._due:
            return now
        return self._planned[0][0] if self._planned else None

    def sweep(self, waits: int) -> None:
        """Let go of the plans of waits that have ended.

        :param waits: how many there are.
        """
        if len(self._planned) + len(self._due) > 2 * waits + _SWEEP:
            self._planned = [item for item in self._planned if item[0] == item[-1].due]
            self._due = [item for item in self._due if item[-1].due > 0]
            heapq.heapify(self._planned)
            heapq.heapify(self._due)

    def _sort_out(self, now: float) -> None:
        """Move what has become due to where age counts."""
        while self._planned and (self._planned[0][0] <= now or self._planned[0][0] != self._planned[0][-1].due):
            due, _, watched = heapq.heappop(self._planned)
            if due == watched.due:
                heapq.heappush(self._due, (_rank(watched, now), next(self._number), watched))


def _rank(watched: Watched, now: float) -> float:
    """Lower is sooner: when it was due, and later the older it is. The last look of a wait comes first."""
    if now >= watched.wait.deadline:
        return 0.0
    yielded = min(MOST_YIELDED, watched.age(now) / YOUNG)
    return watched.due + watched.interval * yielded if yielded > 1 else watched.due
