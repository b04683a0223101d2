"""The states of a watched wait, and what moves it from one to the next.

::

                     every event since the last poll is known
             ┌────────────────────────────────────────────────────────┐
             │                                                        ▼   an event
          POLLED ──► JOINING ── list read, or poll succeeded ──► FOLLOWING ──────────► SETTLING
           ▲ ▲  stream  │ ▲                                        │  │  ▲               │ │
           │ │  is up   │ └── stream is up after an unclosed gap ──┘  │  └── undecided ──┘ │
           │ └──────────┘                                             │                    │
           │   list does not reach back                               │                    │
           └────────────────── stream is down, or given up ───────────┴────────────────────┘

          any ──► ENDED   an event or a poll decides, the deadline passes, the caller leaves, the watcher ends

POLLED
    The timeline is polled. An event of the stream only brings the next poll forward: others may be missing before it.
JOINING
    Polled as before, while the list is read for what happened between the last poll and the start of the stream.
FOLLOWING
    Every event since the last poll is known and the next ones come on the stream. Polled rarely, in case one is lost.
SETTLING
    As FOLLOWING, with an event that is judged after a short delay: an earlier one may come right after it.
ENDED
    The wait has its outcome.

The path of an event: :class:`.EventFeed` reads it from the stream; :class:`.EventFollower` keeps it and passes it to
:meth:`WatchedWaits.on_event`, which moves the wait to SETTLING; :meth:`.Wait.on_timeline` judges it;
:meth:`WatchedWaits.end` wakes :meth:`.Watcher.watch`, and that returns the outcome to the task's trigger.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import enum
import logging
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.models import Event, Timeline, in_order
from airflow_provider_fluxomail.client.retries import jittered
from airflow_provider_fluxomail.client.timeline import judge
from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming
from airflow_provider_fluxomail.client.watching.poll_queue import PollQueue
from airflow_provider_fluxomail.client.watching.wait import now

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.events import FeedEvent
    from airflow_provider_fluxomail.client.watching.wait import Wait, WaitOutcome

FOLLOWING_EVENTS: Final = "Following the organization's event stream."
POLLING: Final = "Polling the send's timeline every %g s, within poll_share of the rate limit."
#: Events of a wait that are kept until they are judged; of more, only the one that decides so far is.
MOST_EVENTS: Final = 100
#: New waits are polled sooner: after half their age, but at least this many seconds apart.
_LEAST_GAP: Final = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchTiming:
    """Thresholds and intervals of a watcher. Times in seconds.

    :param linger: how long a watcher without waits keeps the stream: the next wait then costs no request.
    :param events_a_second: up to so many events, with what ``events_per_wait`` adds, the stream is worth following. At
        more than twice as many it is left, and the waits are polled.
    :param events_per_wait: added to ``events_a_second`` for each wait.
    :param load_window: the time in which events are counted for that.
    :param reconcile: least time between two polls of a wait that follows the stream.
    :param settle: from receiving an event to judging it: an earlier one may come right after it.
    :param patience: for how long the stream may be down before its waits are polled.
    :param retry_events: time until a stream is requested again that is not available (402, 403, 404), is refused again
        and again, or carried too many events.
    :param last_poll: how long after its deadline a wait ends without its last poll, if the rate limit or an outage
        allows none.
    :param feed: of the event stream.
    """

    linger: float = 60.0
    events_a_second: float = 100.0
    events_per_wait: float = 40.0
    load_window: float = 10.0
    reconcile: float = 600.0
    settle: float = 0.2
    patience: float = 60.0
    retry_events: float = 600.0
    last_poll: float = 30.0
    feed: FeedTiming = dataclasses.field(default_factory=lambda: FeedTiming(most_refusals=3))


class State(enum.Enum):
    """The state of a wait; the module's docstring shows the transitions."""

    POLLED = "polled"
    JOINING = "joining"
    FOLLOWING = "following"
    SETTLING = "settling"
    ENDED = "ended"


