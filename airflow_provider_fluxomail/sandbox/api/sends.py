"""The Fluxomail API, v1: send, send-global and the timeline of a send.

Checks run in the order: key, scope, pause, rate, validation, plan. The documentation leaves it open.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api.access import READ_SCOPE, SEND_SCOPE, bearer_or_key, plan_required
from airflow_provider_fluxomail.sandbox.api.timeline import timeline
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import json_response
from airflow_provider_fluxomail.sandbox.message import SHORT_REFUSES, idempotency_key_of, parse_body, parse_message
from airflow_provider_fluxomail.sandbox.middleware import EXCHANGE, Exchange
from airflow_provider_fluxomail.sandbox.outcomes import CLICKED, OPENED, plan

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.api.access import Access
    from airflow_provider_fluxomail.sandbox.message import Message
    from airflow_provider_fluxomail.sandbox.state import Sandbox
    from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoredSend

_REMEMBERED_ERRORS = (400, 402, 403)
_GLOBAL = "send-global"


class ApiV1:
    """The handlers. None of them waits for anything after the body, so requests can't interleave."""

    def __init__(self, sandbox: Sandbox, access: Access) -> None:
        self._sandbox = sandbox
        self._access = access

    async def send(self, request: Request) -> Response:
        """``POST /api/v1/emails/send``. https://docs.fluxomail.com/api-reference/fluxomail/send-email"""
        return self._send(request, await request.body(), "send")

    async def send_global(self, request: Request) -> Response:
        """``POST /api/v1/emails/send-global``: the same, and the message remembers the path. https://docs.fluxomail.com/api-reference/fluxomail/send-global"""
        return self._send(request, await request.body(), _GLOBAL)

    async def get_send(self, request: Request) -> Response:
        """``GET /api/v1/sends/{id}``. https://docs.fluxomail.com/api-reference/fluxomail/get-send"""
        settings, now_ms = self._sandbox.settings, self._sandbox.clock.now_ms()
        key = None
        if settings.timeline_auth == "required" or bearer_or_key(request) is not None:
            key = self._access.admit(request, READ_SCOPE)
        send = self._sandbox.store.get_send(request.path_params["send_id"])
        if send is None or (key is not None and send.organization != key.organization):
            raise ApiError(404, "Send not found")
        if now_ms < send.created_ms + settings.not_found_seconds * 1000:
            raise ApiError(404, "Send not found")
        return json_response(timeline(send, self._sandbox.store.events(send, now_ms), request, settings))

    def _send(self, request: Request, body: bytes, endpoint: str) -> Response:
        header = request.headers.get("idempotency-key")
        exchange: Exchange = request.scope[EXCHANGE]
        if header:
            exchange.echo("Idempotency-Key", header)
        key = self._access.known(request)
        try:
            self._access.allow(request, key, SEND_SCOPE, blocked_by_pause=True)
        except ApiError as error:
            self._remember(error, key, _key_of(header, body))
            raise
        try:
            fields = parse_body(body)
        except ApiError as error:
            self._remember(error, key, header)
            raise
        idempotency_key = idempotency_key_of(header, fields)
        if idempotency_key is None:
            return self._accept(self._parse(fields, None, len(body), endpoint), key, endpoint)
        exchange.entry.idempotency_key = idempotency_key
        exchange.echo("Idempotency-Key", idempotency_key)
        settings, now_ms = self._sandbox.settings, self._sandbox.clock.now_ms()
        since_ms = now_ms - int(settings.idempotency_life * 1000)
        refused = self._sandbox.refusals.find(key.organization, idempotency_key, since_ms)
        if refused is not None and settings.idempotency_errors:
            raise refused
        try:
            message = self._parse(fields, idempotency_key, len(body), endpoint)
        except ApiError as error:
            self._remember(error, key, idempotency_key)
            raise
        first = self._sandbox.store.find_idempotent(key.organization, idempotency_key, since_ms)
        if first is not None:
            return self._replay(first, message, exchange)
        return self._accept(message, key, endpoint)

    def _remember(self, error: ApiError, key: ApiKey, idempotency_key: str | None) -> None:
        """Keep a refusal under its idempotency key, unless that already stands for a result."""
        settings, now_ms = self._sandbox.settings, self._sandbox.clock.now_ms()
        if not settings.idempotency_errors or idempotency_key is None or error.status not in _REMEMBERED_ERRORS:
            return
        organization, since_ms = key.organization, now_ms - int(settings.idempotency_life * 1000)
        if (
            self._sandbox.store.find_idempotent(organization, idempotency_key, since_ms) is None
            and self._sandbox.refusals.find(organization, idempotency_key, since_ms) is None
        ):
            self._sandbox.refusals.keep(organization, idempotency_key, now_ms, error)

    def _parse(self, fields: dict[str, object], idempotency_key: str | None, size: int, endpoint: str) -> Message:
        settings = self._sandbox.settings
        if endpoint == _GLOBAL and settings.send_global == "short":
            refused = [name for name in SHORT_REFUSES if fields.get(name)]
            if refused:
                raise ApiError(
                    400, f"Invalid request: send-global takes no {', '.join(refused)}", details={"fields": refused}
                )
        message = parse_message(fields, idempotency_key, size, settings)
        if message.attachments and not settings.attachments_in_plan:
            raise plan_required("Attachments not enabled", "attachments")
        return message

    def _replay(self, first: StoredSend, message: Message, exchange: Exchange) -> Response:
        """The first result again. https://docs.fluxomail.com/api-reference/fluxomail/idempotency"""
        if self._sandbox.settings.idempotency_conflict == "conflict" and first.fingerprint != message.fingerprint:
            raise ApiError(409, "Idempotency key was used with a different request")
        exchange.headers["Idempotency-Replayed"] = "true"
        return self._sent(first.send_id, first.message_id, reused=True)

    def _accept(self, message: Message, key: ApiKey, endpoint: str) -> Response:
        """Store a new message with its timeline."""
        settings, now_ms = self._sandbox.settings, self._sandbox.clock.now_ms()
        events = plan(message.address, message.html, now_ms, settings.event_delay, settings.default_outcome)
        if endpoint == _GLOBAL and settings.send_global == "short":
            events = [event for event in events if event.type not in (OPENED, CLICKED)]
        send_id = f"sends_{secrets.token_hex(12)}"
        message_id = f"0100{secrets.token_hex(6)}-{secrets.token_hex(4)}-000000"
        self._sandbox.store.add_send(
            message,
            send_id=send_id,
            message_id=message_id,
            organization=key.organization,
            endpoint=endpoint,
            created_ms=now_ms,
            events=events,
        )
        self._sandbox.changed()
        return self._sent(send_id, message_id)

    def _sent(self, send_id: str, message_id: str, *, reused: bool = False) -> Response:
        answer: dict[str, object] = {"sendId": send_id, "status": "sent"}
        if self._sandbox.settings.send_result == "docs":
            answer["messageId"] = message_id
        else:
            answer["accepted"] = True
        if reused:
            answer["reused"] = True
        return json_response(answer)


def _key_of(header: str | None, body: bytes) -> str | None:
    """The idempotency key of a send that may be anything else than valid."""
    try:
        return idempotency_key_of(header, {} if header else parse_body(body))
    except ApiError:
        return None
