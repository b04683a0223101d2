"""The event stream: frames, where it begins, how it ends, its faults, and many streams at once."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.api import event_bus
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches

from .helpers import KEY, Api, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .helpers import Stream

T = 1_700_000_000
"""A moment before any send, in seconds since the epoch."""

HEARTBEAT = ": heartbeat"


@pytest.fixture(params=["httptools", "h11"])
def on_each_http(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A sandbox on each HTTP implementation of uvicorn."""
    kind: Literal["httptools", "h11"] = request.param
    pytest.importorskip(kind)
    with SandboxServer(http=kind) as server:
        client = Api(server.url)
        yield client
        client.close()


@pytest.fixture
def quiet(api: Api) -> str:
    """A message to add events to; it has ``sent`` alone."""
    return api.send_id(to="never@example.org")


def state(server: SandboxServer) -> Sandbox:
    assert server._sandbox is not None
    return server._sandbox


def numbers(events: list[dict[str, Any]]) -> list[int]:
    return [event["data"]["number"] for event in events]


def add(api: Api, send_id: str, *wanted: int, at: float | None = None) -> None:
    for number in wanted:
        api.add_event(send_id, "opened", at, number=number)


def cut_off(stream: Stream) -> bool:
    """Whether the connection was cut without an end of the answer."""
    try:
        stream.rest()
    except httpx.RemoteProtocolError:
        return True
    return False


# The wire


def test_head_and_frames(on_each_http: Api) -> None:
    api = on_each_http
    send_id = api.send_id(to="never@example.org")
    with api.stream(headers={"X-Request-Id": "mine"}) as stream:
        assert stream.status == 200
        assert stream.answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.answer.headers["Cache-Control"] == "no-cache, no-transform"
        assert stream.answer.headers["X-Request-Id"] == "mine"
        assert "Content-Length" not in stream.answer.headers
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
        assert numbers(stream.take(1)) == [2]


def test_a_send_is_streamed(api: Api) -> None:
    api.control("settings", event_delay=0.05)
    with api.stream() as stream:
        send_id = api.send_id()
        events = stream.take(2)
    assert [event["type"] for event in events] == ["email.sent", "email.delivered"]
    assert {event["data"]["sendId"] for event in events} == {send_id}


def test_moving_the_clock_streams_what_becomes_due(api: Api) -> None:
    api.control("settings", event_delay=1000)
    with api.stream(types="email.delivered") as stream:
        first, second = api.send_id(), api.send_id()
        api.advance(1001)
        assert [event["data"]["sendId"] for event in stream.take(2)] == [first, second]


def test_an_event_planned_before_the_stream(api: Api) -> None:
    api.control("settings", event_delay=1000)
    send_id = api.send_id()
    with api.stream() as stream:
        api.advance(1001)
        assert stream.take(1)[0]["data"]["sendId"] == send_id


def test_events_come_in_the_order_of_their_time(api: Api, quiet: str) -> None:
    now = api.advance(0)
    add(api, quiet, 1, at=now + 300)
    add(api, quiet, 2, at=now + 100)
    add(api, quiet, 3, at=now + 200)
    add(api, quiet, 4, at=now + 100)
    with api.stream() as stream:
        api.advance(1000)
        assert numbers(stream.take(4)) == [2, 4, 3, 1]


def test_an_event_with_a_time_that_has_passed(api: Api, quiet: str) -> None:
    with api.stream() as stream:
        add(api, quiet, 1)
        assert numbers(stream.take(1)) == [1]
        add(api, quiet, 2, at=T)
        assert numbers(stream.take(1)) == [2]
        add(api, quiet, 3, at=T - 100)
        assert numbers(stream.take(1)) == [3]
        add(api, quiet, 4)
        assert numbers(stream.take(1)) == [4]


# Who may open one


