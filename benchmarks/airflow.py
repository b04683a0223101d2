"""200 waits on a real Airflow, against as many deferrable HTTP sensors: what they take of the workers, and how long.

Scheduler, Dag processor, API server and one triggerer as processes, LocalExecutor, PostgreSQL. One Dag with mapped
waits after the other, on the same Airflow and the same server, with a key without a cap: refusals are another case's.
"""

from __future__ import annotations

import asyncio
import collections
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY
from benchmarks.report import Row, at_most
from benchmarks.waits import server
from scripts.testbed.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.testbed.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.waits import Server

WAITS: Final = 200
_DAGS: Final = Path(__file__).parent / "dags"
_OWN: Final = "waits_fluxomail"
_PEER: Final = "waits_http"
#: After the last wait has deferred, this long until the first delivery.
_REST_SECONDS: Final = 15.0
#: The deliveries of one run are spread over this many seconds.
_SPREAD_SECONDS: Final = 10.0
_PATIENCE: Final = 600.0


class Airflow:
    """The Airflow of the benchmark, and the sends that its Dags wait for."""

    def __init__(self, runner: AirflowRunner, server: Server, sends: dict[str, list[str]]) -> None:
        self._runner = runner
        self._server = server
        self._sends = sends

    def run(self, dag_id: str) -> tuple[int, float]:
        """Run a Dag: how many task processes its waits took, and the seconds from its start to its end."""
        self._runner.wait_for_dag(dag_id)
        self._runner.trigger(dag_id, "run")
        self._until("all have deferred", dag_id, lambda states: states == {"deferred": WAITS})
        time.sleep(_REST_SECONDS)
        asyncio.run(self._server.deliver(self._sends[dag_id], _SPREAD_SECONDS))
        self._until("all have ended", dag_id, lambda states: states.keys() <= FINAL_STATES)
        if (states := self._states(dag_id)) != {"success": WAITS}:
            raise RuntimeError(f"{dag_id} ended with {dict(states)}")
        return self._processes(dag_id), self._seconds(dag_id)

    def _until(self, what: str, dag_id: str, happened: Callable[[collections.Counter[str]], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not happened(states := self._states(dag_id)):
            self._runner.check()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{dag_id}: not within {_PATIENCE:g} s: {what}; {dict(states)}")
            time.sleep(0.5)

    def _states(self, dag_id: str) -> collections.Counter[str]:
        rows = self._runner.call("GET", f"dags/{dag_id}/dagRuns/run/taskInstances", params={"limit": 1000})
        return collections.Counter(str(row["state"]) for row in rows["task_instances"])

    def _processes(self, dag_id: str) -> int:
        """Every process of a task says in the task's log that it has read its Dag, one that resumes it too."""
        logs = (self._runner.logs / "tasks" / f"dag_id={dag_id}").rglob("attempt=*.log")
        return sum(log.read_text(errors="replace").count('"Worker startup parse complete"') for log in logs)

    def _seconds(self, dag_id: str) -> float:
        deadline = time.monotonic() + _PATIENCE
        while not (run := self._runner.call("GET", f"dags/{dag_id}/dagRuns/run"))["end_date"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the run of {dag_id} does not end")
            time.sleep(0.5)
        return float(run["duration"])


def bench() -> list[Row]:
    """Both Dags, one after the other."""
    # Not a folder of our user alone: PostgreSQL's user cannot enter that.
    home = Path(tempfile.mkdtemp(prefix="fluxomail-bench-"))
    home.chmod(0o755)
    with server() as one, Postgres(home / "postgres") as postgres:
        postgres.start()
        made = one.make_sends(2 * WAITS)
        sends = {_OWN: made[:WAITS], _PEER: made[WAITS:]}
        (home / "sends.json").write_text(json.dumps(sends))
        connections = {
            "FLUXOMAIL_DEFAULT": {"conn_type": "fluxomail", "host": one.url, "password": DEFAULT_API_KEY},
            "HTTP_DEFAULT": {
                "conn_type": "http",
                "host": one.url,
                "extra": {"Authorization": f"Bearer {DEFAULT_API_KEY}"},
            },
        }
        environment = {f"AIRFLOW_CONN_{name}": json.dumps(one) for name, one in connections.items()} | {
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            # Airflow's default, which the runner lowers.
            "AIRFLOW__CORE__PARALLELISM": "32",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "BENCH_SENDS": str(home / "sends.json"),
        }
        with AirflowRunner(home / "airflow", dags=sorted(_DAGS.glob("waits_*.py")), environment=environment) as runner:
            runner.prepare()
            runner.start()
            runner.wait_until_healthy()
            airflow = Airflow(runner, one, sends)
            # Ours first: what Airflow learns in its first run is the peer's gain.
            own, seconds = airflow.run(_OWN)
            print(f"    {_OWN}: {own} processes, {seconds:.0f} s", file=sys.stderr)
            peer, peer_seconds = airflow.run(_PEER)
            print(f"    {_PEER}: {peer} processes, {peer_seconds:.0f} s", file=sys.stderr)
    shutil.rmtree(home)
    case = f"{WAITS} waits on Airflow"
    return [
        at_most(case, "worker processes", own, WAITS, peer),
        Row(case, "wall time s", seconds, peer_seconds, "< peer", seconds < peer_seconds),
    ]
