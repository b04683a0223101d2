"""How the client reads events, over real HTTP: the list in pages, the stream, and responses that are neither."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from airflow_provider_fluxomail.client import errors, events
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient, EventStream
from airflow_provider_fluxomail.client.events import EventFilter, FeedEvent
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.wire.conftest import RawServer

EVENTS = "/api/v1/events"
STREAM = "/api/v1/events/stream"
ALL = EventFilter()
OPENED = EventFilter(types=("email.opened",))
T = 1_700_000_000
DEADLINE = 30.0


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncFluxomailClient]:
    async with client_of(sandbox.url) as made:
        yield made


def client_of(url: str, key: str = "fm_sandbox", *, timeout: float = 10, **how: Any) -> AsyncFluxomailClient:
    return AsyncFluxomailClient(ClientSettings(api_key=key, base_url=url, timeout=timeout), **how)


@pytest.fixture
async def send_id(client: AsyncFluxomailClient) -> str:
    """A send that nothing happens to by itself; it has ``sent`` alone."""
    return await send(client, "never@example.org")


async def send(client: AsyncFluxomailClient, to: str) -> str:
    message = EmailMessage(to=to, subject="Hi", content="Text")
    return (await client.send(message, idempotency_key=f"to-{to}")).send_id


def happen(sandbox: Sandbox, event_type: str, *at: float, to: str = "never@example.org") -> None:
    for moment in at:
        sandbox.event(event_type, to=to, at=moment)


async def next_events(stream: EventStream, count: int) -> list[FeedEvent]:
    found: list[FeedEvent] = []
    async with asyncio.timeout(DEADLINE):
        while len(found) < count:
            found += await anext(stream)
    return found


async def whole_list(client: AsyncFluxomailClient, wanted: EventFilter, since_ms: int) -> list[FeedEvent]:
    found: list[FeedEvent] = []
    cursor = None
    while True:
        page = await client.list_events(wanted, since_ms=since_ms, cursor=cursor)
        found += page.events
        if not (cursor := page.cursor):
            return found


def times(found: list[FeedEvent]) -> list[float]:
    return [one.event.time.timestamp() for one in found if one.event.time]


# The list


@pytest.mark.parametrize("form", ["events", "items"])
async def test_the_list_in_pages_of_either_form(
    sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str, form: str
) -> None:
    sandbox.settings(list_form=form, page_size=3)
    happen(sandbox, "opened", *range(T, T + 8))
    found = await whole_list(client, OPENED, 0)
    assert times(found) == [T + n for n in reversed(range(8))]
    assert {one.send_id for one in found} == {send_id}
    reads = sandbox.requests("GET", EVENTS)
    assert len(reads) == 3
    assert all("types=email.opened" in read.query and "limit=100" in read.query for read in reads)
    assert times(await whole_list(client, OPENED, (T + 6) * 1000)) == [T + 7, T + 6], "from a moment on"
    empty = await client.list_events(EventFilter(types=("email.bounced",)), since_ms=0)
    assert empty == events.EventPage(events=(), cursor=None)


async def test_types_and_domain_of_list_and_stream(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    people = ("never@example.org", "never@example.com")
    for to in people:
        await send(client, to)
    wanted = EventFilter(types=("email.bounced", "email.clicked"), domain="example.com")
    async with client.stream_events(wanted, silence=10) as stream:
        for to in people:
            for number, event_type in enumerate(("opened", "bounced", "clicked")):
                happen(sandbox, event_type, T + number, to=to)
        streamed = await next_events(stream, 2)
    listed = await whole_list(client, wanted, 0)
    assert (
        [one.event.type for one in streamed] == [one.event.type for one in reversed(listed)] == ["bounced", "clicked"]
    )
    for read in sandbox.requests("GET", EVENTS):
        assert "types=email.bounced&types=email.clicked&domain=example.com" in read.query


async def open_and_leave(client: AsyncFluxomailClient) -> None:
    async with client.stream_events(ALL, silence=5):
        raise AssertionError("it is open")


READ: dict[str, Callable[[AsyncFluxomailClient], Any]] = {
    "list": lambda client: client.list_events(ALL, since_ms=0, max_attempts=1),
    "stream": open_and_leave,
}


@pytest.mark.parametrize("what", READ)
async def test_a_refusal_is_an_error_that_the_pacer_sees_too(sandbox: Sandbox, what: str) -> None:
    sandbox.fail_next(429, path=EVENTS, retry_after=7)
    seen: list[Response] = []
    async with client_of(sandbox.url, on_response=seen.append) as client:
        with pytest.raises(errors.FluxomailRateLimitError) as limited:
            await READ[what](client)
        sandbox.revoke("fm_sandbox")
        with pytest.raises(errors.FluxomailAuthError) as refused:
            await READ[what](client)
    assert (limited.value.status, limited.value.retry_after) == (429, 7)
    assert refused.value.request_id
    assert [response.status for response in seen] == [429, 401]


async def test_a_page_in_place_of_stream_or_list(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    html = {"Content-Type": "text/html"}
    bodies: list[Any] = ["<html>Please log in</html>", {"events": []}, ""]
    for body in bodies:
        sandbox.fail_next("status", status=200, path=STREAM, body=body)
        with pytest.raises(errors.FluxomailResponseError):
            await open_and_leave(client)
    sandbox.fail_next("status", status=200, body="data: {}\n\n", headers=html, path=STREAM)
    with pytest.raises(errors.FluxomailResponseError):
        await open_and_leave(client)
    sandbox.fail_next("status", status=200, body="<html>hello</html>", path=EVENTS)
    with pytest.raises(errors.FluxomailResponseError):
        await client.list_events(ALL, since_ms=0, max_attempts=1)


# The stream


async def test_a_stream_begins_now_or_after_an_event(
    sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str
) -> None:
    happen(sandbox, "opened", T)
    async with client.stream_events(ALL, silence=10) as stream:
        assert abs(stream.opened_at - sandbox.now()) < 60
        assert stream.last_id is None
        happen(sandbox, "opened", T + 1)
        happen(sandbox, "clicked", T + 2)
        found = await next_events(stream, 2)
        assert [one.event.type for one in found] == ["opened", "clicked"]
        assert {one.send_id for one in found} == {send_id}
        assert stream.last_id == f"{send_id}:{(T + 2) * 1000}"
    since = f"{send_id}:{T * 1000}"
    async with client.stream_events(OPENED, since=since, silence=10) as stream:
        assert stream.last_id == since
        assert times(await next_events(stream, 1)) == [T + 1]
    assert sandbox.requests("GET", STREAM)[-1].headers["last-event-id"] == since


async def test_silence_is_a_break(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    sandbox.fail_next("stream_stall")
    async with client.stream_events(ALL, silence=0.3) as stream:
        with pytest.raises(errors.FluxomailConnectionError, match=r"silent for 0\.3 s"):
            await next_events(stream, 1)


async def test_signs_of_life_are_no_events_and_keep_a_stream_beyond_the_timeout(sandbox: Sandbox) -> None:
    sandbox.settings(stream_heartbeat=1.5)
    async with client_of(sandbox.url, timeout=1) as client, client.stream_events(ALL, silence=20) as stream:
        async with asyncio.timeout(DEADLINE):
            for _ in range(3):
                assert await anext(stream) == ()


async def test_a_cut_is_an_error_and_an_end_is_none(
    sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str
) -> None:
    sandbox.fail_next("stream_drop", after_events=1)
    async with client.stream_events(ALL, silence=10) as stream:
        happen(sandbox, "opened", T)
        assert len(await next_events(stream, 1)) == 1
        with pytest.raises(errors.FluxomailConnectionError):
            await next_events(stream, 1)
    sandbox.settings(stream_life=0.2)
    async with client.stream_events(ALL, silence=10) as stream, asyncio.timeout(DEADLINE):
        assert [events async for events in stream if events] == []


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
GOOD = b'data: {"id":"1","type":"email.sent","created":"2026-01-01T00:00:00Z","data":{"sendId":"s"}}\r\n\r\n'
RUBBISH = b"data: {\n\ndata: [1]\n\ndata: " + b"[" * 20_000 + b"\n\ndata: \xff\n\n"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (HEAD + b"\r\n" + RUBBISH + GOOD, None),
        (HEAD + b"\r\n" + (b"data: " + b"x" * 65536) * 8, "too large"),
        (HEAD + b"Content-Encoding: gzip\r\n\r\ndata: not gzip\n\n", "compression"),
    ],
    ids=["events that are none", "a frame without an end", "compression"],
)
async def test_what_no_fluxomail_sends(serve: Callable[..., RawServer], data: bytes, error: str | None) -> None:
    def handler(connection: socket.socket, _: bytes) -> None:
        connection.sendall(data)

    refused = pytest.raises(errors.FluxomailResponseError, match=error) if error else contextlib.nullcontext()
    async with client_of(serve(handler).url) as client:
        with refused:
            async with client.stream_events(ALL, silence=5) as stream:
                assert [one.send_id for one in await next_events(stream, 1)] == ["s"]


async def test_a_head_that_does_not_come_is_not_waited_for(sandbox: Sandbox) -> None:
    sandbox.fail_next("delay", seconds=20, path=STREAM)
    async with client_of(sandbox.url, timeout=0.3) as client:
        with pytest.raises(errors.FluxomailConnectionError):
            await open_and_leave(client)


async def test_a_stream_that_is_left_is_closed() -> None:
    """Also in the middle of an iteration: the sandbox has room for one, and would refuse the next."""
    with SandboxServer(bounds=Bounds(streams=1)) as server:
        async with client_of(server.url) as client, asyncio.timeout(DEADLINE):
            for _ in range(3):
                async with opened(client) as stream:
                    assert await anext(stream) == ()


@contextlib.asynccontextmanager
async def opened(client: AsyncFluxomailClient) -> AsyncIterator[EventStream]:
    """Open a stream as soon as there is room for it."""
    while True:
        async with contextlib.AsyncExitStack() as stack:
            try:
                stream = await stack.enter_async_context(client.stream_events(ALL, silence=10))
            except errors.FluxomailRateLimitError:
                # The server notices a moment later that its client has left.
                await asyncio.sleep(0.05)
                continue
            yield stream
            return
