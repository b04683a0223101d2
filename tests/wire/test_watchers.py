"""What the triggers of one event loop share (promise 4): a connection that is read once, and one watcher."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.client.watching import watcher as watcher_module
from airflow_provider_fluxomail.client.watching.watched_wait import WatchTiming
from airflow_provider_fluxomail.configuration import connection
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.waiting.watcher_pool import WatcherPool
from tests.support.running import fire
from tests.support.timing import wait_timing
from tests.support.watcher_pools import lookups, trigger, waits
from tests.support.watching import Mail, lists, reads, send, streams, until

__all__ = ["lookups"]

STREAM = "/api/v1/events/stream"


async def test_connections_with_equal_settings_share_a_watcher(sandbox: Sandbox, lookups: list[str]) -> None:
    sandbox.connect("other")
    sandbox.connect("third", poll_share=0.1)
    sent = send(sandbox, 60)
    async with waits(sent[:20]), waits(sent[20:40], fluxomail_conn_id="other"):
        await until(lambda: streams(sandbox) == 1)
        async with waits(sent[40:42], fluxomail_conn_id="third", seen=None):
            await until(lambda: reads(sandbox) == 2)
            assert len(WatcherPool.for_running_loop()._watchers) == 2
    assert sorted(lookups) == ["fluxomail_default", "other", "third"]


async def test_the_wait_that_reads_the_connection_first_may_be_cancelled(sandbox: Sandbox, lookups: list[str]) -> None:
    sent = send(sandbox, 3, to="ops@example.org")
    async with waits(sent, seen=None) as tasks:
        await until(lambda: lookups)
        tasks[0].cancel()
        ended: list[Any] = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert [one["status"] for one in ended[1:]] == ["reached", "reached"]
    assert len(lookups) == 1


async def test_a_replaced_key_is_read_once_for_all_waits(sandbox: Sandbox, lookups: list[str]) -> None:
    sandbox.key("first-key")
    sandbox.connect(key="first-key")
    sent = send(sandbox, 30)
    mail = Mail(sandbox)
    async with waits(sent) as tasks:
        await until(lambda: streams(sandbox) == 1)
        sandbox.connect()
        sandbox.revoke("first-key")
        await until(lambda: len(sandbox.requests(path=STREAM, status=200)) == 2, "the new key is used")
        for send_id in sent:
            mail.event("delivered", send_id)
        ended = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert {one["status"] for one in ended} == {"reached"}
    assert len(lookups) == 2


async def test_a_key_that_stays_refused_ends_all_waits(sandbox: Sandbox, lookups: list[str]) -> None:
    sandbox.key("first-key")
    sandbox.connect(key="first-key")
    sent = send(sandbox, 30)
    async with waits(sent) as tasks:
        await until(lambda: streams(sandbox) == 1)
        sandbox.revoke("first-key")
        ended = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert {one["status"] for one in ended} == {"error"}
    assert all("401" in one["message"] for one in ended)
    assert len(lookups) == 2
    assert len(sandbox.requests(status=401)) <= 6, "not one for each wait"


def test_each_event_loop_has_its_own_and_leaves_nothing(sandbox: Sandbox) -> None:
    async def wait_for(send_id: str) -> WatcherPool:
        assert (await fire(trigger(send_id, seen=None)))["status"] == "reached"
        return WatcherPool.for_running_loop()

    before = len(WatcherPool._by_loop)
    pools = [asyncio.run(wait_for(send_id)) for send_id in send(sandbox, 4, to="ops@example.org")]
    assert len({id(pool) for pool in pools}) == 4
    assert all(not pool._lookups and not pool._watchers for pool in pools)
    gc.collect()
    # asgiref keeps the loop that ran last in a thread.
    assert len(WatcherPool._by_loop) <= before + 1


def keep_for(monkeypatch: pytest.MonkeyPatch, seconds: float, **fields: Any) -> None:
    """Let watchers stay for this long without waits."""
    monkeypatch.setattr(watcher_module, "WatchTiming", lambda: WatchTiming(linger=seconds, **fields))


async def one_wait(sandbox: Sandbox, send_id: str, **fields: Any) -> None:
    """Let one wait begin, and its message be delivered."""
    async with waits([send_id], **fields) as tasks:
        await until(lambda: streams(sandbox) >= 1)
        Mail(sandbox).event("delivered", send_id)
        (ended,) = await asyncio.wait_for(asyncio.gather(*tasks), 30)
    assert ended["status"] == "reached"


def has_no_stream(sandbox: Sandbox) -> bool:
    """Whether the key has no open stream: then it may open the only one that it is allowed."""
    sandbox.settings(streams_per_key=1)
    headers = {"Authorization": f"Bearer {sandbox.api_key}"}
    with httpx.stream("GET", sandbox.url + STREAM, headers=headers) as response:
        return response.status_code == 200


async def test_promise_4_single_waits_share_a_stream_one_after_the_other(
    sandbox: Sandbox, lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_for(monkeypatch, 2.0)
    sent = send(sandbox, 6)
    for send_id in sent:
        await one_wait(sandbox, send_id)
    (watcher,) = [one for _, one in WatcherPool.for_running_loop()._watchers]
    assert (streams(sandbox), len(lookups)) == (1, 1)
    assert reads(sandbox) + lists(sandbox) <= len(sent)
    assert not watcher.ended
    await until(lambda: watcher.ended, "the watcher has ended")
    pool = WatcherPool.for_running_loop()
    assert not pool._watchers
    assert not pool._lookups
    await until(lambda: has_no_stream(sandbox), "the stream is closed")
    await until(lambda: not watcher._tasks.running, "its tasks have ended")


def test_an_event_loop_that_ends_closes_the_stream_at_once(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    keep_for(monkeypatch, 600.0)
    kept: list[bool] = []

    async def run(send_id: str) -> None:
        await one_wait(sandbox, send_id)
        kept.append(not WatcherPool.for_running_loop()._watchers[0][1].ended)

    began = time.monotonic()
    for send_id in send(sandbox, 3):
        asyncio.run(run(send_id), debug=True)
        gc.collect()
    assert time.monotonic() - began < 30
    assert kept == [True, True, True]
    asyncio.run(until(lambda: has_no_stream(sandbox), "the streams are closed"))
    assert [str(one.message) for one in recwarn if one.category is ResourceWarning] == []


async def test_a_key_that_was_replaced_is_not_followed_for_ever(
    sandbox: Sandbox, lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the old one is still accepted, and a wait begins before the last one has ended."""
    keep_for(monkeypatch, 600.0)
    sandbox.key("first-key")
    sandbox.connect(key="first-key")
    sent = send(sandbox, 4)
    await one_wait(sandbox, sent[0])
    ((_, first),) = WatcherPool.for_running_loop()._watchers
    sandbox.connect()
    async with waits(sent[1:2]) as early:
        await until(lambda: len(first._waits) == 1)
        wait_timing(monkeypatch, repeat_lookup=0.0)
        await one_wait(sandbox, sent[2])
        assert not first.ended, "one of its waits has not"
        Mail(sandbox).event("delivered", sent[1])
        assert (await asyncio.wait_for(early[0], 30))["status"] == "reached"
    await until(lambda: first.ended, "the old key is not followed any more")
    ((_, second),) = WatcherPool.for_running_loop()._watchers
    assert second.settings.api_key == sandbox.api_key


async def test_a_wait_joins_the_watcher_while_airflow_cannot_return_the_connection(
    sandbox: Sandbox, lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, repeat_lookup=0.0)
    sent = send(sandbox, 2)
    async with waits(sent[:1]):
        await until(lambda: streams(sandbox) == 1)

        async def outage(conn_id: str) -> Any:
            lookups.append(conn_id)
            raise OSError("the database is down")

        monkeypatch.setattr(connection, "read_connection", outage)
        await one_wait(sandbox, sent[1])
    assert len(lookups) == 2
    assert streams(sandbox) == 1


async def test_what_is_known_of_the_stream_outlives_a_watcher(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_for(monkeypatch, 0.0)
    sandbox.settings(events_in_plan=False)
    sent = send(sandbox, 3)
    for send_id in sent:
        await one_wait(sandbox, send_id, seen=None, poll_interval=0.1)
    assert streams(sandbox) == 1
    assert not WatcherPool.for_running_loop()._watchers
