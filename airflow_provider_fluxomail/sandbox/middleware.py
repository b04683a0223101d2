"""What every request passes first: ids, dates, the request log, the injected faults and the browser guard.

A plain ASGI callable around the whole application, so that it also sees the responses to unknown paths and crashes,
and can cut the connection beneath the HTTP server.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable
from email.utils import formatdate
from functools import partial
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_fluxomail.sandbox.api import cors
from airflow_provider_fluxomail.sandbox.control.browser_guard import check_host, check_origin, is_from_browser
from airflow_provider_fluxomail.sandbox.errors import ApiError, ControlError
from airflow_provider_fluxomail.sandbox.exchange import (
    API_PREFIX,
    EXCHANGE,
    IS_HEAD,
    SENDS_PREFIX,
    STREAM_PATH,
    Exchange,
    cut_connection,
    header_credential,
    is_header_value,
    parse_json,
    replay_body,
    transport_of,
)
from airflow_provider_fluxomail.sandbox.faults import models as faults
from airflow_provider_fluxomail.sandbox.faults.queue import QueuedFault, Subject
from airflow_provider_fluxomail.sandbox.faults.responses import HeldResponse, replacement
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.intake import Body, read_body
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY
from airflow_provider_fluxomail.sandbox.message import parse_body, recipient_forms
from airflow_provider_fluxomail.sandbox.prefix import without_prefix
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.store.refused_requests import Recorder
from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest
from airflow_provider_fluxomail.sandbox.tracking.handlers import is_public

logger = logging.getLogger(__name__)


class SandboxMiddleware:
    """The outermost ASGI application."""

    def __init__(self, app: ASGIApp, sandbox: Sandbox) -> None:
        self._app = app
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = without_prefix(scope, self._sandbox.root_path)
        path = scope["path"]
        if path == API_PREFIX or path.startswith(API_PREFIX + "/"):
            await self._api(scope, receive, send)
        else:
            await self._other(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The control API, the inbox, and the routes for recipients."""
        # The mail program of a recipient may be anywhere, so there is no guard.
        for_recipients = is_public(scope["path"])
        is_page = pages.is_page(scope["path"])

        async def dated(message: Message) -> None:
            await send(self._with_headers(message, {}))

        body: Body | None = None
        try:
            check_headers(scope["headers"], self._sandbox.bounds.header_bytes)
            if not for_recipients:
                check_origin(scope["method"], scope["headers"], self._sandbox.names)
            body = await self._read(receive, send, self._sandbox.bounds.control_body_bytes)
            is_json = not is_page and not for_recipients
            check_encoding(scope["headers"], body)
            content = check_body(body, is_json=is_json)
            await self._handle(_as_json(scope) if is_json else scope, replay_body(content, receive), dated)
        except ControlError as error:
            refusal = pages.refusal(error, scope) if is_page else error.response()
            await refusal(scope, receive, dated)
        finally:
            if body is not None:
                body.release()

    async def _api(self, scope: Scope, receive: Receive, send: Send) -> None:
        sandbox = self._sandbox
        method, path = scope["method"], scope["path"]
        entry = sandbox.requests.add(sandbox.stopwatch.now(), method, path, scope["query_string"], scope["headers"])
        interrupted = sandbox.interrupted
        has_key = self._has_key(scope)
        limit = sandbox.bounds.body_bytes if has_key else sandbox.bounds.keyless_body_bytes
        # Read first: a client that gives up during a delay has still sent its message, as in real life.
        body = await self._read(receive, send, limit)
        if body is None:
            return
        try:
            refused = self._refusal(scope, body, has_key=has_key)
            await self._respond(scope, receive, send, entry, interrupted, body.content, refused)
        finally:
            body.release()

    async def _respond(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        entry: LoggedRequest,
        interrupted: asyncio.Event,
        body: bytearray,
        refusal: ApiError | None,
    ) -> None:
        sandbox = self._sandbox
        method, path = scope["method"], scope["path"]
        subject = Subject(
            method,
            path,
            stream=method == "GET" and path == STREAM_PATH,
            api_key=_credential(scope),
            about=partial(self._about, method, path, entry, body),
        )
        cut = partial(cut_connection, receive, send)
        exchange = scope[EXCHANGE] = Exchange(entry, subject, cut, interrupted)
        self._set_request_id(exchange)
        exchange.headers |= cors.HEADERS
        recorder = Recorder(sandbox.refused, entry, body)

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                # Before the client can see the response: it may read the log at once.
                entry.status = message["status"]
                sandbox.event_bus.notify_viewers()
            recorder.see(message)
            await send(self._with_headers(message, exchange.headers))

        if refusal is not None and refusal.status != 413:
            # Not a request that a fault is meant for.
            await refusal.response(sandbox.switches)(scope, receive, respond)
            return
        # What a browser requests before the call that a fault is meant for meets none.
        delay, fault = (None, None) if method == "OPTIONS" else sandbox.faults.acquire(subject)
        for acquired in (delay, fault):
            if acquired is not None:
                exchange.note_fault(acquired.spec.kind)
        if delay is not None and isinstance(delay.spec, faults.Delay) and not await exchange.sleep(delay.spec.seconds):
            await exchange.cut()
            return
        if fault is not None and not faults.handled_first(fault.spec):
            refused = replacement(fault.spec, sandbox.switches, sandbox.clock.now())
            if refused is None:
                await exchange.cut()
            else:
                await refused(scope, receive, respond)
        elif refusal is not None:
            await refusal.response(sandbox.switches)(scope, receive, respond)
        elif fault is None:
            await self._handle(scope, replay_body(body, receive), respond)
        else:
            await self._handle_with_fault(fault, scope, replay_body(body, receive), respond)

    def _has_key(self, scope: Scope) -> bool:
        key = self._sandbox.store.keys.get(_credential(scope) or "")
        return key is not None and key.alive(self._sandbox.clock.now_ms())

    def _refusal(self, scope: Scope, body: Body, *, has_key: bool) -> ApiError | None:
        """Why the request is refused before anything looks at it.

        A name that was made to point at this machine (DNS rebinding) must not lead a browser here. A page may know the
        default key, and a browser does not always say that it is one.
        """
        try:
            check_headers(scope["headers"], self._sandbox.bounds.header_bytes)
            if is_from_browser(scope["headers"]) or _credential(scope) == DEFAULT_API_KEY:
                check_host(scope["headers"], self._sandbox.names)
            check_encoding(scope["headers"], body)
        except ControlError as error:
            return ApiError(error.status, str(error), code="host_not_allowed" if error.status == 403 else None)
        if body.refused is None:
            return None
        status, text = body.refused
        if status == 413 and not has_key:
            return ApiError(401)
        headers = {408: {"Connection": "close"}, 503: {"Retry-After": "1"}}.get(status)
        return ApiError(status, f"{text[:1].upper()}{text[1:]}", headers=headers)

    async def _read(self, receive: Receive, send: Send, limit: int) -> Body | None:
        """The whole body. Stopping the server closes the connection: half a request does not hold it up."""
        abort = getattr(transport_of(send), "abort", lambda: None)
        self._sandbox.unread.add(abort)
        try:
            return await read_body(receive, self._sandbox.intake, limit)
        finally:
            self._sandbox.unread.discard(abort)

    def _set_request_id(self, exchange: Exchange) -> None:
        """Give the request an id: the client's if it sent one, else a new one."""
        sent = exchange.entry.headers
        request_id = sent.get("x-request-id") or sent.get("fluxomail-request-id") or ""
        if not is_header_value(request_id):
            request_id = f"req_{secrets.token_hex(12)}"
        for name in ("X-Request-Id", "Fluxomail-Request-Id"):
            if self._sandbox.switches.request_id_header in ("both", name.lower()):
                exchange.headers[name] = request_id

    def _about(self, method: str, path: str, entry: LoggedRequest, body: bytearray) -> tuple[str | None, list[str]]:
        """The idempotency key that a request is about, and its recipient in each form."""
        if method == "GET" and path.startswith(SENDS_PREFIX):
            send = self._sandbox.store.get_send(path.removeprefix(SENDS_PREFIX))
            return (None, []) if send is None else (send.idempotency_key, recipient_forms(send.recipient))
        try:
            fields = parse_body(body)
        except ApiError:
            fields = {}
        key = entry.idempotency_key or fields.get("idempotencyKey")
        return (key if isinstance(key, str) else None, recipient_forms(fields.get("to")))

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application. If it crashed, it has sent a 500; the traceback goes to the log.

        Left to uvicorn, the exception would also close a connection that the client expects to stay open.
        """
        if scope["method"] == "HEAD":
            # The server sends no body to a HEAD.
            scope = {**scope, "method": "GET", IS_HEAD: True}
        try:
            await self._app(scope, receive, send)
        except Exception:
            logger.exception("The sandbox failed on %s %s", scope["method"], scope["path"])

    async def _handle_with_fault(self, fault: QueuedFault, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request in full, then lose or spoil the response."""
        held: list[Message] = []

        async def hold(message: Message) -> None:
            held.append(message)

        await self._handle(scope, receive, hold)
        response = HeldResponse(held)
        exchange: Exchange = scope[EXCHANGE]
        if response.status >= 300:
            # Nothing was stored or read, so this is not the request that the fault is meant for.
            fault.release()
            exchange.drop_fault()
            await response.send(send)
            return
        sandbox = self._sandbox
        replaced = replacement(fault.spec, sandbox.switches, sandbox.clock.now(), response.send_id)
        if replaced is not None:
            exchange.headers.pop("Idempotency-Replayed", None)
            await replaced(scope, receive, send)
        elif not await response.send_spoiled(fault.spec, send, exchange):
            await exchange.cut()

    def _with_headers(self, message: Message, headers: dict[str, str]) -> Message:
        if message["type"] == "http.response.start":
            added = MutableHeaders(raw=message["headers"])
            date = formatdate(self._sandbox.clock.now(), usegmt=True)
            for name, value in ({"Date": date} | headers).items():
                # A header that an injected response sets itself wins.
                added.setdefault(name, value)
        return message


