"""The inbox: the messages of the sandbox in a browser. It works without JavaScript.

Links of Airflow tasks lead to ``{base_url}/inbox/{send_id}``.
"""

from __future__ import annotations

import json
import shlex
from typing import Any, Final, get_args
from urllib.parse import parse_qs, urlencode

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from airflow_provider_fluxomail.sandbox.control.models import EventInput
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.inbox.pages import PREFIX
from airflow_provider_fluxomail.sandbox.limits import FROM_EMAIL, MAX_EPOCH_SECONDS
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent, details
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.store.mailbox import MAX_SEARCH
from airflow_provider_fluxomail.sandbox.store.records import StoredSend, StoreFullError

PAGE_SIZE: Final = 50
EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventInput.model_fields["type"].annotation)
REFRESH_SECONDS: Final = 5

_SHOWN_TEXT: Final = 200_000
"""Characters of a body on the page; a link leads to the whole body."""
_SHOWN_REQUESTS: Final = 20
_MAX_REASON: Final = 500
_VIEWS: Final = ("html", "text", "source")
_HEADERS: Final = {"replyTo": "Reply-To", "fromEmail": "From (requested)", "fromName": "From name (requested)"}
"""Names of email headers for fields that the API does not name."""


class Inbox:
    """The handlers of the pages."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        """Add the routes. They are Starlette's, so that the OpenAPI document does not list them."""
        app.add_route("/", self.home)
        app.add_route(PREFIX, self.messages)
        app.add_route(f"{PREFIX}/", self.home)
        app.add_route(f"{PREFIX}/static/{{name}}", self.static)
        app.add_route(f"{PREFIX}/{{send_id}}", self.message)
        for form in _VIEWS:
            app.add_route(f"{PREFIX}/{{send_id}}/{form}", self.body)
        app.add_route(f"{PREFIX}/{{send_id}}/attachments/{{position:int}}", self.attachment)
        app.add_route(f"{PREFIX}/{{send_id}}/events", self.add_event, methods=["POST"])

    async def home(self, request: Request) -> Response:
        """Redirect a browser to the inbox; a program gets a 404, because it has the wrong path."""
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        return RedirectResponse(PREFIX, 302, {"Vary": "Accept"})

    async def messages(self, request: Request) -> Response:
        """The list: ``q`` searches, ``page`` counts from 1, ``refresh=1`` loads it again every few seconds."""
        query = request.query_params
        # To SQLite, NUL is the end of a pattern.
        search = query.get("q", "").replace("\0", "").strip()[:MAX_SEARCH]
        refresh = query.get("refresh") == "1"
        mailbox, now_ms = self._sandbox.store.mailbox, self._sandbox.clock.now_ms()
        count = mailbox.count(search)
        last = max(1, -(-count // PAGE_SIZE))
        page = query.get("page", "")
        number = min(last, max(1, int(page))) if page.isascii() and page.isdigit() and len(page) < 10 else 1

        def url(page: int = 1, *, search: str = search, refresh: bool = refresh) -> str:
            return _url(PREFIX, q=search, page=page if page > 1 else "", refresh="1" if refresh else "")

        base_url = pages.base_url(request)
        return pages.page(
            "inbox.html",
            base_url=base_url,
            refresh=REFRESH_SECONDS if refresh else None,
            refresh_url=url(number, refresh=not refresh),
            search=search,
            clear_url=url(search=""),
            count=count,
            first=(number - 1) * PAGE_SIZE + 1,
            number=number,
            last=last,
            newer_url=url(number - 1) if number > 1 else None,
            older_url=url(number + 1) if number < last else None,
            messages=mailbox.page(search, now_ms=now_ms, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE),
            now_ms=now_ms,
            sender=FROM_EMAIL,
            howto=None if count or search else self._howto(base_url),
        )

    async def message(self, request: Request) -> Response:
        """One message: ``view`` selects the form of its body, ``refresh=1`` loads it again every few seconds."""
        return self._message(request, self._find(request))

    async def body(self, request: Request) -> Response:
        """The HTML body for the frame of the page, or the HTML or text body as text."""
        send, form = self._find(request), request.url.path.rpartition("/")[2]
        if form == "text":
            return pages.plain(send.content)
        if not send.html:
            raise pages.Missing("No HTML", "The message has a text body only.")
        return pages.mail(send.html) if form == "html" else pages.plain(send.html)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in pages.STATIC:
            raise HTTPException(404)
        return pages.static(name)

    async def attachment(self, request: Request) -> Response:
        """Download an attachment, counted from 0."""
        send, position = self._find(request), request.path_params["position"]
        files = self._sandbox.store.attachments(send)
        if position >= len(files):
            raise pages.Missing("No such attachment", "The message has no attachment with this number.")
        content = self._sandbox.store.attachment_content(send, position)
        assert content is not None
        return pages.download(content, files[position].filename)

    async def add_event(self, request: Request) -> Response:
        """The form of the page: add an event now, and redirect back to the page."""
        send = self._find(request)
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        kind, reason = (form.get(name, [""])[0].strip() for name in ("type", "reason"))
        if kind not in EVENT_TYPES:
            return self._message(request, send, 400, f"The type of an event is one of {', '.join(EVENT_TYPES)}.")
        data = details(kind, send.address, self._sandbox.store.deliveries.get(send).links) | (
            {"reason": reason[:_MAX_REASON]} if reason else {}
        )
        try:
            added = self._sandbox.add_event(send, PlannedEvent(kind, self._sandbox.clock.now_ms(), data))
        except StoreFullError as error:
            return self._message(request, send, 409, f"Not added: {error}.")
        return RedirectResponse(_url(_path(send), left_out="" if added else kind) + "#timeline", 303)

    def _message(self, request: Request, send: StoredSend, status: int = 200, problem: str = "") -> Response:
        store, query = self._sandbox.store, request.query_params
        now_ms = self._sandbox.clock.now_ms()
        views = [view for view in _VIEWS if send.html or view == "text"]
        view = query.get("view", "")
        view = view if view in views else views[0]
        body = send.content if view == "text" else send.html or ""
        left_out = query.get("left_out")
        if not problem and left_out in EVENT_TYPES:
            problem = f"Left out: the message is {left_out} already, and the switch repeated_events is set to drop."
        events = store.event_log.of_send(send, int(MAX_EPOCH_SECONDS * 1000))
        newer, older = store.mailbox.neighbours(send)
        refresh = query.get("refresh") == "1"
        requests = self._sandbox.requests.sends_with(send.idempotency_key) if send.idempotency_key else []

        def url(view: str, *, refresh: bool = refresh) -> str:
            return _url(_path(send), view=view, refresh="1" if refresh else "")

        return pages.page(
            "message.html",
            status,
            base_url=pages.base_url(request),
            refresh=REFRESH_SECONDS if refresh else None,
            refresh_url=url(view if view != views[0] else "", refresh=not refresh),
            problem=problem,
            send=send,
            sender=FROM_EMAIL,
            extra=[(_HEADERS.get(name, name), value) for name, value in list(send.extra.items())[:40]],
            state=next((event.type for event in reversed(events) if event.at_ms <= now_ms), None),
            events=events,
            now_ms=now_ms,
            event_types=EVENT_TYPES,
            view=view,
            views=[(name, url(name)) for name in views],
            body=body[:_SHOWN_TEXT],
            body_is_cut=len(body) > _SHOWN_TEXT,
            attachments=store.attachments(send),
            newer=newer,
            older=older,
            stored=store.mailbox.same_key(send) if send.idempotency_key else 1,
            request_count=len(requests),
            requests=requests[-_SHOWN_REQUESTS:],
        )

    def _find(self, request: Request) -> StoredSend:
        send_id: str = request.path_params["send_id"]
        send = self._sandbox.store.get_send(send_id)
        if send is None:
            text = "It may have been reset, or started without its data file."
            raise pages.Missing("No such message", f"The sandbox has no message {pages.clip(send_id, 100)}. {text}")
        return send

    def _howto(self, base_url: str) -> dict[str, str]:
        key = self._sandbox.start_key
        body = {"to": "ops@example.org", "subject": "Hello", "content": "From the sandbox."}
        connection = {"conn_type": "fluxomail", "host": base_url, "password": key}
        return {
            "curl": f"curl {base_url}/api/v1/emails/send \\\n"
            f"  -H {shlex.quote(f'Authorization: Bearer {key}')} \\\n"
            "  -H 'Content-Type: application/json' \\\n"
            f"  -d {shlex.quote(json.dumps(body))}",
            "connection": f"export AIRFLOW_CONN_FLUXOMAIL_DEFAULT={shlex.quote(json.dumps(connection))}",
        }


def _path(send: StoredSend) -> str:
    return f"{PREFIX}/{send.send_id}"


def _url(path: str, **query: Any) -> str:
    shown = urlencode({name: value for name, value in query.items() if value != ""})
    return f"{path}?{shown}" if shown else path
