"""What lets pages of other origins use the API: the documentation has CORS for GET, POST and OPTIONS.

https://docs.fluxomail.com/api-reference/introduction
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response

_REQUEST_HEADERS: Final = (
    "Authorization",
    "x-api-key",
    "Content-Type",
    "Idempotency-Key",
    "Fluxomail-Version",
    "X-Request-Id",
    "Fluxomail-Request-Id",
    "Last-Event-ID",
    "Cache-Control",
)
_RESPONSE_HEADERS: Final = (
    "X-Request-Id",
    "Fluxomail-Request-Id",
    "Idempotency-Key",
    "Idempotency-Replayed",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
    "Retry-After",
)
HEADERS: Final = {
    # Not the page's own origin: the API uses no cookies, and this fits every cache.
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": ", ".join(_RESPONSE_HEADERS),
}
"""Of every response of the API, errors and injected ones included: without them a page sees no more than a failure."""


def options(methods: Iterable[str]) -> Response:
    """The response to OPTIONS, which is also what a browser requests before a call of another origin."""
    allowed = ", ".join(methods)
    headers = {
        "Allow": allowed,
        "Access-Control-Allow-Methods": allowed,
        "Access-Control-Allow-Headers": ", ".join(_REQUEST_HEADERS),
        "Access-Control-Max-Age": "600",
    }
    return Response(status_code=204, headers=headers)


def is_page_of_others(origin: str | None, host: str, allowed: Collection[str]) -> bool:
    """Whether a request comes from a web page that is neither of this machine nor of the sandbox's own host.

    :param origin: of the request; browsers send it, other programs do not.
    :param host: of the request.
    :param allowed: further names of this sandbox, in lower case.
    """
    if origin is None:
        return False
    try:
        page = urlsplit(origin.lower())
        name = (page.hostname or "").rstrip(".")
    except ValueError:
        return True
    try:
        local = ipaddress.ip_address(name).is_loopback
    except ValueError:
        local = name == "localhost" or name.endswith(".localhost") or name in allowed
    return not local and page.netloc != host.lower()
