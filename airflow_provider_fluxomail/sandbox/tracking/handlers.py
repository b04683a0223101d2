"""The routes that the links of a message lead to: ``/api/track/open``, ``/api/track/click`` and ``/api/unsubscribe``.

They are public, as in the service: a token in the link names the message, and without one that the sandbox has made
they do nothing. https://docs.fluxomail.com/guides/engagement-timeline
"""

from __future__ import annotations

import base64
import re
from html import escape
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, quote

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.exchange import json_response, parse_json
from airflow_provider_fluxomail.sandbox.outcomes import CLICKED, OPENED
from airflow_provider_fluxomail.sandbox.store.records import StoredSend
from airflow_provider_fluxomail.sandbox.tracking.delivery import CLICK_PATH, OPEN_PATH, UNSUBSCRIBE_PATH
from airflow_provider_fluxomail.sandbox.tracking.recording import is_prefetch, message_of, record, unsubscribe

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

PIXEL: Final = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of one pixel."""

_NEVER_CACHED: Final = {
    "Cache-Control": "no-store, no-cache, must-revalidate, max-age=0, private",
    "Pragma": "no-cache",
    "Expires": "0",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex, nofollow",
}
_PAGE: Final = _NEVER_CACHED | {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
}
_ONE_CLICK: Final = re.compile(rb"List-Unsubscribe\W+One-Click", re.IGNORECASE)
# As browsers encode a URL: an escape that is there already is not encoded again.
_SAFE_IN_URL: Final = "!#$%&'()*+,/:;=?@[]^_`{|}~\\-."


def is_public(path: str) -> bool:
    """Whether a path is one of these routes, which other origins and host names may use."""
    return path in (OPEN_PATH, CLICK_PATH, UNSUBSCRIBE_PATH)


class Tracking:
    """The handlers."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        """Add the routes. They are Starlette's: recipients call them, so the OpenAPI document does not list them."""
        app.add_route(OPEN_PATH, self.open)
        app.add_route(CLICK_PATH, self.click)
        app.add_route(UNSUBSCRIBE_PATH, self.confirm)
        app.add_route(UNSUBSCRIBE_PATH, self.unsubscribe, methods=["POST"])

    async def open(self, request: Request) -> Response:
        """The pixel: records ``opened``."""
        found = message_of(self._sandbox.store, "open", request.query_params.get("token"))
        if found is None:
            return _missing()
        record(self._sandbox, request, found[0], OPENED)
        return Response(PIXEL, 200, dict(_NEVER_CACHED), "image/gif")

    async def click(self, request: Request) -> Response:
        """A link: records ``clicked``, and redirects to the URL that the message had there, and to no other."""
        found = message_of(self._sandbox.store, "click", request.query_params.get("token"))
        url = None if found is None else self._sandbox.store.deliveries.link(*found)
        if found is None or url is None:
            return _missing()
        record(self._sandbox, request, found[0], CLICKED, url=url)
        return Response(None, 302, _NEVER_CACHED | {"Location": quote(url, _SAFE_IN_URL)})

    async def confirm(self, request: Request) -> Response:
        """A page with a button: scanners follow links, and must not unsubscribe the recipient."""
        send = self._recipient(request.query_params.get("token"), request.query_params.get("email"))
        if send is None:
            return _missing()
        if self._sandbox.switches.unsubscribe_get == "at_once" and not is_prefetch(request):
            return self._unsubscribed(request, send, "link")
        question = f"Unsubscribe {send.address} from all email of {send.organization}?"
        return _page(200, "Unsubscribe", question, '<form method="post"><button>Unsubscribe</button></form>')

    async def unsubscribe(self, request: Request) -> Response:
        """One click (RFC 8058), the button of the page, or a program: no more email to the recipient."""
        body, query = await request.body(), request.query_params
        given = _fields(body)
        send = self._recipient(query.get("token", given.get("token")), query.get("email", given.get("email")))
        if send is None:
            return _missing()
        return self._unsubscribed(request, send, "one-click" if _ONE_CLICK.search(body) else "page")

    def _unsubscribed(self, request: Request, send: StoredSend, method: str) -> Response:
        unsubscribe(self._sandbox, request, send, method)
        if "text/html" in request.headers.get("accept", ""):
            return _page(200, "Unsubscribed", f"{send.address} gets no more email of {send.organization}.")
        return json_response({"ok": True}, 200, dict(_NEVER_CACHED))

    def _recipient(self, token: str | None, email: str | None) -> StoredSend | None:
        """The message whose recipient a token lets unsubscribe; an address beside it must be the recipient's."""
        found = message_of(self._sandbox.store, "unsubscribe", token)
        if found is None or (email and email.strip().lower() != found[0].address.lower()):
            return None
        return found[0]


def _fields(body: bytes) -> dict[str, str]:
    """Token and address in a body, as JSON or as a form."""
    try:
        value = parse_json(body)
    except ValueError:
        value = {name: values[0] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
    return {name: text for name, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def _missing() -> Response:
    return _page(404, "Not found", "This link is not one of a message that the sandbox holds.")


def _page(status: int, title: str, text: str, more: str = "") -> Response:
    page = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title>"
        "<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:30em;"
        "padding:0 1em;text-align:center;overflow-wrap:anywhere}button{font:inherit;padding:.5em 1.5em}</style>"
        f"<h1>{escape(title)}</h1><p>{escape(text)}</p>{more}</html>"
    )
    return Response(page, status, dict(_PAGE), "text/html")
