"""Poll queue: which pending wait is polled next when the rate limit does not allow polling all that are due.

A wait is due when its interval has passed. New waits go first: most email is delivered within a minute, and a wait that
has lasted a day can spare ten minutes. No wait starves, because the time for which it has been due counts as well.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import Final, Generic, Protocol, TypeVar

from airflow_provider_fluxomail.client.watching.wait import Wait, now

#: A wait is new for this long, in seconds; from then on it gives way to newer ones in proportion to its age.
NEW: Final = 60.0
#: The most intervals by which an old wait gives way.
MOST_YIELDED: Final = 10.0
#: Outdated entries are removed once there are this many more entries than waits.
_OUTDATED: Final = 256


class Polled(Protocol):
    """What the queue reads and writes of a wait, see :class:`.WatchedWait`."""

    wait: Wait
    interval: float
    due: float

    @property
    def age(self) -> float: ...


W = TypeVar("W", bound=Polled)


class PollQueue(Generic[W]):
    """The planned and the due polls: at most one for each wait."""

    def __init__(self) -> None:
        # A poll moves from the first heap, by time, to the second, by rank, when it becomes due. Entries whose time is
        # no longer the wait's ``due`` are outdated. The number keeps heaps from comparing waits.
        self._planned: list[tuple[float, int, W]] = []
        self._due: list[tuple[float, int, W]] = []
        self._number = itertools.count()
        self._changed = asyncio.Event()

    def plan(self, watched: W, due: float) -> None:
        """Plan the next poll of a wait, at the latest at its deadline. Replaces an earlier plan."""
        due = min(max(due, now()), watched.wait.deadline)
        if watched.due != due:
            watched.due = due
            heapq.heappush(self._planned, (due, next(self._number), watched))
            self._changed.set()

    def remove(self, watched: W, waits: int) -> None:
        """Cancel the poll of a wait that was removed; ``waits`` is the number of remaining waits."""
        watched.due = 0.0
        if len(self._planned) + len(self._due) > 2 * waits + _OUTDATED:
            self._planned = [item for item in self._planned if item[0] == item[-1].due]
            self._due = [item for item in self._due if item[-1].due > 0]
            heapq.heapify(self._planned)
            heapq.heapify(self._due)

    def pop(self) -> W | None:
        """Return the wait to poll next, ``None`` if none is due."""
        moment = now()
        if not self.is_due(moment):
            return None
        watched = heapq.heappop(self._due)[-1]
        watched.due = 0.0
        return watched

    def is_due(self, moment: float) -> bool:
        """Return whether a poll is due."""
        while self._planned and (self._planned[0][0] <= moment or self._planned[0][0] != self._planned[0][-1].due):
            due, _, watched = heapq.heappop(self._planned)
            if due == watched.due:
                heapq.heappush(self._due, (_rank(watched, moment), next(self._number), watched))
        while self._due and not 0 < self._due[0][-1].due <= moment:
            heapq.heappop(self._due)
        return bool(self._due)

    async def until_due(self) -> None:
        """Return once a poll is due."""
        while not self.is_due(moment := now()):
            self._changed.clear()
            try:
                # At most a minute: while a machine sleeps, the event loop's clock stops, but the wall clock does not.
                async with asyncio.timeout(min(self._planned[0][0] - moment, 60.0) if self._planned else None):
                    await self._changed.wait()
            except TimeoutError:
                pass


def _rank(watched: Polled, moment: float) -> float:
    """Return the sort key: when the poll was due, later for older waits. Last polls, at the deadline, come first."""
    if moment >= watched.wait.deadline:
        return 0.0
    yielded = min(MOST_YIELDED, watched.age / NEW)
    return watched.due + watched.interval * yielded if yielded > 1 else watched.due
