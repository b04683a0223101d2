"""The progress of a batch: what a retry and a deferral request again, and that its state does not grow (promise 1)."""

from __future__ import annotations

import json
import random

import pytest

from airflow_provider_fluxomail.sending.batch.progress import Kind, Progress


def keys(count: int) -> list[str]:
    return [f"key-{number}" for number in range(count)]


def leg(progress: Progress, count: int, outcomes: dict[int, Kind | None], stop: int | None = None) -> list[int]:
    """Request what is wanted, up to ``stop``; a ``None`` outcome stays open."""
    requested = []
    for position, key in enumerate(keys(count)):
        if position == stop:
            break
        if progress.wants(position, key):
            requested.append(position)
            kind = outcomes.get(position, "sent")
            if kind is not None:
                progress.settle(position, kind)
    return requested


def again(progress: Progress, *, same_try: bool) -> Progress:
    return Progress(json.loads(json.dumps(progress.state())), same_try=same_try)


def test_a_new_try_requests_what_is_not_known_to_be_sent() -> None:
    first = Progress()
    leg(first, 10, {2: "rejected", 4: "unknown", 6: None, 1: "replayed"}, stop=8)
    assert vars(first.counts(10)) == {"total": 10, "sent": 4, "replayed": 1, "rejected": 1, "unknown": 1}
    second = again(first, same_try=False)
    assert leg(second, 10, {2: "rejected"}) == [2, 4, 6, 8, 9]
    assert vars(second.counts(10)) == {"total": 10, "sent": 8, "replayed": 1, "rejected": 1, "unknown": 0}


def test_the_same_try_continues_where_it_stopped() -> None:
    first = Progress()
    leg(first, 10, {2: "rejected", 4: "unknown", 6: None}, stop=8)
    second = again(first, same_try=True)
    assert leg(second, 10, {}) == [6, 8, 9]
    assert vars(second.counts(10)) == {"total": 10, "sent": 8, "replayed": 0, "rejected": 1, "unknown": 1}


def test_a_leg_that_stops_before_the_known_positions_loses_nothing() -> None:
    first = Progress()
    leg(first, 10, {2: None, 7: "unknown"}, stop=9)
    second = again(first, same_try=False)
    leg(second, 10, {2: None}, stop=4)
    third = again(second, same_try=False)
    assert third.known == second.known == 9
    assert third.known_digest == first.state()["digest"]
    assert leg(third, 10, {}) == [2, 7, 9]


@pytest.mark.parametrize(
    ("pattern", "kind"), [("every other", None), ("random", "rejected"), ("random", "unknown"), ("all", "unknown")]
)
def test_the_state_stays_small_and_never_skips_what_was_not_sent(pattern: str, kind: Kind | None) -> None:
    draw = random.Random(7)
    count = 20_000
    open_ = [
        number
        for number in range(count)
        if pattern == "all" or (number % 2 if pattern == "every other" else draw.random() < 0.3)
    ]
    first = Progress()
    leg(first, count, dict.fromkeys(open_, kind))
    state = first.state()
    assert len(json.dumps(state)) < 32 * 1024
    assert set(open_) <= set(leg(Progress(state), count, {}))


def test_what_was_counted_before_and_is_requested_again_makes_no_count_negative() -> None:
    first = Progress()
    leg(first, 5_000, {number: "replayed" if number % 2 else "unknown" for number in range(5_000)})
    second = again(first, same_try=False)
    assert len(leg(second, 5_000, dict.fromkeys(range(5_000), "replayed"))) > 2_500
    assert vars(second.counts(5_000)) == {"total": 5_000, "sent": 0, "replayed": 5_000, "rejected": 0, "unknown": 0}


@pytest.mark.parametrize("state", [{}, {"done": "x"}, {"done": 3}, {"done": 1, "pending": [[1]]}, {"text": "nonsense"}])
def test_a_state_that_is_not_ours_is_none(state: dict[str, object]) -> None:
    assert leg(Progress(state), 3, {}) == [0, 1, 2]
