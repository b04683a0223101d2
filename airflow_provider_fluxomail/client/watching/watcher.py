"""One watcher for all waits of an event loop on one key: few requests, however many waits.

Few waits are looked after by reading their timelines, in turns and within a share of the key's cap. Many follow the
organization's event stream together: each event goes to the wait that it is about, and timelines are read only now and
then, in case the stream has lost one. Where the events cannot be had (402, 403, 404), many waits read timelines too.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import dataclasses
import logging
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from airflow_provider_fluxomail.client.watching.follower import Follower, FollowTiming
from airflow_provider_fluxomail.client.watching.poll_queue import Looks, Watched
from airflow_provider_fluxomail.client.watching.wait import SEEN_AGAIN, TROUBLE, Ending, Wait, now, told_time

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import Response
    from airflow_provider_fluxomail.client.settings import ClientSettings

log = logging.getLogger(__name__)

#: Timelines that are read at once, at most.
READS_AT_ONCE: Final = 4
#: So long after its deadline a wait ends without a last look, if the cap or an outage allows none. Seconds.
LAST_LOOK: Final = 30.0
#: A young wait is looked at after half its age, and not before so many seconds: most mail is delivered soon.
_YOUNGEST: Final = 5.0
#: Reads that may fail in a row before all pause, and the longest pause in seconds.
_FAILURES: Final = 3
_LONGEST_PAUSE: Final = 30.0

BY_EVENTS: Final = "The event stream, which many waits share, tells what happens to the message."
BY_TIMELINES: Final = "The send's timeline is read now and then, within the share of the rate limit that waiting has."


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchTiming:
    """When a watcher does what.

    :param feed_above: more waits than these follow the event stream.
    :param feed_below: fewer than these read timelines again.
    :param reconcile: least seconds between two looks at the timeline of a wait that follows the stream.
    """

    feed_above: int = 25
    feed_below: int = 10
    reconcile: float = 600.0
    follow: FollowTiming = dataclasses.field(default_factory=FollowTiming)


class Watcher:
    """Looks after waits until the last of them has left. Belongs to one event loop.

    :param settings: whose key it uses.
    :param share: the part of the key's cap that it may use.
    :param follow: whether many waits may follow the events.
    :param on_end: told once it takes no more waits.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        share: float = 0.5,
        follow: bool = True,
        timing: WatchTiming | None = None,
        on_end: Callable[[Watcher], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        #: Whether Fluxomail has taken the key at least once.
        self.accepted = False
        #: Whether it takes no more waits.
        self.ended = False
        self._timing = timing or WatchTiming()
        self._follow = follow
        self._on_end = on_end
        self._pacer = Pacer(share=share)
        self._turns = Turns(self._pacer, most=READS_AT_ONCE)
        self._client = AsyncFluxomailClient(settings, on_response=self._answered)
        self._loop = asyncio.get_running_loop()
        self._waits: dict[str, list[Watched]] = {}
        self._count = 0
        self._looks = Looks()
        self._planned = asyncio.Event()
        self._failures = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: tuple[int, bool] | None = None
        self._follower = Follower(
            self._client,
            self._turns,
            self._waits,
            timing=self._timing.follow,
            start=self._start,
            look=lambda watched: self._plan(watched, now()),
            covered=self._plan_next,
            on_mode=self._mode_changed,
            on_error=self._failed,
        )
        self._main: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def watch(
        self, wait: Wait, *, interval: float, tell: Callable[[int, str], None], hold: float = 0.0
    ) -> Ending:
        """Look after a wait until it ends; may be cancelled.

        :param interval: seconds between two looks at its timeline, where those are read.
        :param tell: writes to the log of whoever waits.
        :param hold: epoch seconds before which its timeline is not read.
        :raises FluxomailAuthError: the key is not accepted (any more).
        """
        if self.ended:
            raise RuntimeError("this watcher has ended")
        watched = Watched(wait, interval, self._loop)
        self._join(watched, hold)
        try:
            span = f"since {told_time(wait.started)} and until {told_time(wait.deadline)}"
            tell(logging.INFO, f"Waiting for send {wait.send_id} to be {wait.target}, {span}. {self._mode}")
            while watched.ending is None:
                await watched.woken
                watched.woken = self._loop.create_future()
                notes, watched.notes = watched.notes, ()
                for level, text in notes:
                    tell(level, text)
        finally:
            self._leave(watched)
            if self.ended and self._main is not None:
                # Nothing is left behind when the last one goes, not even for a moment.
                await asyncio.shield(self._main)
        if isinstance(watched.ending, FluxomailError):
            # A copy: a thousand waits raising the same one would make its traceback grow.
            raise copy.copy(watched.ending)
        return watched.ending

    @property
    def _mode(self) -> str:
        return BY_EVENTS if self._follower.counts else BY_TIMELINES

    def _all(self) -> Iterator[Watched]:
        return (watched for waits in self._waits.values() for watched in waits)

    def _join(self, watched: Watched, hold: float) -> None:
        self._waits.setdefault(watched.wait.send_id, []).append(watched)
        self._count += 1
        if self._main is None:
            # Not before: a watcher that nobody came to has nothing to end.
            self._main = self._start(self._run())
        self._choose_mode()
        if watched.wait.seen is None:
            self._plan(watched, hold)
        else:
            self._plan_next(watched, hold)
            self._follower.join([watched])

    def _leave(self, watched: Watched) -> None:
        self._looks.forget(watched)
        waits = self._waits[watched.wait.send_id]
        waits.remove(watched)
        if not waits:
            del self._waits[watched.wait.send_id]
        self._count -= 1
        self._looks.sweep(self._count)
        if watched.ending is None:
            # Cancelled: what is under way has nobody to tell.
            watched.ending = _LEFT
        if self._count == 0:
            self._end()

    def _end(self, error: FluxomailError | None = None) -> None:
        """Take no more waits; those that are left end with ``error``."""
        if not self.ended:
            self.ended = True
            self._on_end(self)
            # Not cancelled: whoever ends the whole loop does that, and twice would break the closing off.
            self._over.set()
            self.settings.observer.watching(self, 0, by_events=False)
        if error is not None:
            for watched in self._all():
                watched.end(error)

    def _choose_mode(self) -> None:
        """Follow the events or not, as many as there are."""
        if self._follow and self._count > self._timing.feed_above:
            self._follower.turn_on()
        elif self._count < self._timing.feed_below:
            self._follower.turn_off()

    def _mode_changed(self) -> None:
        if self.ended:
            return
        for watched in self._all():
            watched.note(logging.INFO, self._mode)
            if not self._follower.counts:
                self._plan(watched, now() + random.uniform(0, watched.interval))

    async def _run(self) -> None:
        """Work until the end, then close everything."""
        try:
            self._start(self._look_at_all())
            self._start(self._tick())
            await self._over.wait()
        finally:
            pending = {task for task in self._tasks if task is not asyncio.current_task()}
            while pending:
                for task in pending:
                    task.cancel()
                # Again after a second: anyio 4.10 and 4.13 were seen to lose a cancellation.
                _, pending = await asyncio.wait(pending, timeout=1.0)
            await self._client.close()

    async def _look_at_all(self) -> None:
        """Give each wait that is due its look."""
        while True:
            self._planned.clear()
            due = self._looks.next_due(now())
            if due is not None and due <= now():
                await self._turns.acquire()
                if watched := self._looks.take(now()):
                    self._start(self._look(watched))
                else:
                    self._turns.release()
                continue
            try:
                # In pieces: a machine that sleeps stops the loop's clock, not the calendar's.
                async with asyncio.timeout(None if due is None else min(due - now(), 60.0)):
                    await self._planned.wait()
            except TimeoutError:
                pass

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            moment = now()
            due = self._looks.next_due(moment)
            if due is not None and due <= moment:
                # The cap, or an outage, holds them.
                for watched in [one for one in self._all() if moment > one.wait.deadline + LAST_LOOK]:
                    watched.end(watched.wait.timed_out())
            self._follower.check()
            self._choose_mode()
            self._looks.sweep(self._count)
            self._tell()

    def _tell(self) -> None:
        """Say how many waits there are, if it has changed: not at each of a thousand that come at once."""
        state = self._count, self._follower.counts
        if state != self._told and not self.ended:
            self._told = state
            self.settings.observer.watching(self, self._count, by_events=self._follower.counts)

    async def _look(self, watched: Watched) -> None:
        """Read one timeline, within a turn that was taken."""
        wait = watched.wait
        # What happens from here on the events tell, be the stream broken: what it misses is read from the list.
        generation = self._follower.generation
        started, trouble = now(), wait.trouble
        try:
            timeline = await self._client.get_timeline(wait.send_id, max_attempts=1)
        except FluxomailError as error:
            self._failed(error)
            ending = None if isinstance(error, FluxomailAuthError) else wait.met(error, now())
            if wait.trouble_is_new:
                watched.note(logging.WARNING, TROUBLE % error)
        else:
            self._failures = 0
            ending = wait.saw(timeline)
            wait.seen, watched.generation, watched.joining = started, generation, False
            if trouble:
                watched.note(logging.INFO, SEEN_AGAIN)
        finally:
            self._turns.release()
        if ending is None and now() >= wait.deadline:
            ending = wait.timed_out()
        if ending is not None:
            watched.end(ending)
        elif watched.ending is None:
            self._plan_next(watched)

    def _plan(self, watched: Watched, due: float) -> None:
        self._looks.plan(watched, max(due, now()))
        self._planned.set()

    def _plan_next(self, watched: Watched, hold: float = 0.0) -> None:
        interval = min(watched.interval, max(_YOUNGEST, watched.age(now()) / 2))
        delay = watched.wait.delay(interval, now())
        if self._follower.covers(watched):
            delay = max(self._timing.reconcile, watched.age(now()) / 6) * random.uniform(0.8, 1.2)
        self._plan(watched, max(hold, now() + delay))

    def _answered(self, response: Response) -> None:
        self._pacer.on_response(response)
        self.accepted = self.accepted or (response.status != 401 and response.status < 500)

    def _failed(self, error: FluxomailError) -> None:
        """Pause after failures: what the server asks for holds all, and a broken server is not hammered."""
        if isinstance(error, FluxomailAuthError):
            self._end(error)
            return
        pause = error.retry_after or 0.0
        if not error.permanent:
            self._failures += 1
            over = min(10, self._failures - _FAILURES)
            if over > 0:
                pause = max(pause, min(_LONGEST_PAUSE, 2.0**over / 2) * random.uniform(0.5, 1.0))
        self._turns.hold(pause)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in no context of a trigger's: its lines belong to no task's log."""
        task = self._loop.create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Whatever it is: no wait must hang because of it.
            log.error("The watcher of waits failed", exc_info=error)
            self._end(FluxomailError(f"the watcher of waits failed: {type(error).__name__}: {error}"))


_LEFT: Final = FluxomailError("nobody waits any more")
