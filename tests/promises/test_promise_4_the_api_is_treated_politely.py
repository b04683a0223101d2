"""Promise 4: the API is treated politely. One paced poll or stream per triggerer and key, ``Retry-After`` obeyed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import Callable, Iterator
from email.utils import formatdate
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.errors import FluxomailServerError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.retries import seconds_to_wait
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger
from airflow_provider_fluxomail.waiting import worker
from airflow_provider_fluxomail.waiting.watcher_pool import WatcherPool
from tests.support import (
    batches,
    client_calls,
    cursors,
    decorated_tasks,
    event_streams,
    event_triggers,
    paced_senders,
    send_operators,
    sensors,
    watcher_pools,
    watchers,
)
from tests.support.running import Run, context, fire
from tests.support.timing import enter_window, wait_timing
from tests.support.watching import Mail, lists, reads, send, streams, until, watching
from tests.support.ways import ATTEMPTS, FACES, LONG, MESSAGE, TRANSPORTS, Way, check_sent, deferring
from tests.wire.conftest import Transport


async def test_promise_4_a_list_that_fails_is_not_hammered() -> None:
    source, one = (
        cursors.Source(*[FluxomailServerError("down", status=503, retry_after=3600.0)] * 9),
        cursors.trigger_cursor(),
    )
    for _ in range(9):
        await one.on_batch(source.batch())
    assert len(source.requested) == 1


@pytest.mark.parametrize("offset", [-3600.0, 0.3, 12.0])
@pytest.mark.parametrize("latency", [0.005, 0.8])
@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("cap", [60, 600])
def test_promise_4_a_burst_is_hardly_refused_and_uses_the_rate_limit(
    cap: int, batches: int, latency: float, offset: float
) -> None:
    windows = 12 if cap == 60 else 6
    messages = cap * windows
    server, took = paced_senders.run(cap, batches, messages, latency=latency, offset=offset)
    assert server.refused <= messages * 0.01
    # The first and the last window are not used from end to end.
    full = [count for window, count in sorted(server.counts.items())][1:-1]
    slow = 8 * batches / latency * 60 < cap * 2
    assert slow or sum(full) >= 0.97 * cap * len(full), full
    assert took < (windows / 0.97 + 2) * paced_senders.WINDOW or slow


@pytest.mark.parametrize(("cap", "batches", "part"), [(60, 8, 0.2), (100, 8, 0.03), (600, 8, 0.001)])
def test_promise_4_many_senders_do_not_start_a_window_with_a_burst(cap: int, batches: int, part: float) -> None:
    """Eight times eight at once are more than a rate limit of 60; each response shows how many senders there are."""
    messages = cap * 8
    for latency in (0.05, 0.8):
        server, _ = paced_senders.run(cap, batches, messages, latency=latency)
        assert server.refused <= messages * part, (server.refused, messages)


@pytest.mark.parametrize("offset", [-3600.0, 12.3])
@pytest.mark.parametrize("latency", [0.005, 0.8])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("cap", [10, 60, 600])
def test_promise_4_a_share_is_kept_and_used(cap: int, share: float, latency: float, offset: float) -> None:
    server, (used,) = paced_senders.together(cap, [share], 6, latency=latency, offset=offset)
    assert server.refused == 0
    # Requests in flight when a window ends are counted in the next.
    assert max(used) <= max(1, share * cap) + int(1.5 * latency * share * cap / paced_senders.WINDOW)
    # Only one may be in flight: a slow response is not the pacer's fault.
    assert min(used) >= 0.8 * min(share * cap, paced_senders.WINDOW / (1.5 * latency)) - 2, used


@pytest.mark.parametrize("cap", [60, 600])
@pytest.mark.parametrize("shares", [[0.5, 0.5, 1.0], [0.5, 1.0], [0.3, 0.5, 0.9, 1.0]])
def test_promise_4_shares_and_a_full_sender_together_are_hardly_refused(cap: int, shares: list[float]) -> None:
    server, used = paced_senders.together(cap, shares, 12)
    made = sum(server.counts.values())
    assert server.refused <= 0.01 * made, (server.refused, made)
    for share, own in zip(shares, used, strict=True):
        assert share == 1.0 or max(own) <= share * cap
        assert min(own) >= 1, "nobody starves"
    totals = [sum(window) for window in zip(*used, strict=True)]
    assert sum(totals) >= 0.9 * cap * len(totals), totals


@pytest.mark.parametrize("asked", [0.5, 7.0, 60.0])
def test_promise_4_a_named_wait_is_obeyed_and_spread(asked: float) -> None:
    error = errors.FluxomailRateLimitError("x", status=429, retry_after=asked)
    assert seconds_to_wait(error, 1, lambda: 0.0) == asked
    assert asked < seconds_to_wait(error, 1, lambda: 1.0) <= asked * 1.1 + 0.1


def test_promise_4_hundreds_under_a_rate_limit_of_sixty(sandbox: Sandbox) -> None:
    sandbox.key("capped", rate_limit_per_minute=60)
    sandbox.connect(key="capped")
    counts = batches.batch(sandbox, batches.people(400), batches.SandboxTime(sandbox)).run()
    assert counts.sent == 400
    sandbox.assert_sent(400)
    assert len(sandbox.requests("POST", status=429)) <= 4
    assert max(batches.posts(sandbox).values()) <= 2


def test_promise_4_two_batches_at_once_share_the_rate_limit(sandbox: Sandbox) -> None:
    sandbox.key("capped", rate_limit_per_minute=60)
    sandbox.connect(key="capped")
    when = batches.SandboxTime(sandbox)
    both = [batches.batch(sandbox, batches.people(150), when, name=name) for name in ("one", "two")]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        counts = [one.result() for one in [pool.submit(one.run) for one in both]]
    assert [count.sent for count in counts] == [150, 150]
    sandbox.assert_sent(300)
    assert len(sandbox.requests("POST", status=429)) <= 3


def test_promise_4_a_long_wait_frees_the_slot_and_requests_nothing_twice(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.connect(max_wait=0, max_attempts=1)
    # Far enough apart that requests in flight during the first do not meet the second.
    sandbox.fail_next(429, times=1, skip=7, retry_after=1.2)
    sandbox.fail_next(429, times=1, skip=18, retry_after=1.2)
    done = batches.run(batches.people(30), deferrable=True, concurrency=2)
    assert done.kind == "success", done.error
    assert done.result["sent"] == 30
    assert [type(deferral.trigger) for deferral in done.deferrals] == [FluxomailRetryAfterTrigger] * 2
    stored = [request for request in sandbox.requests("POST") if request.status == 200]
    assert len(stored) == 30, "nothing that was known to be sent is requested again"
    for deferral in done.deferrals:
        kept = json.dumps(deferral.trigger.serialize())
        assert "example.org" not in kept, "promise 5"
        assert len(kept) < 2000


def test_promise_4_the_time_in_retry_after_is_enough(call: Transport, sandbox: Sandbox) -> None:
    enter_window(sandbox)
    sandbox.key("capped", rate_limit_per_minute=1)
    settings = client_calls.with_key(sandbox, "capped", max_attempts=1)
    call(settings, "send", client_calls.MESSAGE, idempotency_key="k1")
    with pytest.raises(errors.FluxomailRateLimitError) as caught:
        call(settings, "send", client_calls.MESSAGE, idempotency_key="k2")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60
    sandbox.advance(caught.value.retry_after)
    call(settings, "send", client_calls.MESSAGE, idempotency_key="k2")
    assert len(sandbox.messages()) == 2


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset"])
def test_promise_4_waits_by_date_and_by_reset(call: Transport, sandbox: Sandbox, header: str) -> None:
    """A sandbox whose clock is a day ahead: only the response's own Date shows how long the wait is."""
    sandbox.advance(86_400)
    now = sandbox.now()
    value = formatdate(now + 30, usegmt=True) if header == "Retry-After" else str(int(now + 30))
    sandbox.fail_next(429, headers={header: value})
    call(client_calls.with_key(sandbox), "send", client_calls.MESSAGE, idempotency_key="k1")
    took = sandbox.now() - now
    assert 28 - took <= call.naps[0] <= 34


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_promise_4_a_long_rate_limit_defers_and_the_function_is_called_again(sandbox: Sandbox, many: bool) -> None:
    calls = []

    def function() -> Any:
        calls.append(1)
        return decorated_tasks.MANY if many else MESSAGE

    sandbox.fail_next(429, retry_after=LONG, skip=int(many))
    run = deferring(decorated_tasks.decorated(function, deferrable=True), 1)
    assert run.error is None
    assert (len(run.deferrals), len(calls)) == (1, 2)
    sandbox.assert_sent(1 + many)
    assert len({request.idempotency_key for request in sandbox.requests("POST")}) == 1 + many


