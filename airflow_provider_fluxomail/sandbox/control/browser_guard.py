"""The guard against web pages.

The control API and the inbox have no password, and the API's default key is well known. A page in a developer's browser
must not drive them, neither by a request across origins nor through a name that was made to point at 127.0.0.1 (DNS
rebinding). The API itself may be called across origins.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from typing import Final

from airflow_provider_fluxomail.sandbox.errors import ControlError

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:@/\s]+)(?::([0-9]{1,5}))?")
_LOCAL: Final = frozenset(("localhost", "localhost."))
_ONCE: Final = frozenset(("host", "origin", "sec-fetch-site", "sec-fetch-mode"))
_OWN: Final = ("none", "same-origin")
_READS: Final = frozenset(("GET", "HEAD"))


def check_origin(method: str, raw: Iterable[tuple[bytes, bytes]], allowed: Collection[str]) -> None:
    """Refuse a request that a web page of another origin has made, see also :func:`check_host`.

    An ``Origin`` must be that of the sandbox's own pages.

    :param raw: the headers, names in lower case.
    :param allowed: further names of this sandbox, in lower case.
    :raises ControlError: 403.
    """
    headers = check_host(raw, allowed)
    host = headers["host"].lower()
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise ControlError(f"control calls from pages of {origin!r} are refused", 403)
    if method not in _READS and headers.get("sec-fetch-site", "none") not in _OWN:
        raise ControlError("control calls from pages of another site are refused", 403)
    if headers.get("sec-fetch-site", "none") not in _OWN and headers.get("sec-fetch-mode", "navigate") != "navigate":
        # Such as an image in an email that the inbox shows. A link to a read may be followed.
        raise ControlError("a page of another site may link here, and load nothing", 403)


def check_host(raw: Iterable[tuple[bytes, bytes]], allowed: Collection[str]) -> dict[str, str]:
    """Refuse a request to a name that is not the sandbox's: ``Host`` must be an address, which DNS cannot forge,
    ``localhost``, or an allowed name.

    :return: the headers by name.
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
            f"host {host[:200]!r} is not allowed: use 127.0.0.1 or localhost, or start the sandbox with --allow-host",
            403,
        )
    return headers


def is_from_browser(raw: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser says that it makes the request for a page."""
    return any(name == b"origin" or name.startswith(b"sec-fetch-") for name, _ in raw)


def _is_local(name: str) -> bool:
    if name in _LOCAL or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
