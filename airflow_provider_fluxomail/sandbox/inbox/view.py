"""What the pages of the inbox share: the search and the links that keep it."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request

from airflow_provider_fluxomail.sandbox.prefix import to_root
from airflow_provider_fluxomail.sandbox.store.search import MAX_SEARCH

PAGE_SIZE: Final = 50
REFRESH_SECONDS: Final = 5


def search_of(text: str | None) -> str:
    """A search as it was typed. To SQLite, NUL is the end of a pattern."""
    return (text or "").replace("\0", "").strip()[:MAX_SEARCH]


def link(path: str, request: Request | None, **query: Any) -> str:
    """A URL with the parameters that are not empty; for a page, relative to it."""
    if request is not None:
        path = to_root(request.scope) + path[1:]
    shown = urlencode({name: value for name, value in query.items() if value != ""})
    return f"{path}?{shown}" if shown else path
