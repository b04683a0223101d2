"""The control API under ``/_sandbox``: keys, pauses, messages, events, faults, clock. JSON in and out.

It is no part of Fluxomail and has no password, which is why the sandbox listens on loopback by default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from airflow_provider_fluxomail.sandbox import controlinput as read
from airflow_provider_fluxomail.sandbox.config import (
    CONFLICT_POLICIES,
    DEFAULT_ORGANIZATION,
    MAX_EPOCH_SECONDS,
    TIMELINE_FORMS,
)
from airflow_provider_fluxomail.sandbox.controlinput import ControlError
from airflow_provider_fluxomail.sandbox.delivery import EVENT_TYPES, PlannedEvent
from airflow_provider_fluxomail.sandbox.jsonbody import json_response, parse_json
from airflow_provider_fluxomail.sandbox.records import ApiKey, StoredSend
from airflow_provider_fluxomail.sandbox.store import StoreFullError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

    from airflow_provider_fluxomail.sandbox.state import Sandbox

CONTROL_PREFIX: Final = "/_sandbox"
_MAX_LIMIT: Final = 1_000
_RESERVED_EVENT_FIELDS: Final = ("ts", "sendId", "providerMessageId")


class Control:
    """The handlers of the control API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        """Add the routes."""
        for method, path, handler in (
            ("GET", "health", self.health),
            ("POST", "keys", self.put_key),
            ("POST", "pause", self.pause),
            ("GET", "settings", self.get_settings),
            ("POST", "settings", self.put_settings),
            ("POST", "clock", self.advance),
            ("GET", "messages", self.messages),
            ("POST", "messages/{send_id}/events", self.add_event),
            ("GET", "messages/{send_id}/attachments/{position:int}", self.attachment),
            ("GET", "faults", self.get_faults),
            ("POST", "faults", self.add_fault),
            ("DELETE", "faults", self.clear_faults),
            ("GET", "requests", self.requests),
            ("POST", "reset", self.reset),
        ):
            app.add_route(f"{CONTROL_PREFIX}/{path}", handler, methods=[method])

    async def health(self, request: Request) -> Response:
        """Whether the sandbox answers, and its clock in seconds since the epoch."""
        return json_response({"status": "ok", "now": self._sandbox.clock.now()})

    async def put_key(self, request: Request) -> Response:
        """Create or replace a key; its rate window begins anew."""
        fields = await self._fields(request)
        read.only(fields, ("key", "scopes", "rate_limit_per_minute", "organization"))
        name = read.text(fields, "key")
        if not name.isascii() or not name.isprintable() or " " in name:
            raise ControlError("key must be printable ASCII without spaces, or no header could carry it")
        cap = None
        if fields.get("rate_limit_per_minute") is not None:
            cap = read.whole(fields, "rate_limit_per_minute", 1, 1_000_000_000)
        key = ApiKey(name, _organization(fields), read.scopes(fields), cap)
        try:
            self._sandbox.store.put_key(key)
        except StoreFullError as error:
            raise ControlError(str(error), 409) from error
        self._sandbox.rates.forget(name)
        return json_response(
            {
                "key": key.key,
                "scopes": None if key.scopes is None else list(key.scopes),
                "rate_limit_per_minute": key.cap,
                "organization": key.organization,
            }
        )

    async def pause(self, request: Request) -> Response:
        """Pause or resume an organization."""
        fields = await self._fields(request)
        read.only(fields, ("paused", "organization"))
        paused, organization = read.flag(fields, "paused"), _organization(fields)
        try:
            self._sandbox.store.pause(organization, paused=paused)
        except StoreFullError as error:
            raise ControlError(str(error), 409) from error
        return json_response({"paused": paused, "organization": organization})

    async def get_settings(self, request: Request) -> Response:
        """The switches as they are."""
        return self._settings()

    async def put_settings(self, request: Request) -> Response:
        """Change the switches that are named; all of them or, after a mistake, none."""
        fields = await self._fields(request)
        read.only(fields, ("event_delay", "idempotency_conflict", "timeline_form"))
        changed: dict[str, Any] = {}
        if "event_delay" in fields:
            changed["event_delay"] = read.number(fields, "event_delay")
        if "idempotency_conflict" in fields:
            changed["idempotency_conflict"] = read.choice(fields, "idempotency_conflict", CONFLICT_POLICIES)
        if "timeline_form" in fields:
            changed["timeline_form"] = read.choice(fields, "timeline_form", TIMELINE_FORMS)
        for name, value in changed.items():
            setattr(self._sandbox.settings, name, value)
        return self._settings()

    async def advance(self, request: Request) -> Response:
        """Move the clock forward."""
        fields = await self._fields(request)
        read.only(fields, ("advance_seconds",))
        room = MAX_EPOCH_SECONDS - self._sandbox.clock.now()
        now = self._sandbox.advance(read.number(fields, "advance_seconds", maximum=room))
        return json_response({"now": now})

    async def messages(self, request: Request) -> Response:
        """Messages by recipient and idempotency key, oldest first, with the events that have happened."""
        query = dict(request.query_params)
        read.only(query, ("to", "idempotency_key", "limit", "offset"))
        count, sends = self._sandbox.store.find_sends(
            to=query.get("to"),
            idempotency_key=query.get("idempotency_key"),
            limit=read.query_whole(query, "limit", _MAX_LIMIT, 0, _MAX_LIMIT),
            offset=read.query_whole(query, "offset", 0, 0, 1_000_000_000),
        )
        return json_response({"count": count, "messages": [self._message(send) for send in sends]})

    async def add_event(self, request: Request) -> Response:
        """Let something happen to a message, now or ``at`` a time; further fields go into the event."""
        fields = await self._fields(request)
        send = self._find(request)
        kind = read.choice(fields, "type", EVENT_TYPES)
        for name in _RESERVED_EVENT_FIELDS:
            if name in fields:
                raise ControlError(f"{name} is filled in by the sandbox: leave it out (at sets the time)")
        at = self._sandbox.clock.now()
        if fields.get("at") is not None:
            at = read.number(fields, "at", maximum=MAX_EPOCH_SECONDS)
        data = {name: value for name, value in fields.items() if name not in ("type", "at")}
        event = PlannedEvent(kind, int(at * 1000), data)
        try:
            self._sandbox.store.add_event(send, event)
        except StoreFullError as error:
            raise ControlError(str(error), 409) from error
        return json_response(_event(event))

    async def attachment(self, request: Request) -> Response:
        """The decoded bytes of an attachment, counted from 0."""
        content = self._sandbox.store.attachment_content(self._find(request), request.path_params["position"])
        if content is None:
            raise ControlError("the message has no such attachment: positions count from 0", 404)
        # Never as the type the sender gave: a page of it would run beside the control API.
        return Response(content, media_type="application/octet-stream")

    async def get_faults(self, request: Request) -> Response:
        """The faults that still wait."""
        return self._faults()

    async def add_fault(self, request: Request) -> Response:
        """Queue a fault for the next requests that match."""
        fields = await self._fields(request)
        fault = read.fault(fields)
        if self._sandbox.faults.full:
            raise ControlError(f"at most {self._sandbox.bounds.faults} faults can wait: DELETE them first", 409)
        return json_response(self._sandbox.faults.add(fault).as_dict())

    async def clear_faults(self, request: Request) -> Response:
        """Drop all faults."""
        self._sandbox.faults.clear()
        return self._faults()

    async def requests(self, request: Request) -> Response:
        """The API requests that are kept, oldest first."""
        rows = [entry.as_dict() for entry in self._sandbox.requests.entries()]
        return json_response({"count": len(rows), "requests": rows})

    async def reset(self, request: Request) -> Response:
        """Back to a fresh start: only the start key stays."""
        self._sandbox.reset()
        return json_response({"reset": True})

    async def _fields(self, request: Request) -> dict[str, Any]:
        """The JSON object of a request; no body counts as an empty one."""
        limit = self._sandbox.bounds.control_body_bytes
        body = bytearray()
        async for chunk in request.stream():
            if len(body) <= limit:
                body += chunk
        if len(body) > limit:
            raise ControlError(f"the body must be at most {limit} bytes", 413)
        try:
            fields = parse_json(bytes(body or b"{}"))
        except ValueError as error:
            raise ControlError(f"the body must be JSON: {error}") from error
        if not isinstance(fields, dict):
            raise ControlError("the body must be a JSON object")
        return fields

    def _find(self, request: Request) -> StoredSend:
        send_id = request.path_params["send_id"]
        send = self._sandbox.store.get_send(send_id)
        if send is None:
            raise ControlError(f"no message has the send id {send_id!r}", 404)
        return send

    def _message(self, send: StoredSend) -> dict[str, Any]:
        events = self._sandbox.store.events(send, self._sandbox.clock.now_ms())
        return {
            "send_id": send.send_id,
            "message_id": send.message_id,
            "to": send.recipient,
            "subject": send.subject,
            "content": send.content,
            "html_content": send.html,
            "cc": list(send.cc),
            "bcc": list(send.bcc),
            "attachments": [
                {
                    "filename": item.filename,
                    "content_type": item.content_type,
                    "size": item.size,
                    "sha256": item.sha256,
                }
                for item in self._sandbox.store.attachments(send)
            ],
            "policy_key": send.policy_key,
            "idempotency_key": send.idempotency_key,
            "organization": send.organization,
            "endpoint": send.endpoint,
            "created_at": send.created_ms / 1000,
            "extra_fields": send.extra,
            "events": [_event(event) for event in events],
        }

    def _faults(self) -> Response:
        rows = [fault.as_dict() for fault in self._sandbox.faults.waiting()]
        return json_response({"count": len(rows), "faults": rows})

    def _settings(self) -> Response:
        settings = self._sandbox.settings
        return json_response(
            {
                "event_delay": settings.event_delay,
                "idempotency_conflict": settings.idempotency_conflict,
                "timeline_form": settings.timeline_form,
            }
        )


def _event(event: PlannedEvent) -> dict[str, Any]:
    return event.data | {"type": event.type, "at": event.at_ms / 1000}


def _organization(fields: dict[str, Any]) -> str:
    if fields.get("organization") is None:
        return DEFAULT_ORGANIZATION
    return read.text(fields, "organization")
