"""The watcher of a triggerer's waits: polite (promise 4), and every wait ends as its timeline says (promise 3)."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from typing import Any

import pytest

from airflow_provider_fluxomail.client.pacing import Pacer
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.client.watching.watched_wait import FOLLOWING_EVENTS
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.timing import wait_timing
from tests.support.watchers import EVENTS, STREAM, TIMELINES, following
from tests.support.watching import (
    Mail,
    Waits,
    lists,
    reads,
    send,
    streams,
    timing,
    until,
    watching,
)

POLLING = "Polling the send's timeline every"


async def deliver(sandbox: Sandbox, waits: Waits, sent: list[str]) -> None:
    """Let messages be delivered, and their waits end with that."""
    mail = Mail(sandbox)
    for send_id in sent:
        mail.event("delivered", send_id)
    assert await waits.all_ended(sent) == dict.fromkeys(sent, "reached")


async def test_timelines_are_polled_if_events_are_not_to_be_followed(sandbox: Sandbox) -> None:
    sent = send(sandbox, 30)
    async with watching(sandbox, follow=False) as waits:
        waits.start(sent, ago=None, interval=1)
        await until(lambda: reads(sandbox) >= 30)
        await deliver(sandbox, waits, sent)
    assert streams(sandbox) == lists(sandbox) == 0
    assert waits.log[sent[0]][0].startswith(f"INFO Waiting for send {sent[0]} to be delivered, since 2")
    assert waits.log[sent[0]][0].endswith(f"{POLLING} 1 s, within poll_share of the rate limit.")


@pytest.mark.parametrize("ago", [None, 5.0], ids=["unseen", "seen by a worker"])
@pytest.mark.parametrize("count", [1, 4])
async def test_few_waits_join_by_one_poll_each(sandbox: Sandbox, count: int, ago: float | None) -> None:
    """What came after the worker's last poll is found, and what comes later is on the stream."""
    sent = send(sandbox, 2 * count)
    mail = Mail(sandbox)
    for send_id in sent[:count]:
        mail.event("delivered", send_id)
    async with watching(sandbox) as waits:
        waits.start(sent[:count], ago=ago)
        assert await waits.all_ended() == dict.fromkeys(sent[:count], "reached")
    assert (streams(sandbox), lists(sandbox), reads(sandbox)) == (1, 0, count)
    async with watching(sandbox) as waits:
        waits.start(sent[count:], ago=ago)
        await until(lambda: reads(sandbox) == 2 * count)
        await deliver(sandbox, waits, sent[count:])
    assert (streams(sandbox), lists(sandbox), reads(sandbox)) == (2, 0, 2 * count)


@pytest.mark.parametrize("capped", [False, True])
async def test_a_stream_that_is_held_back_does_not_hold_the_polls(sandbox: Sandbox, capped: bool) -> None:
    """As by a proxy that passes a response on once it is complete."""
    sandbox.key("capped", rate_limit_per_minute=600)
    sent = send(sandbox, 3)
    sandbox.fail_next("delay", seconds=60, path=STREAM, times=None)
    mail = Mail(sandbox)
    for send_id in sent:
        mail.event("delivered", send_id)
    began = now()
    async with watching(sandbox, key="capped" if capped else None, request_timeout=90) as waits:
        waits.start(sent, ago=None, interval=1)
        assert await waits.all_ended() == dict.fromkeys(sent, "reached")
        assert now() - began < 50


async def test_waits_that_join_one_by_one_read_the_list_in_the_end(sandbox: Sandbox) -> None:
    sent = send(sandbox, 12)
    async with watching(sandbox) as waits:
        for number, send_id in enumerate(sent, 1):
            waits.start([send_id], ago=5)
            if number < 5:
                await until(lambda: reads(sandbox) == number)  # noqa: B023 - waited for at once
            elif number == 5:
                await until(lambda: lists(sandbox) == 1)
        await deliver(sandbox, waits, sent)
    assert (streams(sandbox), lists(sandbox), reads(sandbox)) == (1, 1, 4)


async def test_young_waits_are_polled_soon_whatever_the_interval(sandbox: Sandbox) -> None:
    sent = send(sandbox, 2)
    Mail(sandbox).event("delivered", sent[1])
    async with watching(sandbox, follow=False) as waits:
        waits.start(sent[:1], ago=10, interval=3600)
        waits.start(sent[1:], ago=500, interval=3600)
        await deliver(sandbox, waits, sent[:1])
        assert sent[1] not in waits.endings


