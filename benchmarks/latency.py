"""From the event to the green task on a real Airflow: 1, 10 and 200 deferred waits, against deferrable HTTP sensors.

The time of the event is that on the sandbox's timeline; a task is green at the ``end_date`` in Airflow's database. The
steps between are taken from the logs of the tasks.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.airflow import epoch, log_lines, running
from benchmarks.report import Row, at_most, percentile
from benchmarks.waits import server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.airflow import Airflow

#: Waits to rounds.
ROUNDS: Final = {1: 3, 10: 1, 200: 1}
_DAGS: Final = (Path(__file__).parent / "dags" / "latency.py",)
_OWN: Final = "latency_fluxomail"
_WORKER: Final = "latency_worker"
_PEER: Final = "latency_http_5"
_DEFAULT_PEER: Final = "latency_http"
#: Deliveries a second; Airflow stores at most some 200 ends of triggers a second.
_DELIVERIES: Final = 20.0
#: Between the deferral of the last wait and the first delivery, at random: a poll must not have its phase from here.
_REST_SECONDS: Final = (5.0, 10.0)
#: Every try of a task says this in its log when it starts.
_WORKER_BEGINS: Final = "Worker startup parse complete"
_FIRED: Final = "Trigger fired event"


@dataclasses.dataclass(frozen=True)
class Green:
    """The way of one wait from its event to its end, in epoch seconds.

    :param fired: when the trigger fired; ``None`` if Airflow has lost that line of its log, as it does at times.
    :param queued: when the scheduler queued the task again; ``None`` if it ended in the triggerer.
    :param began: when the second worker process began.
    """

    event: float
    fired: float | None
    queued: float | None
    began: float | None
    green: float

    @property
    def seconds(self) -> float:
        """From the event to the end."""
        return self.green - self.event


class Latency:
    """Runs of waits on one Airflow."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self._runs = collections.Counter[str]()

    def measure(self, dag_id: str, count: int, rounds: int) -> list[Green]:
        """Let waits of a Dag begin, deliver their sends, and return how each ended; round after round."""
        found: list[Green] = []
        for _ in range(rounds):
            found += self._round(dag_id, count)
        p50, p99 = (percentile((one.seconds for one in found), percent) for percent in (50, 99))
        print(f"    {dag_id}, {count}: p50 {p50:.2f} s, p99 {p99:.2f} s", file=sys.stderr)
        return found

    def _round(self, dag_id: str, count: int) -> list[Green]:
        airflow = self._airflow
        self._runs[dag_id] += 1
        run_id = f"{count}-{self._runs[dag_id]}"
        sends = airflow.server.make_sends(count, name=f"{dag_id}-{run_id}")
        airflow.runner.trigger(dag_id, run_id, conf={"sends": sends})
        airflow.until_deferred(dag_id, run_id, count)
        time.sleep(random.uniform(*_REST_SECONDS))
        asyncio.run(airflow.server.deliver(sends, count / _DELIVERIES))
        rows = airflow.until_green(dag_id, run_id)
        events = airflow.server.delivered_at(sends)
        return [self._green(row, events[send_id]) for row, send_id in zip(rows, sends, strict=True)]

    def _green(self, row: dict[str, Any], event: float) -> Green:
        run, index = row["dag_run_id"], row["map_index"]
        folder = self._airflow.runner.logs / "tasks" / f"dag_id={row['dag_id']}" / f"run_id={run}" / "task_id=wait"
        folder /= f"map_index={index}"
        ends = [(line["event"], epoch(line["timestamp"])) for line in log_lines(folder.glob("*.trigger.*.log"))]
        lines = log_lines(folder.glob("attempt=?.log"))
        begins = [epoch(line["timestamp"]) for line in lines if line["event"] == _WORKER_BEGINS]
        resumed = len(begins) > 1
        return Green(
            event=event,
            fired=max((at for text, at in ends if text == _FIRED), default=None),
            queued=epoch(row["queued_when"]) if resumed else None,
            began=begins[-1] if resumed else None,
            green=epoch(row["end_date"]),
        )


def bench() -> list[Row]:
    """All sizes of all Dags, on one Airflow."""
    rows: list[Row] = []
    with server() as one, running(one, _DAGS) as airflow:
        for dag_id in (_OWN, _WORKER, _PEER, _DEFAULT_PEER):
            airflow.runner.wait_for_dag(dag_id)
        latency = Latency(airflow)
        # What Airflow does only once is nobody's latency.
        latency.measure(_OWN, 1, 1)
        for count, rounds in ROUNDS.items():
            own, peer, default = (latency.measure(dag_id, count, rounds) for dag_id in (_OWN, _PEER, _DEFAULT_PEER))
            rows += _rows(f"event to green, {_waits(count)}", own, peer, default)
        rows += _parts("event to green: the parts", own)
        rows += _worker_parts("event to green in a worker, 10 waits", latency.measure(_WORKER, 10, 1))
    return rows


def _waits(count: int) -> str:
    return f"{count} wait{'s' if count > 1 else ''}"


def _rows(case: str, own: Sequence[Green], peer: Sequence[Green], default: Sequence[Green]) -> list[Row]:
    p50, p99 = ([percentile((one.seconds for one in some), q) for some in (own, peer, default)] for q in (50, 99))
    return [
        at_most(case, "p50 s, peer polls every 5 s", p50[0], 2.0, p50[1]),
        at_most(case, "p99 s, peer polls every 5 s", p99[0], 5.0, p99[1]),
        Row(case, "p50 s, peer with its default, 60 s", p50[0], p50[2]),
        Row(case, "p99 s, peer with its default, 60 s", p99[0], p99[2]),
    ]


def _parts(case: str, waits: Sequence[Green]) -> list[Row]:
    """From one step to the next, the median of each."""
    logged = [(one, one.fired) for one in waits if one.fired]
    steps = {
        "event to fired: stream, watcher and trigger": [fired - one.event for one, fired in logged],
        "fired to green: Airflow's triggerer and database": [one.green - fired for one, fired in logged],
    }
    return [Row(case, f"{name}, p50 s", percentile(seconds, 50)) for name, seconds in steps.items()]


def _worker_parts(case: str, waits: Sequence[Green]) -> list[Row]:
    """The same of waits whose success needs a worker."""
    resumed = [(one, one.fired, one.queued, one.began) for one in waits if one.fired and one.queued and one.began]
    steps = {
        "event to fired: stream, watcher and trigger": [fired - one.event for one, fired, _, _ in resumed],
        "fired to queued: Airflow's triggerer and scheduler": [queued - fired for _, fired, queued, _ in resumed],
        "queued to process: Airflow's executor": [began - queued for _, _, queued, began in resumed],
        "process to green": [one.green - began for one, _, _, began in resumed],
        "all together": [one.seconds for one, _, _, _ in resumed],
    }
    return [Row(case, f"{name}, p50 s", percentile(seconds, 50)) for name, seconds in steps.items()]
