"""The sandbox as benchmarks of waits need it: it counts requests by key, and can say "not delivered yet" with a 404.

The peer is why. ``HttpSensorTrigger`` cannot look at an answer's body: it waits as long as it is answered with 404, and
``GET /sends/{id}`` is 200 from the start. Who waits for a delivery with it has something in front that turns "not
delivered yet" into 404; here, that is a query. It costs the peer nothing: the turning is done in the server's process.

    python -m benchmarks.server
"""

from __future__ import annotations

import json
import socket
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import uvicorn

from airflow_provider_fluxomail.sandbox.app import build_app
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY, Bounds
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches
from benchmarks.protocol import UNTIL_DELIVERED

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

COUNTS: Final = "/_bench/counts"
"""Requests and refusals (429) since the start, by key."""


class Front:
    """The outermost application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.requests: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request and hand it on."""
        if scope["path"] == COUNTS:
            await _answer({"requests": self.requests, "refused": self.refused}, send)
            return
        headers = dict(scope["headers"])
        key = headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        self.requests[key] += 1
        turning = scope["query_string"] == urlencode(UNTIL_DELIVERED).encode()
        await self._app(scope, receive, _Answer(self, key, send, turning=turning).send)


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
        bounds=Bounds(requests=1_000),
    )
    app = Front(build_app(sandbox))
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