@pytest.mark.parametrize(
    ("rule", "by", "status"),
    [
        ("both", "bearer", 200),
        ("both", "x-api-key", 200),
        ("both", "token", 200),
        ("bearer", "bearer", 200),
        ("bearer", "x-api-key", 200),
        ("bearer", "token", 401),
        ("token", "bearer", 401),
        ("token", "x-api-key", 401),
        ("token", "token", 200),
        ("both", "nothing", 401),
        ("both", "key as token", 401),
        ("both", "unknown token", 401),
        ("both", "wrong key, token", 401),
        ("both", "token as bearer", 200),
    ],
)
def test_authorization(api: Api, rule: str, by: str, status: int) -> None:
    api.control("keys", key="short", expires_in=60)
    api.control("settings", stream_auth=rule)
    ways: dict[str, dict[str, Any]] = {
        "bearer": {"api_key": KEY},
        "x-api-key": {"api_key": None, "headers": {"x-api-key": KEY}},
        "token": {"api_key": None, "token": "short"},
        "nothing": {"api_key": None},
        "key as token": {"api_key": None, "token": KEY},
        "unknown token": {"api_key": None, "token": "unknown"},
        "wrong key, token": {"api_key": "wrong", "token": "short"},
        "token as bearer": {"api_key": "short"},
    }
    with api.stream(**ways[by]) as stream:
        assert stream.status == status
        if status == 401:
            assert json.loads(stream.answer.read())["code"] == "invalid_key"


def test_not_in_the_plan(api: Api) -> None:
    api.control("settings", events_in_plan=False)
    with api.stream() as stream:
        assert stream.status == 402
        assert json.loads(stream.answer.read())["preview"]["feature"] == "events"


def test_it_counts_against_the_cap_when_it_opens(api: Api) -> None:
    api.enter_window()
    api.control("keys", key="capped", rate_limit_per_minute=1)
    with api.stream(api_key="capped") as stream:
        assert (stream.status, stream.answer.headers["X-RateLimit-Remaining"]) == (200, "0")
    with api.stream(api_key="capped") as stream:
        assert (stream.status, stream.answer.headers["Retry-After"]) == (429, "48")


def test_only_events_of_the_organization(api: Api, quiet: str) -> None:
    api.control("keys", key="other", organization="org_other")
    theirs = api.send_id(to="never@example.org", api_key="other")
    with api.stream(api_key="other") as stream:
        add(api, quiet, 1)
        add(api, theirs, 2)
        assert numbers(stream.take(1)) == [2]


@pytest.mark.parametrize(
    "query",
    [
        {"types": ["email.op*", "email.none"]},
        {"smtpCode": "250"},
        {"mtaHost": "mx.example.org"},
        {"domain": "EXAMPLE.com"},
    ],
)
def test_filters(api: Api, query: dict[str, Any]) -> None:
    other, wanted = api.send_id(to="never@example.org"), api.send_id(to="never@example.com")
    with api.stream(**query) as stream:
        api.add_event(other, "clicked", number=1, smtpCode="550", mtaHost="mx.example.com")
        api.add_event(wanted, "opened", number=2, smtpCode="250", mtaHost="mx.example.org")
        assert numbers(stream.take(1)) == [2]


def test_too_many_types(api: Api) -> None:
    with api.stream(types=[str(number) for number in range(101)]) as stream:
        assert stream.status == 400


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
        assert stream.status == 200, stream.answer.read()
        send_id = api.get("messages")["messages"][0]["send_id"]
        add(api, send_id, 99)
        seen: list[int] = []
        while 99 not in seen:
            seen += numbers(stream.take(1))
        return seen


@pytest.mark.parametrize("carrier", ["since", "Last-Event-ID"])
@pytest.mark.parametrize(("rule", "expected"), [("exclusive", [3, 99]), ("inclusive", [2, 3, 99])])
@pytest.mark.parametrize("form", ["id", "ms", "iso"])
def test_resume(api: Api, three: list[str], carrier: str, rule: str, expected: list[int], form: str) -> None:
    api.control("settings", stream_since=rule)
    since = {"id": three[1], "ms": str((T + 2) * 1000), "iso": "2023-11-14T22:13:22Z"}[form]
    given: dict[str, Any] = {"since": since} if carrier == "since" else {"headers": {"Last-Event-ID": since}}
    assert resumed(api, **given) == expected


