"""The pacer against a server that counts in fixed windows: next to no refusal, and hardly any of the cap is lost."""

from __future__ import annotations

import asyncio
import collections
import time
from email.utils import formatdate

import pytest

from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from tests.support.paced_senders import WINDOW, Server, run, together


@pytest.mark.parametrize("cap", [1, 2, 3, 10])
def test_a_tiny_cap_is_kept(cap: int) -> None:
    server, _ = run(cap, 1, cap * 5)
    assert server.refused == 0


def test_a_batch_that_fits_into_half_the_cap_does_not_wait() -> None:
    _, took = run(600, 1, 250)
    assert took < 10


def test_without_a_cap_nothing_waits() -> None:
    server, took = run(None, 1, 10_000, latency=0.01)
    assert took < 10_000 * 0.015 / 8 + 1
    assert server.refused == 0


def test_the_first_request_goes_alone_as_does_the_first_of_a_window() -> None:
    clock = [1_000_000.0]
    pacer, server = Pacer(clock=lambda: clock[0]), Server(60)
    assert pacer.delay(0) == 0
    pacer.started()
    assert pacer.delay(1) is None
    pacer.on_response(server.answer(clock[0]))
    assert pacer.delay(0) == 0
    assert pacer.delay(1) == 0
    clock[0] += 2 * WINDOW
    assert pacer.delay(0) == 0
    pacer.started()
    assert pacer.delay(1) is None


def test_others_who_use_the_key_are_believed() -> None:
    clock = [999_960.0]
    pacer, server = Pacer(clock=lambda: clock[0], draw=lambda: 1.0), Server(60)
    for _ in range(44):
        server.answer(clock[0])
    pacer.started()
    pacer.on_response(server.answer(clock[0]))
    pacer.started()
    assert pacer.delay(0) == pytest.approx(60 / 15, abs=0.5), "15 are left for the rest of the minute"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_holds_everybody(form: str) -> None:
    clock = [1_000_000.0]
    pacer = Pacer(clock=lambda: clock[0], draw=lambda: 0.0)
    value = "30" if form == "seconds" else formatdate(clock[0] + 30, usegmt=True)
    headers = {"retry-after": value, "date": formatdate(clock[0], usegmt=True)}
    pacer.on_response(Response(status=429, headers=headers, content=b""))
    assert pacer.delay(0) == pytest.approx(30)
    assert pacer.delay(3) == pytest.approx(30)
    clock[0] += 30.1
    assert pacer.delay(0) == 0


def test_a_late_answer_of_an_old_window_changes_nothing() -> None:
    clock = [999_960.0]
    pacer, server = Pacer(clock=lambda: clock[0]), Server(60)
    for _ in range(59):
        server.answer(clock[0] + 59)
    late = server.answer(clock[0] + 59)
    clock[0] += 61
    pacer.on_response(server.answer(clock[0]))
    pacer.on_response(late)
    assert pacer.delay(0) == 0


# A share of the cap


