"""The client's reading of events, over real HTTP: the list in pages, the stream, and answers that are neither."""

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
T = 1_700_000_000
DEADLINE = 30.0


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[AsyncFluxomailClient]:
    async with client_of(sandbox.url) as made:
        yield made


def client_of(url: str, key: str = "fm_sandbox", **how: Any) -> AsyncFluxomailClient:
    return AsyncFluxomailClient(ClientSettings(api_key=key, base_url=url, timeout=2), **how)


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
    found = await whole_list(client, EventFilter(types=("email.opened",)), 0)
    assert times(found) == [T + n for n in reversed(range(8))]
    assert {one.send_id for one in found} == {send_id}
    reads = sandbox.requests("GET", EVENTS)
    assert len(reads) == 3
    assert all("types=email.opened" in read.query and "limit=100" in read.query for read in reads)


async def test_the_list_begins_at_a_moment(sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str) -> None:
    happen(sandbox, "opened", *range(T, T + 8))
    opened = EventFilter(types=("email.opened",))
    assert times(await whole_list(client, opened, (T + 6) * 1000)) == [T + 7, T + 6]
    assert send_id in {one.send_id for one in await whole_list(client, ALL, (T + 6) * 1000)}


async def test_types_are_repeated_and_a_domain_chosen(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    for to in ("never@example.org", "never@example.com"):
        await send(client, to)
        happen(sandbox, "opened", T, to=to)
        happen(sandbox, "bounced", T + 1, to=to)
        happen(sandbox, "clicked", T + 2, to=to)
    wanted = EventFilter(types=("email.bounced", "email.clicked"), domain="example.com")
    found = await whole_list(client, wanted, 0)
    assert [one.event.type for one in found] == ["clicked", "bounced"]
    (read,) = sandbox.requests("GET", EVENTS)
    assert "types=email.bounced&types=email.clicked&domain=example.com" in read.query


async def test_a_list_of_nothing(client: AsyncFluxomailClient) -> None:
    assert await client.list_events(ALL, since_ms=0) == events.EventPage(events=(), cursor=None)


REFUSED: dict[int, type[errors.FluxomailError]] = {
    401: errors.FluxomailAuthError,
    402: errors.FluxomailPlanRequiredError,
    403: errors.FluxomailPermissionError,
    404: errors.FluxomailNotFoundError,
    429: errors.FluxomailRateLimitError,
    503: errors.FluxomailServerError,
}


async def open_and_leave(client: AsyncFluxomailClient) -> None:
    async with client.stream_events(ALL, silence=5):
        raise AssertionError("it is open")


ASK: dict[str, Callable[[AsyncFluxomailClient], Any]] = {
    "list": lambda client: client.list_events(ALL, since_ms=0, max_attempts=1),
    "stream": open_and_leave,
}


@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("what", ASK)
async def test_refusals(sandbox: Sandbox, what: str, status: int) -> None:
    asked: dict[str, Any] = {"retry_after": 7} if status == 429 else {}
    sandbox.fail_next(status, path=EVENTS, **asked)
    seen: list[Response] = []
    async with client_of(sandbox.url, on_response=seen.append) as client:
        with pytest.raises(REFUSED[status]) as caught:
            await ASK[what](client)
    assert type(caught.value) is REFUSED[status]
    assert caught.value.status == status
    assert caught.value.request_id
    assert caught.value.retry_after == asked.get("retry_after")
    assert [answer.status for answer in seen] == [status], "the pacer sees refusals too"


@pytest.mark.parametrize("what", ASK)
async def test_a_wrong_key_a_missing_plan_and_a_used_up_cap(sandbox: Sandbox, what: str) -> None:
    async with client_of(sandbox.url, "fm_wrong") as client:
        with pytest.raises(errors.FluxomailAuthError) as refused:
            await ASK[what](client)
    assert "fm_wrong" not in str(refused.value), "promise 5"
    capped = sandbox.key("fm_capped", rate_limit_per_minute=1)
    async with client_of(sandbox.url, capped) as client:
        await client.list_events(ALL, since_ms=0)
        with pytest.raises(errors.FluxomailRateLimitError) as limited:
            await ASK[what](client)
    assert 0 < (limited.value.retry_after or 0) <= 60
    sandbox.settings(events_in_plan=False)
    async with client_of(sandbox.url) as client:
        with pytest.raises(errors.FluxomailPlanRequiredError):
            await ASK[what](client)


@pytest.mark.parametrize("body", ["<html>Please log in</html>", {"events": []}, ""])
async def test_a_page_in_place_of_a_stream(sandbox: Sandbox, client: AsyncFluxomailClient, body: Any) -> None:
    sandbox.fail_next("status", status=200, body=body, path=STREAM)
    with pytest.raises(errors.FluxomailResponseError):
        await open_and_leave(client)


async def test_a_page_of_another_kind_with_events_in_it_is_no_stream(
    sandbox: Sandbox, client: AsyncFluxomailClient
) -> None:
    sandbox.fail_next("status", status=200, body="data: {}\n\n", headers={"Content-Type": "text/html"}, path=STREAM)
    with pytest.raises(errors.FluxomailResponseError):
        await open_and_leave(client)


async def test_a_proxys_page_in_place_of_the_list(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    sandbox.fail_next("status", status=200, body="<html>hello</html>", path=EVENTS)
    with pytest.raises(errors.FluxomailResponseError):
        await client.list_events(ALL, since_ms=0, max_attempts=1)


@pytest.mark.parametrize("kind", ["cut_before_store", "cut_in_body", "malformed_json", "gzip_garbage"])
async def test_the_list_is_asked_for_again(
    sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str, kind: str
) -> None:
    sandbox.fail_next(kind, path=EVENTS)
    assert [one.send_id for one in await whole_list(client, ALL, 0)] == [send_id]
    assert len(sandbox.requests("GET", EVENTS)) == 2


# The stream


async def test_what_happens_from_now_on(sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str) -> None:
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


async def test_a_stream_goes_on_after_an_event(sandbox: Sandbox, client: AsyncFluxomailClient, send_id: str) -> None:
    happen(sandbox, "opened", T, T + 1, T + 2)
    since = f"{send_id}:{T * 1000}"
    async with client.stream_events(EventFilter(types=("email.opened",)), since=since, silence=10) as stream:
        assert stream.last_id == since
        assert times(await next_events(stream, 2)) == [T + 1, T + 2]
    (opened,) = sandbox.requests("GET", STREAM)
    assert opened.headers["last-event-id"] == since


async def test_types_and_domain_of_a_stream(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    for to in ("never@example.org", "never@example.com"):
        await send(client, to)
    wanted = EventFilter(types=("email.bounced", "email.clicked"), domain="example.com")
    async with client.stream_events(wanted, silence=10) as stream:
        for to in ("never@example.org", "never@example.com"):
            for event_type in ("opened", "bounced", "clicked"):
                happen(sandbox, event_type, T, to=to)
        found = await next_events(stream, 2)
    assert [one.event.type for one in found] == ["bounced", "clicked"]


async def test_silence_is_a_break(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    sandbox.fail_next("stream_stall")
    async with client.stream_events(ALL, silence=0.3) as stream:
        with pytest.raises(errors.FluxomailConnectionError, match=r"silent for 0\.3 s"):
            await next_events(stream, 1)


async def test_signs_of_life_are_none(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    sandbox.settings(stream_heartbeat=0.1)
    async with client.stream_events(ALL, silence=5) as stream, asyncio.timeout(DEADLINE):
        for _ in range(5):
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


async def test_a_stream_outlasts_the_timeout_of_answers(sandbox: Sandbox, send_id: str) -> None:
    settings = ClientSettings(api_key="fm_sandbox", base_url=sandbox.url, timeout=0.2)
    sandbox.settings(stream_heartbeat=0.5)
    async with AsyncFluxomailClient(settings) as client, client.stream_events(ALL, silence=10) as stream:
        async with asyncio.timeout(DEADLINE):
            for _ in range(3):
                await anext(stream)
        happen(sandbox, "opened", T)
        assert len(await next_events(stream, 1)) == 1


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def sends(*chunks: bytes) -> Callable[[socket.socket, bytes], None]:
    def handler(connection: socket.socket, _: bytes) -> None:
        for chunk in chunks:
            connection.sendall(chunk)

    return handler


async def test_what_no_fluxomail_sends_is_passed_over(serve: Callable[..., RawServer]) -> None:
    good = b'data: {"id":"1","type":"email.sent","created":"2026-01-01T00:00:00Z","data":{"sendId":"s"}}\r\n\r\n'
    rubbish = b"data: {\n\ndata: [1]\n\ndata: " + b"[" * 20_000 + b"\n\ndata: \xff\n\n"
    server = serve(sends(HEAD, b"\r\n", rubbish, good))
    async with client_of(server.url) as client, client.stream_events(ALL, silence=5) as stream:
        assert [one.send_id for one in await next_events(stream, 1)] == ["s"]


async def test_a_frame_without_an_end_breaks_the_stream(serve: Callable[..., RawServer]) -> None:
    server = serve(sends(HEAD, b"\r\n", *[b"data: " + b"x" * 65536] * 8))
    async with client_of(server.url) as client, client.stream_events(ALL, silence=5) as stream:
        with pytest.raises(errors.FluxomailResponseError, match="too large"):
            await next_events(stream, 1)


async def test_broken_compression_breaks_the_stream(serve: Callable[..., RawServer]) -> None:
    server = serve(sends(HEAD, b"Content-Encoding: gzip\r\n\r\n", b"data: not gzip\n\n"))
    async with client_of(server.url) as client, client.stream_events(ALL, silence=5) as stream:
        with pytest.raises(errors.FluxomailResponseError, match="compression"):
            await next_events(stream, 1)


async def test_a_head_that_does_not_come_is_not_waited_for(sandbox: Sandbox, client: AsyncFluxomailClient) -> None:
    sandbox.fail_next("delay", seconds=20, path=STREAM)
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
