"""The pacer against a server that counts in fixed windows: next to no refusal, and hardly any of the cap is lost."""

from __future__ import annotations

import asyncio
import collections
import time
from email.utils import formatdate

import pytest

from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from tests.support.paced_senders import WINDOW, Server, run

#: The begin of a window of the server.
START = 999_960.0


@pytest.mark.parametrize(
    ("cap", "messages", "most_seconds"),
    [*((cap, cap * 5, 400) for cap in (1, 2, 10)), (600, 250, 10), (None, 2000, 20)],
)
def test_a_cap_is_kept_and_nothing_waits_below_half_of_it(cap: int | None, messages: int, most_seconds: float) -> None:
    server, took = run(cap, 1, messages)
    assert server.refused == 0
    assert took < most_seconds


def pacing(draw: float = 0.5, share: float = 1.0) -> tuple[list[float], Pacer, Server]:
    """A clock, and a pacer and a server that go by it."""
    clock = [START]
    return clock, Pacer(share=share, clock=lambda: clock[0], draw=lambda: draw), Server(60)


def send_for(seconds: float, clock: list[float], pacer: Pacer, server: Server) -> list[float]:
    """Make requests as fast as the pacer allows; return when, in seconds since the window began."""
    made: list[float] = []
    while clock[0] < START + seconds:
        delay = pacer.delay(0)
        assert delay is not None
        if delay == 0:
            made.append(clock[0] - START)
            pacer.started()
            pacer.on_response(server.answer(clock[0]))
        clock[0] += max(delay, 0.01)
    return made


def test_the_first_request_goes_alone_as_does_the_first_of_a_window() -> None:
    clock, pacer, server = pacing()
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


def test_requests_of_other_clients_count() -> None:
    clock, pacer, server = pacing(draw=1.0)
    for _ in range(44):
        server.answer(clock[0])
    pacer.started()
    pacer.on_response(server.answer(clock[0]))
    pacer.started()
    assert pacer.delay(0) == pytest.approx(60 / 15, abs=0.5), "15 are left for the rest of the minute"


@pytest.mark.parametrize("value", ["30", formatdate(START + 30, usegmt=True)])
def test_a_429_holds_all_requests(value: str) -> None:
    clock, pacer, _ = pacing(draw=0.0)
    headers = {"retry-after": value, "date": formatdate(clock[0], usegmt=True)}
    pacer.on_response(Response(status=429, headers=headers, content=b""))
    assert pacer.delay(0) == pacer.delay(3) == pytest.approx(30)
    clock[0] += 30.1
    assert pacer.delay(0) == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after": "86400"},
        {"retry-after": "1e308"},
        {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"},
        *({"x-ratelimit-reset": f"{reset}"} for reset in (START + 366 * 86400, 1000 * (START + 10**9), 1e308)),
        {"x-ratelimit-limit": "60", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1e308"},
    ],
    ids=str,
)
def test_a_hold_ends_within_minutes_with_one_request_alone(headers: dict[str, str]) -> None:
    clock, pacer, server = pacing(draw=0.0)
    pacer.on_response(Response(status=429, headers={"date": formatdate(START, usegmt=True), **headers}, content=b""))
    assert 30 < (pacer.delay(0) or 0) <= 600
    clock[0] += 600
    assert (pacer.delay(0), pacer.delay(1)) == (0, None)
    pacer.on_response(Response(status=503, headers={}, content=b""))
    assert pacer.delay(1) is None, "it is still not known to be over"
    pacer.on_response(server.answer(clock[0]))
    assert pacer.delay(1) == 0


def test_a_late_response_of_an_old_window_changes_nothing() -> None:
    clock, pacer, server = pacing()
    for _ in range(59):
        server.answer(clock[0] + 59)
    late = server.answer(clock[0] + 59)
    clock[0] += 61
    pacer.on_response(server.answer(clock[0]))
    pacer.on_response(late)
    assert pacer.delay(0) == 0


# A share of the cap


