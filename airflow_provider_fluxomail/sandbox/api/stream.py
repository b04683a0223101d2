"""The event stream: server-sent events with heartbeats, and the faults of a stream.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.faults import models as faults

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from starlette.types import Receive, Scope, Send

    from airflow_provider_fluxomail.sandbox.api.access import Pass
    from airflow_provider_fluxomail.sandbox.api.event_bus import Seat
    from airflow_provider_fluxomail.sandbox.faults.models import AnyFault
    from airflow_provider_fluxomail.sandbox.middleware import Exchange
    from airflow_provider_fluxomail.sandbox.state import Sandbox
    from airflow_provider_fluxomail.sandbox.store.event_log import Cursor, EventFilter
    from airflow_provider_fluxomail.sandbox.store.records import ApiKey

HEARTBEAT: Final = b": heartbeat\n\n"
STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
}

_STOP_SECONDS: Final = 0.2
"""How long the end of a stream may take once the server stops, before the connection is cut."""


class StreamResponse(Response):
    """Sends events until the client leaves or the stream ends.

    It ends cleanly when its key was revoked or has expired, the events left the plan, the sandbox was reset, its
    life is over, or the server stops.

    :param exchange: the request.
    :param held: what it was opened with.
    :param renewed: the key as it is now, None if it no longer opens a stream.
    :param wanted: which events.
    :param start: where it begins.
    :param resumed: the client said where.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        exchange: Exchange,
        held: Pass,
        renewed: Callable[[Pass], ApiKey | None],
        wanted: EventFilter,
        start: Cursor,
        *,
        resumed: bool,
    ) -> None:
        # Not that of the base, which would announce the length of a body.
        self.status_code = 200
        self.background = None
        self.init_headers(STREAM_HEADERS)
        self._sandbox = sandbox
        self._exchange = exchange
        self._held = held
        self._renewed = renewed
        self._wanted = wanted
        self._cursor = start
        self._resumed = resumed
        self._faults = StreamFaults()
        self._asked: set[int] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream. When it returns, nothing of it is left."""
        with self._sandbox.feed.join() as seat:
            pump = asyncio.ensure_future(self._pump(seat, send))
            left = asyncio.ensure_future(_left(receive))
            stop = asyncio.ensure_future(self._sandbox.stopping.wait())
            # Not left to the pump, which may be held up by a client that does not read.
            over = asyncio.ensure_future(seat.over.wait())
            tasks = (pump, left, stop, over)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if not pump.cancelled():
                if pump.result():
                    await self._exchange.cut()
            elif left.cancelled():
                await self._stop(send)

    async def _pump(self, seat: Seat, send: Send) -> bool:
        """Send what there is until the stream ends; True if its connection is to be cut."""
        loop = asyncio.get_running_loop()
        feed = self._sandbox.feed
        self._take_faults()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # Some servers and clients hold the head back until there is a body.
        await _write(send, HEARTBEAT)
        opened = written = loop.time()
        while True:
            seat.settle()
            settings = self._sandbox.settings
            life = None if settings.stream_life is None else opened + settings.stream_life
            key = self._renewed(self._held)
            if key is None or (life is not None and loop.time() >= life):
                break
            self._take_faults()
            batch = feed.pull(self._cursor, self._wanted)
            self._cursor = batch.cursor
            data = self._faults.apply(batch.frames, loop.time()) if self._faults.met else batch.data
            silent = self._faults.dropped or self._faults.stalled
            if not data and not silent and loop.time() >= written + settings.stream_heartbeat:
                data = HEARTBEAT
            if data:
                await _write(send, data)
                written = loop.time()
            if self._faults.dropped:
                seat.leave()
                return True
            if self._faults.stalled:
                # Until the client has had enough of it.
                await asyncio.Event().wait()
            if batch.more:
                await asyncio.sleep(0)
                continue
            waits = [written + settings.stream_heartbeat, life, self._faults.due, self._expiry(key, loop.time())]
            await seat.wait(min(until for until in waits if until is not None))
        # First: the client may open the next stream before this task runs again.
        seat.leave()
        await send({"type": "http.response.body", "body": self._faults.rest(), "more_body": False})
        return False

    def _take_faults(self) -> None:
        subject = self._exchange.subject
        for fault in self._sandbox.faults.take_stream(subject, self._asked, resumed=self._resumed):
            self._exchange.note_fault(fault.spec.kind)
            if isinstance(fault.spec, faults.StreamGap):
                self._cursor = self._sandbox.feed.here()
            else:
                self._faults.add(fault.spec)
        # A gap is for a stream that is just opening.
        self._resumed = False

    def _expiry(self, key: ApiKey, now: float) -> float | None:
        """When the key expires, in the event loop's time."""
        if key.expires_ms is None:
            return None
        return now + max(0.0, (key.expires_ms + 1) / 1000 - self._sandbox.clock.now())

    async def _stop(self, send: Send) -> None:
        """End the stream now; cut it if its client doesn't read, or may not get another byte."""
        try:
            if not self._faults.stalled:
                async with asyncio.timeout(_STOP_SECONDS):
                    await send({"type": "http.response.body", "body": self._faults.rest(), "more_body": False})
                return
        except TimeoutError:
            pass
        await self._exchange.cut()


