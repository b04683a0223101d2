"""What it costs to follow the event stream, from the first wait on: requests, bytes, CPU time; with many keys, and with
many triggerers on one key.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.client.watching.wait import Wait
from airflow_provider_fluxomail.client.watching.watched_wait import WatchTiming
from airflow_provider_fluxomail.client.watching.watcher import Watcher
from benchmarks.protocol import Task
from benchmarks.report import Row, at_most, percentile
from benchmarks.server import BUSY_SENDS
from benchmarks.waits import CAP, KEY, POLL_SHARE, Figures, Server, Waiting, measure, server

FEW: Final = (1, 5, 25)
FEW_SECONDS: Final = 60.0
BUSY_RATE: Final = 1_000
"""Events a second of a busy organization."""
BUSY_SECONDS: Final = 30.0
BUSY_END: Final = 90.0
KEYS: Final = 50
WAITS_PER_KEY: Final = 40
TRIGGERERS: Final = 20
WAITS_PER_TRIGGERER: Final = 50
STREAM_LIMIT: Final = 5
_POLLING: Final = {"AIRFLOW__FLUXOMAIL__FOLLOW_EVENTS": "False"}


def bench_few() -> list[Row]:
    """1, 5 and 25 waits of a minute, against the same with ``follow_events`` off."""

    def run(count: int, environment: dict[str, str]) -> Figures:
        with server() as one:
            sends = one.make_sends(count)
            return measure(
                one,
                sends,
                "fluxomail",
                spread=1.0,
                delay=FEW_SECONDS,
                seconds=2.5 * FEW_SECONDS,
                environment=environment,
            )

    # At once: they do nothing most of the time.
    with ThreadPoolExecutor() as pool:
        runs = [(count, pool.submit(run, count, {}), pool.submit(run, count, _POLLING)) for count in FEW]
    rows = []
    for count, following, polling in runs:
        own, peer, case = (
            following.result(),
            polling.result(),
            f"{count} wait{'s' * (count > 1)} of {FEW_SECONDS:.0f} s",
        )
        rows += [
            Row(case, "requests", own.requests, peer.requests, "<= peer", own.requests <= peer.requests),
            Row(case, "bytes", own.received, peer.received),
            at_most(case, "slowest event to fire, s", own.delays[-1], 1.0, peer.delays[-1]),
            at_most(case, "refused or unresolved", own.refused + own.unresolved, 0, peer.refused + peer.unresolved),
        ]
    return rows


def bench_busy() -> list[Row]:
    """An organization with 1,000 events a second: what an event costs, and that few waits do not pay for it."""

    def run(count: int, environment: dict[str, str], left: int = 0) -> Figures:
        with server() as one:
            one.make_sends(BUSY_SENDS, name="busy")
            sends = one.make_sends(count)
            one.make_busy(BUSY_RATE)
            return measure(
                one,
                sends,
                "fluxomail",
                spread=1.0,
                delay=BUSY_SECONDS,
                seconds=BUSY_END,
                left=left,
                environment=environment,
            )

    # As many stay: with few left, the stream would not be worth it any more.
    many = run(2 * WAITS_PER_KEY, {}, left=WAITS_PER_KEY)
    few, polled = run(1, {}), run(1, _POLLING)
    case = f"{BUSY_RATE:,} events/s"
    return [
        Row(case, f"{WAITS_PER_KEY} waits: KB/s", many.received / BUSY_END / 1024),
        Row(case, f"{WAITS_PER_KEY} waits: CPU of one event, us", many.cpu / (BUSY_RATE * BUSY_END) * 1e6),
        at_most(case, f"{WAITS_PER_KEY} waits: event to fire, p99 s", many.p99, 1.0),
        Row(case, "1 wait: KB", few.received / 1024, polled.received / 1024),
        Row(case, "1 wait: CPU s", few.cpu, polled.cpu),
        at_most(case, "1 wait: requests", few.requests, polled.requests + 2, polled.requests),
    ]


def bench_keys() -> list[Row]:
    """50 connections, each to an organization of its own, with 40 waits each."""
    keys = [f"fm_key_{number}" for number in range(KEYS)]
    with server() as one:
        sends: list[str] = []
        for key in keys:
            # Without a rate limit while the sends are made.
            one.control("keys", key=key, organization=f"org_{key}")
            sends += one.make_sends(WAITS_PER_KEY, key=key)
            one.put_key(key, organization=f"org_{key}")
        task = Task("fluxomail", sends, 0.0, connections=KEYS, memory=len(sends) // 2)
        with Waiting(one, task, keys=keys) as waiting:
            waiting.begin()
            _, before, after = waiting.result().rss
        figures = measure(one, sends, "fluxomail", spread=30.0, delay=3.0, seconds=90.0, keys=keys, lag=True)
    case = f"{KEYS} keys with {WAITS_PER_KEY} waits each"
    return [
        at_most(case, "event to fire, p99 s", figures.p99, 1.0),
        at_most(case, "lag of the event loop, p99 ms", percentile(figures.lags, 99) * 1000, 50.0),
        Row(case, "lag of the event loop, most, ms", max(figures.lags) * 1000),
        Row(case, "memory of a key with its waits, KB", (after - before) / 1024 / (KEYS // 2)),
        Row(case, "requests per key", figures.requests / KEYS),
        Row(case, "CPU s", figures.cpu),
        at_most(case, "refused or unresolved", figures.refused + figures.unresolved, 0),
    ]


def bench_triggerers() -> list[Row]:
    """20 watchers on one key, as 20 triggerers have; then with fewer streams than that."""
    rows = []
    # As in ``waits-timeline``: each wait that is polled is due once in this many seconds.
    theory = TRIGGERERS * WAITS_PER_TRIGGERER / (POLL_SHARE * CAP / 60)
    for limit in (None, "refuse", "close_oldest"):
        with server() as one:
            if limit:
                one.control("settings", streams_per_key=STREAM_LIMIT, streams_over_limit=limit)
            sends = one.make_sends(TRIGGERERS * WAITS_PER_TRIGGERER)
            began = time.monotonic()
            delays = asyncio.run(_watch(one, sends))
            requests, refused, _, streams = one.counts()
        minutes = (time.monotonic() - began) / 60
        case = f"{TRIGGERERS} triggerers on one key" + (f", {STREAM_LIMIT} streams, {limit}" if limit else "")
        p99 = percentile(delays, 99)
        used = 100 * requests / minutes / CAP
        print(
            f"    {case}: {requests} requests, {streams} streams, {refused} refused, p99 {p99:.2f} s", file=sys.stderr
        )
        rows += [
            Row(case, "streams opened", streams),
            Row(case, "requests", requests),
            Row(case, "used of the rate limit, %", used, None, "<= 50", used <= 50),
            at_most(case, "slowest event to fire, times theory of polls", max(delays) / theory, 1.3)
            if limit
            else at_most(case, "event to fire, p99 s", p99, 1.0),
            at_most(case, "unresolved", len(sends) - len(delays), 0),
            # A stream that a key may not have is refused; that nothing else is shows without the limit.
            Row(case, "refused", refused) if limit else at_most(case, "refused", refused, 0),
        ]
    return rows


async def _watch(server: Server, sends: list[str]) -> list[float]:
    """Return the seconds from each event to the end of its wait."""
    settings = ClientSettings(api_key=KEY, base_url=server.url)
    # As for 20 triggerers: each takes its part of what waiting may use.
    watchers = [
        Watcher(settings, share=POLL_SHARE / TRIGGERERS, timing=WatchTiming(linger=0.0)) for _ in range(TRIGGERERS)
    ]
    ended: dict[str, float] = {}

    async def wait(number: int) -> None:
        now = time.time()
        one = Wait(sends[number], started=now, deadline=now + 3600.0, seen=now)
        outcome = await watchers[number % TRIGGERERS].watch(one, interval=30.0, log=lambda *_: None)
        if outcome.status == "reached":
            ended[one.send_id] = time.time()

    waits = [asyncio.create_task(wait(number)) for number in range(len(sends))]
    await asyncio.sleep(30.0)
    asked = await server.deliver(sends, 30.0)
    await asyncio.wait(waits, timeout=300.0)
    for one in waits:
        one.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    return [ended[send_id] - asked[send_id] for send_id in ended]


logging.getLogger("airflow_provider_fluxomail").setLevel(logging.WARNING)
