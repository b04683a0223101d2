"""Endpoints that Fluxomail documents and the sandbox does not have: they get a 501 that says so.

A 404 could be taken for "no such contact" or a wrong base URL. The documentation's table is made from here.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.errors import ApiError

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

NOT_IMITATED: Final = {
    "/api/v1/templates": "documented as beta; the official client removed them, because no backend exists",
    "/api/v1/templates/{id}": "the same",
    "/api/v1/templates/{id}/render": "the same",
    "/api/webhooks/queue/run": "internal; the sandbox runs its queue of webhooks itself",
    "/api/autumn/usage": "internal",
}
"""Each path, and why the sandbox does not have it."""


async def refuse(path: str, request: Request) -> Response:
    """Refuse a request for one of these paths.

    :raises ApiError: 501, always.
    """
    raise ApiError(501, f"The sandbox does not imitate {request.method} {path}")
