"""The pacer against a server that counts in fixed windows: next to no refusal, and hardly any of the cap is lost."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from email.utils import formatdate

import pytest

from airflow_provider_fluxomail.client.ratelimit import Pacer
from airflow_provider_fluxomail.client.wire import Response

WINDOW = 60


class Server:
    """Counts every request of a key in the window of its own clock, which need not be the senders'."""

    def __init__(self, cap: int | None) -> None:
        self.cap = cap
        self.counts: dict[int, int] = {}
        self.refused = 0

    def answer(self, now: float) -> Response:
        window = math.floor(now / WINDOW)
        self.counts[window] = count = self.counts.get(window, 0) + 1
        headers = {"date": formatdate(now, usegmt=True)}
        if self.cap is None:
            return Response(status=200, headers=headers, content=b"")
        reset = (window + 1) * WINDOW
        headers |= {
            "x-ratelimit-limit": str(self.cap),
            "x-ratelimit-remaining": str(max(0, self.cap - count)),
            "x-ratelimit-reset": str(reset),
        }
        if count > self.cap:
            self.refused += 1
            headers["retry-after"] = str(math.ceil(reset - now))
        return Response(status=429 if count > self.cap else 200, headers=headers, content=b"")


class Sender:
    """A batch: so many messages, so many at once."""

    def __init__(self, seed: int, messages: int, concurrency: int, clock: list[float]) -> None:
        self.pacer = Pacer(clock=lambda: clock[0], draw=random.Random(seed).random)
        self.left, self.concurrency, self.in_flight = messages, concurrency, 0
        self.requests = 0


def simulate(
    server: Server,
    senders: list[Sender],
    clock: list[float],
    *,
    latency: float,
    offset: float,
    until: float,
    seed: int = 1,
) -> float:
    """Run until all is sent; return the seconds that it took."""
    draw = random.Random(1)
    ticket = itertools.count()
    events: list[tuple[float, int, str, int]] = [(clock[0], next(ticket), "look", n) for n in range(len(senders))]
    start = clock[0]
    while events:
        clock[0], _, what, number = heapq.heappop(events)
        assert clock[0] - start < until, "a sender waits for ever"
        sender = senders[number]
        if what == "answer":
            answer = server.answer(clock[0] + offset)
            sender.in_flight -= 1
            sender.left -= answer.status == 200
            sender.pacer.saw(answer)
        while sender.in_flight < sender.concurrency and sender.left > sender.in_flight:
            delay = sender.pacer.delay(sender.in_flight)
            if delay is None:
                assert sender.in_flight, "only an answer can be waited for"
                break
            if delay > 0:
                heapq.heappush(events, (clock[0] + delay, next(ticket), "look", number))
                break
            sender.pacer.started()
            sender.in_flight += 1
            sender.requests += 1
            heapq.heappush(events, (clock[0] + latency * (0.5 + draw.random()), next(ticket), "answer", number))
    assert all(sender.left == 0 for sender in senders)
    return clock[0] - start


def run(cap: int | None, batches: int, messages: int, **how: float) -> tuple[Server, float]:
    clock = [1_000_000.0 + 60 * 0.4]
    server = Server(cap)
    senders = [Sender(n, messages // batches, 8, clock) for n in range(batches)]
    latency, offset = how.get("latency", 0.05), how.get("offset", 0.0)
    took = simulate(server, senders, clock, latency=latency, offset=offset, until=how.get("until", 86400.0))
    return server, took


@pytest.mark.parametrize("offset", [-3600.0, -0.7, 0.0, 0.3, 12.0])
@pytest.mark.parametrize("latency", [0.005, 0.05, 0.8])
@pytest.mark.parametrize("batches", [1, 2, 3])
@pytest.mark.parametrize("cap", [60, 600])
def test_promise_4_a_burst_meets_next_to_no_refusal_and_uses_the_cap(
    cap: int, batches: int, latency: float, offset: float
) -> None:
    windows = 12 if cap == 60 else 6
    messages = cap * windows
    server, took = run(cap, batches, messages, latency=latency, offset=offset)
    assert server.refused <= messages * 0.01
    # The first and the last window are not used from end to end.
    full = [count for window, count in sorted(server.counts.items())][1:-1]
    slow = 8 * batches / latency * 60 < cap * 2
    assert slow or sum(full) >= 0.95 * cap * len(full), full
    assert took < (windows / 0.95 + 2) * WINDOW or slow


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
    pacer.saw(server.answer(clock[0]))
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
    pacer.saw(server.answer(clock[0]))
    pacer.started()
    assert pacer.delay(0) == pytest.approx(60 / 15, abs=0.5), "15 are left for the rest of the minute"


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_429_holds_everybody(form: str) -> None:
    clock = [1_000_000.0]
    pacer = Pacer(clock=lambda: clock[0], draw=lambda: 0.0)
    value = "30" if form == "seconds" else formatdate(clock[0] + 30, usegmt=True)
    headers = {"retry-after": value, "date": formatdate(clock[0], usegmt=True)}
    pacer.saw(Response(status=429, headers=headers, content=b""))
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
    pacer.saw(server.answer(clock[0]))
    pacer.saw(late)
    assert pacer.delay(0) == 0
