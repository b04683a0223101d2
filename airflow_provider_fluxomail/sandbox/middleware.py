"""What stands in front of every request: ids, dates, the request log, the injected faults and the guard.

A plain ASGI callable around the whole application, so that it also sees the answers to unknown paths and to
crashes, and can cut the connection beneath the HTTP server.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from airflow_provider_fluxomail.sandbox.control.browser_guard import as_json, check_sender, read_body, read_json
from airflow_provider_fluxomail.sandbox.control.inputs import ControlError
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import parse_json
from airflow_provider_fluxomail.sandbox.faults import models as faults
from airflow_provider_fluxomail.sandbox.faults.queue import Subject
from airflow_provider_fluxomail.sandbox.faults.responses import Answer, cut, own_answer, transport_of
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.message import recipient_forms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from airflow_provider_fluxomail.sandbox.faults.queue import QueuedFault
    from airflow_provider_fluxomail.sandbox.state import Sandbox
    from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest

logger = logging.getLogger(__name__)

API_PREFIX: Final = "/api/v1"
SENDS_PREFIX: Final = f"{API_PREFIX}/sends/"
STREAM_PATH: Final = f"{API_PREFIX}/events/stream"
EXCHANGE: Final = "fluxomail.exchange"
"""Where the scope holds the :class:`Exchange`."""

_SAFE_HEADER = re.compile(r"[\x20-\x7e]{1,256}")


@dataclass(slots=True)
class Exchange:
    """One request to the API on its way through.

    :param entry: its row in the request log.
    :param subject: what it is about, for faults.
    :param cut: cuts its connection.
    :param interrupted: set when it can't be held back any longer.
    :param headers: response headers that the handler adds, whatever its answer is.
    """

    entry: LoggedRequest
    subject: Subject
    cut: Callable[[], Awaitable[None]]
    interrupted: asyncio.Event
    headers: dict[str, str] = field(default_factory=dict)

    def echo(self, name: str, value: str) -> None:
        """Add a response header with a client's value, unless no header could carry it."""
        if _SAFE_HEADER.fullmatch(value):
            self.headers[name] = value

    async def sleep(self, seconds: float) -> bool:
        """Hold it back in real time; False if the server stops or is reset meanwhile."""
        try:
            await asyncio.wait_for(self.interrupted.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def note_fault(self, kind: str) -> None:
        """Add a kind to the log's row."""
        self.entry.fault = f"{self.entry.fault}+{kind}" if self.entry.fault else kind

    def drop_fault(self) -> None:
        """Take the last kind out of the log's row."""
        self.entry.fault = (self.entry.fault or "").rpartition("+")[0] or None


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
        shown = pages.is_page(path)

        async def dated(message: Message) -> None:
            await send(self._with_headers(message, {}))

        try:
            check_sender(scope["method"], scope["headers"], self._sandbox.names)
            with self._ended_by_a_stop(send):
                body = await (read_body if shown else read_json)(receive, self._sandbox.bounds.control_body_bytes)
        except ControlError as error:
            refusal = pages.refusal(error) if shown else error.response()
            await refusal(scope, receive, dated)
            return
        await self._handle(scope if shown else as_json(scope), _replay(body, receive), dated)

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        sandbox = self._sandbox
        method, path = scope["method"], scope["path"]
        entry = sandbox.requests.add(sandbox.stopwatch.now(), method, path, scope["query_string"], scope["headers"])
        interrupted = sandbox.interrupted
        # Read first: a client that gives up during a delay has still sent its message, as in real life.
        with self._ended_by_a_stop(send):
            body = await _read(receive, sandbox.bounds.body_bytes)
        if body is None:
            return
        subject = Subject(
            method,
            path,
            stream=method == "GET" and path == STREAM_PATH,
            api_key=_credential(scope),
            about=partial(self._about, method, path, entry, body),
        )
        exchange = scope[EXCHANGE] = Exchange(entry, subject, partial(cut, receive, send), interrupted)
        self._name(exchange)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Before the client can see the answer: it may ask for the log at once.
                entry.status = message["status"]
            await send(self._with_headers(message, exchange.headers))

        delay, fault = sandbox.faults.take(subject)
        for taken in (delay, fault):
            if taken is not None:
                exchange.note_fault(taken.spec.kind)
        if delay is not None and isinstance(delay.spec, faults.Delay) and not await exchange.sleep(delay.spec.seconds):
            await exchange.cut()
            return
        if fault is not None and not faults.handled_first(fault.spec):
            refused = own_answer(fault.spec, sandbox.settings, sandbox.clock.now())
            if refused is None:
                await exchange.cut()
            else:
                await refused(scope, receive, answer)
        elif len(body) > sandbox.bounds.body_bytes:
            error = ApiError(413, f"Request body larger than {sandbox.bounds.body_bytes} bytes")
            await error.response(sandbox.settings)(scope, receive, answer)
        elif fault is None:
            await self._handle(scope, _replay(body, receive), answer)
        else:
            await self._tamper(fault, scope, _replay(body, receive), answer)

    @contextmanager
    def _ended_by_a_stop(self, send: Send) -> Iterator[None]:
        """A client that sends half a request and waits does not hold up the end of the server."""
        abort = getattr(transport_of(send), "abort", None)
        if abort is None:
            yield
            return
        self._sandbox.unread.add(abort)
        try:
            yield
        finally:
            self._sandbox.unread.discard(abort)

    def _name(self, exchange: Exchange) -> None:
        """Give the request an id, the client's if it sent one."""
        sent = exchange.entry.headers
        request_id = sent.get("x-request-id") or sent.get("fluxomail-request-id") or ""
        if not _SAFE_HEADER.fullmatch(request_id):
            request_id = f"req_{secrets.token_hex(12)}"
        for name in ("X-Request-Id", "Fluxomail-Request-Id"):
            if self._sandbox.settings.request_id_header in ("both", name.lower()):
                exchange.headers[name] = request_id

    def _about(self, method: str, path: str, entry: LoggedRequest, body: bytearray) -> tuple[str | None, list[str]]:
        """The idempotency key that a request is about, and its recipient in each form."""
        if method == "GET" and path.startswith(SENDS_PREFIX):
            send = self._sandbox.store.get_send(path.removeprefix(SENDS_PREFIX))
            return (None, []) if send is None else (send.idempotency_key, recipient_forms(send.recipient))
        try:
            fields = parse_json(bytes(body))
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            fields = {}
        key = entry.idempotency_key or fields.get("idempotencyKey")
        return (key if isinstance(key, str) else None, recipient_forms(fields.get("to")))

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. A crash was answered with 500 by it; its traceback goes to the log.

        Left to uvicorn, the exception would also close a connection that the client believes to be kept alive.
        """
        try:
            await self._app(scope, receive, send)
        except Exception:
            logger.exception("The sandbox failed on %s %s", scope["method"], scope["path"])

    async def _tamper(self, fault: QueuedFault, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request in full, then lose or spoil the answer."""
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._handle(scope, receive, hold)
        answer = Answer(held)
        exchange: Exchange = scope[EXCHANGE]
        spec = fault.spec
        if answer.status >= 300:
            # Nothing was stored or read, so this is not the request that the fault is meant for.
            fault.give_back()
            exchange.drop_fault()
            await answer.send(send)
        elif (own := own_answer(spec, self._sandbox.settings, self._sandbox.clock.now(), answer.send_id)) is not None:
            exchange.headers.pop("Idempotency-Replayed", None)
            await own(scope, receive, send)
        elif isinstance(spec, faults.ResponseLostAfterStore):
            await exchange.cut()
        elif isinstance(spec, faults.CutInBody):
            await answer.send_half(send)
            await exchange.cut()
        elif isinstance(spec, faults.SlowFirstByte):
            if await exchange.sleep(spec.seconds):
                await answer.send(send)
            else:
                await exchange.cut()
        elif isinstance(spec, faults.SlowBody):
            if not await answer.send_slowly(send, spec.seconds, exchange.sleep):
                await exchange.cut()
        elif isinstance(spec, faults.MalformedJson):
            await answer.cut_short().send(send)
        elif isinstance(spec, faults.GzipGarbage):
            await answer.garbled().send(send)
        else:
            assert isinstance(spec, faults.MissingSendId), spec.kind
            await answer.without_send_id().send(send)

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


def _credential(scope: Scope) -> str | None:
    """What the request shows as its key: the Bearer header, else ``x-api-key``, else ``?token=``."""
    headers: dict[bytes, str] = {
        name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")
    }
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if b"x-api-key" in headers:
        return headers[b"x-api-key"]
    tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token")
    return tokens[0] if tokens else None


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


def _replay(body: bytes | bytearray, receive: Receive) -> Receive:
    """A ``receive`` that gives the body that was read once more, then what the server has to say."""
    pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
