"""The Fluxomail API, v1: send, send-global and the timeline of a send.

The checks run in the order: key, scope, pause, rate limit, validation, plan. The documentation leaves it open.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api.access import READ_SCOPE, SEND_SCOPE, Access, plan_required
from airflow_provider_fluxomail.sandbox.api.models import (
    EventEnvelope,
    EventRow,
    SendResponse,
    TimelineMessage,
    TimelineResponse,
    TimelineSend,
)
from airflow_provider_fluxomail.sandbox.api.query_parameters import cursor, page_limit
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import EXCHANGE, Exchange, header_credential, json_response
from airflow_provider_fluxomail.sandbox.message import (
    SHORT_REFUSES,
    Message,
    idempotency_key_of,
    parse_body,
    parse_message,
)
from airflow_provider_fluxomail.sandbox.outcomes import plan, plan_drop
from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoredEvent, StoredSend
from airflow_provider_fluxomail.sandbox.tracking.delivery import base_url, deliver, urls

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

Endpoint = Literal["send", "send-global"]

_REMEMBERED = (400, 402, 403)


class SendsApi:
    """The handlers. None of them waits for anything after the body, so requests cannot interleave."""

    def __init__(self, sandbox: Sandbox, access: Access) -> None:
        self._sandbox = sandbox
        self._access = access

    async def send(self, request: Request) -> Response:
        """``POST /api/v1/emails/send``. https://docs.fluxomail.com/api-reference/fluxomail/send-email"""
        return json_response(self._send(request, await request.body(), "send"))

    async def send_global(self, request: Request) -> Response:
        """``POST /api/v1/emails/send-global``: the same, and the message remembers the path. https://docs.fluxomail.com/api-reference/fluxomail/send-global"""
        return json_response(self._send(request, await request.body(), "send-global"))

    async def get_send(self, request: Request) -> Response:
        """``GET /api/v1/sends/{id}``. https://docs.fluxomail.com/api-reference/fluxomail/get-send"""
        switches, now_ms = self._sandbox.switches, self._sandbox.clock.now_ms()
        key = None
        if switches.timeline_auth == "required" or header_credential(request.headers) is not None:
            key = self._access.admit(request, READ_SCOPE)
        send = self._sandbox.store.get_send(request.path_params["send_id"])
        if (
            send is None
            or (key is not None and send.organization != key.organization)
            or now_ms < send.created_ms + switches.not_found_seconds * 1000
        ):
            raise ApiError(404, "Send not found")
        return json_response(self._timeline(send, self._sandbox.store.event_log.of_send(send, now_ms), request))

    def _send(self, request: Request, body: bytes, endpoint: Endpoint) -> SendResponse:
        header = request.headers.get("idempotency-key")
        exchange: Exchange = request.scope[EXCHANGE]
        if header:
            exchange.echo("Idempotency-Key", header)
        key = self._access.key_of(request)
        first, since_ms = None, self._keys_since_ms()
        try:
            self._access.allow(request, key, SEND_SCOPE, blocked_by_pause=True)
            fields = parse_body(body)
            idempotency_key = idempotency_key_of(header, fields)
            if idempotency_key is not None:
                exchange.entry.idempotency_key = idempotency_key
                exchange.echo("Idempotency-Key", idempotency_key)
                remembered = self._sandbox.remembered_errors.find(key.organization, idempotency_key, since_ms)
                if remembered is not None and self._sandbox.switches.idempotency_errors:
                    raise remembered
                first = self._sandbox.store.find_idempotent(key.organization, idempotency_key, since_ms)
            message = self._parse(fields, idempotency_key, len(body), endpoint)
            if first is None:
                self._refuse_suppressed(message, key)
        except ApiError as error:
            self._remember(error, key, header, body)
            raise
        return (
            self._accept(message, key, endpoint, request) if first is None else self._replay(first, message, exchange)
        )

    def _keys_since_ms(self) -> int:
        """Idempotency keys of this moment or before have expired."""
        return self._sandbox.clock.now_ms() - int(self._sandbox.switches.idempotency_life * 1000)

    def _remember(self, error: ApiError, key: ApiKey, header: str | None, body: bytes) -> None:
        """Keep an error under its idempotency key, unless a result or an error is stored there."""
        sandbox = self._sandbox
        if not sandbox.switches.idempotency_errors or error.status not in _REMEMBERED:
            return
        try:
            idempotency_key = idempotency_key_of(header, {} if header else parse_body(body))
        except ApiError:
            return
        if idempotency_key is None:
            return
        place, since_ms = (key.organization, idempotency_key), self._keys_since_ms()
        found = sandbox.store.find_idempotent(*place, since_ms) or sandbox.remembered_errors.find(*place, since_ms)
        if found is None:
            sandbox.remembered_errors.keep(*place, sandbox.clock.now_ms(), error)

    def _parse(self, fields: dict[str, Any], idempotency_key: str | None, size: int, endpoint: Endpoint) -> Message:
        switches = self._sandbox.switches
        refused = [name for name in SHORT_REFUSES if fields.get(name)] if self._is_short(endpoint) else []
        if refused:
            text = f"Invalid request: send-global takes no {', '.join(refused)}"
            raise ApiError(400, text, details={"fields": refused})
        message = parse_message(fields, idempotency_key, size, switches)
        if message.attachments and not switches.attachments_in_plan:
            raise plan_required("Attachments not enabled", "attachments")
        return message

    def _is_short(self, endpoint: Endpoint) -> bool:
        return endpoint == "send-global" and self._sandbox.switches.send_global == "short"

    def _replay(self, first: StoredSend, message: Message, exchange: Exchange) -> SendResponse:
        """The first result again. https://docs.fluxomail.com/api-reference/fluxomail/idempotency"""
        if self._sandbox.switches.idempotency_conflict == "conflict" and first.fingerprint != message.fingerprint:
            raise ApiError(409, "Idempotency key was used with a different request")
        exchange.headers["Idempotency-Replayed"] = "true"
        return self._sent(first.send_id, first.message_id, reused=True)

    def _suppressed(self, message: Message, key: ApiKey) -> str | None:
        """Why the recipient gets no email; None if it does."""
        if self._sandbox.switches.suppression == "off":
            return None
        return self._sandbox.store.suppressions.reason(key.organization, message.address, self._sandbox.clock.now_ms())

    def _refuse_suppressed(self, message: Message, key: ApiKey) -> None:
        if self._sandbox.switches.suppression == "refuse" and (reason := self._suppressed(message, key)) is not None:
            details = {"fields": ["to"], "reason": reason}
            raise ApiError(400, "Recipient is suppressed", code="recipient_suppressed", details=details)

    def _accept(self, message: Message, key: ApiKey, endpoint: Endpoint, request: Request) -> SendResponse:
        """Store a new message with what its recipient gets and with its timeline."""
        switches, now_ms = self._sandbox.switches, self._sandbox.clock.now_ms()
        send_id = f"sends_{secrets.token_hex(12)}"
        is_tracked = not self._is_short(endpoint)
        delivery = deliver(
            message.html,
            urls(switches.tracking_url or base_url(request), self._sandbox.store.deliveries.secret(), send_id),
            tracked=is_tracked,
            unsubscribe=switches.unsubscribe != "none",
            footer=switches.unsubscribe == "header_and_footer",
        )
        suppressed = self._suppressed(message, key)
        if suppressed is None:
            links = delivery.links if message.html and is_tracked else None
            events = plan(message.address, links, now_ms, switches.event_delay, switches.default_outcome)
        else:
            events = plan_drop(now_ms, switches.event_delay, suppressed)
        message_id = f"0100{secrets.token_hex(6)}-{secrets.token_hex(4)}-000000"
        self._sandbox.store.add_send(
            message,
            send_id=send_id,
            message_id=message_id,
            organization=key.organization,
            endpoint=endpoint,
            created_ms=now_ms,
            events=events,
            delivery=delivery,
        )
        self._sandbox.event_bus.notify()
        return self._sent(send_id, message_id)

    def _sent(self, send_id: str, message_id: str, *, reused: bool = False) -> SendResponse:
        shown: dict[str, Any] = {"reused": True} if reused else {}
        shown |= {"messageId": message_id} if self._sandbox.switches.send_result == "docs" else {"accepted": True}
        return SendResponse(sendId=send_id, status="sent", **shown)

    def _timeline(self, send: StoredSend, events: Sequence[StoredEvent], request: Request) -> TimelineResponse:
        """The timeline of a send, from its events in the order of their time.

        The documented form has short rows and all events; the other has envelopes, in pages from the newest to the
        oldest.

        :raises ApiError: 400, ``limit`` or ``cursor`` is invalid.
        """
        query, form = request.query_params, self._sandbox.switches.timeline_form
        # Checked in each form: an invalid one is a mistake of the client.
        before, limit = cursor(query), page_limit(query, self._sandbox.switches.page_size)
        if form == "by_version":
            form = "spec" if request.headers.get("fluxomail-version") else "docs"
        response = TimelineResponse(
            send=TimelineSend.of(send, updated_ms=max([send.created_ms, *(event.at_ms for event in events)])),
            messages=[TimelineMessage.of(send)],
            events=[EventRow.of(event) for event in events] if form == "docs" else [],
        )
        if form != "docs":
            older = [event for event in reversed(events) if before is None or event.position < before]
            page = older[:limit]
            if form == "spec":
                response.events = [EventEnvelope.of(event) for event in page]
            response.rawEvents = [EventRow.of(event) for event in page]
            response.nextCursor = str(page[-1].position) if page and len(older) > limit else None
        return response
