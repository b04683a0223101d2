"""What stands in front of the control API and the inbox: the guard against web pages, and strict JSON.

Both have no password. A page in a developer's browser must not drive them, neither by a request across
origins nor through a name that was made to point at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.sandbox.control.inputs import ControlError
from airflow_provider_fluxomail.sandbox.exchange import parse_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from starlette.types import Receive, Scope

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\s]+)(?::([0-9]{1,5}))?")
_LOCAL: Final = frozenset(("localhost", "localhost."))
_ONCE: Final = frozenset(("host", "origin", "sec-fetch-site"))
_READS: Final = frozenset(("GET", "HEAD"))


def check_sender(method: str, raw: Iterable[tuple[bytes, bytes]], allowed: Collection[str]) -> None:
    """Refuse a request that a web page of another origin has made.

    ``Host`` must be an address, which no DNS answer can forge, ``localhost``, or an allowed name. An ``Origin`` must
    be that of the sandbox's own pages.

    :param raw: the headers, names in lower case.
    :param allowed: further names of this sandbox, in lower case.
    :raises ControlError: 403.
    """
    headers: dict[str, str] = {}
    for name, value in ((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw):
        if name in headers and name in _ONCE:
            raise ControlError(f"the request has more than one {name}", 403)
        headers[name] = value
    host = headers.get("host", "").lower()
    match = _AUTHORITY.fullmatch(host)
    if match is None or not (_is_local(match[1]) or match[1].rstrip(".") in allowed):
        raise ControlError(
            f"this sandbox is not called {host!r}: use 127.0.0.1 or localhost, or start it with --allow-host", 403
        )
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise ControlError(f"control calls from pages of {origin!r} are refused", 403)
    if method not in _READS and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ControlError("control calls from pages of another site are refused", 403)


def _is_local(name: str) -> bool:
    if name in _LOCAL or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def read_body(receive: Receive, limit: int) -> bytes:
    """The body of a call.

    :raises ControlError: 413, or 400 if it ends in the middle.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ControlError("the call ended in the middle of its body")
        # Read to the end: an early answer would be lost in the client's writes.
        if len(body) <= limit:
            body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > limit:
        raise ControlError(f"the body must be at most {limit} bytes", 413)
    return bytes(body)


async def read_json(receive: Receive, limit: int) -> bytes:
    """The body of a control call, checked to be JSON; no body counts as an empty object.

    :raises ControlError: 413 or 400.
    """
    body = await read_body(receive, limit) or b"{}"
    try:
        value = parse_json(body)
    except ValueError as error:
        raise ControlError(f"the body must be JSON: {error}") from error
    if not isinstance(value, dict):
        raise ControlError("the body must be a JSON object")
    return body


def as_json(scope: Scope) -> Scope:
    """The scope with the content type of JSON: ``curl -d`` names another."""
    headers = [header for header in scope["headers"] if header[0] not in (b"content-type", b"content-length")]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}
