"""The control API under ``/_sandbox``: keys, pauses, messages, events, faults, clock. JSON in and out.

It is no part of Fluxomail and has no password, which is why the sandbox listens on loopback by default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Path, Query
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api import models as schemas
from airflow_provider_fluxomail.sandbox.control.inputs import (
    ClockInput,
    ControlError,
    EventInput,
    KeyInput,
    MessagesQuery,
    PauseInput,
    RequestsQuery,
)
from airflow_provider_fluxomail.sandbox.exchange import json_response
from airflow_provider_fluxomail.sandbox.faults.models import AnyFault
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.store.database import StoreFullError
from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoredEvent, StoredSend
from airflow_provider_fluxomail.sandbox.switches import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from airflow_provider_fluxomail.sandbox.state import Sandbox

CONTROL_PREFIX: Final = "/_sandbox"


class Control:
    """The handlers of the control API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        """Add the routes."""
        for method, path, handler, answer in (
            ("GET", "health", self.health, schemas.Health),
            ("POST", "keys", self.put_key, KeyInput),
            ("DELETE", "keys/{key:path}", self.delete_key, schemas.Deleted),
            ("POST", "pause", self.pause, PauseInput),
            ("GET", "settings", self.get_settings, Settings),
            ("POST", "settings", self.put_settings, Settings),
            ("POST", "clock", self.advance, schemas.Clock),
            ("GET", "messages", self.messages, schemas.Messages),
            ("POST", "messages/{send_id}/events", self.add_event, schemas.AddedEvent),
            ("GET", "messages/{send_id}/attachments/{position}", self.attachment, None),
            ("GET", "faults", self.get_faults, schemas.Faults),
            ("POST", "faults", self.add_fault, schemas.QueuedFault),
            ("DELETE", "faults", self.clear_faults, schemas.Faults),
            ("GET", "requests", self.requests, schemas.Requests),
            ("POST", "reset", self.reset, schemas.Done),
        ):
            app.add_api_route(
                f"{CONTROL_PREFIX}/{path}",
                handler,
                methods=[method],
                tags=["control"],
                response_class=Response,
                responses={
                    200: {"model": answer} if answer else {"content": {"application/octet-stream": {}}},
                    "4XX": {"model": schemas.Mistake, "description": "A mistake, told in words."},
                },
            )

    async def health(self) -> Response:
        """Whether the sandbox answers, and its clock in seconds since the epoch."""
        return json_response({"status": "ok", "now": self._sandbox.clock.now()})

    async def put_key(self, body: KeyInput) -> Response:
        """Create or replace a key; its rate window begins anew."""
        expires_ms = None if body.expires_in is None else self._sandbox.clock.now_ms() + int(body.expires_in * 1000)
        scopes = None if body.scopes is None else tuple(body.scopes)
        key = ApiKey(body.key, body.organization, scopes, body.rate_limit_per_minute, expires_ms)
        try:
            self._sandbox.store.drop_expired_keys(self._sandbox.clock.now_ms())
            self._sandbox.store.put_key(key)
        except StoreFullError as error:
            raise ControlError(str(error), 409) from error
        self._sandbox.rates.forget(key.key)
        # Streams of a key that was replaced may have to end.
        self._sandbox.changed()
        return json_response(body.model_dump())

    async def delete_key(self, key: str) -> Response:
        """Revoke a key. Streams that were opened with it end."""
        if not self._sandbox.store.delete_key(key):
            raise ControlError(f"there is no key {key!r}", 404)
        self._sandbox.rates.forget(key)
        self._sandbox.changed()
        return json_response({"deleted": key})

    async def pause(self, body: PauseInput) -> Response:
        """Pause or resume an organization."""
        try:
            self._sandbox.store.pause(body.organization, paused=body.paused)
        except StoreFullError as error:
            raise ControlError(str(error), 409) from error
        return json_response(body.model_dump())

    async def get_settings(self) -> Response:
        """The switches as they are."""
        return json_response(self._sandbox.settings.model_dump())

    async def put_settings(self, body: Settings) -> Response:
        """Change the switches that are named; all of them or, after a mistake, none."""
        self._sandbox.settings = self._sandbox.settings.model_copy(update=body.model_dump(exclude_unset=True))
        self._sandbox.changed()
        return await self.get_settings()

    async def advance(self, body: ClockInput) -> Response:
        """Move the clock forward."""
        room = MAX_CLOCK_SECONDS - self._sandbox.clock.now()
        if body.advance_seconds > room:
            raise ControlError(f"advance_seconds must be at most {room:.0f}, which is where the clock ends")
        return json_response({"now": self._sandbox.advance(body.advance_seconds)})

    async def messages(self, query: Annotated[MessagesQuery, Query()]) -> Response:
        """Messages by recipient and idempotency key, oldest first, with the events that have happened."""
        count, sends = self._sandbox.store.find_sends(
            to=query.to, idempotency_key=query.idempotency_key, limit=query.limit, offset=query.offset
        )
        return json_response({"count": count, "messages": [self._message(send) for send in sends]})

    async def add_event(self, send_id: str, body: EventInput) -> Response:
        """Let something happen to a message, now or at a time; further fields go into the event."""
        send = self._find(send_id)
        at = self._sandbox.clock.now() if body.at is None else body.at
        event = PlannedEvent(body.type, int(at * 1000), body.model_extra or {})
        try:
            added = self._sandbox.add_event(send, event)
        except StoreFullError as error:
            raise ControlError(str(error), 409) from error
        return json_response(_event(event) | {"dropped": not added})

    async def attachment(self, send_id: str, position: Annotated[int, Path(ge=0, le=1_000_000)]) -> Response:
        """The decoded bytes of an attachment, counted from 0."""
        content = self._sandbox.store.attachment_content(self._find(send_id), position)
        if content is None:
            raise ControlError("the message has no such attachment: positions count from 0", 404)
        # Never as the type the sender gave: a page of it would run beside the control API.
        return Response(content, media_type="application/octet-stream")

    async def get_faults(self) -> Response:
        """The faults that still wait."""
        rows = [fault.as_dict() for fault in self._sandbox.faults.waiting()]
        return json_response({"count": len(rows), "faults": rows})

    async def add_fault(self, body: AnyFault) -> Response:
        """Queue a fault for the requests that match, or for a stream that is open."""
        if self._sandbox.faults.full:
            raise ControlError(f"at most {self._sandbox.bounds.faults} faults can wait: DELETE them first", 409)
        answer = json_response(self._sandbox.faults.add(body).as_dict())
        self._sandbox.changed()
        return answer

    async def clear_faults(self) -> Response:
        """Drop all faults."""
        self._sandbox.faults.clear()
        return await self.get_faults()

    async def requests(self, query: Annotated[RequestsQuery, Query()]) -> Response:
        """The API requests that are kept, oldest first, each with the seconds since the one before it in the answer."""
        rows = []
        before: float | None = None
        for entry in self._sandbox.requests.find(**query.model_dump()):
            rows.append(entry.as_dict() | {"gap": None if before is None else entry.at - before})
            before = entry.at
        return json_response({"count": len(rows), "requests": rows})

    async def reset(self) -> Response:
        """Back to a fresh start: only the start key stays."""
        self._sandbox.reset()
        return json_response({"reset": True})

    def _find(self, send_id: str) -> StoredSend:
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


def _event(event: PlannedEvent | StoredEvent) -> dict[str, Any]:
    return event.data | {"type": event.type, "at": event.at_ms / 1000}
