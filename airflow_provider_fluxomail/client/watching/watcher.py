"""One watcher for all waits of an event loop on one key: few requests, however many waits.

All waits follow the organization's event stream together, and their timelines are polled only rarely, in case the
stream has lost an event. Where the events are not available (402, 403, 404), or are too many for the number of waits,
the timelines are polled, within a share of the key's rate limit. :mod:`.watched_wait` has the states of a wait.

When the last wait has left, the watcher keeps the stream for a while: single waits come and go.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client import defaults
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import (
    FluxomailAuthError,
    FluxomailError,
    FluxomailWatcherError,
    as_response_error,
)
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from airflow_provider_fluxomail.client.watching.background import BackgroundTasks
from airflow_provider_fluxomail.client.watching.event_follower import EventFollower
from airflow_provider_fluxomail.client.watching.event_load import Availability
from airflow_provider_fluxomail.client.watching.wait import (
    CANNOT_READ,
    READABLE_AGAIN,
    Wait,
    WaitOutcome,
    format_time,
    now,
)
from airflow_provider_fluxomail.client.watching.watched_wait import State, WatchedWait, WatchedWaits, WatchTiming

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import Response
    from airflow_provider_fluxomail.client.settings import ClientSettings

log = logging.getLogger(__name__)

#: Requests in flight at once, at most.
REQUESTS_AT_ONCE: Final = 4


class Watcher:
    """Watches waits, until there has been none for a while. Belongs to one event loop.

    ::

        ending = await Watcher(settings).watch(Wait("s1", started=now(), deadline=now() + 60), interval=30, log=print)

    :param share: the part of the key's rate limit that it may use.
    :param follow: whether waits may follow the event stream.
    :param availability: of the stream, as far as an earlier watcher has found out; the watcher keeps it up to date.
    :param on_end: called once it accepts no more waits.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        share: float = defaults.POLL_SHARE,
        follow: bool = True,
        availability: Availability | None = None,
        timing: WatchTiming | None = None,
        on_end: Callable[[Watcher], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        #: Whether Fluxomail has accepted the key at least once.
        self.accepted = False
        #: Whether it accepts no more waits.
        self.ended = False
        self.availability = (availability or Availability()) if follow else Availability(not_before=math.inf)
        self._timing = timing or WatchTiming()
        self._on_end = on_end
        self._turns = Turns(Pacer(share=share), most=REQUESTS_AT_ONCE)
        self._client = AsyncFluxomailClient(settings, on_response=self._on_response)
        self._tasks = BackgroundTasks(self._on_failure)
        self._waits = WatchedWaits(self._timing)
        self._follower = EventFollower(
            self._client,
            self._turns,
            self._waits,
            self._tasks,
            timing=self._timing,
            availability=self.availability,
        )
        self._lingers = self._timing.linger > 0
        # Monotonic seconds at which it ends if there is still no wait.
        self._lingers_until = math.inf
        self._reported: tuple[int, bool] | None = None
        self._main: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def watch(
        self, wait: Wait, *, interval: float, log: Callable[[int, str], None], not_before: float = 0.0
    ) -> WaitOutcome:
        """Watch a wait until it ends; may be cancelled.

        :param interval: seconds between polls of its timeline.
        :param log: writes a line to the log of the waiting task: level, text.
        :param not_before: epoch seconds before which its timeline is not polled.
        :raises FluxomailAuthError: the key is not accepted.
        :raises FluxomailWatcherError: this watcher has crashed; another one can continue the wait.
        """
        if self.ended:
            raise RuntimeError("this watcher has ended")
        watched = WatchedWait(wait, interval, log, not_before)
        self._waits.add(watched)
        self._lingers_until = math.inf
        try:
            if self._main is None:
                # Only now: a watcher without waits has nothing to close.
                self._main = self._tasks.start(self._run())
            self._follower.adjust()
            self._follower.join(watched)
            span = f"since {format_time(wait.started)} and until {format_time(wait.deadline)}"
            mode = self._waits.mode(watched)
            log(logging.INFO, f"Waiting for send {wait.send_id} to be {wait.target}, {span}. {mode}")
            ending = await watched.until_ended()
        finally:
            self._waits.remove(watched)
            if not len(self._waits):
                self._on_no_waits()
            if self.ended and self._main is not None:
                # When it returns, everything is closed.
                await asyncio.shield(self._main)
        if isinstance(ending, FluxomailError):
            # A copy: a thousand waits that raise the same one would make its traceback grow.
            raise copy.copy(ending)
        assert ending is not None, "only a cancelled wait has no ending"
        return ending

    def retire(self) -> None:
        """Do not wait for more waits: end with the last one, or at once if there is none."""
        self._lingers = False
        if not len(self._waits):
            self._end()

    def _on_no_waits(self) -> None:
        """Keep the stream for a while if another wait may come.

        None comes if nothing else runs on the event loop: it is about to end, as in ``dag.test()``. Any other one that
        ends cancels its tasks, and with them this watcher.
        """
        others = asyncio.all_tasks() - self._tasks.running - {asyncio.current_task()}
        if self._lingers and others and not self.ended:
            self._lingers_until = time.monotonic() + self._timing.linger
            self._report()
        else:
            self._end()

    def _end(self, error: FluxomailError | None = None) -> None:
        """Accept no more waits; the remaining ones end with ``error``."""
        if not self.ended:
            self.ended = True
            self._on_end(self)
            # Not cancelled: when the event loop ends, its runner does that, and twice would interrupt the closing.
            self._over.set()
            self.settings.observer.watching(self, 0, by_events=False)
        for watched in list(self._waits):
            self._waits.end(watched, error)

    async def _run(self) -> None:
        """Work until the end, then close everything."""
        try:
            self._tasks.start(self._poll_all())
            self._tasks.start(self._tick())
            await self._over.wait()
        finally:
            await self._tasks.cancel()
            await self._client.close()

    async def _poll_all(self) -> None:
        """Poll each wait that is due, in the order of the queue."""
        while True:
            await self._waits.queue.until_due()
            await self._turns.acquire()
            if watched := self._waits.queue.pop():
                self._tasks.start(self._poll(watched))
            else:
                self._turns.release()

    async def _poll(self, watched: WatchedWait) -> None:
        """Read one timeline, within a turn that was acquired."""
        wait = watched.wait
        # The stream has every event from here on; should it break, what it misses is read from the list.
        generation, began, error_before = self._follower.generation, now(), wait.last_error
        try:
            within = wait.poll_seconds(began)
            timeline = await self._client.get_timeline(wait.send_id, max_attempts=1, within=within)
            ending = wait.on_timeline(timeline)
        except FluxomailAuthError:
            raise
        except Exception as failure:  # noqa: BLE001 - one response must not end the other waits
            error = as_response_error(failure)
            self._turns.on_error(error)
            ending = wait.on_error(error, now())
            if wait.error_is_new:
                watched.note(logging.WARNING, CANNOT_READ % error)
        else:
            self._turns.on_success()
            wait.seen = began
            if error_before:
                watched.note(logging.INFO, READABLE_AGAIN)
        finally:
            self._turns.release()
        if ending is None and now() >= wait.deadline:
            ending = wait.timed_out()
        if ending is not None:
            self._waits.end(watched, ending)
        if watched.state is not State.ENDED:
            if wait.last_error is None:
                self._follower.join(watched, polled_in=generation)
            if not watched.due:
                self._waits.plan_next(watched)

    async def _tick(self) -> None:
        while time.monotonic() < self._lingers_until:
            await asyncio.sleep(1.0)
            moment = now()
            if self._waits.queue.is_due(moment):
                # The rate limit, or an outage, delays the polls.
                for watched in list(self._waits):
                    if moment > watched.wait.deadline + self._timing.last_poll:
                        self._waits.end(watched, watched.wait.timed_out())
            self._follower.adjust()
            self._report()
        self._end()

    def _report(self) -> None:
        """Report the number of waits if it has changed: once, not for each of a thousand that start together."""
        state = len(self._waits), self._waits.stream_is_up
        if state != self._reported and not self.ended:
            self._reported = state
            self.settings.observer.watching(self, state[0], by_events=state[1])

    def _on_response(self, response: Response) -> None:
        self._turns.pacer.on_response(response)
        self.accepted = self.accepted or (response.status != 401 and response.status < 500)

    def _on_failure(self, error: BaseException) -> None:
        """End all waits with the error of a background task, so that none hangs. Their triggers start a new watcher."""
        if isinstance(error, FluxomailAuthError):
            self._end(error)
        else:
            log.error("The watcher of waits failed", exc_info=error)
            self._end(FluxomailWatcherError(f"the watcher of waits failed: {type(error).__name__}"))
