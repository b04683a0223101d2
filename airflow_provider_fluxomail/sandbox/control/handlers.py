"""The control API under ``/_sandbox``: keys, pauses, messages, events, faults, clock. JSON in and out.

It is no part of Fluxomail and has no password, which is why the sandbox listens on loopback by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import Body, FastAPI, Path, Query
from starlette.responses import JSONResponse, Response

from airflow_provider_fluxomail.sandbox.control import models
from airflow_provider_fluxomail.sandbox.errors import ControlError, ControlErrorResponse
from airflow_provider_fluxomail.sandbox.faults.models import AnyFault
from airflow_provider_fluxomail.sandbox.faults.queue import PendingFault
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent, with_server
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoredSend
from airflow_provider_fluxomail.sandbox.switches import Switches
from airflow_provider_fluxomail.sandbox.webhooks.deliveries import Delivery

CONTROL_PREFIX: Final = "/_sandbox"


class Control:
    """The handlers of the control API."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        binary: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": {}}}}
        failed = {"model": ControlErrorResponse, "description": "The call failed; the text says why."}
        calls: dict[str, Callable[..., Any]] = {
            "GET health": self.health,
            "POST keys": self.put_key,
            "DELETE keys/{key:path}": self.delete_key,
            "POST pause": self.pause,
            "GET settings": self.get_settings,
            "POST settings": self.put_settings,
            "POST clock": self.advance,
            "GET messages": self.messages,
            "GET contacts": self.contacts,
            "GET webhooks": self.webhooks,
            "POST webhooks/test": self.test_webhook,
            "POST webhooks/{number}/redeliver": self.redeliver,
            "POST messages/{send_id}/events": self.add_event,
            "GET messages/{send_id}/attachments/{position}": self.attachment,
            "GET faults": self.get_faults,
            "POST faults": self.add_fault,
            "DELETE faults": self.clear_faults,
            "GET requests": self.requests,
            "POST reset": self.reset,
        }
        for call, handler in calls.items():
            method, path = call.split()
            is_file = handler == self.attachment
            app.add_api_route(
                f"{CONTROL_PREFIX}/{path}",
                handler,
                methods=[method],
                tags=["control"],
                response_class=Response if is_file else JSONResponse,
                responses=binary | {"4XX": failed} if is_file else {"4XX": failed},
            )

    async def health(self) -> models.Health:
        """Whether the sandbox responds, and its clock in seconds since the epoch."""
        return models.Health(status="ok", now=self._sandbox.clock.now())

    async def put_key(self, body: models.KeyInput) -> models.KeyInput:
        """Create or replace a key; its rate window starts again."""
        expires_ms = None if body.expires_in is None else self._sandbox.clock.now_ms() + int(body.expires_in * 1000)
        scopes = None if body.scopes is None else tuple(body.scopes)
        key = ApiKey(body.key, body.organization, scopes, body.rate_limit_per_minute, expires_ms)
        self._sandbox.store.keys.drop_expired(self._sandbox.clock.now_ms())
        self._sandbox.store.keys.put(key)
        self._sandbox.rates.forget(key.key)
        # Streams of a key that was replaced may have to close.
        self._sandbox.event_bus.notify()
        return body

    async def delete_key(self, key: str) -> models.DeletedKey:
        """Revoke a key. Streams that were opened with it close."""
        if not self._sandbox.store.keys.delete(key):
            raise ControlError(f"there is no key {key!r}", 404)
        self._sandbox.rates.forget(key)
        self._sandbox.event_bus.notify()
        return models.DeletedKey(deleted=key)

    async def pause(self, body: models.PauseInput) -> models.PauseInput:
        """Pause or resume an organization."""
        self._sandbox.store.keys.pause(body.organization, paused=body.paused)
        return body

    async def get_settings(self) -> Switches:
        """All switches."""
        return self._sandbox.switches

    async def put_settings(self, body: Annotated[Switches, Body(default_factory=Switches)]) -> Switches:
        """Change the switches that are named; if one of them is invalid, none."""
        self._sandbox.switches = self._sandbox.switches.model_copy(update=body.model_dump(exclude_unset=True))
        self._sandbox.event_bus.notify()
        self._sandbox.webhooks.apply()
        return self._sandbox.switches

    async def advance(self, body: models.ClockInput) -> models.ClockTime:
        """Move the clock forward."""
        room = MAX_CLOCK_SECONDS - self._sandbox.clock.now()
        if body.advance_seconds > room:
            raise ControlError(f"advance_seconds must be at most {room:.0f} now, which is where the clock ends", 409)
        return models.ClockTime(now=self._sandbox.advance(body.advance_seconds))

    async def messages(self, query: Annotated[models.MessagesQuery, Query()]) -> models.Messages:
        """Messages by recipient and idempotency key, oldest first, with the events that have happened."""
        store, now_ms = self._sandbox.store, self._sandbox.clock.now_ms()
        count, sends = store.find_sends(
            to=query.to, idempotency_key=query.idempotency_key, limit=query.limit, offset=query.offset
        )
        shown = [
            models.Message.of(
                send,
                store.attachments(send),
                store.event_log.of_send(send, now_ms),
                store.deliveries.get(send).html,
            )
            for send in sends
        ]
        return models.Messages(count=count, messages=shown)

    async def contacts(self, query: Annotated[models.ContactsQuery, Query()]) -> models.Contacts:
        """Contacts that were synced, or whose preferences were read, the last changed first."""
        store, now_ms = self._sandbox.store, self._sandbox.clock.now_ms()
        count, found = store.contacts.page(query.organization, limit=query.limit, offset=query.offset)
        shown = [
            models.Contact.of(
                one, subscribed=not store.suppressions.is_unsubscribed(one.organization, one.email, now_ms)
            )
            for one in found
        ]
        return models.Contacts(count=count, contacts=shown)

    async def webhooks(self) -> models.Webhooks:
        """The delivery log of webhooks, oldest first."""
        deliveries = list(self._sandbox.webhooks.log)
        return models.Webhooks(count=len(deliveries), deliveries=deliveries)

    async def test_webhook(self) -> Delivery:
        """Send a signed sample of `email.delivered`."""
        planned = self._sandbox.webhooks.send_sample()
        if planned is None:
            raise ControlError("there is no endpoint: set the switch webhook_url", 409)
        return planned

    async def redeliver(self, number: Annotated[int, Path(ge=0, le=2**53)]) -> Delivery:
        """Send a webhook once more, whatever became of it."""
        delivery = self._sandbox.webhooks.log.get(number)
        if delivery is None:
            raise ControlError(f"the log has no webhook {number}", 404)
        if self._sandbox.switches.webhook_url is None:
            raise ControlError("there is no endpoint: set the switch webhook_url", 409)
        self._sandbox.webhooks.redeliver(delivery)
        return delivery

    async def add_event(self, send_id: str, body: models.EventInput) -> models.AddedEvent:
        """Let something happen to a message, now or at a time; further fields become fields of the event.

        Delivered and bounced events have `smtpCode` and `mtaHost`, unless they are given.
        """
        send = self._find(send_id)
        at = self._sandbox.clock.now() if body.at is None else body.at
        data = with_server(body.type, body.model_extra or {}, send.address)
        event = PlannedEvent(body.type, int(at * 1000), data)
        return models.AddedEvent.of(event, dropped=not self._sandbox.add_event(send, event))

    async def attachment(self, send_id: str, position: Annotated[int, Path(ge=0, le=1_000_000)]) -> Response:
        """The decoded bytes of an attachment, counted from 0."""
        content = self._sandbox.store.attachment_content(self._find(send_id), position)
        if content is None:
            raise ControlError("the message has no such attachment: positions count from 0", 404)
        # Never as the sender's type: an HTML page would run beside the control API.
        return Response(content, media_type="application/octet-stream")

    async def get_faults(self) -> models.Faults:
        """The pending faults."""
        pending = [fault.state() for fault in self._sandbox.faults.pending()]
        return models.Faults(count=len(pending), faults=pending)

    async def add_fault(self, body: AnyFault) -> PendingFault:
        """Queue a fault for the requests that match, or for a stream that is open."""
        if self._sandbox.faults.full:
            raise ControlError(f"at most {self._sandbox.bounds.faults} faults can be pending: DELETE them first", 409)
        # Before the streams see it, which may meet it at once.
        state = self._sandbox.faults.add(body).state()
        self._sandbox.event_bus.notify()
        return state

    async def clear_faults(self) -> models.Faults:
        """Drop all faults."""
        self._sandbox.faults.clear()
        return await self.get_faults()

    async def requests(self, query: Annotated[models.RequestsQuery, Query()]) -> models.Requests:
        """The logged API requests, oldest first, each with the seconds since the one before it in the response."""
        found = self._sandbox.requests.find(**query.model_dump())
        return models.Requests(count=len(found), requests=found)

    async def reset(self) -> models.ResetResponse:
        """Back to a fresh start: only the start key stays."""
        self._sandbox.reset()
        return models.ResetResponse(reset=True)

    def _find(self, send_id: str) -> StoredSend:
        send = self._sandbox.store.get_send(send_id)
        if send is None:
            raise ControlError(f"no message has the send id {send_id!r}", 404)
        return send