class StreamFaults:
    """What the faults that met a stream do to its frames.

    They work in a chain: frames change places, then are doubled, then counted for a drop or a stall.
    """

    def __init__(self) -> None:
        self.met = False
        """Whether there is any fault."""
        self.dropped = False
        """The connection is to be cut."""
        self.stalled = False
        """Not a byte may be sent any more."""
        self._holds: list[_Count] = []
        self._doubles: list[_Count] = []
        self._ends: list[_Count] = []
        self._held: bytes | None = None
        self._held_until: float | None = None

    @property
    def due(self) -> float | None:
        """When a frame that is held back has to be sent, in the event loop's time."""
        return self._held_until

    def add(self, spec: AnyFault) -> None:
        """Begin a fault."""
        self.met = True
        if isinstance(spec, faults.StreamOutOfOrder):
            self._holds.append(_Count(spec, spec.events))
        elif isinstance(spec, faults.StreamDuplicate):
            self._doubles.append(_Count(spec, spec.events))
        else:
            assert isinstance(spec, faults.StreamDrop | faults.StreamStall), spec.kind
            self._ends.append(_Count(spec, spec.after_events))
            self._check_ends()

    def apply(self, frames: Sequence[bytes], now: float) -> bytes:
        """What is sent of some frames, in the event loop's time ``now``."""
        sent: list[bytes] = []
        for frame in self._double(self._reorder(frames, now)):
            if self.dropped or self.stalled:
                break
            sent.append(frame)
            for end in self._ends:
                end.use()
            self._check_ends()
        return b"".join(sent)

    def rest(self) -> bytes:
        """The frame that is still held back: a stream that ends loses nothing."""
        held, self._held, self._held_until = self._held, None, None
        return held or b""

    def _reorder(self, frames: Sequence[bytes], now: float) -> Iterable[bytes]:
        for frame in frames:
            if self._held is not None:
                yield frame
                yield self.rest()
            elif (hold := _first(self._holds)) is not None:
                assert isinstance(hold.spec, faults.StreamOutOfOrder)
                hold.use()
                self._held, self._held_until = frame, now + hold.spec.seconds
            else:
                yield frame
        if self._held_until is not None and now >= self._held_until:
            yield self.rest()

    def _double(self, frames: Iterable[bytes]) -> Iterable[bytes]:
        for frame in frames:
            yield frame
            if (double := _first(self._doubles)) is not None:
                double.use()
                yield frame

    def _check_ends(self) -> None:
        """The first that has had its events ends the stream."""
        for end in self._ends:
            if end.left == 0 and not (self.dropped or self.stalled):
                self.dropped = isinstance(end.spec, faults.StreamDrop)
                self.stalled = not self.dropped


class _Count:
    """A fault and how many frames it still acts on or waits for; None for no end."""

    def __init__(self, spec: AnyFault, left: int | None) -> None:
        self.spec = spec
        self.left = left

    def use(self) -> None:
        if self.left:
            self.left -= 1


def _first(counts: Iterable[_Count]) -> _Count | None:
    return next((count for count in counts if count.left != 0), None)


async def _write(send: Send, data: bytes) -> None:
    # Waits while the connection's buffer is full: that is what slows down a stream whose client is slow.
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