def _credential(scope: Scope) -> str | None:
    """The API key of the request: that of a header, else ``?token=``."""
    credential = header_credential(Headers(scope=scope))
    if credential is None:
        credential = parse_qs(scope["query_string"].decode("latin-1")).get("token", [None])[0]
    return credential


def check_headers(headers: Iterable[tuple[bytes, bytes]], limit: int) -> None:
    """Refuse headers that came too fast to be refused before they were complete.

    :raises ControlError: 431.
    """
    if sum(len(name) + len(value) for name, value in headers) > limit:
        raise ControlError(f"the headers must be at most {limit} bytes", 431)


def check_encoding(headers: list[tuple[bytes, bytes]], body: Body | None) -> None:
    """Refuse a compressed body: its bytes would only be no JSON.

    :raises ControlError: 415.
    """
    encoding = Headers(raw=headers).get("content-encoding", "").strip().lower()
    if body is not None and body.content and encoding not in ("", "identity"):
        raise ControlError("the body must not be compressed: send it without Content-Encoding", 415)


def check_body(body: Body | None, *, is_json: bool) -> bytes:
    """The body of a request to the control API or the inbox; for JSON, no body counts as an empty object.

    :raises ControlError: 408, 413, 503, or 400 if it is incomplete or is not a JSON object.
    """
    if body is None:
        raise ControlError("the call ended in the middle of its body")
    if body.refused is not None:
        raise ControlError(body.refused.text, body.refused.status)
    content = bytes(body.content)
    if not is_json:
        return content
    content = content or b"{}"
    try:
        value = parse_json(content)
    except ValueError as error:
        raise ControlError(f"the body must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise ControlError("the body must be a JSON object")
    return content


def _as_json(scope: Scope) -> Scope:
    """The scope with the content type of JSON: ``curl -d`` sends another."""
    headers = [header for header in scope["headers"] if header[0] not in (b"content-type", b"content-length")]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
