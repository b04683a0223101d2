"""How many events a second the stream carries, and whether that is worth it for the number of waits.

An event costs its reader 0.3 KB and 0.03 ms of CPU time, whether a wait is about it or not; polling a wait costs
2 KB and 3 ms a minute. ``docs/reference/benchmarks.md`` has the figures.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_fluxomail.client.watching.watched_wait import WatchTiming

#: A stream is left only at this many times the events for which it is opened. Waits come and go, and it would be opened
#: and closed for each of them.
_LEFT_AT: Final = 2.0


@dataclasses.dataclass
class Availability:
    """What is known of a key's event stream, across the watchers that follow it one after the other.

    :param not_before: epoch seconds before which the stream is not requested, or not requested again.
    :param rate: events a second when it carried too many for the waits; 0 if that was not the reason.
    """

    not_before: float = 0.0
    rate: float = 0.0


class EventLoad:
    """Measures the events of a stream in windows.

    ::

        load = EventLoad(WatchTiming())
        load.start(streamed=0)
        load.update(streamed=12_000)  # every second
        load.rate  # events a second in the last window
        load.is_too_much(waits=3)

    :param clock: seconds; never goes back.
    """

    def __init__(self, timing: WatchTiming, clock: Callable[[], float] = time.monotonic) -> None:
        self._timing = timing
        self._clock = clock
        #: Events a second in the last whole window; 0 before there is one.
        self.rate = 0.0
        self._began = 0.0
        self._before = 0
        self._warm = False

    def most(self, waits: int) -> float:
        """Return how many events a second this many waits are worth."""
        return self._timing.events_a_second + self._timing.events_per_wait * waits

    def is_too_much(self, waits: int) -> bool:
        """Whether the stream carries so many more events that it is not worth staying on it."""
        return self.rate > _LEFT_AT * self.most(waits)

    def start(self, streamed: int) -> None:
        """Start to measure: the stream was opened. Its first window may repeat what was missed, and does not count."""
        self._began, self._before, self._warm, self.rate = self._clock(), streamed, False, 0.0

    def update(self, streamed: int) -> None:
        """Take notice of the number of events that were streamed so far."""
        passed = self._clock() - self._began
        if passed >= self._timing.load_window:
            self.rate = (streamed - self._before) / passed if self._warm else 0.0
            self._began, self._before, self._warm = self._clock(), streamed, True