async def test_what_came_between_the_workers_poll_and_the_triggerer_is_read_from_the_list(sandbox: Sandbox) -> None:
    sent = send(sandbox, 30)
    mail = Mail(sandbox)
    for send_id in sent:
        mail.event("delivered", send_id)
    async with watching(sandbox) as waits:
        waits.start(sent, ago=60)
        assert set((await waits.all_ended()).values()) == {"reached"}
    assert lists(sandbox) <= 3
    assert reads(sandbox) == 0


async def test_a_wait_that_joins_later_gets_what_was_kept(sandbox: Sandbox) -> None:
    sent = send(sandbox, 6)
    mail = Mail(sandbox)
    async with watching(sandbox, timing()) as waits:
        waits.start(sent[:5], ago=60)
        await following(sandbox, waits)
        await until(lambda: lists(sandbox) == 1)
        mail.event("delivered", sent[5])
        mail.event("delivered", sent[0])
        await waits.all_ended(sent[:1])
        waits.start(sent[5:], ago=1)
        assert await waits.all_ended(sent[5:]) == {sent[5]: "reached"}
    assert lists(sandbox) == 1, "nothing is requested again"
    assert reads(sandbox) == 0


async def test_a_wait_that_no_worker_saw_is_read_first(sandbox: Sandbox) -> None:
    """Its event may be older than everything that is kept."""
    sent = send(sandbox, 6)
    mail = Mail(sandbox)
    mail.event("delivered", sent[5])
    sandbox.advance(7200)
    async with watching(sandbox) as waits:
        waits.start(sent[:5], ago=60)
        await following(sandbox, waits)
        await until(lambda: lists(sandbox) == 1)
        waits.start(sent[5:], ago=None)
        assert await waits.all_ended(sent[5:]) == {sent[5]: "reached"}
    assert reads(sandbox) == 1


async def test_waits_of_long_ago_are_read_when_the_list_is_too_long(sandbox: Sandbox) -> None:
    """As after a restart of the triggerer."""
    sandbox.settings(page_size=2)
    old, busy = send(sandbox, 10), send(sandbox, 20)
    mail = Mail(sandbox)
    for send_id in [*old, *busy]:
        mail.event("delivered", send_id)
    async with watching(sandbox) as waits:
        waits.start(old, ago=600, timeout=1200)
        assert set((await waits.all_ended()).values()) == {"reached"}
    assert lists(sandbox) == 1, "the first page shows that two are far too few"
    assert reads(sandbox) == 10


@pytest.mark.parametrize("status", [402, 405])
async def test_timelines_are_read_where_events_are_not_available(sandbox: Sandbox, status: int) -> None:
    sandbox.fail_next(status, path=STREAM, times=None)
    sent = send(sandbox, 10)
    async with watching(sandbox) as waits:
        waits.start(sent, interval=1)
        await until(lambda: reads(sandbox) >= 10)
        await deliver(sandbox, waits, sent)
    assert streams(sandbox) <= 2, "once, and once without the filter"


async def test_the_events_are_requested_again_now_and_then(sandbox: Sandbox) -> None:
    sandbox.settings(events_in_plan=False)
    sent = send(sandbox, 5)
    async with watching(sandbox, timing(retry_events=1.5)) as waits:
        waits.start(sent)
        await until(lambda: streams(sandbox) >= 1)
        sandbox.settings(events_in_plan=True)
        await following(sandbox, waits)
    assert sandbox.requests(path=STREAM)[0].status == 402


async def test_timelines_are_read_while_the_stream_is_down_for_long(sandbox: Sandbox) -> None:
    sent = send(sandbox, 5)
    async with watching(sandbox, timing(patience=0.5)) as waits:
        waits.start(sent, interval=1)
        await following(sandbox, waits)
        sandbox.fail_next(503, path=STREAM, method="GET", times=None)
        sandbox.fail_next("stream_drop")
        await until(lambda: POLLING in waits.log[sent[1]][-1], "timelines are read")
        await deliver(sandbox, waits, sent[:1])
        sandbox.clear_faults()
        await until(lambda: FOLLOWING_EVENTS in waits.log[sent[1]][-1])
    modes = [mode for line in waits.log[sent[1]] for mode in (FOLLOWING_EVENTS, POLLING) if mode in line]
    assert modes == [POLLING, FOLLOWING_EVENTS, POLLING, FOLLOWING_EVENTS]


async def test_an_event_that_the_stream_has_lost_costs_minutes_not_for_ever(sandbox: Sandbox) -> None:
    sent = send(sandbox, 5)
    async with watching(sandbox, timing(reconcile=1.5)) as waits:
        waits.start(sent)
        await following(sandbox, waits)
        await until(lambda: lists(sandbox) >= 1)
        sandbox.fail_next("stream_gap")
        empty = json.dumps({"events": [], "nextCursor": None})
        sandbox.fail_next("status", status=200, body=empty, path=EVENTS, method="GET", times=None, skip=1)
        sandbox.fail_next("stream_drop")
        await deliver(sandbox, waits, sent[:1])
    assert reads(sandbox) >= 1


