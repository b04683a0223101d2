"""What is taken in of requests that are not complete: bounds of their heads, their bodies together, and their time.

ASGI sees a request once its headers are complete, so heads are bounded beneath it, in uvicorn's protocol.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any, Final, Literal, NamedTuple

from starlette.types import Receive

from airflow_provider_fluxomail.sandbox.limits import Bounds

RECEIVED_AT_ONCE: Final = 256 * 1024
"""Bytes that asyncio reads from a socket in one go."""

_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 1024 * 1024
"""After an early response, how long and how much is read and dropped: a client that still writes would not see it."""


class Intake:
    """Bytes of requests without a response yet, of all connections together."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._limit = max(bounds.in_flight_bytes, bounds.body_bytes)
        self.used = 0
        self.closed = False
        """The server stops: it does not know connections that were being accepted then, and would not close them."""

    def acquire(self, size: int) -> bool:
        """Count bytes; return False, and count nothing, if they would be too many."""
        if self.used + size > self._limit:
            return False
        self.used += size
        return True

    def release(self, size: int) -> None:
        self.used -= size


class BoundedProtocol(asyncio.Protocol):
    """Mixed into a protocol of uvicorn: refuses a head that is too long (431), too slow (408) or one too many (503).

    It relies on ``cycle``, the request that is being handled, its ``body``, ``more_body`` and ``response_complete``,
    which uvicorn's protocols have alike.
    """

    intake: Intake
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._waiting = 0
        """Bytes received since the last head was complete, or since the last byte of a body."""
        self._dropped = -1
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()
        if self.intake.closed:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._settle()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._dropped >= 0:
            self._dropped += len(data)
            if self._dropped > _LINGER_BYTES:
                self.transport.abort()
            return
        cycle = self.cycle
        received, more = (0, False) if cycle is None else (len(cycle.body), cycle.more_body)
        super().data_received(data)
        if self.cycle is not cycle or (more and (len(cycle.body) > received or not cycle.more_body)):
            self._settle()
            return
        if not self.intake.acquire(len(data)):
            self._refuse(503, "too many requests are incomplete: retry later")
            return
        self._waiting += len(data)
        if self._timer is None:
            self._set_timer()
        if self._waiting > self.intake.bounds.header_bytes:
            self._refuse(431, f"the headers must be at most {self.intake.bounds.header_bytes} bytes")

    def _set_timer(self) -> None:
        self._timer = self.loop.call_later(self.intake.bounds.read_seconds, self._late)

    def _settle(self) -> None:
        """A head is complete, or part of a body has come: start counting again."""
        self.intake.release(self._waiting)
        self._waiting = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self._responding:
            self._set_timer()
        elif self._waiting:
            self._refuse(408, f"the headers must arrive within {self.intake.bounds.read_seconds:g} s")
        else:
            self.transport.close()

    @property
    def _responding(self) -> bool:
        """Whether a request is being handled: nothing else can be written."""
        return self.cycle is not None and (self.cycle.more_body or not self.cycle.response_complete)

    def _refuse(self, status: int, text: str) -> None:
        self._settle()
        if self._responding:
            self.transport.abort()
            return
        self._dropped = 0
        body = json.dumps({"error": text}).encode()
        lines = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            *(["retry-after: 1"] if status == 503 else []),
            "connection: close",
        )
        self.transport.write("\r\n".join((*lines, "", "")).encode() + body)
        self.transport.write_eof()
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)


def protocol_class(http: Literal["auto", "h11", "httptools"], intake: Intake) -> type[asyncio.Protocol]:
    """uvicorn's protocol for an HTTP implementation, bounded.

    :param http: ``auto`` is httptools if it is installed, else h11.
    """
    if http == "auto":
        http = "httptools" if find_spec("httptools") else "h11"
    base: type[asyncio.Protocol]
    if http == "httptools":
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        base = HttpToolsProtocol
    else:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        base = H11Protocol
    return type(f"Bounded{base.__name__}", (BoundedProtocol, base), {"intake": intake})


class Refused(NamedTuple):
    """Why a body was not taken in."""

    status: int
    text: str


class Body:
    """What was received of a body. Its bytes count until :meth:`release`.

    :param limit: bytes it may have.
    """

    def __init__(self, intake: Intake, limit: int) -> None:
        self.content = bytearray()
        self.refused: Refused | None = None
        self._intake = intake
        self._limit = limit

    def add(self, data: bytes) -> None:
        if self.refused is not None:
            return
        if len(self.content) + len(data) > self._limit:
            self.refuse(413, f"the body must be at most {self._limit} bytes")
        elif not self._intake.acquire(len(data)):
            self.refuse(503, "too many requests are in flight for another body: retry later")
        else:
            self.content += data

    def refuse(self, status: int, text: str) -> None:
        self.refused = Refused(status, text)
        self.release()

    def release(self) -> None:
        """Drop what was received."""
        self._intake.release(len(self.content))
        self.content = bytearray()


async def read_body(receive: Receive, intake: Intake, limit: int) -> Body | None:
    """The whole body; None if the client has gone.

    A body that is refused as too large is read to its end, because an early response would be lost while the client
    still writes. Nothing of it is kept.
    """
    body = Body(intake, limit)
    try:
        async with asyncio.timeout(intake.bounds.read_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    body.release()
                    return None
                body.add(message.get("body", b""))
                if not message.get("more_body", False):
                    return body
    except TimeoutError:
        body.refuse(408, f"the body must arrive within {intake.bounds.read_seconds:g} s")
        return body
    except BaseException:
        body.release()
        raise
