"""The Fluxomail API, v1: send, send-global and the timeline of a send.

Checks run in the order: key, scope, pause, rate, validation. The documentation leaves it open; plan gates
will come last.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.sandbox.delivery import plan
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.gate import API_PREFIX, EXCHANGE, Exchange
from airflow_provider_fluxomail.sandbox.jsonbody import json_response
from airflow_provider_fluxomail.sandbox.messages import idempotency_key_of, parse_body, parse_message
from airflow_provider_fluxomail.sandbox.timeline import timeline

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from airflow_provider_fluxomail.sandbox.messages import Message
    from airflow_provider_fluxomail.sandbox.records import ApiKey, StoredSend
    from airflow_provider_fluxomail.sandbox.state import Sandbox

SEND_SCOPE = "send_email"
READ_SCOPE = "read_sends"


class ApiV1:
    """The handlers. None of them waits for anything after the body, so requests can't interleave."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        """Add the routes."""
        app.add_route(f"{API_PREFIX}/emails/send", self.send, methods=["POST"])
        app.add_route(f"{API_PREFIX}/emails/send-global", self.send_global, methods=["POST"])
        app.add_route(f"{API_PREFIX}/sends/{{send_id}}", self.get_send, methods=["GET"])

    async def send(self, request: Request) -> Response:
        """``POST /api/v1/emails/send``. https://docs.fluxomail.com/api-reference/fluxomail/send-email"""
        return self._send(request, await request.body(), "send")

    async def send_global(self, request: Request) -> Response:
        """``POST /api/v1/emails/send-global``: the same, and the message remembers the path. https://docs.fluxomail.com/api-reference/fluxomail/send-global"""
        return self._send(request, await request.body(), "send-global")

    async def get_send(self, request: Request) -> Response:
        """``GET /api/v1/sends/{id}``. https://docs.fluxomail.com/api-reference/fluxomail/get-send"""
        key = self._admit(request, READ_SCOPE)
        send = self._sandbox.store.get_send(request.path_params["send_id"])
        if send is None or send.organization != key.organization:
            raise ApiError(404, "Send not found")
        events = self._sandbox.store.events(send, self._sandbox.clock.now_ms())
        return json_response(timeline(send, events, self._sandbox.settings.timeline_form))

    def _admit(self, request: Request, scope: str, *, blocked_by_pause: bool = False) -> ApiKey:
        """Check key, scope, pause and rate; count the request.

        :param blocked_by_pause: a pause stops this call; the documentation names sending only.
        """
        key = self._authenticate(request)
        exchange: Exchange = request.scope[EXCHANGE]
        allowance = None
        if key.cap is not None:
            allowance = self._sandbox.rates.hit(key.key, key.cap, self._sandbox.clock.now())
            exchange.headers |= allowance.headers()
        if not key.allows(scope):
            raise ApiError(403, f"Forbidden: missing scope {scope}", details={"scope": scope})
        if blocked_by_pause and self._sandbox.store.is_paused(key.organization):
            raise ApiError(403, "Tenant paused for this organization", code="tenant_paused")
        if allowance is not None and allowance.exceeded:
            raise ApiError(
                429,
                "Rate limit exceeded",
                details={"limit": allowance.limit, "retryAfter": allowance.retry_after},
                headers={"Retry-After": str(allowance.retry_after)},
            )
        return key

    def _authenticate(self, request: Request) -> ApiKey:
        """The key of the Bearer header, else of ``x-api-key``."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        secret = token.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        key = self._sandbox.store.get_key(secret) if secret else None
        if key is None:
            raise ApiError(401, "Invalid API key")
        return key

    def _send(self, request: Request, body: bytes, endpoint: str) -> Response:
        header = request.headers.get("idempotency-key")
        exchange: Exchange = request.scope[EXCHANGE]
        if header:
            exchange.echo("Idempotency-Key", header)
        key = self._admit(request, SEND_SCOPE, blocked_by_pause=True)
        fields = parse_body(body)
        idempotency_key = idempotency_key_of(header, fields)
        if idempotency_key is not None:
            exchange.entry.idempotency_key = idempotency_key
            exchange.echo("Idempotency-Key", idempotency_key)
        message = parse_message(fields, idempotency_key, len(body))
        if idempotency_key is not None:
            first = self._sandbox.store.find_idempotent(key.organization, idempotency_key, self._sandbox.clock.now_ms())
            if first is not None:
                return self._replay(first, message, exchange)
        return self._accept(message, key.organization, endpoint)

    def _replay(self, first: StoredSend, message: Message, exchange: Exchange) -> Response:
        """The first result again. https://docs.fluxomail.com/api-reference/fluxomail/idempotency"""
        if self._sandbox.settings.idempotency_conflict == "conflict" and first.fingerprint != message.fingerprint:
            raise ApiError(409, "Idempotency key was used with a different request")
        exchange.headers["Idempotency-Replayed"] = "true"
        return json_response({"sendId": first.send_id, "status": "sent", "messageId": first.message_id, "reused": True})

    def _accept(self, message: Message, organization: str, endpoint: str) -> Response:
        """Store a new message with its timeline."""
        now_ms = self._sandbox.clock.now_ms()
        send_id = f"sends_{secrets.token_hex(12)}"
        message_id = f"0100{secrets.token_hex(6)}-{secrets.token_hex(4)}-000000"
        self._sandbox.store.add_send(
            message,
            send_id=send_id,
            message_id=message_id,
            organization=organization,
            endpoint=endpoint,
            created_ms=now_ms,
            events=plan(message.address, message.html, now_ms, self._sandbox.settings.event_delay),
        )
        return json_response({"sendId": send_id, "status": "sent", "messageId": message_id})