async def test_after_a_gap_that_cannot_be_closed_the_timeline_decides(sandbox: Sandbox) -> None:
    """An event of the stream says nothing while what came before it may be missing."""
    sent = send(sandbox, 5)
    mail = Mail(sandbox)
    async with watching(sandbox, timing(gap_pages=1)) as waits:
        waits.start(sent, interval=1)
        await following(sandbox, waits)
        await until(lambda: lists(sandbox) >= 1)
        sandbox.settings(page_size=1)
        sandbox.fail_next("stream_gap")
        sandbox.fail_next(503, path=TIMELINES, method="GET", times=3)
        sandbox.fail_next(503, path=STREAM, method="GET", times=2)
        sandbox.fail_next("stream_drop")
        await until(lambda: sandbox.requests(path=STREAM, status=503), "the stream has broken")
        mail.event("bounced", sent[0])
        mail.event("delivered", sent[1])
        mail.event("delivered", sent[2])
        await until(lambda: sandbox.requests("GET", TIMELINES, status=503), "the gap is known")
        mail.event("delivered", sent[0])
        assert await waits.all_ended(sent[:3]) == {sent[0]: "failed", sent[1]: "reached", sent[2]: "reached"}


async def test_young_waits_come_before_old_ones(sandbox: Sandbox) -> None:
    sandbox.key("capped", rate_limit_per_minute=1200)
    old, young = send(sandbox, 20), send(sandbox, 5)
    async with watching(sandbox, key="capped", follow=False) as waits:
        waits.start(young, ago=None, interval=1)
        waits.start(old, ago=None, interval=30)
        await until(lambda: reads(sandbox) >= 40)
        polls = [request.path.rpartition("/")[2] for request in sandbox.requests("GET", TIMELINES)]

    def second(send_id: str) -> int:
        """Which of all polls is its second one."""
        return [*(at for at, polled in enumerate(polls) if polled == send_id), len(polls)][1]

    assert set(polls) == {*old, *young}
    assert max(map(second, young)) < min(map(second, old))


async def test_the_deadline_has_a_last_poll(sandbox: Sandbox) -> None:
    sent = send(sandbox, 6)
    mail = Mail(sandbox)
    empty = json.dumps({"events": [], "nextCursor": None})
    async with watching(sandbox) as waits:
        waits.start(sent, timeout=6.5)
        await following(sandbox, waits)
        sandbox.fail_next("status", status=200, body=empty, path=EVENTS, method="GET", times=None)
        sandbox.fail_next("stream_gap", times=None)
        sandbox.fail_next("stream_drop", times=None)
        mail.event("delivered", sent[0])
        ended = await waits.all_ended()
    assert ended == {send_id: "reached" if send_id == sent[0] else "timeout" for send_id in sent}
    ending: Any = waits.endings[sent[1]][0]
    assert "not delivered within 6 s" in ending.message or "not delivered within 7 s" in ending.message


async def test_a_hold_does_not_keep_a_wait_beyond_its_deadline(sandbox: Sandbox) -> None:
    sent = send(sandbox, 3)
    sandbox.fail_next(429, path=TIMELINES, method="GET", retry_after=9999, times=None)
    async with watching(sandbox, timing(last_poll=0.5)) as waits:
        waits.start(sent, ago=None, timeout=1)
        assert set((await waits.all_ended()).values()) == {"timeout"}


@pytest.mark.parametrize("path", [TIMELINES, STREAM, EVENTS])
async def test_a_refused_key_ends_all_waits_with_the_reason(sandbox: Sandbox, path: str) -> None:
    sent = send(sandbox, 8)
    sandbox.fail_next(401, path=path, method="GET", times=None)
    async with watching(sandbox) as waits:
        waits.start(sent, ago=None if path == TIMELINES else 0.0)
        assert set((await waits.all_ended()).values()) == {"FluxomailAuthError"}


async def test_an_error_about_one_send_ends_its_wait_alone(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, not_found_grace=1.0)
    sandbox.key("send-only", scopes=["send_email"])
    (sent,) = send(sandbox)
    async with watching(sandbox) as waits:
        waits.start([*(f"s{number}" for number in range(6)), sent], ago=None, interval=1)
        unknown = [f"s{number}" for number in range(6)]
        assert set((await waits.all_ended(unknown)).values()) == {"error"}
        assert sent not in waits.endings
    async with watching(sandbox, key="send-only") as waits:
        waits.start([sent], ago=None)
        assert await waits.all_ended() == {sent: "error"}
    ending: Any = waits.endings[sent][0]
    assert "read_sends" in ending.message