@pytest.mark.usefixtures("quick_event_triggers", "message_event_triggers")
@event_triggers.on_airflow_3_3
async def test_promise_4_many_triggers_on_one_connection_share_a_stream(
    sandbox: Sandbox, triggerers: Callable[..., event_triggers.Triggerer], moments: Iterator[int]
) -> None:
    triggerer = triggerers()
    stores = [event_triggers.Stores() for _ in range(8)]
    for number, store in enumerate(stores):
        triggerer.start(store, types=["bounced"] if number % 2 else ["complained", "bounced"])
    for store in stores:
        await event_triggers.live(triggerer, store)
    at = next(moments)
    event_triggers.bounce(sandbox, at)
    await triggerer.until(lambda: len(triggerer.stored) == 8)
    assert len(event_triggers.streams(sandbox)) == 1
    assert len(event_triggers.lists(sandbox)) == 8, "each reads from its own cursor, once"


@pytest.mark.usefixtures("message_event_streams")
@pytest.mark.parametrize("kind", ["503", "an empty page"])
async def test_promise_4_a_stream_that_is_down_is_not_hammered(
    sandbox: Sandbox, follow: event_streams.Follow, kind: str
) -> None:
    fault: dict[str, Any] = {"kind": int(kind) if kind.isdigit() else kind}
    if kind == "an empty page":
        fault = {"kind": "status", "status": 200, "body": ""}
    sandbox.fail_next(**fault, path=event_streams.STREAM, times=5)
    following = follow(timing=FeedTiming(silence=5, overlap=10, backoff=2))
    await following.until_live()
    gaps = sandbox.requests("GET", event_streams.STREAM).gaps
    assert len(gaps) == 5
    for number, gap in enumerate(gaps, start=1):
        assert gap >= 0.2 * min(2.0, 2**number / 4), gaps


