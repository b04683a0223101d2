"""The log of API requests: what clients sent, and when."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Annotated, Final
from urllib.parse import unquote_plus

from pydantic import Field

from airflow_provider_fluxomail.sandbox.limits import Bounds

_SECRET_HEADERS: Final = frozenset(("authorization", "x-api-key", "proxy-authorization", "cookie", "referer"))
_MAX_TEXT: Final = 2_000


@dataclass(slots=True)
class LoggedRequest:
    """One request to the API."""

    at: Annotated[float, Field(description="When it arrived, real time in seconds since the epoch.")]
    method: str
    path: str
    query: str
    headers: Annotated[dict[str, str], Field(description="By name in lower case, without the credentials.")]
    idempotency_key: Annotated[str | None, Field(description="Of the header, else of the body.")] = None
    status: Annotated[int | None, Field(description="Of the response; null for a connection that was cut.")] = None
    fault: Annotated[str | None, Field(description="The kinds of the faults that met it, joined by `+`.")] = None
    user_agent: str | None = None
    gap: Annotated[float | None, Field(description="Seconds since the request before it in the list.")] = None


class RequestLog:
    """The newest requests, in the order of their arrival."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._entries: deque[tuple[LoggedRequest, int]] = deque()
        self._size = 0

    def add(
        self, at: float, method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> LoggedRequest:
        """Log a request that has arrived; its response is filled in later.

        Long texts are cut and credentials are left out: anyone who can reach the sandbox can read the log.
        """
        shown = {
            name: value.decode("latin-1")[:_MAX_TEXT]
            for name, value in ((name.decode("latin-1").lower(), value) for name, value in headers)
            if name not in _SECRET_HEADERS
        }
        key = shown.get("idempotency-key") or None
        shown_query = "&".join(map(_without_token, query.decode("latin-1").split("&")))[:_MAX_TEXT]
        agent = shown.get("user-agent")
        entry = LoggedRequest(at, method, path[:_MAX_TEXT], shown_query, shown, key, user_agent=agent)
        size = 200 + len(entry.path) + len(entry.query) + sum(map(len, shown)) + sum(map(len, shown.values()))
        self._entries.append((entry, size))
        self._size += size
        while len(self._entries) > self._bounds.requests or self._size > self._bounds.request_bytes:
            self._size -= self._entries.popleft()[1]
        return entry

    def find(
        self,
        *,
        method: str | None = None,
        path: str | None = None,
        idempotency_key: str | None = None,
        status: int | None = None,
        fault: str | None = None,
    ) -> list[LoggedRequest]:
        """The kept requests that match, oldest first, each with the gap since the one before it.

        The parameters are the fields of the control API's query.
        """
        found = [
            entry
            for entry, _ in self._entries
            if (method is None or fnmatchcase(entry.method, method.upper()))
            and (path is None or path_matches(entry.path, path))
            and (idempotency_key is None or fnmatchcase(entry.idempotency_key or "", idempotency_key))
            and (status is None or (entry.status or 0) == status)
            and (fault is None or fault in (entry.fault or "").split("+"))
        ]
        gaps = [None, *(after.at - before.at for before, after in pairwise(found))]
        return [replace(entry, gap=gap) for entry, gap in zip(found, gaps, strict=False)]

    def sends_with(self, idempotency_key: str) -> list[LoggedRequest]:
        """The requests to send that carried exactly this key, oldest first."""
        return [
            entry for entry, _ in self._entries if entry.idempotency_key == idempotency_key and entry.method == "POST"
        ]

    def send_counts(self, idempotency_keys: Collection[str]) -> dict[str, int]:
        """The number of requests to send that carried each of these keys."""
        keys = (entry.idempotency_key for entry, _ in self._entries if entry.method == "POST")
        return Counter(key for key in keys if key is not None and key in idempotency_keys)

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0


def _without_token(parameter: str) -> str:
    name, _, _ = parameter.partition("=")
    return f"{name}=***" if unquote_plus(name) == "token" else parameter


def path_matches(path: str, pattern: str) -> bool:
    if any(sign in pattern for sign in "*?["):
        return fnmatchcase(path, pattern)
    return path == pattern or path.startswith(pattern.rstrip("/") + "/")
