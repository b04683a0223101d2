"""What stands in front of every request: ids, dates, the request log and the injected faults.

A plain ASGI callable around the whole application, so that it also sees the answers to unknown paths and to
crashes, and can cut the connection beneath the HTTP server.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import socket
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from airflow_provider_fluxomail.sandbox import faults
from airflow_provider_fluxomail.sandbox.errors import ApiError, default_error_body
from airflow_provider_fluxomail.sandbox.jsonbody import json_response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_fluxomail.sandbox.faults import Fault
    from airflow_provider_fluxomail.sandbox.requestlog import LoggedRequest
    from airflow_provider_fluxomail.sandbox.state import Sandbox

logger = logging.getLogger(__name__)

API_PREFIX: Final = "/api/v1"
EXCHANGE: Final = "fluxomail.exchange"
"""Where the scope holds the :class:`Exchange`."""

_SAFE_HEADER = re.compile(r"[\x20-\x7e]{1,256}")


@dataclass(slots=True)
class Exchange:
    """One request to the API on its way through.

    :param entry: its row in the request log.
    :param headers: response headers that the handler adds, whatever its answer is.
    """

    entry: LoggedRequest
    headers: dict[str, str] = field(default_factory=dict)

    def echo(self, name: str, value: str) -> None:
        """Add a response header with a client's value, unless no header could carry it."""
        if _SAFE_HEADER.fullmatch(value):
            self.headers[name] = value


class Gate:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event of the HTTP server."""
        path = scope["path"]
        if path == API_PREFIX or path.startswith(API_PREFIX + "/"):
            await self._api(scope, receive, send)
            return

        async def dated(message: Message) -> None:
            await send(self._with_headers(message, {}))

        await self._handle(scope, receive, dated)

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        sandbox = self._sandbox
        method, path = scope["method"], scope["path"]
        entry = sandbox.requests.add(sandbox.stopwatch.now(), method, path, scope["query_string"], scope["headers"])
        exchange = scope[EXCHANGE] = Exchange(entry)
        request_id = entry.headers.get("x-request-id", "")
        if not _SAFE_HEADER.fullmatch(request_id):
            request_id = f"req_{secrets.token_hex(12)}"
        exchange.headers |= {"X-Request-Id": request_id, "Fluxomail-Request-Id": request_id}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Before the client can see the answer: it may ask for the log at once.
                entry.status = message["status"]
            await send(self._with_headers(message, exchange.headers))

        # Read first: a client that gives up during a delay has still sent its message, as in real life.
        body = await _read(receive, sandbox.bounds.body_bytes)
        if body is None:
            return
        delay, fault = sandbox.faults.take(method, path)
        entry.fault = "+".join(each.kind for each in (delay, fault) if each is not None) or None
        if delay is not None and not await self._sleep(delay.seconds):
            await _cut(receive, send)
            return
        if fault is not None and fault.kind in (faults.STATUS, faults.ERROR_BEFORE_STORE):
            await _injected(fault)(scope, receive, answer)
        elif len(body) > sandbox.bounds.body_bytes:
            error = ApiError(413, f"Request body larger than {sandbox.bounds.body_bytes} bytes")
            await error.response()(scope, receive, answer)
        elif fault is None:
            await self._handle(scope, _replay(body, receive), answer)
        else:
            await self._after_store(fault, scope, _replay(body, receive), answer, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. A crash was answered with 500 by it; its traceback goes to the log.

        Left to uvicorn, the exception would also close a connection that the client believes to be kept alive.
        """
        try:
            await self._app(scope, receive, send)
        except Exception:
            logger.exception("The sandbox failed on %s %s", scope["method"], scope["path"])

    async def _after_store(self, fault: Fault, scope: Scope, receive: Receive, answer: Send, send: Send) -> None:
        """Handle the request in full, then lose or spoil the answer."""
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._handle(scope, receive, hold)
        stored = held[0]["status"] < 300
        exchange: Exchange = scope[EXCHANGE]
        if not stored and scope["method"] == "POST":
            # Nothing was stored, so this is not the request that the fault is meant for.
            self._sandbox.faults.give_back(fault)
            exchange.entry.fault = None
            for message in held:
                await answer(message)
        elif fault.kind == faults.ERROR_AFTER_STORE:
            exchange.headers.pop("Idempotency-Replayed", None)
            await _injected(fault)(scope, receive, answer)
        else:
            await _cut(receive, send)

    async def _sleep(self, seconds: float) -> bool:
        """Wait in real time; False if the server stops meanwhile."""
        try:
            await asyncio.wait_for(self._sandbox.stopping.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def _with_headers(self, message: Message, headers: dict[str, str]) -> Message:
        if message["type"] != "http.response.start":
            return message
        date = formatdate(self._sandbox.clock.now(), usegmt=True)
        own = list(message["headers"])
        # A header that an injected answer sets itself wins.
        taken = {name.lower() for name, _ in own}
        for name, value in ({"Date": date} | headers).items():
            encoded = name.lower().encode("latin-1")
            if encoded not in taken:
                own.append((encoded, value.encode("latin-1")))
        return {**message, "headers": own}


async def _read(receive: Receive, limit: int) -> bytearray | None:
    """The whole body; None if the client has gone.

    A body above the limit is read to its end, as an early answer would be lost in the client's writes, but
    only the first bytes are kept: enough to see that it was too long.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= limit:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


def _replay(body: bytearray, receive: Receive) -> Receive:
    """A ``receive`` that gives the body that was read once more, then what the server has to say."""
    pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


async def _cut(receive: Receive, send: Send) -> None:
    """Close the connection without a byte of an answer.

    ASGI has no word for it, and returning without an answer makes uvicorn send a 500. ``send`` is a method of
    uvicorn's request cycle, for each of its HTTP implementations, and that holds the connection's transport.
    The wait for the disconnect lets the cycle learn that there is nobody left to send that 500 to.
    """
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    if transport is None:
        raise RuntimeError("the HTTP server gives no access to its connection, so it can't be cut")
    try:
        # A process that was forked meanwhile holds this socket too: closing ours alone would end nothing.
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The client has gone first.
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


def _injected(fault: Fault) -> Response:
    """The answer of a fault that answers."""
    if fault.kind != faults.STATUS:
        return json_response(default_error_body(500), 500)
    headers = dict(fault.headers)
    if fault.retry_after is not None:
        headers["Retry-After"] = fault.retry_after
    if fault.status in (204, 304):
        return Response(status_code=fault.status, headers=headers)
    if isinstance(fault.body, str):
        return Response(fault.body.encode(), fault.status, headers, "text/plain")
    body = default_error_body(fault.status) if fault.body is None else fault.body
    return json_response(body, fault.status, headers)
