"""Simulated senders under one rate limit."""

from __future__ import annotations

import collections
import heapq
import itertools
import math
import random
from email.utils import formatdate

from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.pacing import Pacer

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
    """A batch of this many messages, with this many at once."""

    def __init__(self, seed: int, messages: int, concurrency: int, clock: list[float], share: float = 1.0) -> None:
        self.pacer = Pacer(share=share, clock=lambda: clock[0], draw=random.Random(seed).random)
        self.counts: collections.Counter[int] = collections.Counter()
        self.left, self.concurrency, self.in_flight = messages, concurrency, 0
        self.requests = 0
        self.looks_at = -math.inf


def simulate(
    server: Server,
    senders: list[Sender],
    clock: list[float],
    *,
    latency: float,
    offset: float,
    until: float,
    seconds: float = math.inf,
) -> float:
    """Run until all is sent, or for so long; return the seconds that it took."""
    draw = random.Random(1)
    ticket = itertools.count()
    events: list[tuple[float, int, str, int]] = [(clock[0], next(ticket), "look", n) for n in range(len(senders))]
    start = clock[0]
    while events:
        clock[0], _, what, number = heapq.heappop(events)
        if clock[0] - start > seconds:
            return seconds
        assert clock[0] - start < until, "a sender waits for ever"
        sender = senders[number]
        if what == "answer":
            answer = server.answer(clock[0] + offset)
            sender.counts[math.floor((clock[0] + offset) / WINDOW)] += 1
            sender.in_flight -= 1
            sender.left -= answer.status == 200
            sender.pacer.on_response(answer)
        while sender.in_flight < sender.concurrency and sender.left > sender.in_flight:
            delay = sender.pacer.delay(sender.in_flight)
            if delay is None:
                assert sender.in_flight, "only an answer can be waited for"
                break
            if delay > 0:
                # One poll at a time: each response would start another series of them.
                if not clock[0] < sender.looks_at <= clock[0] + delay:
                    sender.looks_at = clock[0] + delay
                    heapq.heappush(events, (sender.looks_at, next(ticket), "look", number))
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


def together(
    cap: int, shares: list[float], windows: int, *, latency: float = 0.05, offset: float = 0.0
) -> tuple[Server, list[list[int]]]:
    """Let several use a key for some minutes, as much as each may; return what each did in the full windows."""
    clock = [999_960.0 + 0.4 * WINDOW]
    server = Server(cap)
    senders = [Sender(number, 10**9, 8, clock, share) for number, share in enumerate(shares)]
    simulate(server, senders, clock, latency=latency, offset=offset, until=math.inf, seconds=windows * WINDOW)
    full = sorted(server.counts)[1:-1]
    return server, [[sender.counts[window] for window in full] for sender in senders]
