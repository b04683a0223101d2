"""The page of one message, and what it links to: bodies, source, attachments, forms."""

from __future__ import annotations

from typing import Final, get_args
from urllib.parse import parse_qs

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.control.models import EventInput
from airflow_provider_fluxomail.sandbox.inbox import pages
from airflow_provider_fluxomail.sandbox.inbox.frame import is_tracked, on_this_address
from airflow_provider_fluxomail.sandbox.inbox.pages import PREFIX
from airflow_provider_fluxomail.sandbox.inbox.previews import BEGINNING, preview_of
from airflow_provider_fluxomail.sandbox.inbox.view import PAGE_SIZE, REFRESH_SECONDS, link, search_of
from airflow_provider_fluxomail.sandbox.limits import FROM_EMAIL, MAX_EPOCH_SECONDS
from airflow_provider_fluxomail.sandbox.outcomes import OPENED, PlannedEvent, details
from airflow_provider_fluxomail.sandbox.prefix import to_root
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.store.records import StoredSend, StoreFullError
from airflow_provider_fluxomail.sandbox.tracking.recording import record

EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventInput.model_fields["type"].annotation)

_SHOWN_TEXT: Final = 200_000
"""Characters of a body on the page; a link leads to the whole body."""
_SHOWN_FILE: Final = 200_000
"""Bytes of a text file that are previewed."""
_SHOWN_REQUESTS: Final = 20
_MAX_REASON: Final = 500
_VIEWS: Final = {"html": "HTML", "text": "Text", "source": "HTML source", "headers": "Headers", "mime": "Source"}
"""The forms of a body, with their names on the page."""
_HEADERS: Final = {"replyTo": "Reply-To", "fromEmail": "From (requested)", "fromName": "From name (requested)"}
"""Names of email headers for fields that the API does not name."""


