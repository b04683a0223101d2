"""The event feed against every fault of a stream: nothing is lost, and the server is not hammered."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.event_streams import EVENTS, QUICK, STREAM, Follow, T, follow, message_event_streams, seen, streams
from tests.wire.conftest import RawServer

__all__ = ["follow", "message_event_streams"]
pytestmark = pytest.mark.usefixtures("message_event_streams")


def happen(sandbox: Sandbox, *numbers: int, event_type: str = "opened") -> None:
    for number in numbers:
        sandbox.event(event_type, at=T + number)


async def test_events_come_as_they_happen(sandbox: Sandbox, follow: Follow) -> None:
    happen(sandbox, 0)
    following = follow()
    await following.until_live()
    happen(sandbox, 1, 2)
    happen(sandbox, 3, event_type="clicked")
    happen(sandbox, 4)
    await following.has(4)
    assert following.numbers == [1, 2, 4]
    assert following.changes == [(True, 1)]
    assert len(sandbox.requests("GET")) == 1, "the list is read to close gaps alone"


async def test_it_can_begin_in_the_past(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.settings(page_size=2)
    happen(sandbox, 0, 1, 2, 3, 4, 5, 6)
    following = follow(since_ms=(T + 12) * 1000)
    await following.until_live()
    assert sorted(following.numbers) == [2, 3, 4, 5, 6], "10 s before the moment, for events that come late"
    assert following.feed.generation == 1


FAULTS: dict[str, dict[str, Any]] = {
    "dropped after two events": {"kind": "stream_drop", "after_events": 2},
    "dropped again and again": {"kind": "stream_drop", "after_events": 1, "times": 4},
    "stalled after an event": {"kind": "stream_stall", "after_events": 1},
    "doubled": {"kind": "stream_duplicate"},
    "out of order": {"kind": "stream_out_of_order", "seconds": 0.1},
}


@pytest.mark.parametrize("gap", [False, True], ids=["resumed", "with a gap"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_fault_of_a_stream_loses_an_event(sandbox: Sandbox, follow: Follow, fault: str, gap: bool) -> None:
    if gap:
        sandbox.fail_next("stream_gap", times=None)
    sandbox.settings(stream_heartbeat=0.5)
    following = follow(timing=dataclasses.replace(QUICK, silence=3.0) if "stalled" in fault else QUICK)
    await following.until_live()
    sandbox.fail_next(**FAULTS[fault])
    # Of now: the list closes a gap from the moment that was reached.
    base = int(sandbox.now()) - T
    for number in range(12):
        happen(sandbox, base + number % 3)
        await asyncio.sleep(0.05)
    marker = base + 5
    await following.until_live()
    happen(sandbox, marker)
    sandbox.advance(5)
    await following.has(base, base + 1, base + 2, marker)
    assert following.feed.generation == 1
    broken = fault.startswith(("dropped", "stalled"))
    assert ((False, 1) in following.changes) == broken
    assert following.changes[-1] == (True, 1)
    ids = {(one.event.id, one.event.type) for one in following.found}
    stored = {f"{one.send_id}:{int(event.at * 1000)}" for one in sandbox.messages() for event in one.events}
    assert {name for name, _ in ids} == stored - {sent_id(sandbox)}


def sent_id(sandbox: Sandbox) -> str:
    (message,) = sandbox.messages()
    (sent,) = [event for event in message.events if event.type == "sent"]
    return f"{message.send_id}:{round(sent.at * 1000)}"


@pytest.mark.parametrize("status", [None, 400, 404, 410])
async def test_it_continues_from_the_last_event_unless_the_server_has_forgotten_it(
    sandbox: Sandbox, follow: Follow, status: int | None
) -> None:
    following = follow()
    await following.until_live()
    happen(sandbox, 1)
    await following.has(1)
    if status:
        sandbox.fail_next(status, path=STREAM)
    sandbox.fail_next("stream_drop")
    await following.until(lambda: len(following.changes) == 3)
    first, second, *more = streams(sandbox)
    assert [one.status for one in (first, second, *more)] == ([200, status, 200] if status else [200, 200])
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == following.found[-1].event.id
    assert [one.headers.get("last-event-id") for one in more] == [None] * len(more)
    assert all("types=email.opened" in one.query for one in more)


async def test_a_filter_that_the_server_does_not_know_is_left_out(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.fail_next(400, path=STREAM)
    following = follow(wanted=EventFilter(types=("email.opened",), domain="example.org"))
    await following.until_live()
    happen(sandbox, 1, event_type="clicked")
    await following.has(1)
    assert [parse_qs(one.query) for one in streams(sandbox)] == [
        {"types": ["email.opened"], "domain": ["example.org"]},
        {"domain": ["example.org"]},
    ]


async def test_a_refusal_of_the_request_itself_is_an_error(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.fail_next(400, path=STREAM, times=None)
    assert isinstance(await follow().error(), errors.FluxomailValidationError)
    assert len(streams(sandbox)) == 2


async def test_a_stream_that_closes_while_the_list_is_read_counts_as_closed_soon(
    sandbox: Sandbox, follow: Follow
) -> None:
    """As where another client takes its place, and the rate limit makes reading the list slow."""
    sandbox.settings(stream_life=0.05)
    sandbox.fail_next("delay", seconds=0.4, path=EVENTS, times=100)
    following = follow(timing=dataclasses.replace(QUICK, stable=10.0, most_refusals=2, backoff=0.1))
    error = await following.error()
    assert str(error) == "the stream was refused 3 times in a row: the server closes it"
    assert len(streams(sandbox)) == 3


async def test_streams_that_were_live_for_long_enough_are_not_counted(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.settings(stream_life=0.4)
    following = follow(timing=dataclasses.replace(QUICK, stable=0.05, most_refusals=2, backoff=0.1))
    await following.until(lambda: len(streams(sandbox)) > 5)


async def test_read_back_returns_how_far_it_came(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.settings(page_size=2)
    happen(sandbox, *range(10))
    following = follow()
    await following.until_live()
    assert await following.feed.read_back(T * 1000, 3) == (T + 4) * 1000
    assert sorted(following.numbers) == [4, 5, 6, 7, 8, 9]
    assert await following.feed.read_back(T * 1000, 5) == T * 1000
    assert set(following.numbers) == set(range(10))


PAGE = {
    "events": [{"id": "1", "type": "email.opened", "created": "2026-01-01T00:00:00Z", "data": {"sendId": "s"}}],
    "nextCursor": "again",
}


async def test_a_list_that_goes_in_circles_is_left(serve: Callable[..., RawServer], follow: Follow) -> None:
    body = json.dumps(PAGE).encode()
    page = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"
    server = serve(lambda connection, _: connection.sendall(page % (len(body), body)))
    following = follow(server.url)
    await following.feed.read_back(0, 50)
    lists = [one for one in server.seen if b"/api/v1/events?" in one]
    assert len(lists) == 2
    assert len(following.found) == 2


async def test_the_servers_clock_counts(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.advance(3600)
    following = follow()
    await following.until_live()
    assert following.feed.clock_offset == pytest.approx(3600, abs=60)
    assert following.feed.reached_ms == pytest.approx(sandbox.now() * 1000, abs=60_000)
    now = int(sandbox.now()) - T
    sandbox.fail_next("stream_gap", times=None)
    sandbox.fail_next(503, path=STREAM)
    sandbox.fail_next("stream_drop")
    await following.until(lambda: not following.feed.live)
    happen(sandbox, now)
    await following.has(now)
    (read,) = [one for one in sandbox.requests("GET", EVENTS) if one.path == EVENTS]
    assert int(parse_qs(read.query)["since"][0]) > (T + now - 60) * 1000, "no hour is read again"


async def test_a_feed_that_is_cancelled_gives_its_turn_back(sandbox: Sandbox, follow: Follow) -> None:
    sandbox.fail_next("delay", seconds=30, path=STREAM)
    following = follow()
    turns = following.feed._turns
    await seen(lambda: turns._in_flight == 1)
    following.task.cancel()
    await asyncio.gather(following.task, return_exceptions=True)
    assert turns._in_flight == 0
