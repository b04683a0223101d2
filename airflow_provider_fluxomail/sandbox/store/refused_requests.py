"""The requests that the API has refused, with the body that was refused: what a person needs to see why."""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.types import Message

from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest

_MAX_ENTRIES: Final = 500
_MAX_BYTES: Final = 8 * 1024 * 1024
_MAX_BODY: Final = 64 * 1024
_MAX_RESPONSE: Final = 16 * 1024


@dataclass(slots=True)
class RefusedRequest:
    """A request whose response was an error.

    :param number: increases with every refused request.
    :param entry: its entry in the request log.
    :param body: the beginning of its body. :param size: bytes of the whole body.
    :param response: the beginning of the response's body.
    """

    number: int
    entry: LoggedRequest
    body: bytes
    size: int
    response: bytes = field(default=b"")

    @property
    def reason(self) -> str:
        """The text of the error, whatever its form, with the fields that it concerns."""
        text = self.response.decode("utf-8", "replace").strip()
        try:
            value: Any = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if not isinstance(value, dict):
            return text
        text = next((value[name] for name in ("message", "error") if isinstance(value.get(name), str)), text)
        details = value.get("details")
        fields = details.get("fields") if isinstance(details, dict) else None
        named = [name for name in fields if isinstance(name, str)] if isinstance(fields, list) else []
        return text if all(name in text for name in named) else f"{text}: {', '.join(named)}"


class Recorder:
    """Sees the messages of one response, and keeps the request if it is an error."""

    def __init__(self, kept: RefusedRequests, entry: LoggedRequest, body: bytes | bytearray) -> None:
        self._kept = kept
        self._entry = entry
        self._body = body
        self._refused: RefusedRequest | None = None

    def see(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._refused = self._kept.add(self._entry, self._body)
        elif self._refused is not None and message["type"] == "http.response.body":
            room = _MAX_RESPONSE - len(self._refused.response)
            self._refused.response += message.get("body", b"")[:room]


class RefusedRequests:
    """The newest refused requests: at most 500, and 8 MiB of them; of each body the first 64 KiB."""

    def __init__(self) -> None:
        self._entries: deque[RefusedRequest] = deque()
        self._size = 0
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: LoggedRequest, body: bytes | bytearray) -> RefusedRequest:
        self._number += 1
        refused = RefusedRequest(self._number, entry, bytes(body[:_MAX_BODY]), len(body))
        self._entries.append(refused)
        self._size += _cost(refused)
        while len(self._entries) > _MAX_ENTRIES or self._size > _MAX_BYTES:
            self._size -= _cost(self._entries.popleft())
        return refused

    def newest(self, status: int | None = None) -> list[RefusedRequest]:
        """Newest first; all, or those with a status."""
        return [one for one in reversed(self._entries) if status is None or one.entry.status == status]

    def statuses(self) -> dict[int, int]:
        """The number of them by status."""
        return dict(sorted(Counter(one.entry.status or 0 for one in self._entries).items()))

    def clear(self) -> None:
        self._entries.clear()
        self._size = 0


def _cost(refused: RefusedRequest) -> int:
    return len(refused.body) + _MAX_RESPONSE
