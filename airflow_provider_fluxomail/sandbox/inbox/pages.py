"""The look of the inbox and what it lets a browser do: templates, formatted times and sizes, response headers.

Everything that a message holds is hostile: the templates escape it, the pages run the inbox's own script alone, and the
HTML of a message is a document of its own, without an origin, that runs nothing, and loads nothing but images if the
reader wants them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.sandbox.clock import iso
from airflow_provider_fluxomail.sandbox.errors import ControlError
from airflow_provider_fluxomail.sandbox.prefix import prefix_of, to_root

PREFIX: Final = "/inbox"
STATIC: Final = {"inbox.css": "text/css", "inbox.js": "text/javascript", "icon.svg": "image/svg+xml"}

TONES: Final = {
    "delivered": "good",
    "opened": "good",
    "clicked": "good",
    "sent": "neutral",
    "delayed": "warning",
    "bounced": "bad",
    "complained": "bad",
    "unsubscribed": "warning",
    "dropped": "bad",
    "failed": "bad",
}
"""The colour of a state."""

# For these a browser opens a connection before it reads any policy. As <meta> they do nothing.
_CONNECTS: Final = re.compile(r"<(?:link|i?frame)(?![a-z0-9-])", re.IGNORECASE)
_FOLDER: Final = Path(__file__).parent
_COMMON: Final = {
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: with it, browsers send Origin: null with a form of the page, which the guard would refuse.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_PAGE: Final = _COMMON | {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; "
    "img-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
}
_MAIL_POLICY: Final = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
    "img-src {}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_MAIL: Final = _COMMON | {"Referrer-Policy": "no-referrer", "X-DNS-Prefetch-Control": "off"}
_FILE: Final = _COMMON | {"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'"}
_PREVIEW: Final = _COMMON | {"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'self'"}
EVENT_STREAM: Final = _COMMON | {"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}


class Missing(HTTPException):
    """A 404 with a page that says what is missing."""

    def __init__(self, title: str, text: str) -> None:
        super().__init__(404, text)
        self.title = title


def is_page(path: str) -> bool:
    return path == PREFIX or path.startswith(PREFIX + "/")


def base_url(request: Request) -> str:
    """The sandbox's URL with the host name that the browser used; the guard has checked it."""
    return f"{request.url.scheme}://{request.headers['host']}{prefix_of(request.scope)}"


def page(
    template: str, scope: Scope, status: int = 200, headers: Mapping[str, str] | None = None, **context: Any
) -> Response:
    """A page. Its URLs are relative: ``root`` leads to the root of the sandbox, whatever prefix a proxy adds."""
    root = to_root(scope)
    text = _templates().get_template(template).render(context | {"root": root, "inbox": root + PREFIX[1:]})
    return Response(text, status, {**(headers or {}), **_PAGE}, "text/html")


def error_page(
    status: int, title: str, text: str, scope: Scope, *, headers: Mapping[str, str] | None = None, base_url: str = ""
) -> Response:
    """A page that says what went wrong.

    :param base_url: of this sandbox; without it the page has no links, because they would not work either.
    """
    return page("error.html", scope, status, headers, title=title, text=text, base_url=base_url)


def refusal(error: ControlError, scope: Scope) -> Response:
    text = str(error)
    return error_page(error.status, "Refused", f"{text[:1].upper()}{text[1:]}.", scope)


def redirect(request: Request, path: str, status: int = 303, headers: Mapping[str, str] | None = None) -> Response:
    """A redirect to a path below the root. The URL is relative, as those of the pages."""
    return RedirectResponse(to_root(request.scope) + path, status, headers)


def mail(html: str, *, images: bool = False) -> Response:
    """The HTML of a message, as a document that runs and sends nothing; its links open in a new tab.

    :param images: whether it may load images from elsewhere.
    """
    text = '<!DOCTYPE html><base target="_blank">' + _CONNECTS.sub("<meta", html)
    policy = _MAIL_POLICY.format("data: http: https:" if images else "data:")
    return Response(text, 200, _MAIL | {"Content-Security-Policy": policy}, "text/html")


def plain(text: str) -> Response:
    return Response(text, 200, dict(_FILE), "text/plain")


def preview(content: bytes, media_type: str) -> Response:
    """A file that is shown: a type that the browser only displays, never one that the sender chose."""
    return Response(content, 200, dict(_PREVIEW), media_type)


def download(content: bytes, filename: str, media_type: str = "application/octet-stream") -> Response:
    """A file to be saved, never shown: the sender decides only its name."""
    name = "".join("_" if char in '/\\:*?"<>|%' or not char.isprintable() else char for char in filename)
    name = name.strip(" .")[-200:] or "attachment"
    simple = name.encode("ascii", "replace").decode().replace("?", "_")
    headers = _FILE | {"Content-Disposition": f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(name, '')}"}
    return Response(content, 200, headers, media_type)


def static(name: str) -> Response:
    headers = _FILE | {"Cache-Control": "max-age=31536000, immutable"}
    return Response(_static(name), 200, headers, STATIC[name])


def ago(at_ms: int, now_ms: int) -> str:
    """A moment relative to now: ``12 s ago``, ``in 3 min``; a date if it is more than a week away."""
    away = abs(now_ms - at_ms)
    if away < 1000:
        return "now" if at_ms > now_ms else "just now"
    if away < 7 * 86_400_000:
        return f"in {span(away)}" if at_ms > now_ms else f"{span(away)} ago"
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d}"


def span(ms: int) -> str:
    """A time in ms as a whole number of its largest unit, rounded down."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms >= size:
            return f"{ms // size} {unit}"
    return f"{ms} ms"


def exact(at_ms: int) -> str:
    """A moment in full: ``2026-01-31 12:00:00.000 UTC``."""
    return iso(at_ms).replace("T", " ").replace("Z", " UTC")


def size(count: int) -> str:
    if count < 1024:
        return f"{count} byte{'' if count == 1 else 's'}"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.1f} MiB"


def clip(value: object, limit: int) -> str:
    """A value as text, cut at a limit."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= limit else f"{text[:limit]}…"


@functools.cache
def _static(name: str) -> bytes:
    return (_FOLDER / "static" / name).read_bytes()


def _static_url(name: str) -> str:
    """The URL of a static file below the root. It changes with the content, because browsers cache it."""
    return f"{PREFIX[1:]}/static/{name}?v={hashlib.sha256(_static(name)).hexdigest()[:12]}"


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"ago": ago, "exact": exact, "iso": iso, "size": size, "span": span, "clip": clip}
    made.globals |= {"version": __version__, "static": _static_url, "tones": TONES}
    return made
