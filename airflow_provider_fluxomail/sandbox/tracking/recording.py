"""What a recipient did to a message, recorded as an event: by the links of the message, the API and the inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from airflow_provider_fluxomail.sandbox.exchange import IS_HEAD
from airflow_provider_fluxomail.sandbox.outcomes import UNSUBSCRIBED, PlannedEvent
from airflow_provider_fluxomail.sandbox.store.database import Store
from airflow_provider_fluxomail.sandbox.store.records import StoredSend, StoreFullError
from airflow_provider_fluxomail.sandbox.tracking import tokens

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

_PREFETCH: Final = ("purpose", "sec-purpose", "x-purpose", "x-moz")
"""Headers by which browsers and mail programs announce that nobody has followed a link yet."""
_MAX_AGENT: Final = 500


def message_of(store: Store, kind: tokens.Kind, token: str | None) -> tuple[StoredSend, int] | None:
    """The message of a token, and the number of the link; None if the sandbox has not made it."""
    subject = None if token is None else tokens.read(store.deliveries.secret(), kind, token)
    send = None if subject is None else store.get_send(subject.send_id)
    return None if subject is None or send is None else (send, subject.link)


def record(sandbox: Sandbox, request: Request, send: StoredSend, kind: str, **data: Any) -> None:
    """Add an open or a click, unless a link scanner made the request and the switch leaves those out."""
    if sandbox.switches.tracking_prefetch or not is_prefetch(request):
        _add(sandbox, request, send, kind, **data)


def unsubscribe(sandbox: Sandbox, request: Request, send: StoredSend, method: str) -> None:
    """Unsubscribe the recipient of a message from all email. A second time changes nothing."""
    suppressions, now_ms = sandbox.store.suppressions, sandbox.clock.now_ms()
    if not suppressions.is_unsubscribed(send.organization, send.address, now_ms):
        _add(sandbox, request, send, UNSUBSCRIBED, method=method)
        # The event is left out if the message is full.
        suppressions.set_unsubscribed(send.organization, send.address, True, now_ms)


def is_prefetch(request: Request) -> bool:
    """Whether the request shows that nobody opened or followed anything."""
    announced = (request.headers.get(name, "").lower() for name in _PREFETCH)
    return bool(request.scope.get(IS_HEAD)) or any("prefetch" in value or "preview" in value for value in announced)


def _add(sandbox: Sandbox, request: Request, send: StoredSend, kind: str, **data: Any) -> None:
    """Add an event with address and user agent of a request."""
    agent = request.headers.get("user-agent", "")[:_MAX_AGENT]
    data |= {"ip": request.client.host if request.client else "", "userAgent": agent}
    try:
        sandbox.add_event(send, PlannedEvent(kind, sandbox.clock.now_ms(), data))
    except StoreFullError:
        pass  # The bound of the events of a message: the recipient still gets the response.
