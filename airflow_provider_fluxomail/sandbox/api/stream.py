"""The event stream: server-sent events with heartbeats.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airflow_provider_fluxomail.sandbox.api.event_bus import Subscriber
from airflow_provider_fluxomail.sandbox.exchange import Exchange
from airflow_provider_fluxomail.sandbox.faults.models import StreamGap
from airflow_provider_fluxomail.sandbox.faults.stream import StreamFaults
from airflow_provider_fluxomail.sandbox.store.event_log import Cursor, EventFilter
from airflow_provider_fluxomail.sandbox.store.records import ApiKey

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

HEARTBEAT: Final = b": heartbeat\n\n"
STREAM_HEADERS: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
}

_STOP_SECONDS: Final = 0.2
"""How long closing a stream may take once the server stops, before the connection is cut."""


class StreamResponse(Response):
    """Sends events until the client disconnects or the stream closes.

    It closes cleanly when its key was revoked or has expired, the events left the plan, the sandbox was reset,
    ``stream_life`` is over, its key has opened more than ``streams_per_key``, or the server stops.

    :param key: the API key that opened it.
    :param renew: returns the key as it is now, None if it no longer opens a stream.
    :param resumed: the client said where to start.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        exchange: Exchange,
        key: str,
        renew: Callable[[], ApiKey | None],
        wanted: EventFilter,
        start: Cursor,
        *,
        resumed: bool,
    ) -> None:
        # Not the base's, which would announce the length of a body.
        self.status_code = 200
        self.background = None
        self.init_headers(STREAM_HEADERS)
        self._sandbox = sandbox
        self._exchange = exchange
        self._key = key
        self._renew = renew
        self._wanted = wanted
        self._cursor = start
        self._resumed = resumed
        self._faults = StreamFaults()
        self._counted: set[int] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the stream. When it returns, nothing of it is left."""
        with self._sandbox.event_bus.subscribe(key=self._key) as subscriber:
            pump = asyncio.ensure_future(self._pump(subscriber, send))
            left = asyncio.ensure_future(_disconnected(receive))
            stop = asyncio.ensure_future(self._sandbox.stopping.wait())
            # Not left to the pump, which may be blocked by a client that does not read.
            over = asyncio.ensure_future(subscriber.over.wait())
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

    async def _pump(self, subscriber: Subscriber, send: Send) -> bool:
        """Send events until the stream closes; True if its connection is to be cut."""
        loop = asyncio.get_running_loop()
        self._acquire_faults()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # Some servers and clients hold the head back until there is a body.
        await _write(send, HEARTBEAT)
        opened = written = loop.time()
        while True:
            subscriber.start_reading()
            switches = self._sandbox.switches
            life = None if switches.stream_life is None else opened + switches.stream_life
            key = self._renew()
            if key is None or (life is not None and loop.time() >= life):
                break
            self._acquire_faults()
            batch = self._sandbox.event_bus.read(self._cursor, self._wanted)
            self._cursor = batch.cursor
            data = self._faults.apply(batch.frames, loop.time()) if self._faults.met else batch.data
            silent = self._faults.dropped or self._faults.stalled
            if not data and not silent and loop.time() >= written + switches.stream_heartbeat:
                data = HEARTBEAT
            if data:
                await _write(send, data)
                written = loop.time()
            if self._faults.dropped:
                subscriber.leave()
                return True
            if self._faults.stalled:
                # Until the client gives up.
                await asyncio.Event().wait()
            if batch.more:
                await asyncio.sleep(0)
                continue
            times = [written + switches.stream_heartbeat, life, self._faults.due, self._expiry(key, loop.time())]
            await subscriber.wait(min(until for until in times if until is not None))
        # First: the client may open the next stream before this task runs again.
        subscriber.leave()
        await self._end(send)
        return False

    def _acquire_faults(self) -> None:
        subject = self._exchange.subject
        for fault in self._sandbox.faults.acquire_for_stream(subject, self._counted, resumed=self._resumed):
            self._exchange.note_fault(fault.spec.kind)
            if isinstance(fault.spec, StreamGap):
                self._cursor = self._sandbox.event_bus.now()
            else:
                self._faults.add(fault.spec)
        # A gap is for a stream that is just opening.
        self._resumed = False

    def _expiry(self, key: ApiKey, now: float) -> float | None:
        """When the key expires, in the event loop's time."""
        if key.expires_ms is None:
            return None
        return now + max(0.0, (key.expires_ms + 1) / 1000 - self._sandbox.clock.now())

    async def _end(self, send: Send) -> None:
        await send({"type": "http.response.body", "body": self._faults.rest(), "more_body": False})

    async def _stop(self, send: Send) -> None:
        """Close the stream now; cut it if its client does not read, or must not get another byte."""
        try:
            if not self._faults.stalled:
                await asyncio.wait_for(self._end(send), _STOP_SECONDS)
                return
        except TimeoutError:
            pass
        await self._exchange.cut()


async def _write(send: Send, data: bytes) -> None:
    # Waits while the connection's buffer is full: that is what slows down a stream whose client is slow.
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