@pytest.mark.usefixtures("message_event_streams")
async def test_promise_4_streams_that_end_together_are_not_reopened_together(
    sandbox: Sandbox, follow: event_streams.Follow
) -> None:
    sandbox.settings(stream_life=0.01)
    follow(timing=FeedTiming(silence=5, overlap=10, backoff=2))
    await event_streams.seen(lambda: len(event_streams.streams(sandbox)) >= 5)
    gaps = sandbox.requests("GET", event_streams.STREAM).gaps
    assert gaps[3] >= 0.2 * 2
    assert len(sandbox.requests("GET", event_streams.EVENTS)) <= 2 * len(event_streams.streams(sandbox)), (
        "the list once for each stream"
    )


@pytest.mark.usefixtures("message_event_streams")
@pytest.mark.parametrize("path", [event_streams.STREAM, event_streams.EVENTS])
async def test_promise_4_retry_after_is_obeyed(sandbox: Sandbox, follow: event_streams.Follow, path: str) -> None:
    # The list is read when the stream is open; the fault is not for what lies below its path.
    sandbox.fail_next(
        429, retry_after=2, path=event_streams.STREAM if path == event_streams.STREAM else "/api/v1/event[s]"
    )
    following = follow(since_ms=event_streams.T * 1000)
    await following.until_live()
    asked = sandbox.requests("GET")
    (refused,) = [number for number, one in enumerate(asked) if one.status == 429]
    assert asked.gaps[refused] >= 2.0


