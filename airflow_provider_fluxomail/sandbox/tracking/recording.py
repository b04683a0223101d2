"""What a request with the link of a message stands for, and what it records: opened, clicked or unsubscribed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from airflow_provider_fluxomail.sandbox.outcomes import UNSUBSCRIBED, PlannedEvent
from airflow_provider_fluxomail.sandbox.store.database import Store
from airflow_provider_fluxomail.sandbox.store.records import StoredSend, StoreFullError
from airflow_provider_fluxomail.sandbox.tracking import tokens

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

_MAX_AGENT: Final = 500


def message_of(store: Store, kind: tokens.Kind, token: str | None) -> tuple[StoredSend, int] | None:
    """The message of a token, and the number of the link; None if the sandbox has not made it."""
    subject = None if token is None else tokens.read(store.deliveries.secret(), kind, token)
    send = None if subject is None else store.get_send(subject.send_id)
    return None if subject is None or send is None else (send, subject.link)


def record(sandbox: Sandbox, request: Request, send: StoredSend, kind: str, **data: Any) -> None:
    """Add an event to a message: the recipient has done something with this request."""
    agent = request.headers.get("user-agent", "")[:_MAX_AGENT]
    data |= {"ip": request.client.host if request.client else "", "userAgent": agent}
    try:
        sandbox.add_event(send, PlannedEvent(kind, sandbox.clock.now_ms(), data))
    except StoreFullError:
        pass  # The bound of the events of a message: the recipient still gets the response.


def unsubscribe(sandbox: Sandbox, request: Request, send: StoredSend, method: str) -> None:
    """Unsubscribe the recipient of a message from all email. A second time changes nothing."""
    suppressions, now_ms = sandbox.store.suppressions, sandbox.clock.now_ms()
    if not suppressions.is_unsubscribed(send.organization, send.address, now_ms):
        record(sandbox, request, send, UNSUBSCRIBED, method=method)
        # The event is left out if the message is full.
        suppressions.set_unsubscribed(send.organization, send.address, True, now_ms)
