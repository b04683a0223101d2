"""Wakes the event streams, and holds the frames they share.

Streams pull: each keeps its own cursor and reads what comes after it, so one with a slow client costs no memory and
delays no other. One task, which lives only while a stream is open, refreshes the view of the log whenever something was
stored or becomes due, and wakes them all. As they move in lockstep then, what was read for one serves the others.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from airflow_provider_fluxomail.sandbox.api.models import Event
from airflow_provider_fluxomail.sandbox.clock import Clock
from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.store.event_log import Cursor, EventFilter, EventLog, Moment
from airflow_provider_fluxomail.sandbox.store.records import Position, StoredEvent

BATCH: Final = 256
"""Events that are read and sent at once; at most twice as many."""
BATCH_CHARS: Final = 128 * 1024
"""Characters of their data, above which a batch ends."""

_MIN_GAP: Final = 0.01
_MAX_GAP: Final = 0.25
_GAP_FACTOR: Final = 3
"""Waking many streams takes time from the sends: the pause after it is this many times as long, within the bounds."""
_SLICE: Final = 50
"""Streams that are woken before other tasks run."""
_MAX_SLEEP: Final = 60.0
"""Seconds: the wall clock may have been set meanwhile."""
_KEPT: Final = 64
"""Batches that are kept until the next refresh."""


class Batch(NamedTuple):
    """What comes next for a stream: a frame for each event, and all of them together.

    :param cursor: the stream's position after them.
    :param more: whether more may follow at once.
    """

    frames: tuple[bytes, ...]
    data: bytes
    cursor: Cursor
    more: bool


class Subscriber:
    """One open stream.

    :param key: the API key that opened it.
    """

    def __init__(self, bus: EventBus, key: str | None = None) -> None:
        self._bus = bus
        self.key = key
        self._woken = asyncio.Event()
        self.over = asyncio.Event()
        """The stream has to close: the sandbox was reset, or its key has opened too many."""

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def wake(self) -> None:
        self._woken.set()

    def start_reading(self) -> None:
        """From here on, :meth:`wake` wakes the next :meth:`wait`."""
        self._woken.clear()

    async def wait(self, until: float | None = None) -> None:
        """Wait until woken, or until a time of the event loop."""
        try:
            async with asyncio.timeout_at(until):
                await self._woken.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        """Close the stream. Its place is free at once, though its client may take a while to notice."""
        self.over.set()
        self.leave()

    def leave(self) -> None:
        """Make room for another stream. May be called twice."""
        self._bus.unsubscribe(self)


class EventBus:
    """Wakes the open streams and reads the log for them."""

    def __init__(self, log: EventLog, clock: Clock, bounds: Bounds) -> None:
        self._log = log
        self._clock = clock
        self._bounds = bounds
        # In the order of their opening: a fault meets the oldest stream first.
        self._subscribers: dict[Subscriber, None] = {}
        self._viewers: set[Subscriber] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._notified = asyncio.Event()
        self._moment = Moment(0, 0)
        self._batches: dict[tuple[Cursor, EventFilter], Batch] = {}

    @property
    def open(self) -> int:
        return len(self._subscribers) - len(self._viewers)

    @property
    def full(self) -> bool:
        return self.open >= self._bounds.streams

    @property
    def viewers(self) -> int:
        """Open pages of the inbox. They are no streams of the API, and do not count as such."""
        return len(self._viewers)

    def of_key(self, key: str) -> list[Subscriber]:
        """The open streams of an API key, the oldest first."""
        return [subscriber for subscriber in self._subscribers if subscriber.key == key]

    def subscribe(self, *, viewer: bool = False, key: str | None = None) -> Subscriber:
        """Add a stream, from within the event loop, until the end of the subscriber's ``with``.

        :param viewer: it is a page of the inbox.
        :param key: the API key that opened it.
        """
        subscriber = Subscriber(self, key)
        self._subscribers[subscriber] = None
        if viewer:
            self._viewers.add(subscriber)
        if self._ticker is None:
            self._refresh()
            self._ticker = asyncio.get_running_loop().create_task(self._run(), name="fluxomail-event-bus")
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber, None)
        self._viewers.discard(subscriber)
        if not self._subscribers and self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
            self._batches.clear()

    def notify(self) -> None:
        """Something was stored or changed: wake the streams soon. From the event loop's thread only."""
        self._notified.set()

    def notify_viewers(self) -> None:
        """Something changed that is no event: wake the pages of the inbox."""
        for viewer in self._viewers:
            viewer.wake()

    def close_all(self) -> None:
        """Close every open stream, and drop what was read for them: the log was cleared, the clock set back."""
        self._refresh()
        self.notify()
        for subscriber in list(self._subscribers):
            subscriber.close()

    def now(self) -> Cursor:
        newest = self._log.newest()
        return Cursor(Position(self._clock.now_ms(), newest), newest)

    def after(self, position: Position) -> Cursor:
        """Where a stream starts that sends what comes after a position; never later than now."""
        # Else what was stored since the last refresh would be neither before nor after the cursor.
        self._refresh()
        self.notify()
        now = self.now()
        return Cursor(min(position, now.position), now.seen)

    def read(self, cursor: Cursor, wanted: EventFilter) -> Batch:
        """What comes after a cursor, as of the last refresh; reads it once for all streams that want the same."""
        # The usual case: woken by a heartbeat or a changed switch.
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

    def _refresh(self) -> None:
        self._moment = Moment(self._clock.now_ms(), self._log.newest())
        self._batches.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._notified.clear()
            self._refresh()
            began = loop.time()
            for number, subscriber in enumerate(list(self._subscribers), start=1):
                subscriber.wake()
                if number % _SLICE == 0:
                    await asyncio.sleep(0)
            # The woken streams all run before this task goes on, so the time they took is known.
            await asyncio.sleep(0)
            await asyncio.sleep(min(max(_MIN_GAP, _GAP_FACTOR * (loop.time() - began)), _MAX_GAP))
            await self._until_due()

    async def _until_due(self) -> None:
        """Wait until notified, or until an event that is already stored becomes due."""
        due_ms = self._log.next_after(self._moment.now_ms)
        while not self._notified.is_set():
            # The clock shows whole ms: one more, or the refresh would come too early.
            left = _MAX_SLEEP if due_ms is None else (due_ms + 1) / 1000 - self._clock.now()
            if left <= 0:
                return
            try:
                await asyncio.wait_for(self._notified.wait(), min(left, _MAX_SLEEP))
            except TimeoutError:
                pass


def frame(event: StoredEvent) -> bytes:
    """An event on the wire. There is no ``event:`` line: the official client only hears unnamed messages."""
    shown = Event.of(event)
    return f"id: {shown.id}\ndata: {shown.model_dump_json()}\n\n".encode()
