"""What wakes the event streams, and the frames they share.

Streams pull: each keeps its own cursor and asks for what comes after it, so one whose client reads slowly costs no
memory and holds up no other. One task, which lives only while a stream is open, looks at the log whenever something
was stored or becomes due, and wakes them all. As they move in lockstep then, the answer of one serves the others.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, NamedTuple

from airflow_provider_fluxomail.sandbox.api.query import envelope
from airflow_provider_fluxomail.sandbox.store.event_log import Cursor, Moment
from airflow_provider_fluxomail.sandbox.store.records import Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_fluxomail.sandbox.clock import Clock
    from airflow_provider_fluxomail.sandbox.limits import Bounds
    from airflow_provider_fluxomail.sandbox.store.event_log import EventFilter, EventLog
    from airflow_provider_fluxomail.sandbox.store.records import StoredEvent

BATCH: Final = 256
"""Events that are read and sent at once, at most twice as many."""
BATCH_CHARS: Final = 128 * 1024
"""Characters of their data, above which a batch ends."""

_MIN_GAP: Final = 0.01
_MAX_GAP: Final = 0.25
_SHARE: Final = 3
"""Waking many streams takes time from the sends: the pause after it is so many times as long, within the bounds."""
_SLICE: Final = 50
"""Streams that are woken before other work gets its turn."""
_LOOK_SECONDS: Final = 60.0
"""Longest sleep: the wall clock may have been set meanwhile."""
_KEPT: Final = 64
"""Batches that are remembered until the next look."""


class Batch(NamedTuple):
    """What comes next for a stream.

    :param frames: one for each event.
    :param data: all of them together.
    :param cursor: how far the stream is with them.
    :param more: whether there may be more at once.
    """

    frames: tuple[bytes, ...]
    data: bytes
    cursor: Cursor
    more: bool


class Seat:
    """The place of one open stream in the feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._woken = asyncio.Event()
        self.over = asyncio.Event()
        """The sandbox was reset: the stream has to end."""

    def __enter__(self) -> Seat:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def wake(self) -> None:
        """Make the stream look again."""
        self._woken.set()

    def settle(self) -> None:
        """Begin to look; what happens from now on wakes anew."""
        self._woken.clear()

    async def wait(self, until: float | None = None) -> None:
        """Wait until it is woken.

        :param until: in the event loop's time, when it is woken anyhow.
        """
        if until is None:
            await self._woken.wait()
            return
        timer = asyncio.get_running_loop().call_at(until, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    def leave(self) -> None:
        """Make room for another stream. May be called twice."""
        self._feed.leave(self)


class Feed:
    """Wakes the open streams and reads the log for them.

    :param log: the events.
    :param clock: the sandbox's.
    :param bounds: how many streams can be open.
    """

    def __init__(self, log: EventLog, clock: Clock, bounds: Bounds) -> None:
        self._log = log
        self._clock = clock
        self._bounds = bounds
        # In the order of their opening: a fault meets the oldest stream first.
        self._seats: dict[Seat, None] = {}
        self._ticker: asyncio.Task[None] | None = None
        self._rung = asyncio.Event()
        self._moment = Moment(0, 0)
        self._batches: dict[tuple[Cursor, EventFilter], Batch] = {}

    @property
    def open(self) -> int:
        """How many streams are open."""
        return len(self._seats)

    @property
    def full(self) -> bool:
        """Whether the bound of open streams is reached."""
        return self.open >= self._bounds.streams

    def join(self) -> Seat:
        """Take part, from within the event loop. The seat is left at the end of its ``with``."""
        seat = Seat(self)
        self._seats[seat] = None
        if self._ticker is None:
            self._look()
            self._ticker = asyncio.get_running_loop().create_task(self._run(), name="fluxomail-feed")
        return seat

    def leave(self, seat: Seat) -> None:
        """Take part no more."""
        self._seats.pop(seat, None)
        if not self._seats and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
            self._batches.clear()

    def ring(self) -> None:
        """Something was stored or changed: wake the streams soon. From the event loop's thread only."""
        self._rung.set()

    def end_all(self) -> None:
        """Make every open stream end, and forget what was read for them: the log was cleared, the clock set back."""
        self._look()
        self.ring()
        for seat in list(self._seats):
            seat.over.set()
            # Its place is free at once, though its client may take a while to notice.
            seat.leave()

    def here(self) -> Cursor:
        """Where a stream starts that shall have what happens from now on."""
        newest = self._log.newest()
        return Cursor(Position(self._clock.now_ms(), newest), newest)

    def from_position(self, position: Position) -> Cursor:
        """Where a stream starts that shall have what comes after a place; never later than now."""
        # Else what was stored since the last look would be neither before nor after the cursor.
        self._look()
        self.ring()
        here = self.here()
        return Cursor(min(position, here.position), here.seen)

    def pull(self, cursor: Cursor, wanted: EventFilter) -> Batch:
        """What comes after a cursor, as of the last look; reads it once for all streams that ask the same."""
        # Most wakings: a heartbeat, a setting.
        if cursor.seen >= self._moment.newest and cursor.position >= Position(self._moment.now_ms, self._moment.newest):
            return Batch((), b"", cursor, more=False)
        batch = self._batches.get((cursor, wanted))
        if batch is None:
            events, reached, more = self._log.after(cursor, wanted, self._moment, BATCH, BATCH_CHARS)
            frames = tuple(map(frame, events))
            batch = Batch(frames, b"".join(frames), reached, more=more)
            if len(self._batches) >= _KEPT:
                self._batches.pop(next(iter(self._batches)))
            self._batches[cursor, wanted] = batch
        return batch

    def _look(self) -> None:
        self._moment = Moment(self._clock.now_ms(), self._log.newest())
        self._batches.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._rung.clear()
            self._look()
            began = loop.time()
            for part in _slices(list(self._seats), _SLICE):
                for seat in part:
                    seat.wake()
                # They all run before this task goes on, so the time they took can be told.
                await asyncio.sleep(0)
            await asyncio.sleep(min(max(_MIN_GAP, _SHARE * (loop.time() - began)), _MAX_GAP))
            await self._until_something()

    async def _until_something(self) -> None:
        """Wait until it was rung, or an event that is stored already becomes due."""
        due_ms = self._log.next_after(self._moment.now_ms)
        while not self._rung.is_set():
            # The clock shows whole ms: one more, or the look would come too early.
            left = _LOOK_SECONDS if due_ms is None else (due_ms + 1) / 1000 - self._clock.now()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._rung.wait(), min(left, _LOOK_SECONDS))
            except TimeoutError:
                pass


def frame(event: StoredEvent) -> bytes:
    """An event on the wire. There is no ``event:`` line: the official client hears unnamed messages only."""
    shown = envelope(event)
    data = json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"id: {shown['id']}\ndata: {data}\n\n".encode()


def _slices(seats: list[Seat], size: int) -> Iterator[list[Seat]]:
    for start in range(0, len(seats), size):
        yield seats[start : start + size]
