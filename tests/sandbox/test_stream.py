"""The event stream: frames, where it begins, how it ends, its faults, and many streams at once."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.api import event_bus
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches

from .helpers import KEY, Api, wait_until

T = 1_700_000_000
"""A moment before any send, in seconds since the epoch."""

HEARTBEAT = ": heartbeat"
STREAM = "/api/v1/events/stream"


@pytest.fixture
def quiet(api: Api) -> str:
    """A message to add events to; it has ``sent`` alone."""
    return api.quiet()


def state(server: SandboxServer) -> Sandbox:
    assert server._sandbox is not None
    return server._sandbox


def add(api: Api, send_id: str, *wanted: int, at: float | None = None) -> None:
    for number in wanted:
        api.add_event(send_id, "opened", at, number=number)


# The wire


def test_head_and_frames(on_each_http: Api) -> None:
    api = on_each_http
    send_id = api.quiet()
    with api.stream(headers={"X-Request-Id": "mine"}) as stream:
        headers = stream.response.headers
        assert (stream.status, headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        assert headers["Cache-Control"] == "no-cache, no-transform"
        assert headers["X-Request-Id"] == "mine"
        assert "Content-Length" not in headers
        assert stream.block() == HEARTBEAT
        api.add_event(send_id, "bounced", T + 0.5, reason="lïne\r\nid: 1\n\ndata: x\u2028")
        block = stream.block()
    assert block is not None
    id_line, data_line = block.split("\n")
    assert id_line == f"id: {send_id}:1700000000500"
    assert data_line.startswith("data: {")
    listed = api.events(types="email.bounced").json()["events"][0]
    assert json.loads(data_line.removeprefix("data: ")) == listed
    assert listed["data"]["reason"] == "lïne\r\nid: 1\n\ndata: x\u2028"


def test_a_new_stream_begins_now(api: Api, quiet: str) -> None:
    add(api, quiet, 1)
    with api.stream() as stream:
        add(api, quiet, 2)
        # An event may have a time that has passed.
        add(api, quiet, 3, at=T)
        add(api, quiet, 4, at=T - 100)
        add(api, quiet, 5)
        assert sorted(stream.numbers(4)) == [2, 3, 4, 5]


def test_a_send_is_streamed(api: Api) -> None:
    api.control("settings", event_delay=0.05)
    with api.stream() as stream:
        send_id = api.send_id()
        events = stream.take(2)
    assert [event["type"] for event in events] == ["email.sent", "email.delivered"]
    assert {event["data"]["sendId"] for event in events} == {send_id}


def test_moving_the_clock_streams_what_becomes_due(api: Api) -> None:
    api.control("settings", event_delay=1000)
    planned = api.send_id()
    with api.stream(types="email.delivered") as stream:
        first, second = api.send_id(), api.send_id()
        api.advance(1001)
        assert stream.send_ids(3) == [planned, first, second]


def test_events_come_in_the_order_of_their_time(api: Api, quiet: str) -> None:
    now = api.advance(0)
    for number, seconds in enumerate((300, 100, 200, 100), 1):
        add(api, quiet, number, at=now + seconds)
    with api.stream() as stream:
        api.advance(1000)
        assert stream.numbers(4) == [2, 4, 3, 1]


# Who may open one


@pytest.mark.parametrize(
    ("by", "statuses"),
    [
        ({"api_key": KEY}, {"both": 200, "bearer": 200, "token": 401}),
        ({"api_key": None, "headers": {"x-api-key": KEY}}, {"both": 200, "bearer": 200, "token": 401}),
        ({"api_key": None, "token": "short"}, {"both": 200, "bearer": 401, "token": 200}),
        ({"api_key": None}, {"both": 401}),
        ({"api_key": None, "token": KEY}, {"both": 401}),
        ({"api_key": None, "token": "unknown"}, {"both": 401}),
        ({"api_key": "wrong", "token": "short"}, {"both": 401}),
        ({"api_key": "short"}, {"both": 200}),
    ],
)
def test_authorization(api: Api, by: dict[str, Any], statuses: dict[str, int]) -> None:
    api.control("keys", key="short", expires_in=60)
    for rule, status in statuses.items():
        api.control("settings", stream_auth=rule)
        with api.stream(**by) as stream:
            assert stream.status == status
            if status == 401:
                assert stream.error()["code"] == "invalid_key"


def test_refused_streams(api: Api) -> None:
    api.enter_window()
    api.control("keys", key="capped", rate_limit_per_minute=1)
    with api.stream(api_key="capped") as stream:
        assert (stream.status, stream.response.headers["X-RateLimit-Remaining"]) == (200, "0")
    most = api.rest_of_window()
    with api.stream(api_key="capped") as stream:
        assert stream.status == 429
        assert api.rest_of_window() <= int(stream.response.headers["Retry-After"]) <= most <= 48
    with api.stream(types=[str(number) for number in range(101)]) as stream:
        assert stream.status == 400
    api.control("settings", events_in_plan=False)
    with api.stream() as stream:
        assert (stream.status, stream.error()["preview"]["feature"]) == (402, "events")


@pytest.mark.parametrize(
    "query",
    [
        {"types": ["email.op*", "email.none"]},
        {"smtpCode": "250"},
        {"mtaHost": "mx.example.org"},
        {"domain": "EXAMPLE.com"},
        {"api_key": "other"},
    ],
)
def test_filters(api: Api, query: dict[str, Any]) -> None:
    api.control("keys", key="other", organization="org_other")
    rejected, wanted = api.quiet(), api.quiet(to="never@example.com", api_key=query.get("api_key", KEY))
    with api.stream(**query) as stream:
        api.add_event(rejected, "clicked", number=1, smtpCode="550", mtaHost="mx.example.com")
        api.add_event(wanted, "opened", number=2, smtpCode="250", mtaHost="mx.example.org")
        assert stream.numbers(1) == [2]


# Where it goes on


@pytest.fixture
def three(api: Api, quiet: str) -> list[str]:
    """The ids of three events a second apart, numbered from 1."""
    for number in (1, 2, 3):
        add(api, quiet, number, at=T + number)
    return [f"{quiet}:{(T + number) * 1000}" for number in (1, 2, 3)]


def resumed(api: Api, **query: Any) -> list[int]:
    """The numbers that a resumed stream begins with, up to the event that is added when it is open."""
    with api.stream(types="email.opened", **query) as stream:
        assert stream.status == 200, stream.response.read()
        add(api, api.messages()[0], 99)
        seen: list[int] = []
        while 99 not in seen:
            seen += stream.numbers(1)
        return seen


@pytest.mark.parametrize(("rule", "first"), [("exclusive", 3), ("inclusive", 2)])
def test_resume(api: Api, three: list[str], rule: str, first: int) -> None:
    api.control("settings", stream_since=rule)
    for since in (three[1], str((T + 2) * 1000), "2023-11-14T22:13:22Z", f"gone:{(T + 2) * 1000}"):
        for given in ({"since": since}, {"headers": {"Last-Event-ID": since}}):
            assert resumed(api, **given)[0] == first, given
    # since wins over the header.
    header = {"Last-Event-ID": three[0]}
    assert [resumed(api, since=since, headers=header)[0] for since in (three[1], "")] == [first, first - 1]
    for since in ("gone", "gone:", "gone:soon", ":"):
        with api.stream(since=since) as stream:
            assert (stream.status, stream.error()["details"]) == (400, {"fields": ["since"]})
    # A wrong header is a mistake also where it does not count.
    for query in ({}, {"since": three[0]}):
        with api.stream(headers={"Last-Event-ID": "gone"}, **query) as stream:
            assert stream.status == 400
            assert stream.error()["details"] == {"fields": ["Last-Event-ID"]}


def test_event_ids_of_one_millisecond(api: Api, quiet: str) -> None:
    api.control("keys", key="other", organization="org_other")
    theirs = api.quiet(api_key="other")
    # In the same ms as ours, and stored after it: its place would hide ours.
    add(api, quiet, 1, at=T)
    add(api, theirs, 2, at=T)
    add(api, quiet, 3, at=T)
    assert resumed(api, since=f"{theirs}:{T * 1000}") == [99]
    # Siblings of the millisecond are repeated.
    for rule, expected in (("exclusive", [3, 99]), ("inclusive", [1, 3])):
        api.control("settings", stream_since=rule)
        assert resumed(api, since=f"{quiet}:{T * 1000}")[:2] == expected


def test_a_moment_to_come_counts_as_now(api: Api, quiet: str) -> None:
    now = api.advance(0)
    add(api, quiet, 1)
    with api.stream(since=str(int(now + 3600) * 1000)) as stream:
        add(api, quiet, 3, at=now + 1800)
        add(api, quiet, 2)
        assert stream.numbers(1) == [2]
        api.advance(1801)
        assert stream.numbers(1) == [3]


def test_a_long_resume_comes_in_order(api: Api) -> None:
    sends, text = [api.quiet() for _ in range(4)], "x" * (event_bus.BATCH_CHARS // 8)
    wanted = list(range(30))
    # Three in every ms, so that batches end between such.
    for number in wanted:
        api.add_event(sends[number % 4], "opened", T + number // 3, number=number, text=text)
    with api.stream(since=str((T - 1) * 1000), types="email.opened") as stream:
        assert stream.numbers(len(wanted)) == wanted


# Silence and ends


def test_heartbeats(api: Api, quiet: str) -> None:
    with api.stream() as stream:
        assert stream.block() == HEARTBEAT
        # A changed one acts at once.
        began = time.monotonic()
        api.control("settings", stream_heartbeat=0.2)
        for _ in range(11):
            assert stream.block() == HEARTBEAT
        assert time.monotonic() - began >= 2
        # None comes while there are events.
        api.control("settings", stream_heartbeat=1)
        add(api, quiet, 0)
        assert stream.numbers(1) == [0]
        began = before = time.monotonic()
        number = 1
        while time.monotonic() - began < 1.5:
            this = time.monotonic()
            add(api, quiet, number)
            while stream.block() == HEARTBEAT:
                assert time.monotonic() - before > 0.9, "unless the machine was too busy to add one"
            before = this
            number += 1
            time.sleep(0.05)


def test_stream_life(api: Api) -> None:
    """It ends, although it is never idle."""
    api.control("settings", stream_life=1)
    stop = threading.Event()

    def keep_busy() -> None:
        with Api(api.url) as mine:
            while not stop.is_set():
                mine.quiet()

    thread = threading.Thread(target=keep_busy)
    began = time.monotonic()
    thread.start()
    try:
        with api.stream() as stream:
            assert stream.rest()
            assert stream.ended
        assert time.monotonic() - began >= 1
    finally:
        stop.set()
        thread.join()


def test_a_limit_of_streams_refuses_the_next_of_the_key(server: SandboxServer, api: Api) -> None:
    api.control("keys", key="other")
    api.control("settings", streams_per_key=2)
    with api.stream() as first, api.stream() as second, api.stream(api_key="other") as of_other:
        with api.stream() as third:
            assert (third.status, third.response.headers["Retry-After"]) == (429, "1")
            assert "with one key" in third.response.read().decode()
        for stream in (first, second, of_other):
            assert stream.block() == HEARTBEAT
    wait_until(lambda: not state(server).event_bus.open)
    with api.stream() as again:
        assert again.status == 200


def test_a_limit_of_streams_closes_the_oldest_of_the_key(api: Api, quiet: str) -> None:
    api.control("settings", streams_per_key=2, streams_over_limit="close_oldest")
    with api.stream() as first, api.stream() as second, api.stream() as third:
        for stream in (first, second, third):
            assert stream.block() == HEARTBEAT
        assert first.block() is None
        assert first.ended
        add(api, quiet, 1)
        for stream in (second, third):
            assert "email.opened" in (stream.block() or "")


@pytest.mark.parametrize("cause", ["revoked", "expired by clock", "expired", "plan", "reset", "other organization"])
def test_a_stream_ends_and_the_next_is_refused(api: Api, cause: str) -> None:
    api.control("keys", key="mine", expires_in=2 if cause == "expired" else 1000)
    with api.stream(api_key=None, token="mine") as stream:
        assert stream.status == 200
        if cause == "revoked":
            assert api.http.delete("/_sandbox/keys/mine").status_code == 200
        elif cause == "expired by clock":
            api.advance(1001)
        elif cause == "plan":
            api.control("settings", events_in_plan=False)
        elif cause == "reset":
            api.control("reset")
        elif cause == "other organization":
            api.control("keys", key="mine", organization="org_other", expires_in=1000)
            api.advance(0)
        assert stream.rest() == []
        assert stream.ended
    with api.stream(api_key=None, token="mine") as stream:
        assert stream.status == {"plan": 402, "other organization": 200}.get(cause, 401)


def test_a_renewed_token_keeps_its_stream_and_leaves_it_asleep(
    api: Api, server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Mock(wraps=state(server).event_bus.read)
    monkeypatch.setattr(state(server).event_bus, "read", reads)
    api.control("settings", stream_heartbeat=0.2)
    api.control("keys", key="gone")
    api.control("keys", key="token", expires_in=2)
    with api.stream(api_key="token") as stream:
        api.control("keys", key="token", expires_in=1000)
        assert api.http.delete("/_sandbox/keys/gone").status_code == 200
        api.advance(900)
        for _ in range(12):
            while (block := stream.block()) != HEARTBEAT:
                assert block is not None
        assert reads.call_count < 50
        send_id = api.send_id()
        assert stream.send_ids(1) == [send_id]


def test_a_stream_after_a_reset(api: Api) -> None:
    api.advance(10_000)
    with api.stream() as stream:
        api.control("reset")
        assert stream.rest() == []
        api.control("settings", event_delay=500)
        with api.stream(since="0") as again:
            send_id = api.send_id()
            assert again.send_ids(1) == [send_id]
            # The moment of the stream before the reset was later than this one's outcome.
            api.control("settings", stream_life=0.1)
            assert again.rest() == []


def test_too_many_streams() -> None:
    with SandboxServer(bounds=Bounds(streams=2)) as server, Api(server.url) as api:
        with api.stream() as first, api.stream(), api.stream() as refused:
            assert (refused.status, refused.response.headers["Retry-After"]) == (429, "1")
            assert refused.error()["code"] == "rate_limited"
            assert first.status == 200
        wait_until(lambda: state(server).event_bus.open == 0)
        api.control("keys", key="mine")
        with api.stream(api_key="mine") as one, api.stream():
            api.http.delete("/_sandbox/keys/mine")
            assert one.rest() == []
            # The place is free as soon as the client can know of the end.
            with api.stream() as third:
                assert third.status == 200


def tasks(server: SandboxServer) -> set[str]:
    async def names() -> set[str]:
        return {repr(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert server._loop is not None
    return asyncio.run_coroutine_threadsafe(names(), server._loop).result(5)


@pytest.mark.parametrize("stalled", [False, True])
def test_nothing_is_left_of_a_stream(server_on_each_http: SandboxServer, on_each_http: Api, stalled: bool) -> None:
    server, api = server_on_each_http, on_each_http
    wait_until(lambda: state(server).event_bus.open == 0)
    api.send()
    before = len(tasks(server))
    with ExitStack() as stack:
        if stalled:
            api.control("faults", kind="stream_stall", times=20)
        streams = [stack.enter_context(api.stream()) for _ in range(20)]
        assert all(stream.block() == HEARTBEAT for stream in streams)
        assert state(server).event_bus.open == 20
    wait_until(lambda: state(server).event_bus.open == 0)
    wait_until(lambda: len(tasks(server)) <= before)
    assert state(server).event_bus._ticker is None


def test_a_client_that_leaves_without_a_word(api: Api, server: SandboxServer) -> None:
    """A reset of the connection while data is on its way, as of a process that was killed."""
    before = state(server).event_bus.open
    with api.raw(f"GET {STREAM}") as raw:
        wait_until(lambda: state(server).event_bus.open == before + 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    api.send()
    wait_until(lambda: state(server).event_bus.open == before)


def test_a_slow_reader_costs_no_memory_and_loses_nothing() -> None:
    text = "x" * 100_000
    with SandboxServer() as server, Api(server.url) as api, api.raw(f"GET {STREAM}") as slow:
        wait_until(lambda: state(server).event_bus.open == 1)
        sends = [api.quiet() for _ in range(6)]
        with api.stream(types="email.opened") as quick:
            for number in range(80):
                api.add_event(sends[number % 6], "opened", number=number, text=text)
                assert quick.numbers(1) == [number]
        assert server._server is not None
        connections = server._server.server_state.connections
        buffered = [connection.transport.get_write_buffer_size() for connection in connections]
        # 8 MB were sent to it.
        assert 0 < max(buffered) < 4 * event_bus.BATCH_CHARS
        received = bytearray()
        while b'"number":79' not in received[-200_000:]:
            received += slow.recv(1_000_000)
        seen = [int(part.split(b",")[0]) for part in received.split(b'"number":')[1:]]
        assert seen == list(range(80))


@pytest.mark.parametrize("client", ["reading", "not reading", "stalled"])
def test_the_server_stops_at_once(client: str, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    with SandboxServer() as server, Api(server.url) as api, ExitStack() as stack:
        if client == "not reading":
            stack.enter_context(api.raw(f"GET {STREAM}?since=0"))
            send_id = api.send_id()
            for _ in range(30):
                api.add_event(send_id, "opened", text="x" * 500_000)
            wait_until(lambda: state(server).event_bus.open == 1)
        elif client == "stalled":
            api.control("faults", kind="stream_stall")
        streams = [stack.enter_context(api.stream()) for _ in range(3)]
        # Were it not at once, uvicorn would cancel what is left, and say so: see the last line.
        server.stop()
        assert [stream.is_cut() for stream in streams] == [client == "stalled", False, False]
    assert (caplog.text, capfd.readouterr().err) == ("", "")


def test_a_reset_ends_a_stream_whose_client_does_not_read() -> None:
    with (
        SandboxServer(event_delay=0, bounds=Bounds(streams=1)) as server,
        Api(server.url) as api,
        api.raw(f"GET {STREAM}"),
    ):
        wait_until(lambda: state(server).event_bus.open == 1)
        send_id = api.send_id()
        for _ in range(12):
            api.add_event(send_id, "bounced", reason="x" * 900_000)
        api.control("reset")
        assert state(server).event_bus.open == 0
        with api.stream() as stream:
            api.send()
            assert stream.take(1)


# Faults


def logged(api: Api) -> list[tuple[Any, Any]]:
    return [(row["status"], row["fault"]) for row in api.get("requests", path=STREAM)["requests"]]


def test_drop(on_each_http: Api, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    api = on_each_http
    with api.stream() as stream:
        assert stream.block() == HEARTBEAT
        api.control("faults", kind="stream_drop")
        assert stream.is_cut()
    assert api.get("faults")["count"] == 0
    # Of the next stream, if none is open.
    api.control("faults", kind="stream_drop")
    with api.stream() as stream:
        assert stream.status == 200
        assert stream.is_cut()
    with api.stream() as stream:
        send_id = api.send_id()
        assert stream.send_ids(1) == [send_id]
    assert logged(api) == [(200, "stream_drop"), (200, "stream_drop"), (200, None)]
    assert (caplog.text, capfd.readouterr().err) == ("", "")


@pytest.mark.parametrize("opened_first", [True, False])
def test_drop_after_events(api: Api, quiet: str, opened_first: bool) -> None:
    fault = {"kind": "stream_drop", "after_events": 2}
    if not opened_first:
        api.control("faults", **fault)
    with api.stream() as stream:
        if opened_first:
            add(api, quiet, 0)
            assert stream.numbers(1) == [0]
            api.control("faults", **fault)
        add(api, quiet, 1, 2, 3)
        assert stream.numbers(2) == [1, 2]
        assert stream.is_cut()
    with api.stream(since=f"{quiet}:0", types="email.opened") as stream:
        assert stream.numbers(3 + opened_first)[-3:] == [1, 2, 3]


def test_stall(api: Api, quiet: str) -> None:
    api.control("settings", stream_heartbeat=0.05)
    api.control("faults", kind="stream_stall", after_events=1)
    with api.stream() as stream, api.stream() as other:
        add(api, quiet, 1, 2)
        assert stream.numbers(1) == [1]
        assert other.numbers(2) == [1, 2]
        # The other one is the clock of this test: the stalled one would have had as many.
        for _ in range(10):
            assert other.block() == HEARTBEAT
        raw: socket.socket = stream.response.extensions["network_stream"].get_extra_info("socket")
        raw.settimeout(0.2)
        with pytest.raises(TimeoutError):
            raw.recv(1)
        api.control("settings", events_in_plan=False)
        assert other.rest() == []
        with pytest.raises(TimeoutError):
            raw.recv(1)
        assert logged(api) == [(200, "stream_stall"), (200, None)]
        api.control("reset")
        assert stream.is_cut()


DUPLICATE, OUT_OF_ORDER = {"kind": "stream_duplicate"}, {"kind": "stream_out_of_order", "seconds": 60}


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([DUPLICATE], [1, 1, 2, 2, 3, 3, 4, 4]),
        ([DUPLICATE | {"events": 2}], [1, 1, 2, 2, 3, 4, 5]),
        ([OUT_OF_ORDER], [2, 1, 4, 3]),
        ([OUT_OF_ORDER | {"events": 1}], [2, 1, 3, 4, 5]),
        (
            [DUPLICATE | {"events": 1}, OUT_OF_ORDER | {"events": 1}, {"kind": "stream_drop", "after_events": 4}],
            [2, 2, 1, 3],
        ),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_doubled_and_exchanged(
    api: Api, quiet: str, faults: list[dict[str, Any]], expected: list[int], at_once: bool
) -> None:
    now = api.advance(0)
    for number in (1, 2, 3, 4, 5):
        add(api, quiet, number, at=now + number * 100)
    for fault in faults:
        api.control("faults", **fault)
    with api.stream() as stream:
        for seconds in (1000,) if at_once else (101, 101, 101, 101, 101):
            api.advance(seconds)
        assert stream.numbers(len(expected)) == expected
        if len(faults) == 3:
            assert stream.is_cut()
    assert logged(api) == [(200, "+".join(fault["kind"] for fault in faults))]


def test_a_frame_is_held_back_for_a_while_at_most(api: Api, quiet: str) -> None:
    api.control("faults", kind="stream_out_of_order", seconds=0.3)
    with api.stream() as stream:
        began = time.monotonic()
        add(api, quiet, 1)
        assert stream.numbers(1) == [1]
        assert time.monotonic() - began >= 0.3
        now = api.advance(0)
        add(api, quiet, 2, at=now + 100)
        add(api, quiet, 3, at=now + 200)
        api.advance(300)
        assert stream.numbers(2) == [3, 2]
    # And it comes before the end of the stream.
    now = api.advance(0)
    add(api, quiet, 4, at=now - 1)
    api.control("faults", kind="stream_out_of_order", seconds=60)
    api.control("settings", stream_life=0.3)
    with api.stream(since=str(int((now - 2) * 1000))) as stream:
        assert [event["data"]["number"] for event in stream.rest()] == [4]
    assert stream.ended


def test_gap(api: Api, three: list[str]) -> None:
    send_id = three[0].split(":")[0]
    # It meets neither a stream that was resumed before, nor one that begins now.
    with api.stream(since=three[1], types="email.opened") as stream:
        assert stream.numbers(1) == [3]
        api.control("faults", kind="stream_gap")
        add(api, send_id, 4)
        assert stream.numbers(1) == [4]
    with api.stream(), api.stream(since=three[0]) as gapped:
        add(api, send_id, 5)
        assert gapped.numbers(1) == [5]
    with api.stream(since=three[0], types="email.opened") as stream:
        assert stream.numbers(4) == [2, 3, 4, 5]
    assert logged(api) == [(200, None), (200, None), (200, "stream_gap"), (200, None)]


def test_which_streams_meet_a_fault(api: Api) -> None:
    api.control("keys", key="mine")
    # The oldest open one that matches.
    with api.stream() as first, api.stream(api_key="mine") as second, api.stream(api_key="mine") as third:
        assert first.block() == second.block() == third.block() == HEARTBEAT
        api.control("faults", kind="stream_drop", match={"api_key": "mine"})
        assert second.is_cut()
        send_id = api.send_id()
        assert [stream.send_ids(1) for stream in (first, third)] == [[send_id]] * 2
    # Faults of any request meet the opening.
    api.control("faults", kind="status", status=402, match={"path": STREAM})
    for status in (402, 200):
        with api.stream() as stream:
            assert stream.status == status
    api.control("faults", kind="cut_before_store", match={"path": STREAM})
    with pytest.raises(httpx.RemoteProtocolError), api.stream():
        pass


# Many at once


async def test_a_notification_wakes_all_and_many_wake_seldom() -> None:
    sandbox = Sandbox(KEY, data=None, switches=Switches(), bounds=Bounds())
    subscribers = [sandbox.event_bus.subscribe() for _ in range(120)]
    woken = dict.fromkeys(subscribers, 0)

    async def listen(subscriber: event_bus.Subscriber) -> None:
        while True:
            subscriber.start_reading()
            await subscriber.wait()
            woken[subscriber] += 1

    listening = [asyncio.create_task(listen(subscriber)) for subscriber in subscribers]
    began = time.monotonic()
    notified = 0
    while notified <= 500 or time.monotonic() - began < 0.5:
        sandbox.event_bus.notify()
        notified += 1
        await asyncio.sleep(0)
    took = time.monotonic() - began
    assert min(woken.values()) >= 1
    assert max(woken.values()) <= took / 0.01 + 2
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for subscriber in subscribers:
        subscriber.leave()
    assert sandbox.event_bus.open == 0
    sandbox.close()


def test_many_streams_share_what_is_read(
    api: Api, server: SandboxServer, quiet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 streams of 2 filters see every event once, in order, and the log is read per filter and not per stream."""
    log, bus = state(server).store.event_log, state(server).event_bus
    reads, refreshes = Mock(wraps=log.after), Mock(wraps=bus._refresh)
    monkeypatch.setattr(log, "after", reads)
    monkeypatch.setattr(bus, "_refresh", refreshes)
    wanted = list(range(50))
    with ExitStack() as stack:
        queries: list[dict[str, Any]] = [{}, {"types": "email.opened"}] * 10
        streams = [stack.enter_context(api.stream(**query)) for query in queries]
        assert [stream.block() for stream in streams] == [HEARTBEAT] * len(streams)
        add(api, quiet, *wanted)
        for stream in streams:
            assert stream.numbers(len(wanted)) == wanted
    # Once per filter and refresh; streams that are just opening may read alone.
    assert 0 < reads.call_count <= 2 * refreshes.call_count + len(streams)