def test_a_share_is_spread_over_the_window() -> None:
    made = send_for(WINDOW - 1, *pacing(share=0.5))
    thirds = collections.Counter(int(moment // 20) for moment in made)
    assert min(thirds[third] for third in range(3)) >= 7, thirds


def test_a_share_leaves_to_other_clients_what_they_have_not_used_yet() -> None:
    clock, pacer, server = pacing(draw=0.0, share=0.5)
    for _ in range(29):
        server.answer(clock[0])
    pacer.started()
    pacer.on_response(server.answer(clock[0]))
    # 30 are left, and 30 belong to the others at the window's beginning: only few are left for the share.
    assert len(send_for(5, clock, pacer, server)) <= 4


# Turns


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def acquire(queue: Turns, count: int) -> list[asyncio.Task[None]]:
    """Begin to wait for turns, one after the other."""
    tasks = [asyncio.create_task(queue.acquire()) for _ in range(count)]
    await settled()
    return tasks


def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    return [task.done() for task in tasks]


def uncapped(**how: int) -> Turns:
    """Turns whose pacer knows that there is no cap."""
    queue = Turns(Pacer(), **how)
    queue.pacer.on_response(Response(status=200, headers={}, content=b""))
    return queue


async def test_turns_are_given_in_the_order_of_the_requests() -> None:
    queue = uncapped(most=2)
    tasks = await acquire(queue, 5)
    assert done(tasks) == [True, True, False, False, False]
    for count in (3, 4, 5):
        queue.release()
        await settled()
        assert done(tasks) == [True] * count + [False] * (5 - count)


async def test_the_first_turn_is_alone() -> None:
    queue = Turns(Pacer())
    tasks = await acquire(queue, 3)
    assert done(tasks) == [True, False, False]
    queue.pacer.on_response(Response(status=200, headers={}, content=b""))
    queue.release()
    await settled()
    assert done(tasks) == [True] * 3


async def test_a_hold_delays_new_turns_and_waiting_ones() -> None:
    queue = uncapped(most=1)
    first, second = await acquire(queue, 2)
    began = time.monotonic()
    queue.hold(1.0)
    queue.hold(0.1)
    queue.release()
    (third,) = await acquire(queue, 1)
    assert done([first, second, third]) == [True, False, False]
    async with asyncio.timeout(30):
        await second
    assert time.monotonic() - began >= 0.99
    queue.release()
    await third


def test_a_wrong_clock_of_the_server_does_not_hide_the_windows_after_it() -> None:
    clock, pacer, _ = pacing()

    def respond(server_time: float) -> None:
        limit = {"limit": "60", "remaining": "0", "reset": f"{server_time + 30:.0f}"}
        headers = {"date": formatdate(server_time, usegmt=True), **{f"x-ratelimit-{k}": v for k, v in limit.items()}}
        pacer.on_response(Response(status=200, headers=headers, content=b""))

    respond(START + 86400 * 365)
    assert pacer.delay(0) == pytest.approx(30, abs=1)
    clock[0] += 60
    assert pacer.delay(0) == 0
    pacer.started()
    respond(START)
    assert pacer.delay(0) == pytest.approx(30, abs=1)


@pytest.mark.parametrize("which", [2, 3, 4], ids=["first in line", "in the middle", "last in line"])
async def test_a_waiter_that_is_cancelled_leaves_nothing(which: int) -> None:
    queue = uncapped(most=2)
    tasks = await acquire(queue, 5)
    tasks.pop(which).cancel()
    await settled()
    for _ in range(2):
        queue.release()
    await settled()
    assert done(tasks) == [True] * 4
    for _ in range(2):
        queue.release()
    again = await acquire(queue, 3)
    assert done(again) == [True, True, False], "two at once, no more and no fewer"
    again[2].cancel()
    await settled()


async def test_a_turn_is_released_whatever_happens() -> None:
    queue = uncapped(most=1)

    async def in_turn() -> None:
        async with queue.turn():
            await asyncio.Event().wait()

    with pytest.raises(OSError, match="no"):
        async with queue.turn():
            raise OSError("no")
    task = asyncio.create_task(in_turn())
    await settled()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert done(await acquire(queue, 1)) == [True]


async def test_turns_keep_the_pace() -> None:
    """Of a cap of one nothing is left after the first response, which counts for all that wait."""
    queue = Turns(Pacer())
    async with queue.turn():
        queue.pacer.on_response(Server(1).answer(time.time()))
    tasks = await acquire(queue, 2)
    assert done(tasks) == [False, False]
    for task in tasks:
        task.cancel()
    await settled()
