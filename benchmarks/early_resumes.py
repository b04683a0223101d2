"""Tasks that resume soon after they have deferred: how many of them Airflow's scheduler fails.

The end of a deferred task's process is reported up to five seconds late: its supervisor sometimes misses it, and looks
again after its heartbeat interval. If the task is queued or running again when the executor reports that end, the
scheduler takes it for one that was killed.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.watching.wait import WaitTiming
from benchmarks.airflow import epoch, log_lines, running
from benchmarks.report import Row, at_most
from benchmarks.waits import server
from scripts.testbed.airflow_runner import FINAL_STATES

if TYPE_CHECKING:
    from benchmarks.airflow import Airflow

TASKS: Final = 80
DAG_ID: Final = "early_resumes"
DAG_FILES: Final = (Path(__file__).parent / "dags" / "early_resumes.py",)
#: Seconds after the deferral.
EARLY: Final = (1.0, 2.0, 4.0)
_REPORTED: Final = re.compile(
    r"^(\S+).*Received executor event with state success for task instance TaskInstanceKey\(.*?"
    r"run_id='([^']+)', try_number=\d+, map_index=(\d+)\)"
)
_DEFERRED: Final = "Pausing task as DEFERRED"


@dataclasses.dataclass(frozen=True)
class Resumes:
    """What became of tasks whose trigger fired so many seconds after they deferred.

    :param killed: those that Airflow failed.
    :param late: seconds from a deferral to the executor's report that its process has ended, ascending.
    """

    seconds: float
    killed: int
    late: list[float]


def measure(airflow: Airflow, seconds: float, count: int = TASKS) -> Resumes:
    """Let tasks defer for so many seconds."""
    run_id = f"after-{seconds:g}"
    airflow.runner.trigger(DAG_ID, run_id, conf={"seconds": seconds, "count": count})
    airflow.until(
        "all have ended",
        DAG_ID,
        run_id,
        lambda rows: len(rows) == count and {row["state"] for row in rows} <= FINAL_STATES,
    )
    states = collections.Counter(row["state"] for row in airflow.tasks(DAG_ID, run_id))
    found = Resumes(seconds, count - states["success"], sorted(_late(airflow, run_id)))
    late = ", ".join(f"{sum(one > limit for one in found.late)} > {limit} s" for limit in (1, 2, 4, 6, 8))
    print(f"    after {seconds:g} s: {found.killed} of {count} killed; reported late: {late}", file=sys.stderr)
    return found


def _late(airflow: Airflow, run_id: str) -> list[float]:
    reported: dict[int, float] = {}
    for line in airflow.runner.component("scheduler").log.read_text(errors="replace").splitlines():
        if (match := _REPORTED.search(line)) and match[2] == run_id:
            # The first one; the second is that of the resumed task.
            reported.setdefault(int(match[3]), epoch(match[1]))
    folder = airflow.runner.logs / "tasks" / f"dag_id={DAG_ID}" / f"run_id={run_id}" / "task_id=wait"
    late = []
    for index, at in reported.items():
        lines = log_lines((folder / f"map_index={index}").glob("attempt=1.log"))
        if deferred := [epoch(line["timestamp"]) for line in lines if line["event"].startswith(_DEFERRED)]:
            late.append(at - deferred[0])
    return late


def bench() -> list[Row]:
    """Each number of seconds once, on the LocalExecutor."""
    case, default = f"{TASKS} early resumes", WaitTiming().resume_after
    with server() as one, running(one, DAG_FILES, AIRFLOW__CORE__PARALLELISM="8") as airflow:
        airflow.runner.wait_for_dag(DAG_ID)
        early = [measure(airflow, seconds) for seconds in EARLY]
        usual = measure(airflow, default)
    return [
        *(Row(case, f"killed, {one.seconds:g} s after deferring", one.killed) for one in early),
        at_most(case, f"killed, {default:g} s after deferring", usual.killed, 0),
        Row(case, "slowest report of a deferred process, s", max(late for one in (*early, usual) for late in one.late)),
    ]
