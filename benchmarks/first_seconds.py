"""Whether a wait ends sooner, and costs less, if its worker polls for some seconds before it defers.

One Dag whose tasks send and wait, in a real Airflow; each run's messages are delivered a set time after they were sent.
``triggerer`` are tasks whose success needs no worker, ``worker`` those that resume in one.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx

from benchmarks.airflow import epoch, log_lines, running
from benchmarks.report import Row
from benchmarks.waits import server
from scripts.testbed.airflow_runner import FINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.airflow import Airflow

#: From a send to its delivery, in seconds.
DELIVERIES: Final = (0.5, 2.0, 5.0, 15.0, 60.0)
ROUNDS: Final = 3
DAG_ID: Final = "first_seconds"
DAG_FILES: Final = (Path(__file__).parent / "dags" / "first_seconds.py",)
#: The first line that each process of a task logs.
_PROCESS_BEGINS: Final = "::group::Pre Execute"


@dataclasses.dataclass(frozen=True)
class Ended:
    """How one task ended.

    :param late: seconds from the delivery to the end of the task.
    :param worker: seconds for which it took a worker slot.
    :param polls: requests for its timeline, of workers and triggerer.
    """

    late: float
    worker: float
    polls: float


class FirstSeconds:
    """Runs of the Dag."""

    def __init__(self, airflow: Airflow) -> None:
        self._airflow = airflow
        self._runs = 0

    def measure(self, delivery: float, rounds: int) -> dict[str, Ended]:
        """Run the Dag some times, and return the median of each task's figures."""
        self._airflow.server.control("settings", event_delay=delivery, default_outcome="delivered")
        found = [self._round() for _ in range(rounds)]
        middle = {
            task_id: Ended(
                *(statistics.median(column) for column in zip(*(row[task_id] for row in found), strict=True))
            )
            for task_id in found[0]
        }
        for task_id, one in middle.items():
            print(
                f"    {delivery:g} s, {task_id}: green {one.late:.1f} s after the delivery, "
                f"{one.worker:.1f} s in workers, {one.polls:g} polls",
                file=sys.stderr,
            )
        return middle

    def _round(self) -> dict[str, tuple[float, float, float]]:
        airflow = self._airflow
        self._runs += 1
        run_id = f"run-{self._runs}"
        airflow.runner.trigger(DAG_ID, run_id)
        airflow.until(
            "all have ended",
            DAG_ID,
            run_id,
            lambda rows: bool(rows) and {row["state"] for row in rows} <= FINAL_STATES,
            None,
        )
        return {row["task_id"]: self._ended(run_id, row) for row in airflow.tasks(DAG_ID, run_id, None)}

    def _ended(self, run_id: str, row: dict[str, Any]) -> tuple[float, float, float]:
        airflow, task_id = self._airflow, row["task_id"]
        if row["state"] != "success":
            raise RuntimeError(f"{task_id} of {run_id} is {row['state']}")
        send_id = airflow.runner.xcom(DAG_ID, run_id, task_id)["send_id"]
        folder = airflow.runner.logs / "tasks" / f"dag_id={DAG_ID}" / f"run_id={run_id}" / f"task_id={task_id}"
        lines = [(line["event"], epoch(line["timestamp"])) for line in log_lines(folder.glob("attempt=1.log"))]
        starts = [number for number, (text, _) in enumerate(lines) if text == _PROCESS_BEGINS]
        processes = [lines[start:end] for start, end in itertools.pairwise([*starts, len(lines)])]
        worker = sum(part[-1][1] - part[0][1] for part in processes)
        late = epoch(row["end_date"]) - airflow.server.delivered_at([send_id])[send_id]
        url = f"{airflow.server.url}/_sandbox/requests"
        requests = httpx.get(url, params={"path": f"/api/v1/sends/{send_id}"}, trust_env=False).json()["requests"]
        return late, worker, float(len(requests))


def bench() -> list[Row]:
    """Each time of delivery; for information."""
    with server() as one, running(one, DAG_FILES) as airflow:
        airflow.runner.wait_for_dag(DAG_ID)
        first = FirstSeconds(airflow)
        print("    not counted, for what Airflow does only once:", file=sys.stderr)
        first.measure(0.5, 1)
        found = {delivery: first.measure(delivery, ROUNDS) for delivery in DELIVERIES}
    return [row for delivery, tasks in found.items() for row in _rows(delivery, tasks)]


def _rows(delivery: float, tasks: dict[str, Ended]) -> Sequence[Row]:
    case = f"delivered after {delivery:g} s"
    return [
        Row(case, f"{task_id}: {name}", value)
        for task_id, one in sorted(tasks.items())
        for name, value in (("green after, s", one.late), ("in workers, s", one.worker), ("polls", one.polls))
    ]
