"""What the triggers of one event loop share (promise 4): a connection that is read once, and one watcher."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.waiting.watcher_pool import WatcherPool
from tests.support.running import fire
from tests.support.watcher_pools import lookups, trigger, waits
from tests.support.watching import Mail, reads, send, streams, until

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
