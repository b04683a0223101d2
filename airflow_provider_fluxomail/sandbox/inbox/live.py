"""The event stream of the inbox: tells an open page that something changed, so that it loads its own HTML again.

It has no content, so nothing of a message is in it.
"""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from airflow_provider_fluxomail.sandbox.api.event_bus import Subscriber
from airflow_provider_fluxomail.sandbox.exchange import IS_HEAD, send_head
from airflow_provider_fluxomail.sandbox.inbox.pages import EVENT_STREAM
from airflow_provider_fluxomail.sandbox.state import Sandbox

MAX_VIEWERS: Final = 100
"""Pages that receive changes at the same time; others must be reloaded by hand."""

_RETRY_MS: Final = 1000
_GAP: Final = 0.25
"""Seconds between two notices: a burst of messages is one change."""
_HEARTBEAT: Final = 15.0
_STOP_SECONDS: Final = 0.2
_CHANGED: Final = b"data: changed\n\n"


class LiveResponse(Response):
    """Sends a notice at once and after each change, until the page is closed or the sandbox stops or is reset."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers(EVENT_STREAM)
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get(IS_HEAD):
            await send_head(self, send)
            return
        with self._sandbox.event_bus.subscribe(viewer=True) as viewer:
            tasks = [
                asyncio.ensure_future(task)
                for task in (
                    self._notify(viewer, send),
                    _disconnected(receive),
                    self._sandbox.stopping.wait(),
                    viewer.over.wait(),
                )
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            pass  # The page does not read; the server closes the connection.

    async def _notify(self, viewer: Subscriber, send: Send) -> None:
        loop = asyncio.get_running_loop()
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        # The page may be older than the stream.
        notice = f"retry: {_RETRY_MS}\n".encode() + _CHANGED
        while True:
            viewer.start_reading()
            await send({"type": "http.response.body", "body": notice, "more_body": True})
            beat = loop.time() + _HEARTBEAT
            await asyncio.sleep(_GAP)
            await viewer.wait(beat)
            notice = b": heartbeat\n\n" if loop.time() >= beat else _CHANGED


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
