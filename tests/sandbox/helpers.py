"""A thin HTTP client of the sandbox: both of its APIs, as any program would call them."""

from __future__ import annotations

import json
import math
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

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
    """Calls over real HTTP; responses are returned as they came."""

    def __init__(self, url: str) -> None:
        # Without TLS settings, which are slow to load and not needed on loopback.
        self.http = httpx.Client(base_url=url, timeout=30, verify=False, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    @property
    def url(self) -> str:
        return str(self.http.base_url).rstrip("/")

    def send(
        self,
        *,
        idempotency_key: str | None = None,
        api_key: str = KEY,
        path: str = "send",
        headers: dict[str, str] | None = None,
        timeout: float = 10,
        **fields: Any,
    ) -> httpx.Response:
        """Send a valid message with some fields changed; a field set to None is left out."""
        body = {name: value for name, value in (BASE | fields).items() if value is not None}
        sent = {"Authorization": f"Bearer {api_key}"} | (headers or {})
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        return self.http.post(f"/api/v1/emails/{path}", json=body, headers=sent, timeout=timeout)

    def send_id(self, **fields: Any) -> str:
        response = self.send(**fields)
        assert response.status_code == 200, response.text
        return str(response.json()["sendId"])

    def quiet(self, **fields: Any) -> str:
        """The id of a message to add events to; it has ``sent`` alone."""
        return self.send_id(**{"to": "never@example.org", **fields})

    def timeline(self, send_id: str, api_key: str = KEY, timeout: float = 10) -> httpx.Response:
        headers = {"Authorization": f"Bearer {api_key}"}
        return self.http.get(f"/api/v1/sends/{send_id}", headers=headers, timeout=timeout)

    def types(self, send_id: str) -> list[str]:
        return [event["type"] for event in self.timeline(send_id).json()["events"]]

    def read(self, send_id: str, headers: dict[str, str] | None = None, **query: Any) -> httpx.Response:
        """A timeline with query parameters and further headers."""
        sent = {"Authorization": f"Bearer {KEY}"} | (headers or {})
        return self.http.get(f"/api/v1/sends/{send_id}", params=query, headers=sent)

    def pages(self, send_id: str, limit: int | None = None) -> list[dict[str, Any]]:
        """All pages of a timeline, each requested with the ``nextCursor`` of the one before it."""
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
        response = self.post(call, **fields)
        assert response.status_code == 200, response.text
        return response.json()

    def get(self, call: str, /, **query: Any) -> Any:
        response = self.http.get(f"/_sandbox/{call}", params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def messages(self) -> list[str]:
        """The send ids of the stored messages, oldest first."""
        return [message["send_id"] for message in self.get("messages")["messages"]]

    def count(self, **query: Any) -> int:
        return int(self.get("messages", **query)["count"])

    def log(self) -> list[tuple[Any, ...]]:
        """The logged requests: method, status, fault."""
        return [(row["method"], row["status"], row["fault"]) for row in self.get("requests")["requests"]]

    def enter_window(self) -> None:
        """Move the clock to 12 s into a new rate window, so that none ends in the middle of a test."""
        self.advance(72 - self.advance(0) % 60)

    def rest_of_window(self) -> int:
        """Seconds until the next rate window, rounded up."""
        return math.ceil(60 - self.advance(0) % 60)

    def advance(self, seconds: float) -> float:
        return float(self.control("clock", advance_seconds=seconds)["now"])

    def events(self, *, api_key: str = KEY, **query: Any) -> httpx.Response:
        """A page of the events; a parameter may be a list."""
        return self.http.get("/api/v1/events", params=query, headers={"Authorization": f"Bearer {api_key}"})

    def event_ids(self, **query: Any) -> list[str]:
        response = self.events(**query)
        assert response.status_code == 200, response.text
        return [event["id"] for event in response.json()["events"]]

    def add_event(self, send_id: str, kind: str, at: float | None = None, **fields: Any) -> Any:
        """Add an event to a message, now or at a time in seconds since the epoch."""
        return self.control(f"messages/{send_id}/events", type=kind, at=at, **fields)

    @contextmanager
    def stream(
        self, *, api_key: str | None = KEY, headers: dict[str, str] | None = None, **query: Any
    ) -> Iterator[Stream]:
        """An event stream, or the refusal of one."""
        sent = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        with self.http.stream("GET", "/api/v1/events/stream", params=query, headers=sent | (headers or {})) as response:
            yield Stream(response)

    def raw(self, line: str, *headers: str, body: str = "") -> socket.socket:
        """A connection on which the start of a request was sent, and nothing was read."""
        url = self.http.base_url
        connection = socket.create_connection((url.host, url.port or 0), timeout=10)
        lines = [f"{line} HTTP/1.1", "Host: 127.0.0.1", f"x-api-key: {KEY}", *headers, "", body]
        connection.sendall("\r\n".join(lines).encode())
        return connection


def read_all(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    while more := connection.recv(65536):
        received += more
    return received


DEADLINE = 30.0
"""Seconds within which a stream must have sent what a test waits for."""


class Stream:
    """An event stream that is being read. Every wait ends with an error at the deadline."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self._chunks = response.iter_raw()
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
        """As many of the next events."""
        events = [self.event() for _ in range(count)]
        assert None not in events, events
        return [event for event in events if event is not None]

    def numbers(self, count: int) -> list[int]:
        """The ``number`` of each of the next events."""
        return [event["data"]["number"] for event in self.take(count)]

    def send_ids(self, count: int) -> list[str]:
        """The send of each of the next events."""
        return [event["data"]["sendId"] for event in self.take(count)]

    def rest(self) -> list[dict[str, Any]]:
        """All events until the server ends the stream."""
        events = []
        while (event := self.event()) is not None:
            events.append(event)
        return events

    def is_cut(self) -> bool:
        """Whether the connection is cut, without an end of the response."""
        try:
            self.rest()
        except httpx.RemoteProtocolError:
            return True
        return False

    def error(self) -> dict[str, Any]:
        """The body of a refusal."""
        body: dict[str, Any] = json.loads(self.response.read())
        return body


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that the server does by itself."""
    until = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < until, "it did not become true in time"
        time.sleep(0.005)