@pytest.mark.parametrize("many", [False, True])
async def test_waits_that_leave_leave_nothing_behind(sandbox: Sandbox, many: bool) -> None:
    sent = send(sandbox, 8)
    async with watching(sandbox) as waits:
        waits.start(sent if many else sent[:2], ago=0.0 if many else None)
        await until(lambda: streams(sandbox) if many else reads(sandbox) >= 2)
        await waits.leave()
        assert waits.endings == {}
    if many:
        await until(lambda: all(one.status is not None for one in sandbox.requests(path=STREAM)))


async def test_waits_that_leave_at_once(sandbox: Sandbox) -> None:
    async with watching(sandbox) as waits:
        waits.start(["s1", "s2", "s3", "s4", "s5"])
        await asyncio.sleep(0)
        await waits.leave()
    assert sandbox.requests() == []


async def test_too_many_events_for_few_waits(sandbox: Sandbox) -> None:
    """Two waits are not worth a stream of 5 events a second; a hundred are worth 100."""
    sent, busy = send(sandbox, 2), send(sandbox, 98)
    mail = Mail(sandbox)

    async def events() -> None:
        while True:
            await asyncio.to_thread(mail.event, "opened", busy[0])
            await asyncio.sleep(0.02)

    producing = asyncio.create_task(events())
    try:
        async with watching(sandbox, timing(events_a_second=0.0, events_per_wait=1.0, load_window=0.5)) as waits:
            waits.start(sent, ago=5, interval=1)
            # Not by its log: the first line says that it polls, too.
            await until(lambda: waits._watcher().availability.rate > 0, "there are too many events")
            await until(lambda: POLLING in waits.log[sent[0]][-1])
            polled = reads(sandbox)
            await until(lambda: reads(sandbox) >= polled + 2)
            assert streams(sandbox) == 1
            waits.start(busy[1:])
            await until(lambda: streams(sandbox) == 2, "there are enough waits")
            await until(lambda: FOLLOWING_EVENTS in waits.log[sent[0]][-1])
            await deliver(sandbox, waits, sent)
    finally:
        producing.cancel()
        await asyncio.gather(producing, return_exceptions=True)


async def test_two_waits_for_one_send(sandbox: Sandbox) -> None:
    (sent,) = send(sandbox)
    mail = Mail(sandbox)
    async with watching(sandbox, timing()) as waits:
        waits.start([sent], target="opened")
        first = waits._tasks.pop(sent)
        waits.start([sent], target="delivered")
        await until(lambda: len(waits.log.get(sent, ())) >= 2)
        mail.event("delivered", sent)
        await waits.all_ended()
        mail.event("opened", sent)
        await asyncio.wait_for(first, 20)
    assert [getattr(ending, "event", None) for ending in waits.endings[sent]] == ["delivered", "opened"]


async def test_a_bug_ends_the_waits_instead_of_hanging_them(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(Pacer, "delay", broken)
    async with watching(sandbox) as waits:
        waits.start(["s1"], ago=None)
        with caplog.at_level(logging.ERROR):
            assert await waits.all_ended() == {"s1": "FluxomailWatcherError"}
    assert "The watcher of waits failed" in caplog.text


async def test_waits_that_have_ended_leave_nothing_in_memory(sandbox: Sandbox) -> None:
    """Through one watcher, which one more wait keeps alive; each ends by an event that was kept, or leaves before."""
    rounds, each = 24, 400
    sent = send(sandbox, 21)
    mail = Mail(sandbox)
    blocks = []
    async with watching(sandbox, timing()) as waits:
        waits.start(sent[:1])
        await following(sandbox, waits)
        for send_id in sent[1:]:
            mail.event("delivered", send_id)
        for number in range(rounds):
            began = now()
            left = [asyncio.create_task(waits.one(sent[1 + n % 20], began - 1)) for n in range(each)]
            for task in left[: each // 10]:
                await asyncio.sleep(0)
                task.cancel()
            ended = await asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), 60)
            assert sum(getattr(one, "status", None) == "reached" for one in ended) >= each * 9 // 10
            del left, ended, task
            if number % 8 == 7:
                gc.collect()
                blocks.append(sys.getallocatedblocks())
    # What the first rounds filled, such as caches, stays; a leak of one block per wait would be 6,400.
    assert blocks[-1] < blocks[0] + 2_000, blocks
    assert len(sandbox.requests("GET")) <= 5
