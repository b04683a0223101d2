"""What a fault does to the response of a request: replace it, spoil it, delay it or lose it."""

from __future__ import annotations

import json
import math
import os
from email.utils import formatdate
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Message, Send

from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import Exchange, json_response
from airflow_provider_fluxomail.sandbox.faults import models as faults
from airflow_provider_fluxomail.sandbox.faults.models import AnyFault
from airflow_provider_fluxomail.sandbox.limits import MAX_EPOCH_SECONDS
from airflow_provider_fluxomail.sandbox.switches import Switches

_PIECES: Final = 10
"""Pieces of a slow body."""

_PROXY_PAGE: Final = """<html>
<head><title>{status} {reason}</title></head>
<body><center><h1>{status} {reason}</h1></center><hr><center>proxy</center></body>
</html>
"""


def replacement(spec: AnyFault, switches: Switches, now: float, send_id: str | None = None) -> Response | None:
    """The response that a fault sends in place of the API's; None if it sends none.

    :param now: the sandbox clock, seconds since the epoch.
    :param send_id: of the send that was stored nevertheless.
    """
    if isinstance(spec, faults.Status):
        return _status(spec, switches, now)
    if isinstance(spec, faults.ProxyErrorPage):
        reason = ApiError(spec.status).message
        page = _PROXY_PAGE.format(status=spec.status, reason=reason)
        return Response(page.encode(), spec.status, media_type="text/html")
    if isinstance(spec, faults.ErrorBeforeStore):
        return ApiError(500).response(switches)
    if isinstance(spec, faults.ErrorAfterStore):
        details = {"sendId": send_id} if send_id and switches.error_send_id else None
        return ApiError(500, details=details).response(switches)
    return None


def _status(spec: faults.Status, switches: Switches, now: float) -> Response:
    headers = dict(spec.headers)
    if spec.retry_after is not None:
        headers["Retry-After"] = _retry_after(spec.retry_after, now)
    if spec.status in (204, 304):
        return Response(status_code=spec.status, headers=headers)
    if isinstance(spec.body, str):
        return Response(spec.body.encode(), spec.status, headers, "text/plain")
    if spec.body is None:
        return ApiError(spec.status).response_with(spec.status, switches, headers)
    return json_response(spec.body, spec.status, headers)


def _retry_after(value: faults.HttpDate | str | float, now: float) -> str:
    if isinstance(value, faults.HttpDate):
        # Rounded up: a date is in whole seconds, and an early retry would be refused again.
        return formatdate(min(math.ceil(now + value.http_date_in), MAX_EPOCH_SECONDS), usegmt=True)
    return str(value)


class HeldResponse:
    """A response that was held back: its head and its whole body."""

    def __init__(self, messages: list[Message]) -> None:
        self.head = messages[0]
        self.body = b"".join(message.get("body", b"") for message in messages[1:])

    @property
    def status(self) -> int:
        return int(self.head["status"])

    @property
    def send_id(self) -> str | None:
        value = self._json()
        return value.get("sendId") if isinstance(value, dict) else None

    async def send(self, send: Send) -> None:
        await send(self.head)
        await send({"type": "http.response.body", "body": self.body})

    async def send_spoiled(self, spec: AnyFault, send: Send, exchange: Exchange) -> bool:
        """Send what a fault leaves of it; False if the connection is to be cut then."""
        half = self.body[: len(self.body) // 2]
        if isinstance(spec, faults.ResponseLostAfterStore):
            return False
        if isinstance(spec, faults.CutInBody):
            await send(self.head)
            await send({"type": "http.response.body", "body": half, "more_body": True})
            return False
        if isinstance(spec, faults.SlowBody):
            return await self._send_slowly(spec.seconds, send, exchange)
        if isinstance(spec, faults.SlowFirstByte) and not await exchange.sleep(spec.seconds):
            return False
        spoiled = self
        if isinstance(spec, faults.MalformedJson):
            spoiled = self._with_body(half)
        elif isinstance(spec, faults.GzipGarbage):
            # After the signature a method that does not exist: nothing that a decoder could take for data.
            spoiled = self._with_body(b"\x1f\x8b\xff" + os.urandom(64), (b"content-encoding", b"gzip"))
        elif isinstance(spec, faults.MissingSendId):
            value = self._json()
            value.pop("sendId", None)
            spoiled = self._with_body(json.dumps(value, separators=(",", ":")).encode())
        await spoiled.send(send)
        return True

    async def _send_slowly(self, seconds: float, send: Send, exchange: Exchange) -> bool:
        await send(self.head)
        size = max(1, math.ceil(len(self.body) / _PIECES))
        pieces = [self.body[start : start + size] for start in range(0, len(self.body), size)]
        for number, piece in enumerate(pieces):
            if number and not await exchange.sleep(seconds / max(1, len(pieces) - 1)):
                return False
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return True

    def _json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def _with_body(self, body: bytes, *headers: tuple[bytes, bytes]) -> HeldResponse:
        length = (b"content-length", str(len(body)).encode())
        kept = [header for header in self.head["headers"] if header[0].lower() != b"content-length"]
        head = {**self.head, "headers": [*kept, length, *headers]}
        return HeldResponse([head, {"type": "http.response.body", "body": body}])
