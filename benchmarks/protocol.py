"""What the processes of a benchmark of waits say to each other. Imports nothing of Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

UNTIL_DELIVERED: Final = {"until": "delivered"}
"""The query with which the benchmarks' server responds to a timeline with 404 until it has a delivery."""


def connection_id(number: int) -> str:
    """The connection of a block of waits."""
    return f"fluxomail_{number}" if number else "fluxomail_default"


@dataclass(frozen=True)
class Task:
    """What the process of the waits is to do.

    :param kind: whose waits.
    :param sends: the sends to wait for.
    :param seconds: how long at most.
    :param poke_interval: of the peer.
    :param connections: the waits are spread over so many connections, in blocks.
    :param lag: measure how late the event loop is, which costs CPU time.
    :param memory: measure memory instead: with so many of the waits, then with all of them.
    """

    kind: str
    sends: list[str]
    seconds: float
    poke_interval: float = 60.0
    connections: int = 1
    lag: bool = False
    memory: int = 0


@dataclass(frozen=True)
class Result:
    """What came of it.

    :param fired: when each wait came back, in epoch seconds, in the order of the sends; None for those that did not.
    :param wrong: outcomes of waits other than a delivery, and errors that they raised.
    :param cpu: seconds of CPU time.
    :param lags: how late the event loop was, in seconds, each time that it was to wake up after 10 ms; of a
        run that measures it, else empty.
    :param rss: resident memory in bytes before the first wait, with some of them, with all of them; of a run that
        measures it, else empty.
    """

    fired: list[float | None]
    wrong: list[str]
    cpu: float
    lags: list[float]
    rss: list[int]
