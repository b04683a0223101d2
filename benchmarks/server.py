"""The sandbox as benchmarks of waits need it: it counts requests and bytes by key, can make an organization busy, and
can say "not delivered yet" with a 404.

The peer is why. ``HttpSensorTrigger`` cannot look at an answer's body: it waits as long as it is answered with 404, and
``GET /sends/{id}`` is 200 from the start. Who waits for a delivery with it has something in front that turns "not
delivered yet" into 404; here, that is a query. It costs the peer nothing: the turning is done in the server's process.

    python -m benchmarks.server
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import uvicorn

from airflow_provider_fluxomail.sandbox.app import build_app
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY, Bounds
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches
from benchmarks.protocol import UNTIL_DELIVERED

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COUNTS: Final = "/_bench/counts"
"""Requests, those for event streams, refusals (429) and bytes of responses' bodies since the start, by key."""
BUSY: Final = "/_bench/busy"
"""With ``?rate=N``: from now on, N openings a second of messages of the start key's organization."""
BUSY_SENDS: Final = 1_000
"""How many messages these are: the oldest."""
_BUSY_TICK: Final = 0.05


class Front:
    """The outermost application."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox
        self._rate = 0.0
        self._busy: asyncio.Task[None] | None = None
        self.requests: Counter[str] = Counter()
        self.streams: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.sent_bytes: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request and hand it on."""
        if scope["path"] == COUNTS:
            counters = {"requests": self.requests, "streams": self.streams, "refused": self.refused}
            await _answer(counters | {"bytes": self.sent_bytes}, send)
            return
        if scope["path"] == BUSY:
            self._rate = float(scope["query_string"].partition(b"=")[2])
            self._busy = self._busy or asyncio.get_running_loop().create_task(self._make_events())
            await _answer({}, send)
            return
        headers = dict(scope["headers"])
        key = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        self.requests[key] += 1
        self.streams[key] += scope["path"].endswith("/events/stream")
        turning = scope["query_string"] == urlencode(UNTIL_DELIVERED).encode()
        await self._app(scope, receive, _Answer(self, key, send, turning=turning).send)

    async def _make_events(self) -> None:
        """Let messages be opened, in turns, at the rate that was requested."""
        loop = asyncio.get_running_loop()
        began, made = loop.time(), 0
        while True:
            _, sends = self._sandbox.store.find_sends(to=None, idempotency_key=None, limit=BUSY_SENDS, offset=0)
            # Not more at once, so that a machine that is too slow still serves requests.
            due = min((loop.time() - began) * self._rate, made + 2 * self._rate * _BUSY_TICK)
            while sends and made < due:
                now_ms = self._sandbox.clock.now_ms()
                self._sandbox.add_event(sends[made % len(sends)], PlannedEvent("opened", now_ms, {}))
                made += 1
            await asyncio.sleep(_BUSY_TICK)


class _Answer:
    """One answer on its way out.

    The sandbox looks for the connection behind a bound ``send``, so this one has both.
    """

    def __init__(self, front: Front, key: str, send: Send, *, turning: bool) -> None:
        self.transport = getattr(getattr(send, "__self__", None), "transport", None)
        self._front = front
        self._key = key
        self._send = send
        self._turning = turning
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        """Count the response; hold its status until it is known whether there is a delivery in the body."""
        if message["type"] == "http.response.start":
            self._front.refused[self._key] += message["status"] == 429
        else:
            self._front.sent_bytes[self._key] += len(message.get("body", b""))
        if message["type"] == "http.response.start":
            if self._turning and message["status"] == 200:
                self._start = message
                return
        elif self._start is not None:
            # The sandbox sends a timeline in one piece.
            delivered = any(event["type"] == "delivered" for event in json.loads(message["body"])["events"])
            await self._send(self._start if delivered else {**self._start, "status": 404})
            self._start = None
        await self._send(message)


async def _answer(fields: dict[str, Any], send: Send) -> None:
    body = json.dumps(fields).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until the process is ended. The first line names the URL."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    sandbox = Sandbox(
        DEFAULT_API_KEY,
        data=None,
        # Nothing is delivered but what a benchmark delivers.
        switches=Switches(event_delay=0.0, default_outcome="never"),
        bounds=Bounds(requests=1_000, events=1_000_000),
    )
    app = Front(build_app(sandbox), sandbox)
    sys.stdout.write(f"ready at http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app,
        # As the sandbox's own server has it.
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="error",
        access_log=False,
        date_header=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
