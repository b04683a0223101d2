"""The inbox: the messages of the sandbox in a browser. It works without JavaScript too.

Links of Airflow tasks lead to ``{base_url}/inbox/{send_id}``.
"""

from __future__ import annotations

import json
import shlex
from typing import Any, Final
from urllib.parse import parse_qs

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.inbox.live import MAX_VIEWERS, LiveResponse
from airflow_provider_fluxomail.sandbox.inbox.message_page import EVENT_TYPES, MessagePage
from airflow_provider_fluxomail.sandbox.inbox.pages import EVENT_STREAM, PREFIX
from airflow_provider_fluxomail.sandbox.inbox.view import PAGE_SIZE, REFRESH_SECONDS, link, search_of
from airflow_provider_fluxomail.sandbox.limits import FROM_EMAIL
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.store.search import MAX_SEARCH

__all__ = ["EVENT_TYPES", "Inbox"]

_SHOWN_REFUSED: Final = 100


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
        app.add_route(f"{PREFIX}/changes", self.changes)
        app.add_route(f"{PREFIX}/refused", self.refused)
        app.add_route(f"{PREFIX}/delete", self.delete, methods=["POST"])
        MessagePage(self._sandbox).mount(app)

    async def home(self, request: Request) -> Response:
        """Redirect a browser to the inbox; a program gets a 404, because it has the wrong path."""
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        return pages.redirect(request, PREFIX[1:], 302, {"Vary": "Accept"})

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in pages.STATIC:
            raise HTTPException(404)
        return pages.static(name)

    async def changes(self, request: Request) -> Response:
        """The stream that tells an open page to load its HTML again."""
        if request.method == "HEAD":
            # The stream has no end, for which the connection would wait.
            return Response(None, 200, EVENT_STREAM)
        if self._sandbox.event_bus.viewers >= MAX_VIEWERS:
            return PlainTextResponse(f"at most {MAX_VIEWERS} pages can follow the sandbox", 503)
        return LiveResponse(self._sandbox)

    async def messages(self, request: Request) -> Response:
        """The list: ``q`` searches, ``page`` counts from 1, ``refresh=1`` loads it again every few seconds."""
        query = request.query_params
        search, refresh = search_of(query.get("q")), query.get("refresh") == "1"
        mailbox, now_ms = self._sandbox.store.mailbox, self._sandbox.clock.now_ms()
        count = mailbox.count(search, now_ms)
        last = max(1, -(-count // PAGE_SIZE))
        page = query.get("page", "")
        number = min(last, max(1, int(page))) if page.isascii() and page.isdigit() and len(page) < 10 else 1

        def url(page: int = 1, *, search: str = search, refresh: bool = refresh) -> str:
            return link(PREFIX, request, q=search, page=page if page > 1 else "", refresh="1" if refresh else "")

        base_url = pages.base_url(request)
        messages = mailbox.page(search, now_ms=now_ms, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE)
        keys = {message.idempotency_key for message in messages if message.idempotency_key}
        return pages.page(
            "inbox.html",
            request.scope,
            base_url=base_url,
            refused_count=len(self._sandbox.refused),
            refresh=REFRESH_SECONDS if refresh else None,
            refresh_url=url(number, refresh=not refresh),
            here_url=url(number),
            search=search,
            max_search=MAX_SEARCH,
            suffix=link("", None, q=search),
            clear_url=url(search=""),
            count=count,
            first=(number - 1) * PAGE_SIZE + 1,
            number=number,
            last=last,
            newer_url=url(number - 1) if number > 1 else None,
            older_url=url(number + 1) if number < last else None,
            up_to=mailbox.newest(),
            messages=messages,
            requested=self._sandbox.requests.send_counts(keys),
            now_ms=now_ms,
            sender=FROM_EMAIL,
            howto=None if count or search else self._howto(base_url),
        )

    async def delete(self, request: Request) -> Response:
        """The form of the list: delete what the search finds, but nothing that is newer than the page."""
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        up_to = form.get("up_to", [""])[0]
        if not (up_to.isascii() and up_to.isdigit() and len(up_to) < 19):
            text = (
                "Nothing was deleted: the form has no number of the newest message. Go back to the list, and try again."
            )
            return pages.error_page(400, "Not deleted", text, request.scope, base_url=pages.base_url(request))
        search = search_of(form.get("q", [""])[0])
        self._sandbox.store.delete_found(search, self._sandbox.clock.now_ms(), int(up_to))
        self._sandbox.event_bus.notify_viewers()
        return pages.redirect(request, link(PREFIX[1:], None))

    async def refused(self, request: Request) -> Response:
        """The requests that the API refused, newest first; ``status`` filters."""
        query, refused = request.query_params, self._sandbox.refused
        statuses = refused.statuses()
        status = next((one for one in statuses if str(one) == query.get("status")), None)
        refresh = query.get("refresh") == "1"

        def url(status: int | None = status, *, refresh: bool = refresh) -> str:
            return link(f"{PREFIX}/refused", request, status=status or "", refresh="1" if refresh else "")

        found = refused.newest(status)
        return pages.page(
            "refused.html",
            request.scope,
            base_url=pages.base_url(request),
            refused_count=len(refused),
            refresh=REFRESH_SECONDS if refresh else None,
            refresh_url=url(refresh=not refresh),
            here_url=url(),
            selected=status,
            statuses=[(one, number, url(one)) for one, number in statuses.items()],
            all_url=url(None),
            count=len(found),
            refused=found[:_SHOWN_REFUSED],
            pretty=_pretty,
        )

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


def _pretty(content: bytes) -> str:
    """A body as text: JSON indented, any other as it is."""
    text = content.decode("utf-8", "replace")
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else text
