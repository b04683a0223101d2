"""A thin HTTP client of the sandbox: both of its APIs, as any program would call them."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BASE: dict[str, Any] = {"to": "ops@example.org", "subject": "Nightly load", "content": "Loaded 20 rows."}
KEY = "fm_sandbox"


SWITCHES: dict[str, set[Any]] = {}
"""The switches of the sandbox that the tests set, with all values they set them to."""


def each_value(switch: str, expected: dict[Any, Any]) -> pytest.MarkDecorator:
    """Run a test with each value of a switch: its arguments are ``value`` and ``expected``."""
    SWITCHES.setdefault(switch, set()).update(expected)
    return pytest.mark.parametrize(("value", "expected"), list(expected.items()), ids=map(str, expected))


class Api:
    """Calls over real HTTP; every answer is returned as it came."""

    def __init__(self, url: str) -> None:
        # Without TLS settings, which are slow to load and of no use on loopback.
        self.http = httpx.Client(base_url=url, timeout=10, verify=False, trust_env=False)

    def close(self) -> None:
        self.http.close()

    def send(
        self,
        *,
        idempotency_key: str | None = None,
        api_key: str = KEY,
        path: str = "send",
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> httpx.Response:
        """Send a valid message with some fields changed; a field set to None is left out."""
        body = {name: value for name, value in (BASE | fields).items() if value is not None}
        sent = {"Authorization": f"Bearer {api_key}"} | (headers or {})
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        return self.http.post(f"/api/v1/emails/{path}", json=body, headers=sent)

    def send_id(self, **fields: Any) -> str:
        answer = self.send(**fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["sendId"])

    def timeline(self, send_id: str, api_key: str = KEY) -> httpx.Response:
        return self.http.get(f"/api/v1/sends/{send_id}", headers={"Authorization": f"Bearer {api_key}"})

    def types(self, send_id: str) -> list[str]:
        return [event["type"] for event in self.timeline(send_id).json()["events"]]

    def read(self, send_id: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        """A timeline with query parameters and further headers."""
        sent = {"Authorization": f"Bearer {KEY}"} | (headers or {})
        return self.http.get(f"/api/v1/sends/{send_id}", params=query, headers=sent)

    def pages(self, send_id: str, limit: int | None = None) -> list[dict[str, Any]]:
        """All pages of a timeline, each asked for with the ``nextCursor`` of the one before it."""
        query: dict[str, Any] = {} if limit is None else {"limit": limit}
        pages = [self.read(send_id, **query).json()]
        while (cursor := pages[-1]["nextCursor"]) is not None:
            assert len(pages) < 500, "the pages have no end"
            pages.append(self.read(send_id, cursor=cursor, **query).json())
        return pages

    def post(self, call: str, /, **fields: Any) -> httpx.Response:
        """A control call that may fail."""
        return self.http.post(f"/_sandbox/{call}", json=fields)

    def control(self, call: str, /, **fields: Any) -> Any:
        """A control call that must succeed."""
        answer = self.post(call, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, call: str, /, **query: Any) -> Any:
        answer = self.http.get(f"/_sandbox/{call}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def count(self, **query: Any) -> int:
        return int(self.get("messages", **query)["count"])

    def enter_window(self) -> None:
        """Move the clock to 12 s into a new rate window, so that none ends in the middle of a test."""
        self.advance(72 - self.advance(0) % 60)

    def advance(self, seconds: float) -> float:
        return float(self.control("clock", advance_seconds=seconds)["now"])

    def events(self, *, api_key: str = KEY, **query: Any) -> httpx.Response:
        """A page of the events; a parameter may be a list."""
        return self.http.get("/api/v1/events", params=query, headers={"Authorization": f"Bearer {api_key}"})

    def event_ids(self, **query: Any) -> list[str]:
        answer = self.events(**query)
        assert answer.status_code == 200, answer.text
        return [event["id"] for event in answer.json()["events"]]

    def add_event(self, send_id: str, kind: str, at: float | None = None, **fields: Any) -> None:
        """Add an event to a message, now or at a time in seconds since the epoch."""
        self.control(f"messages/{send_id}/events", type=kind, at=at, **fields)

    @contextmanager
    def stream(
        self, *, api_key: str | None = KEY, headers: dict[str, str] | None = None, **query: Any
    ) -> Iterator[Stream]:
        """An event stream, or the refusal of one."""
        sent = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        with self.http.stream("GET", "/api/v1/events/stream", params=query, headers=sent | (headers or {})) as answer:
            yield Stream(answer)


DEADLINE = 10.0
"""Seconds within which a stream must have sent what a test waits for."""


class Stream:
    """An event stream that is being read. Every wait ends with an error at the deadline."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.status = answer.status_code
        self._chunks = answer.iter_raw()
        self._text = ""
        self.ended = False
        """The server has ended the stream cleanly."""

    def block(self) -> str | None:
        """The next block, which is an event or a comment; None at the end of the stream."""
        until = time.monotonic() + DEADLINE
        while "\n\n" not in self._text:
            assert time.monotonic() < until, "nothing came in time"
            chunk = next(self._chunks, None)
            if chunk is None:
                assert self._text == ""
                self.ended = True
                return None
            self._text += chunk.decode()
        block, _, self._text = self._text.partition("\n\n")
        return block

    def event(self) -> dict[str, Any] | None:
        """The next event; None at the end of the stream."""
        until = time.monotonic() + DEADLINE
        while (block := self.block()) is not None:
            if not block.startswith(":"):
                head, _, data = block.partition("\ndata: ")
                event: dict[str, Any] = json.loads(data)
                assert head == f"id: {event['id']}"
                return event
            assert time.monotonic() < until, "no event came in time"
        return None

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next events, so many."""
        events = [self.event() for _ in range(count)]
        assert None not in events, events
        return [event for event in events if event is not None]

    def types(self, count: int) -> list[str]:
        return [event["type"] for event in self.take(count)]

    def rest(self) -> list[dict[str, Any]]:
        """All events until the server ends the stream."""
        events = []
        while (event := self.event()) is not None:
            events.append(event)
        return events


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that the server does by itself."""
    until = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < until, "it did not become true in time"
        time.sleep(0.005)
