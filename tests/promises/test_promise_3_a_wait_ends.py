"""Promise 3: a wait ends, and survives any outage in between. Every mode has the same outcome table."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from airflow_provider_fluxomail.airflow_compat import AirflowNotFoundException
from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.event_types import FAILURES
from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.timeline import judge
from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming
from airflow_provider_fluxomail.client.watching.poll_queue import PollQueue
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.configuration import connection
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
from tests.support import (
    cancelled_reads,
    schedules,
    send_operators,
    sensors,
    timelines,
    watched_waits,
    watcher_pools,
    watchers,
)
from tests.support.airflow_facts import CAN_POKE_AGAIN
from tests.support.airflow_runs import DagRuns
from tests.support.bad_servers import Serve, head
from tests.support.running import Run, fire
from tests.support.timing import retry_timing, wait_timing
from tests.support.watching import Mail, reads, send, streams, timing, until, watching
from tests.support.ways import MESSAGE, PASSING, TIMELINE, Fault, Try, by_hook, connect

#: Reads need no sendId in the response.
FAULTS_OF_A_READ = [fault for fault in PASSING if fault.kind != "missing_send_id"]
#: What a fault means to a wait depends on its class alone.
ONE_OF_EACH_CLASS = [
    next(fault for fault in FAULTS_OF_A_READ if fault.error is error)
    for error in (
        *(errors.FluxomailConnectionError, errors.FluxomailRateLimitError),
        *(errors.FluxomailServerError, errors.FluxomailResponseError),
    )
]
each_mode = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])


def wait(deferrable: bool, timeout: float) -> Run:
    """Send a message, and wait for its delivery."""
    send_id = by_hook(Try([MESSAGE])).run.result.send_id
    return Run(
        FluxomailDeliverySensor(
            task_id="wait", send_id=send_id, deferrable=deferrable, poke_interval=0.1, timeout=timeout
        )
    )


@pytest.mark.usefixtures("quick")
@each_mode
@pytest.mark.parametrize("fault", FAULTS_OF_A_READ, ids=str)
def test_promise_3_a_wait_survives_a_fault(sandbox: Sandbox, deferrable: bool, fault: Fault) -> None:
    connect(sandbox, fault)
    sandbox.fail_next(fault.kind, times=2, path=TIMELINE, **fault.options)
    run = wait(deferrable, timeout=60)
    assert run.kind == "success", run.error
    assert sandbox.faults() == []


@pytest.mark.usefixtures("quick")
@each_mode
@pytest.mark.parametrize("fault", ONE_OF_EACH_CLASS, ids=str)
def test_promise_3_a_wait_ends_despite_a_lasting_fault(sandbox: Sandbox, deferrable: bool, fault: Fault) -> None:
    connect(sandbox, fault)
    sandbox.fail_next(fault.kind, times=None, path=TIMELINE, **fault.options)
    run = wait(deferrable, timeout=0.5)
    assert run.kind == "AirflowSensorTimeout", run.error
    sandbox.assert_sent(1)


def once(error: BaseException, then: Callable[..., Any]) -> Callable[..., Any]:
    """Fail with an error at the first call, and call ``then`` after that."""
    errors_ = [error]

    def call(*args: Any, **kwargs: Any) -> Any:
        if errors_:
            raise errors_.pop()
        return then(*args, **kwargs)

    return call


@pytest.mark.usefixtures("quick")
@each_mode
@pytest.mark.parametrize(
    "fault",
    [
        *(
            {"status": 200, "body": json.dumps({"events": [], "nextCursor": cursor})}
            for cursor in ("\ud800", "a\udfff", "x" * 5000)
        ),
        {"status": 200, "body": '{"events": ' + "[" * 100_000},
        {"status": 200, "body": '{"events": [{"type": "bounced", "ts": ' + "9" * 5000 + "}]}"},
        {"status": 300, "headers": {"Location": "http://["}},
        *({"kind": "proxy_error_page", "status": status} for status in (400, 402, 403, 405, 407, 413, 451)),
        {"status": 429, "headers": dict.fromkeys(("X-RateLimit-Limit", "X-RateLimit-Remaining"), "1e308")},
    ],
    ids=lambda fault: str(fault)[:60],
)
def test_promise_3_no_response_ends_a_wait(sandbox: Sandbox, deferrable: bool, fault: dict[str, Any]) -> None:
    sandbox.fail_next(path=TIMELINE, times=2, **{"kind": "status", **fault})
    run = wait(deferrable, timeout=60)
    assert run.kind == "success", run.error
    assert sandbox.faults() == []


@pytest.mark.parametrize(
    ("owner", "name"), [(Timeline, "parse"), (AsyncFluxomailClient, "get_timeline")], ids=["reading", "transport"]
)
async def test_promise_3_a_bad_timeline_affects_its_own_wait_only(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    sent = send(sandbox, 4)
    monkeypatch.setattr(owner, name, once(KeyError("ops@example.org"), getattr(owner, name)))
    async with watching(sandbox) as waits:
        waits.start(sent, ago=None, interval=0.1)
        for send_id in sent:
            Mail(sandbox).event("delivered", send_id)
        assert set((await waits.all_ended()).values()) == {"reached"}
    (line,) = [line for lines in waits.log.values() for line in lines if "WARNING" in line]
    assert line.endswith("still waiting: the response could not be processed: KeyError")


async def test_promise_3_a_watcher_that_has_crashed_is_replaced(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wait_timing(monkeypatch, restart=0.1)
    monkeypatch.setattr(PollQueue, "pop", once(ZeroDivisionError(), PollQueue.pop))
    ended = await asyncio.gather(
        *(
            asyncio.wait_for(fire(watcher_pools.trigger(one, seen=None)), 30)
            for one in send(sandbox, 5, to="ops@example.org")
        )
    )
    assert [one["status"] for one in ended] == ["reached"] * 5
    assert caplog.text.count("The watcher of waits failed") == 1


@pytest.mark.parametrize(
    "error",
    [AirflowNotFoundException("no such conn_id"), RuntimeError("API_SERVER_ERROR"), KeyError("secret"), ImportError()],
    ids=repr,
)
async def test_promise_3_a_lookup_that_fails_once_ends_none_of_many_waits(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    wait_timing(monkeypatch, restart=0.2, failed_lookup=0.1)
    monkeypatch.setattr(connection, "read_connection", once(error, connection.read_connection))
    monkeypatch.setattr(FluxomailDeliveryTrigger, "log", logging.getLogger("triggerer"))
    async with watcher_pools.waits(send(sandbox, 20, to="ops@example.org")) as tasks:
        ended = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert [one["status"] for one in ended] == ["reached"] * 20
    assert caplog.text.count("Airflow cannot return connection 'fluxomail_default'") == 20, "in each task's own log"


async def test_promise_3_a_lookup_that_hangs_holds_no_wait_past_its_deadline(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(conn_id: str) -> Any:
        await asyncio.Event().wait()

    wait_timing(monkeypatch, restart=0.1, least_poll=0.1)
    monkeypatch.setattr(connection, "read_connection", hang)
    async with watcher_pools.waits(["s1", "s2"], deadline=now() + 0.5) as tasks:
        ended = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert [one["status"] for one in ended] == ["timeout"] * 2
    assert "Airflow cannot return connection 'fluxomail_default'" in ended[0]["message"]


async def test_promise_3_a_lookup_that_fails_after_a_401_ends_no_wait(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, restart=0.1, failed_lookup=0.05)
    sandbox.connect(key=sandbox.key("old"))
    (sent,) = send(sandbox)
    real = connection.read_connection
    async with watcher_pools.waits([sent], seen=None, poll_interval=0.1) as tasks:
        await until(lambda: reads(sandbox) >= 1)
        monkeypatch.setattr(connection, "read_connection", once(AirflowNotFoundException("x"), real))
        sandbox.connect()
        sandbox.revoke("old")
        Mail(sandbox).event("delivered", sent)
        assert (await asyncio.wait_for(tasks[0], 30))["status"] == "reached"


def test_promise_3_a_lookup_that_fails_after_a_401_ends_no_wait_of_a_worker(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_id, real = sensors.send(), FluxomailHook.get_connection
    sandbox.fail_next(401, path=TIMELINE)
    responses = iter([None, AirflowNotFoundException("x"), RuntimeError("API_SERVER_ERROR")])

    def get_connection(conn_id: str) -> Any:
        if error := next(responses, None):
            raise error
        return real(conn_id)

    monkeypatch.setattr(FluxomailHook, "get_connection", staticmethod(get_connection))
    run = Run(sensors.sensor("poke", send_id=send_id))
    assert run.kind == "success", run.error
    assert next(responses, "used") == "used"


@each_mode
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503, "retry_after": 86400},
        {"status": 503, "retry_after": "1e308"},
        {"status": 429, "retry_after": {"http_date_in": 10**9}},
        *(
            {"status": 429, "headers": {"X-RateLimit-Reset": reset}}
            for reset in ("4102444800", "4102444800000", "1e30", "1e308")
        ),
    ],
    ids=str,
)
def test_promise_3_no_response_stops_the_polls_of_a_wait(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, deferrable: bool, fault: dict[str, Any]
) -> None:
    retry_timing(monkeypatch, longest_hold=0.3)
    sandbox.fail_next("status", path=TIMELINE, times=2, **fault)
    run = wait(deferrable, timeout=60)
    assert run.kind == "success", run.error
    polls = sandbox.requests("GET", TIMELINE)
    assert len(polls) == 3
    assert min(polls.gaps[1:]) >= 0.3


@each_mode
def test_promise_3_the_deadline_covers_all_pages_of_a_timeline(
    sandbox: Sandbox, serve: Serve, monkeypatch: pytest.MonkeyPatch, deferrable: bool
) -> None:
    wait_timing(monkeypatch, least_poll=0.5)

    def slow_page(socket: Any, _: bytes) -> None:
        # Not a wait for something: the server is slow.
        time.sleep(0.1)
        body = json.dumps({"events": [], "nextCursor": str(time.monotonic())}).encode()
        socket.sendall(head(Content_Length=len(body)) + body)

    server = serve(slow_page)
    sandbox.connect(host=server.url, allow_http=True)
    began = time.monotonic()
    run = Run(sensors.sensor("deferrable" if deferrable else "poke", send_id="s1", timeout=1))
    assert run.kind == "AirflowSensorTimeout", run.error
    assert "the timeline was not complete after" in str(run.error)
    assert time.monotonic() - began < 6
    assert len(server.seen) < 40


@hypothesis.settings(
    max_examples=100, deadline=None, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
@hypothesis.given(st.lists(st.tuples(st.sampled_from(sorted(watched_waits.SIGNALS)), st.integers(0, 3)), max_size=40))
def test_promise_3_no_order_of_signals_leaves_a_wait_without_a_poll(signals: list[tuple[str, int]]) -> None:
    """Whatever happens, each wait that has not ended has a planned poll, and its state is consistent."""

    async def play() -> None:
        # Nothing is judged meanwhile: the order of the signals is all that counts.
        waits = watched_waits.new(settle=3600.0)
        ones = [watched_waits.watched(waits, seen=now()) for _ in range(4)]
        for signal, number in signals:
            waits.stream_up()
            if ones[number].state is not watched_waits.ENDED:
                watched_waits.SIGNALS[signal](waits, ones[number])
            for one in ones:
                assert (one in waits.joining) is (one.state is watched_waits.JOINING)
                assert (one in waits._settling) is (one.state is watched_waits.SETTLING)
                assert one.state is watched_waits.ENDED or 0 < one.due <= one.wait.deadline
                assert one.state is not watched_waits.SETTLING or waits._timer is not None

    asyncio.run(play())


def test_promise_3_a_cancellation_that_the_library_lost_still_ends_the_task() -> None:
    assert cancelled_reads.read_that_times_out(cancelled=True).cancelled()


@pytest.mark.parametrize(
    ("events", "target", "decides", "reached"),
    [
        ([], "delivered", None, None),
        ([("sent", timelines.MS)], "delivered", None, None),
        ([("delayed", timelines.MS), ("whatever", timelines.MS)], "delivered", None, None),
        ([("sent", timelines.MS), ("delivered", timelines.MS + 1)], "delivered", "delivered", True),
        ([("opened", timelines.MS)], "delivered", "opened", True),
        ([("clicked", timelines.MS)], "delivered", "clicked", True),
        ([("clicked", timelines.MS)], "opened", "clicked", True),
        ([("delivered", timelines.MS)], "opened", None, None),
        ([("opened", timelines.MS)], "clicked", None, None),
        ([("bounced", timelines.MS)], "delivered", "bounced", False),
        ([("delivered", timelines.MS), ("bounced", timelines.MS + 1)], "delivered", "delivered", True),
        ([("bounced", timelines.MS), ("delivered", timelines.MS + 1)], "delivered", "bounced", False),
        ([("delivered", timelines.MS + 1), ("bounced", timelines.MS)], "delivered", "bounced", False),
        ([("delivered", timelines.MS), ("bounced", timelines.MS)], "delivered", "bounced", False),
        ([("delivered", timelines.MS), ("complained", timelines.MS + 1)], "opened", "complained", False),
        ([("opened", timelines.MS), ("complained", timelines.MS + 1)], "opened", "opened", True),
        ([("delivered", None), ("bounced", timelines.MS)], "delivered", "bounced", False),
        ([("delivered", None)], "delivered", "delivered", True),
    ],
)
def test_promise_3_the_first_event_by_time_that_is_target_or_failure_decides(
    events: list[tuple[str, int | None]], target: str, decides: str | None, reached: bool | None
) -> None:
    outcome = judge(timelines.at(*events), target, FAILURES)
    assert (outcome.event.type if outcome else None) == decides
    assert (outcome.reached if outcome else None) == reached


def test_promise_3_poke_reschedule_and_deferrable_have_the_same_outcome(
    dags: DagRuns, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, not_found_grace=0.5)
    conf = {"unknown": "sends_unknown"}
    conf |= {outcome: sensors.send(f"{outcome}@example.org") for outcome in ("delivered", "bounced", "never")}
    run = dags.run("waits", conf)
    wanted = {"delivered": ("success", "success")} | dict.fromkeys(
        ("bounced", "never", "unknown"), ("failed", "skipped")
    )
    table = {
        f"{outcome}-{mode}-{soft}": states[soft == "soft"]
        for outcome, states in wanted.items()
        for mode in ("poke", "reschedule", "deferrable")
        for soft in ("hard", "soft")
        if CAN_POKE_AGAIN or mode != "reschedule" or outcome in ("delivered", "bounced")
    }
    assert {task: state for task, state in run.states.items() if task in table} == table
    assert len(table) == (24 if CAN_POKE_AGAIN else 20)
    assert {task: run.tries(task) for task in table} == dict.fromkeys(table, 1), (
        "a retry cannot fix a bounce or a timeout"
    )
    unknown = [request for request in sandbox.requests("GET") if request.path.endswith("sends_unknown")]
    assert len(unknown) <= 6 * 10, "a send that stays unknown ends after the grace, across reschedules too"


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("to", "target", "kind"),
    [
        ("ops@example.org", "delivered", "success"),
        ("opened@example.org", "opened", "success"),
        ("clicked@example.org", "opened", "success"),
        ("bounced@example.org", "delivered", "AirflowFailException"),
        ("never@example.org", "delivered", "AirflowFailException"),
    ],
)
def test_promise_3_wait_for(sandbox: Sandbox, to: str, target: str, kind: str, deferrable: bool) -> None:
    sandbox.settings(event_delay=0.3)
    task = send_operators.operator(
        to=to, html_content="<p>Hi</p>", wait_for=target, wait_timeout=1.5, poll_interval=0.1, deferrable=deferrable
    )
    run = Run(task)
    assert run.kind == kind, run.error
    # On a slow machine the event may be there at the first poll.
    deferred = deferrable and len(sandbox.requests("GET")) > 1
    assert [type(deferral.trigger) for deferral in run.deferrals] == [FluxomailDeliveryTrigger] * deferred
    (mail,) = sandbox.messages()
    if kind == "success":
        assert run.result["send_id"] == mail.send_id
        assert run.result["idempotency_key"] == mail.idempotency_key
        assert run.result["event"] in (target, "clicked")
        assert run.result["time"].endswith("Z")
    else:
        assert mail.send_id in str(run.error)


@pytest.mark.parametrize("mode", sensors.MODES)
@pytest.mark.parametrize(
    ("to", "target", "kind", "expected"),
    [
        ("ops@example.org", "delivered", "success", "delivered"),
        ("opened@example.org", "delivered", "success", "delivered"),
        ("opened@example.org", "opened", "success", "opened"),
        ("clicked@example.org", "clicked", "success", "clicked"),
        ("bounced@example.org", "delivered", "AirflowFailException", "550"),
        ("complained@example.org", "opened", "AirflowFailException", "reported as spam"),
        ("complained@example.org", "delivered", "success", "delivered"),
        ("dropped@example.org", "delivered", "AirflowFailException", "was dropped"),
        ("failed@example.org", "delivered", "AirflowFailException", "failed"),
        ("never@example.org", "delivered", "AirflowSensorTimeout", "not delivered within 1 s"),
        ("ops@example.org", "opened", "AirflowSensorTimeout", "not opened within 1 s; last event: delivered"),
    ],
)
@pytest.mark.parametrize("soft_fail", [False, True])
def test_promise_3_the_outcome_table(
    sandbox: Sandbox, mode: str, to: str, target: str, kind: str, expected: str, soft_fail: bool
) -> None:
    sandbox.settings(event_delay=0.2)
    timeout = 1 if kind == "AirflowSensorTimeout" else 30
    run = Run(sensors.sensor(mode, send_id=sensors.send(to), target=target, timeout=timeout, soft_fail=soft_fail))
    if soft_fail and kind != "success":
        assert run.kind == "AirflowSkipException", run.error
        return
    assert run.kind == kind, run.error
    if kind == "success":
        assert run.result["event"] == expected
        assert run.result["time"].endswith("Z")
    else:
        assert expected in str(run.error)
    # On a slow machine the event may be there at the first poll.
    assert bool(run.deferrals) is (mode == "deferrable" and len(sandbox.requests("GET")) > 1)


@pytest.mark.parametrize("mode", sensors.MODES)
def test_promise_3_an_outage_is_logged_once(
    sandbox: Sandbox, mode: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FluxomailDeliveryTrigger, "log", logging.getLogger("triggerer"))
    send_id = sensors.send()
    sandbox.fail_next(503, times=6, path=sensors.TIMELINE)
    run = Run(sensors.sensor(mode, send_id=send_id))
    assert run.kind == "success", run.error
    assert len(sandbox.requests("GET", sensors.TIMELINE)) == 7
    warned = [record for record in caplog.records if "still waiting" in record.getMessage()]
    assert len(warned) == (1 if mode == "poke" else 2), "each change once, in worker and triggerer"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("stream_drop", {}),
        ("stream_drop", {"after_events": 3}),
        ("stream_stall", {}),
        ("stream_stall", {"after_events": 3}),
        ("stream_duplicate", {}),
        ("stream_out_of_order", {"seconds": 0.2}),
    ],
)
@pytest.mark.parametrize("gap", [False, True])
async def test_promise_3_every_fault_of_a_stream(
    sandbox: Sandbox, kind: str, options: dict[str, Any], gap: bool
) -> None:
    sandbox.settings(stream_heartbeat=0.2)
    sent = send(sandbox, 12)
    mail = Mail(sandbox)
    async with watching(sandbox, timing(silence=2.0)) as waits:
        waits.start(sent, ago=60)
        await watchers.following(sandbox, waits)
        if gap:
            sandbox.fail_next("stream_gap", times=3)
        sandbox.fail_next(kind, **options)
        for number, send_id in enumerate(sent):
            mail.event("bounced" if number % 3 == 0 else "delivered", send_id)
            mail.event("complained" if number % 3 else "opened", send_id)
        ended = await waits.all_ended()
    assert ended == {send_id: "failed" if number % 3 == 0 else "reached" for number, send_id in enumerate(sent)}
    assert reads(sandbox) == 0


@pytest.mark.parametrize("over_limit", ["refuse", "close_oldest"])
async def test_promise_3_waits_end_where_a_key_has_too_many_streams(sandbox: Sandbox, over_limit: str) -> None:
    """As with more triggerers than a key may have streams: those without one poll, and leave the others theirs."""
    sandbox.settings(streams_per_key=1, streams_over_limit=over_limit)
    sent = send(sandbox, 12)
    mail = Mail(sandbox)
    when = timing(feed=FeedTiming(backoff=0.2, most_refusals=2))
    async with contextlib.AsyncExitStack() as entered:
        triggerers = [await entered.enter_async_context(watching(sandbox, when)) for _ in range(4)]
        for number, waits in enumerate(triggerers):
            waits.start(sent[number::4], interval=1)
        await until(lambda: streams(sandbox) >= 4)

        def following() -> int:
            return sum(not one._watcher().availability.not_before for one in triggerers)

        for send_id in sent[:8]:
            mail.event("delivered", send_id)
        for number, waits in enumerate(triggerers):
            assert await waits.all_ended(sent[number:8:4]) == dict.fromkeys(sent[number:8:4], "reached")

        # 429 is refused at most three times, and a place is taken from another as often.
        await until(lambda: following() == 1, "one follows, three poll")
        opened = streams(sandbox)
        for send_id in sent[8:]:
            mail.event("delivered", send_id)
        for number, waits in enumerate(triggerers):
            assert await waits.all_ended(sent[8 + number : 9 + number]) == {sent[8 + number]: "reached"}
        assert streams(sandbox) == opened, "no triggerer takes the place of another"


@pytest.mark.parametrize("fault", [500, 503, "cut_in_body", "malformed_json", "proxy_error_page"])
@pytest.mark.parametrize("path", [watchers.STREAM, watchers.EVENTS, "/api/v1"])
async def test_promise_3_a_wait_continues_through_an_outage(sandbox: Sandbox, fault: Any, path: str) -> None:
    sent = send(sandbox, 8)
    mail = Mail(sandbox)
    sandbox.fail_next(fault, path=path, method="GET", times=6)
    async with watching(sandbox) as waits:
        waits.start(sent, interval=1)
        for send_id in sent:
            mail.event("delivered", send_id)
        assert set((await waits.all_ended()).values()) == {"reached"}
    for lines in waits.log.values():
        assert len(lines) == len(set(lines)) or path == "/api/v1", "each change is logged once"


async def test_promise_3_a_task_that_loses_its_first_cancellation_still_ends(sandbox: Sandbox) -> None:
    """As anyio 4.10 and 4.13 lose it when a read times out: the watcher would never close its client."""
    lost = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        async with watching(sandbox) as waits:
            waits.start(send(sandbox, 1, to="never@example.org"), target="delivered")
            waits._watcher()._tasks.start(stubborn())
            await asyncio.sleep(0)
    assert lost.is_set()


# The sandbox is one for all examples, so each begins with a reset of it.
@settings(
    max_examples=schedules.EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(120 + 8 * schedules.EXAMPLES)
@pytest.mark.parametrize("events_in_plan", [True, False], ids=["with-events", "without-events"])
@given(steps=schedules.STEPS)
def test_promise_3_any_schedule(sandbox: Sandbox, events_in_plan: bool, steps: list[Any]) -> None:
    asyncio.run(schedules.play(sandbox, steps, events_in_plan=events_in_plan))
