"""What a fault does to the answer of a request."""

from __future__ import annotations

import json
import math
import os
import socket
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import json_response
from airflow_provider_fluxomail.sandbox.faults import models as faults
from airflow_provider_fluxomail.sandbox.limits import MAX_EPOCH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive, Send

    from airflow_provider_fluxomail.sandbox.faults.models import AnyFault
    from airflow_provider_fluxomail.sandbox.switches import Settings

_DROPS: Final = 10
"""Pieces of a slow body."""

_PROXY_PAGE: Final = """<html>
<head><title>{status} {reason}</title></head>
<body><center><h1>{status} {reason}</h1></center><hr><center>proxy</center></body>
</html>
"""


def own_answer(spec: AnyFault, settings: Settings, now: float, send_id: str | None = None) -> Response | None:
    """The answer that a fault gives in place of the API's; None if it gives none.

    :param now: the sandbox clock, seconds since the epoch.
    :param send_id: of the send that was stored all the same.
    """
    if isinstance(spec, faults.Status):
        return _status(spec, settings, now)
    if isinstance(spec, faults.ProxyErrorPage):
        reason = ApiError(spec.status).message
        page = _PROXY_PAGE.format(status=spec.status, reason=reason)
        return Response(page.encode(), spec.status, media_type="text/html")
    if isinstance(spec, faults.ErrorBeforeStore):
        return ApiError(500).response(settings)
    if isinstance(spec, faults.ErrorAfterStore):
        named = {"sendId": send_id} if send_id and settings.error_send_id else None
        return ApiError(500, details=named).response(settings)
    return None


def _status(spec: faults.Status, settings: Settings, now: float) -> Response:
    headers = dict(spec.headers)
    if spec.retry_after is not None:
        headers["Retry-After"] = _retry_after(spec.retry_after, now)
    if spec.status in (204, 304):
        return Response(status_code=spec.status, headers=headers)
    if isinstance(spec.body, str):
        return Response(spec.body.encode(), spec.status, headers, "text/plain")
    if spec.body is None:
        if settings.error_form == "text":
            return Response(ApiError(spec.status).message.encode(), spec.status, headers, "text/plain")
        return json_response(ApiError(spec.status).body(settings.error_form), spec.status, headers)
    return json_response(spec.body, spec.status, headers)


def _retry_after(value: faults.HttpDate | str | float, now: float) -> str:
    if isinstance(value, faults.HttpDate):
        # Rounded up: a date is in whole seconds, and an early retry would be refused again.
        return formatdate(min(math.ceil(now + value.http_date_in), MAX_EPOCH_SECONDS), usegmt=True)
    return str(value)


class Answer:
    """An answer that was held back: its head and its whole body."""

    def __init__(self, messages: list[Message]) -> None:
        self.head = messages[0]
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def status(self) -> int:
        """Its HTTP status."""
        return int(self.head["status"])

    @property
    def send_id(self) -> str | None:
        """The ``sendId`` in it, if any."""
        value = self._json()
        return value.get("sendId") if isinstance(value, dict) else None

    def _json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def without_send_id(self) -> Answer:
        """A copy whose JSON has no ``sendId``."""
        value = self._json()
        value.pop("sendId", None)
        return self._with_body(json.dumps(value, separators=(",", ":")).encode())

    def cut_short(self) -> Answer:
        """A copy whose body is half as long, and says that this is all."""
        return self._with_body(self.body[: len(self.body) // 2])

    def garbled(self) -> Answer:
        """A copy that claims to be compressed."""
        # After the signature a method that does not exist: nothing that a decoder could take for data.
        return self._with_body(b"\x1f\x8b\xff" + os.urandom(64), (b"content-encoding", b"gzip"))

    def _with_body(self, body: bytes, *headers: tuple[bytes, bytes]) -> Answer:
        length = (b"content-length", str(len(body)).encode())
        kept = [header for header in self.head["headers"] if header[0].lower() != b"content-length"]
        head = {**self.head, "headers": [*kept, length, *headers]}
        return Answer([head, {"type": "http.response.body", "body": body}])

    async def send(self, send: Send) -> None:
        """Send it whole."""
        await send(self.head)
        await send({"type": "http.response.body", "body": self.body})

    async def send_half(self, send: Send) -> None:
        """Send the head, which promises the whole body, and half of it."""
        await send(self.head)
        await send({"type": "http.response.body", "body": self.body[: len(self.body) // 2], "more_body": True})

    async def send_slowly(self, send: Send, seconds: float, sleep: Callable[[float], Awaitable[bool]]) -> bool:
        """Send the head at once and the body in drops; False if ``sleep`` said that the server stops."""
        await send(self.head)
        size = max(1, math.ceil(len(self.body) / _DROPS))
        pieces = [self.body[start : start + size] for start in range(0, len(self.body), size)]
        for number, piece in enumerate(pieces):
            if number and not await sleep(seconds / max(1, len(pieces) - 1)):
                return False
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return True


def transport_of(send: Send) -> Any:
    """The connection's transport beneath uvicorn's ``send``; None under another server."""
    return getattr(getattr(send, "__self__", None), "transport", None)


async def cut(receive: Receive, send: Send) -> None:
    """Close the connection, whatever of an answer was sent.

    ASGI has no word for it, and returning without an answer makes uvicorn send a 500. ``send`` is a method of
    uvicorn's request cycle, for each of its HTTP implementations, and that holds the connection's transport.
    The wait for the disconnect lets the cycle learn that there is nobody left to send that 500 to.
    """
    transport = transport_of(send)
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
