"""What the recipient of a message gets: its HTML with pixel, tracked links and footer, and its unsubscribe link.

https://docs.fluxomail.com/guides/preferences-and-unsubscribe
"""

from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from typing import Final

from starlette.requests import Request

from airflow_provider_fluxomail.sandbox.prefix import prefix_of
from airflow_provider_fluxomail.sandbox.store.records import Delivery
from airflow_provider_fluxomail.sandbox.tracking import tokens
from airflow_provider_fluxomail.sandbox.tracking.rewriting import rewritten
from airflow_provider_fluxomail.sandbox.tracking.tokens import Kind

OPEN_PATH: Final = "/api/track/open"
CLICK_PATH: Final = "/api/track/click"
UNSUBSCRIBE_PATH: Final = "/api/unsubscribe"
_PATHS: Final[dict[Kind, str]] = {"open": OPEN_PATH, "click": CLICK_PATH, "unsubscribe": UNSUBSCRIBE_PATH}

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_UNSUBSCRIBE: Final = "unsubscribe"


def deliver(
    html: str | None,
    url: Callable[[Kind, int], str],
    *,
    tracked: bool,
    unsubscribe: bool,
    footer: bool,
) -> Delivery:
    """The delivery of a message.

    :param html: its HTML as it was sent.
    :param url: returns the URL of a kind of link, by its number; see :func:`urls`.
    :param tracked: whether it gets a pixel and tracked links.
    :param unsubscribe: whether it gets the ``List-Unsubscribe`` headers.
    :param footer: whether its HTML gets a footer with an unsubscribe link.
    """
    unsubscribe_url = url("unsubscribe", 0) if unsubscribe else None
    if not html:
        return Delivery(html, [], unsubscribe_url)
    links: list[str] = []

    def target(link: str, label: bytes) -> str | None:
        if not tracked or is_unsubscribe_link(link, label):
            return None
        links.append(link)
        return url("click", len(links) - 1)

    tail = ""
    if footer:
        tail += (
            '<div style="margin:24px 0 8px;font:12px sans-serif;color:#666">'
            f'<a href="{escape(url("unsubscribe", 0))}" style="color:#666">Unsubscribe</a></div>'
        )
    if tracked:
        tail += f'<img src="{escape(url("open", 0))}" width="1" height="1" alt="" style="border:0">'
    return Delivery(rewritten(html, target, tail) if tail else html, links, unsubscribe_url)


def base_url(request: Request) -> str:
    """The sandbox's address as the sender knows it; the socket's, if its header names no host."""
    host = request.headers.get("host", "")
    if _HOST.fullmatch(host) is None:
        address, port = request.scope.get("server") or ("127.0.0.1", None)
        host = f"[{address}]" if ":" in address else address
        host += f":{port}" if port else ""
    return f"{request.scope['scheme']}://{host}{prefix_of(request.scope)}"


def urls(base_url: str, secret: bytes, send_id: str) -> Callable[[Kind, int], str]:
    """The URLs of the links of a message.

    :param base_url: of the sandbox as recipients reach it, without a slash at its end.
    """

    makers = {kind: tokens.maker(secret, kind, send_id) for kind in _PATHS}

    def url(kind: Kind, number: int) -> str:
        return f"{base_url}{_PATHS[kind]}?token={makers[kind](number)}"

    return url


def is_unsubscribe_link(url: str, label: bytes) -> bool:
    """Whether a link unsubscribes, by its URL or its text in lower case: such links are left alone."""
    return _UNSUBSCRIBE in url.lower() or _UNSUBSCRIBE.encode() in label