#: The allowed transitions.
NEXT: Final = {
    State.POLLED: {State.JOINING, State.FOLLOWING, State.ENDED},
    State.JOINING: {State.POLLED, State.FOLLOWING, State.ENDED},
    State.FOLLOWING: {State.POLLED, State.JOINING, State.SETTLING, State.ENDED},
    State.SETTLING: {State.POLLED, State.JOINING, State.FOLLOWING, State.ENDED},
    State.ENDED: set(),
}


@dataclasses.dataclass(slots=True, eq=False)
class WatchedWait:
    """One wait of a watcher. :class:`WatchedWaits` changes its state."""

    wait: Wait
    #: Seconds between polls, at most.
    interval: float
    #: Writes a line to the log of the waiting task.
    log: Callable[[int, str], None]
    #: Epoch seconds before which the timeline is not polled.
    not_before: float = 0.0
    state: State = State.POLLED
    #: Epoch seconds of the next poll; 0 if none is planned.
    due: float = 0.0
    #: Events that were received and not judged yet.
    events: tuple[Event, ...] = ()
    ending: WaitOutcome | FluxomailError | None = None
    lines: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    woken: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    async def until_ended(self) -> WaitOutcome | FluxomailError | None:
        """Log what happens until the wait has ended; return the ending."""
        while True:
            while self.lines:
                self.log(*self.lines.pop(0))
            if self.state is State.ENDED:
                return self.ending
            await self.woken.wait()
            self.woken.clear()

    def add(self, *events: Event) -> None:
        """Keep events until they are judged, not without bound: a server may repeat them for ever."""
        self.events += events
        if len(self.events) > MOST_EVENTS:
            timeline = Timeline(send_id=self.wait.send_id, events=in_order(self.events))
            outcome = judge(timeline, self.wait.target, self.wait.fail_on)
            self.events = (outcome.event,) if outcome else ()

    def note(self, level: int, text: str) -> None:
        """Queue a line for the task's log, which is written in the task's own context."""
        self.lines.append((level, text))
        self.woken.set()

    @property
    def age(self) -> float:
        """Seconds since the wait's first poll."""
        return max(0.0, now() - self.wait.started)

    @property
    def poll_interval(self) -> float:
        """Seconds between polls at its age, if the stream is down."""
        return min(self.interval, max(_LEAST_GAP, self.age / 2))

    @property
    def follows(self) -> bool:
        """Whether the stream is enough to end the wait."""
        return self.state in (State.FOLLOWING, State.SETTLING)