def test_promise_4_a_long_rate_limit_defers_and_then_sends_with_the_same_key(sandbox: Sandbox) -> None:
    sandbox.connect(max_wait=0)
    sandbox.fail_next(429, times=2, retry_after=0.1)
    run = Run(send_operators.operator(deferrable=True), context())
    assert run.kind == "success"
    assert [type(deferral.trigger) for deferral in run.deferrals] == [FluxomailRetryAfterTrigger] * 2
    assert {request.idempotency_key for request in sandbox.requests("POST")} == {run.result["idempotency_key"]}
    assert len(sandbox.messages()) == 1
    first, second = run.deferrals
    assert second.trigger.serialize()[1]["give_up_at"] == first.trigger.serialize()[1]["give_up_at"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("way", "status", "retry_after", "seconds"),
    [
        *((way, 429, 0.4, 0.4) for way in [*TRANSPORTS, *FACES]),
        *((way, 503, 0.4, 0.4) for way in TRANSPORTS),
        *((way, 429, {"http_date_in": 1}, 1.0) for way in TRANSPORTS),
    ],
    ids=str,
)
def test_promise_4_the_gap_between_tries_obeys_retry_after(
    sandbox: Sandbox, way: Way, status: int, retry_after: Any, seconds: float
) -> None:
    for recipient in way.recipients:
        sandbox.fail_next(status, retry_after=retry_after, to=recipient)
    outcomes = way.attempt(1)
    for one in outcomes:
        requests = sandbox.requests("POST", idempotency_key=one.key)
        assert len(requests) == ATTEMPTS
        assert requests.gaps[0] >= seconds
    check_sent(sandbox, way, outcomes, ATTEMPTS)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("fault", "least"),
    [
        ({"kind": "error_before_store"}, 0.0),
        ({"kind": "status", "status": 429, "retry_after": 20}, 20.0),
        ({"kind": "status", "status": 503, "retry_after": {"http_date_in": 20}}, 20.0),
    ],
    ids=str,
)
def test_promise_4_calls_wait_for_different_times(
    sandbox: Sandbox, call: Transport, fault: dict[str, Any], least: float
) -> None:
    calls = 5
    sandbox.fail_next(**fault, times=calls, every=2)
    settings = ClientSettings(api_key=sandbox.api_key, base_url=sandbox.url, max_attempts=2)
    for number in range(calls):
        call(settings, "send", EmailMessage(**MESSAGE), idempotency_key=f"passes{number}")
        call(settings, "send", EmailMessage(**MESSAGE), idempotency_key=f"k{number}")
    assert len(call.naps) == calls
    assert min(call.naps) >= least
    assert all(abs(one - other) > 1e-9 for one, other in pairwise(sorted(call.naps))), "jitter"
    assert len(sandbox.requests("POST")) == 3 * calls
    sandbox.assert_sent(2 * calls)


@pytest.mark.parametrize("mode", sensors.MODES)
def test_promise_4_retry_after_delays_the_next_poll_of_a_sensor(sandbox: Sandbox, mode: str) -> None:
    send_id = sensors.send()
    sandbox.fail_next(429, times=2, path=sensors.TIMELINE, retry_after=0.7)
    assert Run(sensors.sensor(mode, send_id=send_id, poke_interval=0.01)).kind == "success"
    polls = sandbox.requests("GET", sensors.TIMELINE)
    assert len(polls) == 3
    assert polls.gaps[1] >= 0.7