def test_since_wins_over_the_header(api: Api, three: list[str]) -> None:
    assert resumed(api, since=three[1], headers={"Last-Event-ID": three[0]}) == [3, 99]
    assert resumed(api, since="", headers={"Last-Event-ID": three[0]}) == [2, 3, 99]


def test_an_unknown_event_id(api: Api, three: list[str]) -> None:
    assert resumed(api, since=f"gone:{(T + 2) * 1000}") == [3, 99]
    for since in ("gone", "gone:", "gone:soon", ":"):
        with api.stream(since=since) as stream:
            assert stream.status == 400
            assert json.loads(stream.answer.read())["details"] == {"fields": ["since"]}
    with api.stream(headers={"Last-Event-ID": "gone"}) as stream:
        assert json.loads(stream.answer.read())["details"] == {"fields": ["Last-Event-ID"]}


def test_an_event_id_of_another_organization_is_not_known(api: Api, quiet: str) -> None:
    api.control("keys", key="other", organization="org_other")
    theirs = api.send_id(to="never@example.org", api_key="other")
    # In the same ms as ours, and stored after it: its place would hide ours.
    add(api, quiet, 1, at=T)
    add(api, theirs, 2, at=T)
    add(api, quiet, 3, at=T)
    assert resumed(api, since=f"{theirs}:{T * 1000}") == [99]
    assert resumed(api, since=f"{quiet}:{T * 1000}") == [3, 99]


@pytest.mark.parametrize(("rule", "expected"), [("exclusive", [2, 3, 99]), ("inclusive", [1, 2, 3, 99])])
def test_siblings_of_a_millisecond_are_repeated(api: Api, quiet: str, rule: str, expected: list[int]) -> None:
    api.control("settings", stream_since=rule)
    add(api, quiet, 1, 2, 3, at=T)
    assert resumed(api, since=f"{quiet}:{T * 1000}") == expected


def test_a_moment_to_come_counts_as_now(api: Api, three: list[str]) -> None:
    now, send_id = api.advance(0), three[0].split(":")[0]
    with api.stream(since=str(int(now + 3600) * 1000)) as stream:
        add(api, send_id, 5, at=now + 1800)
        for number in (4, 6):
            add(api, send_id, number)
            assert numbers(stream.take(1)) == [number]
        api.advance(1801)
        assert numbers(stream.take(1)) == [5]


