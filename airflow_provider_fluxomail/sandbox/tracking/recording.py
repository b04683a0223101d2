"""What a recipient did to a message, recorded as an event: by the tracking routes, and by the inbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request

from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.store.records import StoredSend, StoreFullError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

_PREFETCH: Final = ("purpose", "sec-purpose", "x-purpose", "x-moz")
"""Headers by which browsers and mail programs announce that nobody has followed a link yet."""
_MAX_AGENT: Final = 500


def record(sandbox: Sandbox, request: Request, send: StoredSend, kind: str, **data: Any) -> None:
    """Add an open or a click, unless a link scanner made the request and the switch leaves those out."""
    if sandbox.switches.tracking_prefetch or not is_prefetch(request):
        add(sandbox, request, send, kind, **data)


def add(sandbox: Sandbox, request: Request, send: StoredSend, kind: str, **data: Any) -> None:
    """Add an event with address and user agent of a request."""
    agent = request.headers.get("user-agent", "")[:_MAX_AGENT]
    data |= {"ip": request.client.host if request.client else "", "userAgent": agent}
    try:
        sandbox.add_event(send, PlannedEvent(kind, sandbox.clock.now_ms(), data))
    except StoreFullError:
        pass  # The bound of the events of a message: the recipient still gets the response.


def is_prefetch(request: Request) -> bool:
    """Whether the request shows that nobody opened or followed anything."""
    announced = (request.headers.get(name, "").lower() for name in _PREFETCH)
    return request.method == "HEAD" or any("prefetch" in value or "preview" in value for value in announced)
