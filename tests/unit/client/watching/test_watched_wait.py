"""The states of a wait: what moves it from one to the next, and what holds in each."""

from __future__ import annotations

import asyncio

import pytest

from airflow_provider_fluxomail.client.watching.wait import WaitOutcome, now
from airflow_provider_fluxomail.client.watching.watched_wait import MOST_EVENTS, State, WatchedWait, WatchedWaits
from tests.support import watched_waits
from tests.support.watched_waits import ENDED, FOLLOWING, JOINING, POLLED, SETTLE, SETTLING, event, new, watched


def in_state(waits: WatchedWaits, state: State) -> WatchedWait:
    """A wait that has come to a state."""
    one = watched(waits, seen=now())
    waits.stream_up()
    if state is State.JOINING:
        waits.join(one)
    if state in (State.FOLLOWING, State.SETTLING):
        waits.follow(one)
    if state is State.SETTLING:
        waits.on_event(event("sent"))
    if state is State.ENDED:
        waits.end(one, watched_waits.ENDING)
    assert one.state is state
    return one


@pytest.mark.parametrize(
    ("signal", "states"),
    [
        ("nothing is missing", (FOLLOWING, FOLLOWING, FOLLOWING, SETTLING, None)),
        ("something is missing", (JOINING, JOINING, JOINING, JOINING, None)),
        ("events are not enough", (POLLED, POLLED, POLLED, POLLED, None)),
        ("an event", (POLLED, JOINING, SETTLING, SETTLING, ENDED)),
        ("the stream is down", (POLLED, POLLED, POLLED, POLLED, ENDED)),
        ("the end", (ENDED, ENDED, ENDED, ENDED, ENDED)),
    ],
)
async def test_each_signal_in_each_state(signal: str, states: tuple[State | None, ...]) -> None:
    for before, after in zip(State, states, strict=True):
        waits = new()
        one = in_state(waits, before)
        if after is None:
            with pytest.raises(RuntimeError, match=f"cannot go from {before.value}"):
                watched_waits.SIGNALS[signal](waits, one)
        else:
            watched_waits.SIGNALS[signal](waits, one)
            assert one.state is after, before


async def ending_of(one: WatchedWait) -> tuple[str, str | None]:
    ending = await asyncio.wait_for(one.until_ended(), 10)
    assert isinstance(ending, WaitOutcome)
    return ending.status, ending.event


async def test_settling_ends_with_the_first_event_that_decides() -> None:
    waits = new()
    one = in_state(waits, FOLLOWING)
    waits.on_event(event("bounced", 2))
    waits.on_event(event("delivered", 1))
    assert await ending_of(one) == ("reached", "delivered")


async def test_settling_without_a_decision_follows_again() -> None:
    waits = new()
    one = in_state(waits, SETTLING)
    async with asyncio.timeout(10):
        while one.state is SETTLING:  # noqa: ASYNC110 - a state has no event
            await asyncio.sleep(SETTLE)
    assert (one.state, one.events) == (FOLLOWING, ())
    waits.on_event(event("clicked"))
    assert await ending_of(one) == ("reached", "clicked")


async def test_events_before_the_stream_counts_are_judged_once_nothing_is_missing() -> None:
    waits = new()
    one = in_state(waits, JOINING)
    waits.on_event(event("delivered"))
    await asyncio.sleep(3 * SETTLE)
    assert one.state is JOINING
    waits.follow(one)
    assert one.state is SETTLING
    assert await ending_of(one) == ("reached", "delivered")


@pytest.mark.parametrize("first", ["delivered", "bounced"])
async def test_however_many_events_come_before_the_stream_counts_the_first_decides(first: str) -> None:
    waits = new()
    one = in_state(waits, JOINING)
    for number in range(3000):
        waits.on_event(event("complained", 3000 - number))
        if number == 1000:
            waits.on_event(event(first, 0.5))
        waits.on_event(event("opened", 5000 + number))
        assert len(one.events) <= MOST_EVENTS
    waits.follow(one)
    assert await ending_of(one) == ("failed" if first == "bounced" else "reached", first)


async def test_an_event_brings_the_poll_of_a_polled_wait_forward_but_not_before_the_server_allows_it() -> None:
    waits = new()
    waits.stream_up()
    one, held = watched(waits), watched(waits, not_before=now() + 300)
    for each in (one, held):
        waits.poll(each, within=600)
    waits.on_event(event("delivered"))
    assert one.due <= now() + SETTLE
    assert held.due == held.not_before


@pytest.mark.parametrize(("age", "spread"), [(0, 5), (40, 20), (600, 100)])
async def test_a_stream_that_is_down_spreads_polls_over_the_interval_of_their_age(age: float, spread: float) -> None:
    began = now()
    waits = new()
    waits.stream_up()
    many = [watched(waits, seen=now(), age=age, interval=100) for _ in range(100)]
    for each in many:
        waits.follow(each)
    waits.stream_down()
    assert spread / 2 < max(each.due for each in many) - began <= spread + 2 * (now() - began)


async def test_a_removed_wait_is_forgotten_in_any_state() -> None:
    for state in State:
        waits = new()
        one = in_state(waits, state)
        waits.remove(one)
        assert (one.state, one.due) == (ENDED, 0)
        assert (len(waits), list(waits), list(waits.joining)) == (0, [], [])
        waits.on_event(event("delivered"))
        await asyncio.sleep(2 * SETTLE)