class MessagePage:
    """The handlers of a message."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def mount(self, app: FastAPI) -> None:
        """Add the routes."""
        path = f"{PREFIX}/{{send_id}}"
        app.add_route(path, self.show)
        for form in _VIEWS:
            app.add_route(f"{path}/{form}", self.body)
        app.add_route(f"{path}/message.eml", self.eml)
        app.add_route(f"{path}/attachments/{{position:int}}", self.attachment)
        app.add_route(f"{path}/attachments/{{position:int}}/preview", self.preview)
        app.add_route(f"{path}/events", self.add_event, methods=["POST"])
        app.add_route(f"{path}/delete", self.delete, methods=["POST"])

    async def show(self, request: Request) -> Response:
        """The page: ``view`` selects the form of the body, ``images=1`` loads its images, ``q`` keeps a search."""
        return self._page(request, self._find(request))

    async def body(self, request: Request) -> Response:
        """The HTML body for the frame of the page, or a form of the message as text."""
        send, form = self._find(request), request.url.path.rpartition("/")[2]
        if form in ("html", "source") and not send.html:
            raise pages.Missing("No HTML", "The message has a text body only.")
        if form == "html":
            store, images = self._sandbox.store, request.query_params.get("images") == "1"
            html = store.deliveries.get(send).html or ""
            if self._sandbox.switches.inbox_opens and is_tracked(html) and not images:
                # With images, its pixel does that.
                record(self._sandbox, request, send, OPENED)
            html = on_this_address(html, send, store.deliveries.secret(), to_root(request.scope))
            return pages.mail(html, images=images)
        return pages.plain(self._text(send, form))

    async def eml(self, request: Request) -> Response:
        """Download the source, for a mail program."""
        send = self._find(request)
        return pages.download(self._sandbox.source(send), f"{send.send_id}.eml", "message/rfc822")

    async def attachment(self, request: Request) -> Response:
        """Download an attachment, counted from 0."""
        content, filename = self._attachment(request)
        return pages.download(content, filename)

    async def preview(self, request: Request) -> Response:
        """An attachment as an image or as text, if it is one."""
        content, _ = self._attachment(request)
        preview = preview_of(content[:BEGINNING])
        if preview is None:
            raise pages.Missing("No preview", "Only images and text files are shown; any other can be downloaded.")
        return pages.preview(content if preview.kind == "image" else content[:_SHOWN_FILE], preview.media_type)

    async def add_event(self, request: Request) -> Response:
        """The form of the page: add an event now, and redirect back to the page."""
        send = self._find(request)
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        kind, reason = (form.get(name, [""])[0].strip() for name in ("type", "reason"))
        if kind not in EVENT_TYPES:
            return self._page(request, send, 400, f"The type of an event is one of {', '.join(EVENT_TYPES)}.")
        data = details(kind, send.address, self._sandbox.store.deliveries.get(send).links)
        data |= {"reason": reason[:_MAX_REASON]} if reason else {}
        try:
            added = self._sandbox.add_event(send, PlannedEvent(kind, self._sandbox.clock.now_ms(), data))
        except StoreFullError as error:
            return self._page(request, send, 409, f"Not added: {error}.")
        search = search_of(request.query_params.get("q"))
        return pages.redirect(
            request, link(_path(send)[1:], None, q=search, left_out="" if added else kind) + "#timeline"
        )

    async def delete(self, request: Request) -> Response:
        """The form of the page: delete the message, and redirect to the list."""
        send, search = self._find(request), search_of(request.query_params.get("q"))
        self._sandbox.store.delete_send(send)
        self._sandbox.event_bus.notify_viewers()
        return pages.redirect(request, link(PREFIX[1:], None, q=search))

    def _page(self, request: Request, send: StoredSend, status: int = 200, problem: str = "") -> Response:
        store, query = self._sandbox.store, request.query_params
        now_ms, search = self._sandbox.clock.now_ms(), search_of(query.get("q"))
        views = [view for view in _VIEWS if send.html or view not in ("html", "source")]
        view = query.get("view", "")
        view = view if view in views else views[0]
        body = "" if view == "html" else self._text(send, view)
        left_out = query.get("left_out")
        if not problem and left_out in EVENT_TYPES:
            problem = f"Left out: the message is {left_out} already, and the switch repeated_events is set to drop."
        events = store.event_log.of_send(send, int(MAX_EPOCH_SECONDS * 1000))
        newer, older = store.mailbox.neighbours(send, search, now_ms)
        refresh, images = query.get("refresh") == "1", query.get("images") == "1"
        requests = self._sandbox.requests.sends_with(send.idempotency_key) if send.idempotency_key else []
        page = store.mailbox.newer(send, search, now_ms) // PAGE_SIZE + 1

        def url(view: str = view, *, refresh: bool = refresh, images: bool = False) -> str:
            given = {"view": view if view != views[0] else "", "images": "1" if images else ""}
            return link(_path(send), request, **given, q=search, refresh="1" if refresh else "")

        return pages.page(
            "message.html",
            request.scope,
            status,
            base_url=pages.base_url(request),
            refused_count=len(self._sandbox.refused),
            refresh=REFRESH_SECONDS if refresh else None,
            refresh_url=url(refresh=not refresh, images=images),
            here_url=url(images=images),
            problem=problem,
            search=search,
            suffix=link("", None, q=search),
            list_url=link(PREFIX, request, q=search, page=page if page > 1 else ""),
            send=send,
            sender=FROM_EMAIL,
            extra=[(_HEADERS.get(name, name), value) for name, value in list(send.extra.items())[:40]],
            state=next((event.type for event in reversed(events) if event.at_ms <= now_ms), None),
            events=events,
            now_ms=now_ms,
            event_types=EVENT_TYPES,
            view=view,
            views=[(name, _VIEWS[name], url(name)) for name in views],
            body=body[:_SHOWN_TEXT],
            body_is_cut=len(body) > _SHOWN_TEXT,
            is_short=len(send.html or "") < 800,
            is_tracked=is_tracked(store.deliveries.get(send).html or ""),
            images=images,
            opens=self._sandbox.switches.inbox_opens,
            images_url=url(images=not images),
            files=self._files(send),
            newer=newer,
            older=older,
            stored=store.mailbox.same_key(send) if send.idempotency_key else 1,
            request_count=len(requests),
            requests=requests[-_SHOWN_REQUESTS:],
        )

    def _files(self, send: StoredSend) -> list[tuple[object, str]]:
        """The attachments, each with the kind of its preview."""
        store = self._sandbox.store
        previews = [preview_of(content) for content in store.attachment_beginnings(send, BEGINNING)]
        kinds = ["" if preview is None else preview.kind for preview in previews]
        return list(zip(store.attachments(send), kinds, strict=True))

    def _text(self, send: StoredSend, view: str) -> str:
        """The form of a message that is shown as text."""
        if view == "source":
            return send.html or ""
        if view == "text":
            return send.content
        source = self._sandbox.source(send).decode("utf-8", "replace").replace("\r\n", "\n")
        return source.partition("\n\n")[0] if view == "headers" else source

    def _attachment(self, request: Request) -> tuple[bytes, str]:
        send, position = self._find(request), request.path_params["position"]
        files = self._sandbox.store.attachments(send)
        if position >= len(files):
            raise pages.Missing("No such attachment", "The message has no attachment with this number.")
        content = self._sandbox.store.attachment_content(send, position)
        assert content is not None
        return content, files[position].filename

    def _find(self, request: Request) -> StoredSend:
        send_id: str = request.path_params["send_id"]
        send = self._sandbox.store.get_send(send_id)
        if send is None:
            text = "It may have been deleted or reset, or started without its data file."
            raise pages.Missing("No such message", f"The sandbox has no message {pages.clip(send_id, 100)}. {text}")
        return send


def _path(send: StoredSend) -> str:
    return f"{PREFIX}/{send.send_id}"