def test_a_long_resume_comes_in_order(api: Api) -> None:
    sends = [api.send_id(to="never@example.org") for _ in range(4)]
    wanted = list(range(event_bus.BATCH * 2 + 100))
    with api.stream() as late:
        # Three in every ms, so that batches end between such.
        for number in wanted:
            add(api, sends[number % 4], number, at=T + number // 3)
        # Their time had passed for this stream: it has them as they were stored.
        assert sorted(numbers(late.take(len(wanted)))) == wanted
    with api.stream(since=str((T - 1) * 1000), types="email.opened") as stream:
        assert numbers(stream.take(len(wanted))) == wanted


def test_large_events_end_a_batch_early(api: Api, server: SandboxServer, quiet: str) -> None:
    text = "x" * (event_bus.BATCH_CHARS // 4)
    for number in range(10):
        api.add_event(quiet, "opened", T + number, number=number, text=text)
    with api.stream(since=str(T * 1000 - 1)) as stream:
        assert numbers(stream.take(10)) == list(range(10))
        sizes = [len(batch.frames) for batch in state(server).event_bus._batches.values()]
        assert not sizes or max(sizes) <= 4


# Silence and ends


def test_heartbeats(api: Api, quiet: str) -> None:
    api.control("settings", stream_heartbeat=0.2)
    with api.stream() as stream:
        assert stream.block() == HEARTBEAT
        began = time.monotonic()
        assert stream.block() == HEARTBEAT
        assert stream.block() == HEARTBEAT
        assert time.monotonic() - began >= 0.35


def test_no_heartbeat_while_there_are_events(api: Api, quiet: str) -> None:
    api.control("settings", stream_heartbeat=1)
    with api.stream() as stream:
        assert stream.block() == HEARTBEAT
        began = time.monotonic()
        number = 0
        while time.monotonic() - began < 2.2:
            add(api, quiet, number)
            assert stream.block() != HEARTBEAT
            number += 1
            time.sleep(0.05)
        assert 2 < number < 200


def test_a_changed_heartbeat_acts_at_once(api: Api) -> None:
    with api.stream() as stream:
        assert stream.block() == HEARTBEAT
        api.control("settings", stream_heartbeat=0.05)
        assert stream.block() == HEARTBEAT


def test_stream_life(api: Api) -> None:
    api.control("settings", stream_life=0.3)
    began = time.monotonic()
    with api.stream() as stream:
        send_id = api.send_id(to="never@example.org")
        assert [event["data"]["sendId"] for event in stream.rest()] == [send_id]
    assert stream.ended
    assert time.monotonic() - began >= 0.3


def test_stream_life_under_load(api: Api, quiet: str) -> None:
    """A stream that is never idle ends all the same."""
    api.control("settings", stream_life=0.3)
    stop = threading.Event()

    def busy() -> None:
        mine = Api(str(api.http.base_url))
        while not stop.is_set():
            mine.send(to="never@example.org")
        mine.close()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with api.stream() as stream:
            assert stream.rest()
            assert stream.ended
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("cause", ["revoked", "expired by clock", "expired", "plan", "reset", "other organization"])
def test_a_stream_ends_and_the_next_is_refused(api: Api, cause: str) -> None:
    api.control("keys", key="mine", expires_in=0.4 if cause == "expired" else 1000)
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


def test_a_key_that_still_lives_keeps_its_stream(api: Api, quiet: str) -> None:
    api.control("keys", key="mine", expires_in=1000)
    api.control("keys", key="gone")
    with api.stream(api_key="mine") as stream:
        assert api.http.delete("/_sandbox/keys/gone").status_code == 200
        api.advance(900)
        add(api, quiet, 1)
        assert numbers(stream.take(1)) == [1]


def test_a_stream_after_a_reset(api: Api) -> None:
    api.advance(10_000)
    with api.stream() as stream:
        api.control("reset")
        assert stream.rest() == []
        api.control("settings", event_delay=500)
        with api.stream(since="0") as again:
            send_id = api.send_id()
            assert [event["data"]["sendId"] for event in again.take(1)] == [send_id]
            # The moment of the stream before the reset was later than this one's outcome.
            api.control("settings", stream_life=0.1)
            assert again.rest() == []


def test_too_many_streams() -> None:
    with SandboxServer(bounds=Bounds(streams=2)) as server:
        api = Api(server.url)
        with ExitStack() as stack:
            streams = [stack.enter_context(api.stream()) for _ in range(2)]
            with api.stream() as refused:
                assert (refused.status, refused.answer.headers["Retry-After"]) == (429, "1")
                assert json.loads(refused.answer.read())["code"] == "rate_limited"
            assert streams[0].status == 200
        wait_until(lambda: state(server).event_bus.open == 0)
        api.control("keys", key="mine")
        with api.stream(api_key="mine") as one, api.stream():
            api.http.delete("/_sandbox/keys/mine")
            assert one.rest() == []
            # The place is free as soon as the client can know of the end.
            with api.stream() as third:
                assert third.status == 200
        api.close()


def tasks(server: SandboxServer) -> set[str]:
    async def names() -> set[str]:
        return {repr(task.get_coro()) for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert server._loop is not None
    return asyncio.run_coroutine_threadsafe(names(), server._loop).result(5)


@pytest.mark.parametrize("stalled", [False, True])
def test_nothing_is_left_of_a_stream(on_each_http: Api, stalled: bool, request: pytest.FixtureRequest) -> None:
    api = on_each_http
    with SandboxServer(http=request.node.callspec.params["on_each_http"]) as server:
        api = Api(server.url)
        api.send()
        before = len(tasks(server))
        with ExitStack() as stack:
            if stalled:
                api.control("faults", kind="stream_stall", times=20)
            streams = [stack.enter_context(api.stream()) for _ in range(20)]
            assert all(stream.block() == HEARTBEAT for stream in streams)
            assert state(server).event_bus.open == 20
        wait_until(lambda: state(server).event_bus.open == 0)
        wait_until(lambda: len(tasks(server)) == before)
        assert state(server).event_bus._ticker is None
        api.close()


def test_a_client_that_leaves_without_a_word(api: Api, server: SandboxServer) -> None:
    """A reset of the connection while data is on its way, as of a process that was killed."""
    before = state(server).event_bus.open
    raw = open_raw(server)
    wait_until(lambda: state(server).event_bus.open == before + 1)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.close()
    api.send()
    wait_until(lambda: state(server).event_bus.open == before)


def open_raw(server: SandboxServer, query: str = "") -> socket.socket:
    """A stream whose client does not read."""
    raw = socket.socket()
    raw.settimeout(10)
    raw.connect(server.address)
    head = f"GET /api/v1/events/stream{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    raw.sendall(head.encode())
    return raw


def test_a_slow_reader_costs_no_memory_and_loses_nothing() -> None:
    text = "x" * 100_000
    with SandboxServer() as server, open_raw(server) as slow:
        api = Api(server.url)
        wait_until(lambda: state(server).event_bus.open == 1)
        sends = [api.send_id(to="never@example.org") for _ in range(6)]
        with api.stream(types="email.opened") as quick:
            for number in range(80):
                api.add_event(sends[number % 6], "opened", number=number, text=text)
                assert numbers(quick.take(1)) == [number]
        server_state = server._server
        assert server_state is not None
        buffered = [
            connection.transport.get_write_buffer_size() for connection in server_state.server_state.connections
        ]
        # 8 MB were sent to it.
        assert 0 < max(buffered) < 4 * event_bus.BATCH_CHARS
        received = bytearray()
        while b'"number":79' not in received[-200_000:]:
            received += slow.recv(1_000_000)
        seen = [int(part.split(b",")[0]) for part in received.split(b'"number":')[1:]]
        assert seen == list(range(80))
        api.close()


@pytest.mark.parametrize("client", ["reading", "not reading", "stalled"])
def test_the_server_stops_at_once(client: str, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    server = SandboxServer().start()
    api = Api(server.url)
    with ExitStack() as stack:
        if client == "not reading":
            stack.enter_context(open_raw(server, "?since=0"))
            send_id = api.send_id()
            for _ in range(30):
                api.add_event(send_id, "opened", text="x" * 500_000)
            wait_until(lambda: state(server).event_bus.open == 1)
        elif client == "stalled":
            api.control("faults", kind="stream_stall")
        streams = [stack.enter_context(api.stream()) for _ in range(3)]
        # Were it not at once, uvicorn would cancel what is left, and say so: see the last two lines.
        server.stop()
        assert [cut_off(stream) for stream in streams] == [client == "stalled", False, False]
    api.close()
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


# Faults


def logged(api: Api) -> list[tuple[Any, Any]]:
    return [(row["status"], row["fault"]) for row in api.get("requests", path="/api/v1/events/stream")["requests"]]


def test_drop_of_an_open_stream(on_each_http: Api, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    api = on_each_http
    with api.stream() as stream:
        assert stream.block() == HEARTBEAT
        api.control("faults", kind="stream_drop")
        assert cut_off(stream)
    assert logged(api) == [(200, "stream_drop")]
    assert api.get("faults")["count"] == 0
    assert (caplog.text, capfd.readouterr().err) == ("", "")


def test_drop_of_the_next_stream(on_each_http: Api) -> None:
    api = on_each_http
    api.control("faults", kind="stream_drop")
    with api.stream() as stream:
        assert stream.status == 200
        assert cut_off(stream)
    with api.stream() as stream:
        send_id = api.send_id()
        assert stream.take(1)[0]["data"]["sendId"] == send_id
    assert logged(api) == [(200, "stream_drop"), (200, None)]


@pytest.mark.parametrize("opened_first", [True, False])
def test_drop_after_events(on_each_http: Api, opened_first: bool) -> None:
    api = on_each_http
    send_id = api.send_id(to="never@example.org")
    fault = {"kind": "stream_drop", "after_events": 2}
    if not opened_first:
        api.control("faults", **fault)
    with api.stream() as stream:
        if opened_first:
            add(api, send_id, 0)
            assert numbers(stream.take(1)) == [0]
            api.control("faults", **fault)
        add(api, send_id, 1, 2, 3)
        assert numbers(stream.take(2)) == [1, 2]
        assert cut_off(stream)
    with api.stream(since=f"{send_id}:0", types="email.opened") as stream:
        assert numbers(stream.take(3 + opened_first))[-3:] == [1, 2, 3]


def test_stall(api: Api, quiet: str) -> None:
    api.control("settings", stream_heartbeat=0.05)
    api.control("faults", kind="stream_stall", after_events=1)
    with api.stream() as stream, api.stream() as other:
        add(api, quiet, 1, 2)
        assert numbers(stream.take(1)) == [1]
        assert numbers(other.take(2)) == [1, 2]
        # The other one is the clock of this test: the stalled one would have had as many.
        for _ in range(10):
            assert other.block() == HEARTBEAT
        stream.answer.extensions["network_stream"].get_extra_info("socket").settimeout(0.2)
        raw: socket.socket = stream.answer.extensions["network_stream"].get_extra_info("socket")
        with pytest.raises(TimeoutError):
            raw.recv(1)
        api.control("settings", events_in_plan=False)
        assert other.rest() == []
        with pytest.raises(TimeoutError):
            raw.recv(1)
        assert logged(api) == [(200, "stream_stall"), (200, None)]
        api.control("reset")
        assert cut_off(stream)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "stream_duplicate"}, [1, 1, 2, 2, 3, 3, 4, 4]),
        ({"kind": "stream_duplicate", "events": 2}, [1, 1, 2, 2, 3, 4]),
        ({"kind": "stream_out_of_order", "seconds": 60}, [2, 1, 4, 3]),
        ({"kind": "stream_out_of_order", "seconds": 60, "events": 1}, [2, 1, 3, 4]),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_doubled_and_exchanged(api: Api, quiet: str, fault: dict[str, Any], expected: list[int], at_once: bool) -> None:
    now = api.advance(0)
    for number in (1, 2, 3, 4):
        add(api, quiet, number, at=now + number * 100)
    api.control("faults", **fault)
    with api.stream() as stream:
        if at_once:
            api.advance(1000)
        else:
            for _ in range(4):
                api.advance(101)
        assert numbers(stream.take(len(expected))) == expected
        add(api, quiet, 5)
        if expected[-1] == 4 and "events" in fault:
            assert numbers(stream.take(1)) == [5]


def test_a_frame_is_not_held_back_for_ever(api: Api, quiet: str) -> None:
    api.control("faults", kind="stream_out_of_order", seconds=0.3)
    with api.stream() as stream:
        began = time.monotonic()
        add(api, quiet, 1)
        assert numbers(stream.take(1)) == [1]
        assert time.monotonic() - began >= 0.3
        add(api, quiet, 2, 3)
        assert numbers(stream.take(2)) == [3, 2]


def test_a_frame_that_is_held_back_comes_before_the_end(api: Api, quiet: str) -> None:
    api.control("faults", kind="stream_out_of_order", seconds=60)
    api.control("settings", stream_life=0.3)
    with api.stream() as stream:
        add(api, quiet, 1)
        assert numbers(stream.rest()) == [1]
    assert stream.ended


def test_gap(api: Api, three: list[str]) -> None:
    send_id = three[0].split(":")[0]
    # It meets neither a stream that was resumed before, nor one that begins anew.
    with api.stream(since=three[1], types="email.opened") as stream:
        assert numbers(stream.take(1)) == [3]
        api.control("faults", kind="stream_gap")
        add(api, send_id, 4)
        assert numbers(stream.take(1)) == [4]
    with api.stream(), api.stream(since=three[0]) as gapped:
        add(api, send_id, 5)
        assert numbers(gapped.take(1)) == [5]
    with api.stream(since=three[0], types="email.opened") as stream:
        assert numbers(stream.take(4)) == [2, 3, 4, 5]
    assert logged(api) == [(200, None), (200, None), (200, "stream_gap"), (200, None)]


def test_several_faults_of_one_stream(api: Api, quiet: str) -> None:
    api.control("faults", kind="stream_duplicate", events=1)
    api.control("faults", kind="stream_out_of_order", events=1, seconds=60)
    api.control("faults", kind="stream_drop", after_events=4)
    with api.stream() as stream:
        add(api, quiet, 1, 2, 3, 4, 5)
        assert numbers(stream.take(4)) == [2, 2, 1, 3]
        assert cut_off(stream)
    assert logged(api) == [(200, "stream_duplicate+stream_out_of_order+stream_drop")]


def test_a_fault_meets_the_oldest_open_stream_that_matches(api: Api) -> None:
    api.control("keys", key="mine")
    with api.stream() as first, api.stream(api_key="mine") as second, api.stream(api_key="mine") as third:
        assert first.block() == second.block() == third.block() == HEARTBEAT
        api.control("faults", kind="stream_drop", match={"api_key": "mine"})
        assert cut_off(second)
        send_id = api.send_id()
        assert [stream.take(1)[0]["data"]["sendId"] for stream in (first, third)] == [send_id] * 2


def test_ordinary_faults_meet_the_opening(api: Api) -> None:
    api.control("faults", kind="status", status=402, match={"path": "/api/v1/events/stream"})
    with api.stream() as stream:
        assert stream.status == 402
    with api.stream() as stream:
        assert stream.status == 200
    api.control("faults", kind="cut_before_store", match={"path": "/api/v1/events/stream"})
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
    while time.monotonic() - began < 0.5:
        sandbox.event_bus.notify()
        notified += 1
        await asyncio.sleep(0)
    took = time.monotonic() - began
    assert notified > 500
    assert min(woken.values()) >= 1
    assert max(woken.values()) <= took / 0.01 + 2
    for task in listening:
        task.cancel()
    await asyncio.gather(*listening, return_exceptions=True)
    for subscriber in subscribers:
        subscriber.leave()
    assert sandbox.event_bus.open == 0
    sandbox.close()


async def test_many_streams_share_what_is_read() -> None:
    """50 streams of 2 filters see every event once, in order, and the log is read per filter and not per stream."""
    with SandboxServer() as server:
        log, shared, reads, refreshes = state(server).store.event_log, state(server).event_bus, 0, 0
        plain, plain_refresh = log.after, shared._refresh

        def counted(*args: Any) -> Any:
            nonlocal reads
            reads += 1
            return plain(*args)

        def refreshed() -> None:
            nonlocal refreshes
            refreshes += 1
            plain_refresh()

        shared._refresh = refreshed  # type: ignore[method-assign]
        log.after = counted  # type: ignore[method-assign,assignment]
        queries = ["", "?types=email.sent"] * 25
        streams = [await open_async(server, query) for query in queries]
        total = 100

        async def read(reader: asyncio.StreamReader) -> list[str]:
            text = b""
            while text.count(b"id: ") < total:
                text += await asyncio.wait_for(reader.read(65536), 10)
            return [line[4:] for line in text.decode().split("\n") if line.startswith("id: ")]

        async def send() -> list[str]:
            async with httpx.AsyncClient(base_url=server.url, verify=False, trust_env=False) as client:
                found = []
                for _ in range(total):
                    body = {"to": "never@example.org", "subject": "s", "content": "c"}
                    answer = await client.post(
                        "/api/v1/emails/send", json=body, headers={"Authorization": f"Bearer {KEY}"}
                    )
                    found.append(answer.json()["sendId"])
                return found

        sent, *seen = await asyncio.gather(send(), *(read(reader) for reader, _ in streams))
        assert all([name.split(":")[0] for name in ids] == sent for ids in seen)
        # Once per filter and refresh; streams that are just opening may read alone.
        assert reads <= 2 * refreshes + len(streams)
        for _, writer in streams:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams))


async def open_async(server: SandboxServer, query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(*server.address)
    head = f"GET /api/v1/events/stream{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    writer.write(head.encode())
    assert b"200 OK" in await reader.readuntil(b": heartbeat\n\n")
    return reader, writer