def test_a_share_is_spread_over_the_window() -> None:
    clock = [999_960.0]
    pacer, server = Pacer(share=0.5, clock=lambda: clock[0], draw=lambda: 0.5), Server(60)
    made: list[float] = []
    while clock[0] < 999_960.0 + WINDOW - 1:
        delay = pacer.delay(0)
        assert delay is not None
        if delay == 0:
            made.append(clock[0] - 999_960.0)
            pacer.started()
            pacer.on_response(server.answer(clock[0]))
        clock[0] += max(delay, 0.01)
    thirds = collections.Counter(int(moment // 20) for moment in made)
    assert min(thirds[third] for third in range(3)) >= 7, thirds


@pytest.mark.parametrize("cap", [60, 600])
def test_a_sender_at_full_speed_does_not_starve_a_share(cap: int) -> None:
    _, (share, full) = together(cap, [0.5, 1.0], 12)
    assert min(share) >= 0.1 * 0.5 * cap - 1, share
    assert sum(full) > sum(share), "sending comes first"


def test_a_share_leaves_alone_what_others_have_not_used_yet() -> None:
    clock = [999_960.0]
    pacer, server = Pacer(share=0.5, clock=lambda: clock[0], draw=lambda: 0.0), Server(60)
    for _ in range(29):
        server.answer(clock[0])
    pacer.started()
    pacer.on_response(server.answer(clock[0]))
    # 30 are left, and 30 belong to the others at the window's beginning: it has its trickle.
    made = 1
    while clock[0] < 999_960.0 + 5:
        delay = pacer.delay(0)
        assert delay is not None
        if delay == 0:
            made += 1
            pacer.started()
            pacer.on_response(server.answer(clock[0]))
        clock[0] += max(delay, 0.01)
    assert made <= 5


# Turns


def turns(**how: int) -> Turns:
    return Turns(Pacer(), **how)


async def taken(queue: Turns, count: int) -> list[asyncio.Task[None]]:
    """Begin to wait, one after the other."""
    tasks = [asyncio.create_task(queue.acquire()) for _ in range(count)]
    for _ in range(20):
        await asyncio.sleep(0)
    return tasks


def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


def uncapped(queue: Turns) -> None:
    """Let its pacer know that there is no cap."""
    queue.pacer.on_response(Response(status=200, headers={}, content=b""))


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_turns_are_taken_in_the_order_in_which_they_are_asked_for() -> None:
    queue = turns(most=2)
    uncapped(queue)
    tasks = await taken(queue, 5)
    assert done(tasks) == [True, True, False, False, False]
    for count in (3, 4, 5):
        queue.release()
        await settled()
        assert done(tasks) == [True] * count + [False] * (5 - count)


async def test_the_first_turn_is_alone() -> None:
    queue = turns()
    tasks = await taken(queue, 3)
    assert done(tasks) == [True, False, False]
    uncapped(queue)
    queue.release()
    await settled()
    assert done(tasks) == [True] * 3


async def test_a_held_queue_lets_nobody_start() -> None:
    queue = turns()
    uncapped(queue)
    queue.hold(0.3)
    queue.hold(0.1)
    began = time.monotonic()
    async with asyncio.timeout(30):
        await asyncio.gather(*await taken(queue, 3))
    assert time.monotonic() - began >= 0.29


async def test_a_hold_meets_those_who_wait_already() -> None:
    queue = turns(most=1)
    uncapped(queue)
    first, second = await taken(queue, 2)
    began = time.monotonic()
    queue.hold(0.3)
    queue.release()
    await settled()
    assert done([first, second]) == [True, False]
    async with asyncio.timeout(30):
        await second
    assert time.monotonic() - began >= 0.29


@pytest.mark.parametrize("which", [2, 3, 4], ids=["the first who waits", "one in the middle", "the last"])
async def test_one_who_waits_and_is_cancelled_leaves_nothing(which: int) -> None:
    queue = turns(most=2)
    uncapped(queue)
    tasks = await taken(queue, 5)
    tasks[which].cancel()
    await settled()
    queue.release()
    queue.release()
    await settled()
    rest = [task for number, task in enumerate(tasks) if number != which]
    assert done(rest) == [True] * 4
    queue.release()
    queue.release()
    again = await taken(queue, 3)
    assert done(again) == [True, True, False], "two at once, no more and no fewer"
    again[2].cancel()
    await settled()


async def test_a_turn_is_given_back_whatever_happens() -> None:
    queue = turns(most=1)
    uncapped(queue)
    for _ in range(3):
        with pytest.raises(OSError, match="no"):
            async with queue.turn():
                raise OSError("no")
    task = asyncio.create_task(in_turn(queue))
    await settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (last,) = await taken(queue, 1)
    assert last.done()


async def in_turn(queue: Turns) -> None:
    async with queue.turn():
        await asyncio.Event().wait()


async def test_turns_keep_the_pace() -> None:
    """Of a cap of three nothing is left after the first answer, which counts for all who wait."""
    queue = turns()
    now = time.time()
    headers = {
        "date": formatdate(now, usegmt=True),
        "x-ratelimit-limit": "3",
        "x-ratelimit-remaining": "0",
        "x-ratelimit-reset": str(int(now) + 60),
    }
    async with queue.turn():
        queue.pacer.on_response(Response(status=200, headers=headers, content=b""))
    tasks = await taken(queue, 2)
    assert done(tasks) == [False, False]
    for task in tasks:
        task.cancel()
    await settled()