def test_promise_4_a_long_retry_after_defers_at_once_and_holds_the_trigger_too(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, worker_polls=wait.WaitTiming().worker_polls)
    slept: list[float] = []
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=slept.append))
    sandbox.fail_next(429, times=9, path=sensors.TIMELINE, retry_after=600)
    started = wait.now()
    trigger = sensors.deferred(sandbox, timeout=9999).trigger
    assert slept == [], "the worker does not spend the wait"
    assert len(sandbox.requests("GET", sensors.TIMELINE)) == 1
    assert started + 600 <= trigger.next_look <= wait.now() + 605
    trigger.next_look = wait.now() + 60
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(fire(trigger), 0.5))
    assert len(sandbox.requests("GET", sensors.TIMELINE)) == 1


@pytest.mark.parametrize(
    ("kind", "target", "status"),
    [
        ("delivered", "delivered", "reached"),
        ("clicked", "opened", "reached"),
        ("bounced", "delivered", "failed"),
    ],
)
async def test_promise_4_many_waits_share_one_stream(sandbox: Sandbox, kind: str, target: str, status: str) -> None:
    sent = send(sandbox, 40)
    mail = Mail(sandbox)
    async with watching(sandbox) as waits:
        waits.start(sent, target=target, ago=60)
        await watchers.following(sandbox, waits)
        for send_id in sent:
            mail.event(kind, send_id)
        assert set((await waits.all_ended()).values()) == {status}
        ending: Any = waits.endings[sent[0]][0]
        assert ending.event == kind
    assert streams(sandbox) == 1
    assert lists(sandbox) <= 2
    assert reads(sandbox) == 0


async def test_promise_4_reads_stay_within_the_share(sandbox: Sandbox) -> None:
    """50 waits without the events, 120 requests a minute of which waiting may use half: one each second."""
    sandbox.settings(events_in_plan=False)
    sandbox.key("capped", rate_limit_per_minute=120)
    sent = send(sandbox, 50)
    async with watching(sandbox, key="capped") as waits:
        waits.start(sent, ago=None, interval=1)
        await until(lambda: reads(sandbox) >= 6)
        await asyncio.sleep(1)
        requests = sandbox.requests("GET")
        took = requests[-1].at - requests[0].at
        assert len(requests) <= 4 + 1.6 * took
        assert not [one for one in requests if one.status == 429]


async def test_promise_4_retry_after_holds_the_whole_watcher(sandbox: Sandbox) -> None:
    sent = send(sandbox, 20)
    sandbox.fail_next(429, path=watchers.TIMELINES, method="GET", retry_after=600)
    async with watching(sandbox, follow=False) as waits:
        waits.start(sent, ago=None, interval=0.1)
        await until(lambda: reads(sandbox) >= 1)
        await asyncio.sleep(1.5)
        assert reads(sandbox) <= 4, "those that were in flight already"


async def test_promise_4_the_connection_is_looked_up_once_for_all(sandbox: Sandbox, lookups: list[str]) -> None:
    sent = send(sandbox, 40)
    mail = Mail(sandbox)
    old = {"started": wait.now() - 60, "seen": wait.now() - 60, "poll_interval": 600.0}
    async with watcher_pools.waits(sent[:30], **old) as tasks:
        await until(lambda: streams(sandbox) == 1)
        # Those that come while the others wait, too.
        async with watcher_pools.waits(sent[30:], **old) as later:
            for send_id in sent:
                mail.event("delivered", send_id)
            ended = await asyncio.wait_for(asyncio.gather(*tasks, *later), 30)
    assert {one["status"] for one in ended} == {"reached"}
    assert lookups == ["fluxomail_default"]
    assert streams(sandbox) == 1
    assert reads(sandbox) == 0
    assert len(WatcherPool.for_running_loop()._watchers) == 1
