"""Which of the polls that are due comes next."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_fluxomail.client.watching import poll_queue, watched_wait
from airflow_provider_fluxomail.client.watching.poll_queue import MOST_YIELDED, PollQueue
from airflow_provider_fluxomail.client.watching.wait import Wait
from airflow_provider_fluxomail.client.watching.watched_wait import WatchedWait

INTERVAL = 30.0
NOW = 1_000_000.0
Order = Callable[..., list[str]]


def waiting(name: str, *, age: float, overdue: float, deadline: float = NOW + 3600) -> tuple[WatchedWait, float]:
    """A wait, and when its poll became due. Seconds."""
    wait = Wait(name, started=NOW - age, deadline=deadline)
    return WatchedWait(wait, INTERVAL, lambda level, text: None), NOW - overdue


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Order:
    """The order in which waits are polled that are all due."""

    def polled(*waits: tuple[WatchedWait, float]) -> list[str]:
        queue: PollQueue[WatchedWait] = PollQueue()
        monkeypatch.setattr(poll_queue, "now", lambda: min(due for _, due in waits))
        for watched, due in waits:
            queue.plan(watched, due)
        monkeypatch.setattr(poll_queue, "now", lambda: NOW)
        monkeypatch.setattr(watched_wait, "now", lambda: NOW)
        found = []
        while one := queue.pop():
            found.append(one.wait.send_id)
        return found

    return polled


def test_new_waits_are_polled_in_the_order_in_which_they_are_due(order: Order) -> None:
    waits = [waiting(str(overdue), age=age, overdue=overdue) for age, overdue in ((59, 1), (20, 3), (40, 2))]
    assert order(*waits) == ["3", "2", "1"]


def test_a_new_wait_goes_before_an_old_one_that_has_been_due_for_longer(order: Order) -> None:
    assert order(waiting("old", age=300, overdue=140), waiting("new", age=10, overdue=0)) == ["new", "old"]


def test_an_old_wait_gives_way_in_proportion_to_its_age(order: Order) -> None:
    assert order(waiting("older", age=600, overdue=100), waiting("old", age=300, overdue=0)) == ["old", "older"]


@pytest.mark.parametrize("age", [300.0, 86_400.0])
def test_an_old_wait_does_not_starve(order: Order, age: float) -> None:
    yielded = min(MOST_YIELDED, age / 60) * INTERVAL
    assert order(waiting("new", age=10, overdue=0), waiting("old", age=age, overdue=yielded + 1)) == ["old", "new"]
    assert order(waiting("new", age=10, overdue=0), waiting("old", age=age, overdue=yielded - 1)) == ["new", "old"]


def test_a_last_poll_comes_first(order: Order) -> None:
    last = waiting("last", age=86_400, overdue=0, deadline=NOW)
    assert order(waiting("new", age=10, overdue=50), last) == ["last", "new"]


def test_a_poll_is_not_due_early_and_a_new_plan_replaces_the_old_one(order: Order) -> None:
    late, due = waiting("late", age=10, overdue=-1), waiting("due", age=10, overdue=0)
    assert order(late, due) == ["due"]
    moved = waiting("moved", age=10, overdue=20)[0]
    assert order((moved, NOW - 20), (moved, NOW + 20), due) == ["due"]
    assert order((moved, NOW + 20), (moved, NOW - 20), due) == ["moved", "due"]