class WatchedWaits:
    """The waits of one watcher. Every change of a state is made here."""

    def __init__(self, timing: WatchTiming) -> None:
        self._timing = timing
        self.queue: PollQueue[WatchedWait] = PollQueue()
        #: Whether the event stream is up, and waits may follow it.
        self.stream_is_up = False
        self._by_send: dict[str, list[WatchedWait]] = {}
        self._count = 0
        # The waits in these states, in the order in which they entered them; with SETTLING, when each is judged.
        self.joining: dict[WatchedWait, None] = {}
        self._settling: dict[WatchedWait, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[WatchedWait]:
        """Iterate over the waits that have not ended."""
        return (watched for waits in self._by_send.values() for watched in waits if watched.state is not State.ENDED)

    def add(self, watched: WatchedWait) -> None:
        """Add a wait."""
        self._by_send.setdefault(watched.wait.send_id, []).append(watched)
        self._count += 1
        if watched.wait.seen is None:
            self.queue.plan(watched, watched.not_before)
        else:
            self.plan_next(watched)

    def remove(self, watched: WatchedWait) -> None:
        """Remove a wait; one that has not ended was cancelled."""
        self.end(watched, None)
        waits = self._by_send[watched.wait.send_id]
        waits.remove(watched)
        if not waits:
            del self._by_send[watched.wait.send_id]
        self._count -= 1
        self.queue.remove(watched, self._count)

    def mode(self, watched: WatchedWait) -> str:
        """Describe for the log how a wait learns of its event."""
        return FOLLOWING_EVENTS if self.stream_is_up else POLLING % watched.interval

    def plan_next(self, watched: WatchedWait) -> None:
        """Plan the next poll, as the state of the wait requires."""
        if watched.follows:
            delay = jittered(max(self._timing.reconcile, watched.age / 6))
        else:
            delay = watched.wait.delay(watched.poll_interval, now())
        self.queue.plan(watched, max(watched.not_before, now() + delay))

    # ---- What moves a wait

    def stream_up(self) -> None:
        """The stream is up: waits may follow it from now on."""
        if not self.stream_is_up:
            self.stream_is_up = True
            for watched in self:
                watched.note(logging.INFO, self.mode(watched))

    def stream_down(self) -> None:
        """The stream is down: all waits are polled again."""
        if self.stream_is_up:
            self.stream_is_up = False
            for watched in self:
                watched.note(logging.INFO, self.mode(watched))
                if watched.follows:
                    self.poll(watched, within=0.0 if watched.events else watched.poll_interval)
                else:
                    self._move(watched, State.POLLED)

    def poll(self, watched: WatchedWait, within: float = 0.0) -> None:
        """Poll the wait again, at a random time ``within`` seconds: events are not enough."""
        self._move(watched, State.POLLED)
        self.queue.plan(watched, max(watched.not_before, now() + random.uniform(0, within)))

    def join(self, watched: WatchedWait) -> None:
        """Let the wait follow the stream once the list is read for what it has missed."""
        self._move(watched, State.JOINING)

    def follow(self, watched: WatchedWait, known: tuple[Event, ...] = ()) -> None:
        """Let the wait follow the stream: with the ``known`` events, nothing since its last poll is missing."""
        if not watched.follows:
            self._move(watched, State.FOLLOWING)
        watched.add(*known)
        self._settle(watched)
        self.plan_next(watched)

    def on_event(self, received: FeedEvent) -> None:
        """Handle an event of the stream or the list."""
        for watched in self._by_send.get(received.send_id, ()):
            watched.add(received.event)
            if watched.state is State.FOLLOWING:
                self._settle(watched)
            elif watched.state is State.POLLED and self.stream_is_up:
                self.queue.plan(watched, max(watched.not_before, now() + self._timing.settle))

    def end(self, watched: WatchedWait, ending: WaitOutcome | FluxomailError | None) -> None:
        """End the wait, once."""
        if watched.state is not State.ENDED:
            self._move(watched, State.ENDED)
            watched.ending = ending
            watched.woken.set()

    def _settle(self, watched: WatchedWait) -> None:
        """Judge the received events after a short delay."""
        if watched.events and watched.state is State.FOLLOWING:
            self._move(watched, State.SETTLING)
            self._settling[watched] = asyncio.get_running_loop().time() + self._timing.settle
            self._judge_later()

    def _judge_later(self) -> None:
        if self._timer is None and self._settling:
            due = next(iter(self._settling.values()))
            # Outside of any task's context: its log is not for the lines of the others.
            self._timer = asyncio.get_running_loop().call_at(due, self._judge, context=contextvars.Context())

    def _judge(self) -> None:
        """Judge the waits that have settled."""
        self._timer = None
        moment = asyncio.get_running_loop().time() + 0.01
        for watched in [one for one, due in self._settling.items() if due <= moment]:
            self._move(watched, State.FOLLOWING)
            events, watched.events = in_order(watched.events), ()
            if ending := watched.wait.on_timeline(Timeline(send_id=watched.wait.send_id, events=events)):
                self.end(watched, ending)
        self._judge_later()

    def _move(self, watched: WatchedWait, state: State) -> None:
        """Change a wait's state. Nothing else does."""
        if state is watched.state:
            return
        if state not in NEXT[watched.state]:
            raise RuntimeError(f"a wait cannot go from {watched.state.value} to {state.value}")
        self.joining.pop(watched, None)
        self._settling.pop(watched, None)
        if state is State.JOINING:
            self.joining[watched] = None
        watched.state = state
