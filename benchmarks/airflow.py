"""200 waits on a real Airflow, against as many deferrable HTTP sensors: what they take of the workers, and how long.

Scheduler, Dag processor, API server and one triggerer as processes, LocalExecutor, PostgreSQL. One Dag with mapped
waits after the other, on the same Airflow and the same server, with a key without a cap: refusals are another case's.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.sandbox.limits import DEFAULT_API_KEY
from benchmarks.report import Row, at_most
from benchmarks.waits import server
from scripts.testbed.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.testbed.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
_TASK_ID: Final = "wait"


class Airflow:
    """A running Airflow, and the server that its Dags wait for."""

    def __init__(self, runner: AirflowRunner, server: Server) -> None:
        self.runner = runner
        self.server = server

    def until(
        self,
        what: str,
        dag_id: str,
        run_id: str,
        happened: Callable[[list[dict[str, Any]]], bool],
        task_id: str | None = _TASK_ID,
    ) -> None:
        """Wait until something is true of a run's task instances, see :meth:`tasks`."""
        deadline = time.monotonic() + _PATIENCE
        while not happened(rows := self.tasks(dag_id, run_id, task_id)):
            self.runner.check()
            ended = self.runner.run_state(dag_id, run_id) in FINAL_STATES
            if time.monotonic() > deadline or (ended and not happened(self.tasks(dag_id, run_id, task_id))):
                states = dict(collections.Counter(row["state"] for row in rows))
                raise RuntimeError(f"{dag_id}: not within {_PATIENCE:g} s: {what}; {states}")
            time.sleep(0.5)

    def tasks(self, dag_id: str, run_id: str, task_id: str | None = _TASK_ID) -> list[dict[str, Any]]:
        """The task instances of a run by map index, of all its tasks or of one; by default of its waits."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances"
        # Two hundred processes that start keep a small machine busy.
        rows = self.runner.call("GET", path, params={"limit": 1000}, timeout=_PATIENCE)["task_instances"]
        return sorted((row for row in rows if task_id in (row["task_id"], None)), key=lambda row: int(row["map_index"]))

    def until_deferred(self, dag_id: str, run_id: str, count: int) -> None:
        """Wait until all waits of a run are deferred, and a triggerer has them."""
        self.until(
            "all are in the triggerer",
            dag_id,
            run_id,
            lambda rows: [row["state"] for row in rows if row["triggerer_job"]] == ["deferred"] * count,
        )

    def until_green(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Wait until all waits of a run have ended, and return them."""
        self.until("all have ended", dag_id, run_id, lambda rows: {row["state"] for row in rows} <= FINAL_STATES)
        rows = self.tasks(dag_id, run_id)
        if wrong := {row["state"] for row in rows} - {"success"}:
            raise RuntimeError(f"waits of {dag_id} ended with {wrong}")
        return rows

    def run_200(self, dag_id: str, sends: list[str]) -> tuple[int, float]:
        """Run a Dag: how many task processes its waits took, and the seconds from its start to its end."""
        self.runner.wait_for_dag(dag_id)
        self.runner.trigger(dag_id, "run")
        self.until_deferred(dag_id, "run", len(sends))
        time.sleep(_REST_SECONDS)
        asyncio.run(self.server.deliver(sends, _SPREAD_SECONDS))
        self.until_green(dag_id, "run")
        return self._processes(dag_id), self._seconds(dag_id)

    def _processes(self, dag_id: str) -> int:
        """Every process of a task says in the task's log that it has read its Dag, one that resumes it too."""
        logs = (self.runner.logs / "tasks" / f"dag_id={dag_id}").rglob("attempt=*.log")
        return sum(log.read_text(errors="replace").count('"Worker startup parse complete"') for log in logs)

    def _seconds(self, dag_id: str) -> float:
        deadline = time.monotonic() + _PATIENCE
        while not (run := self.runner.call("GET", f"dags/{dag_id}/dagRuns/run"))["end_date"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the run of {dag_id} does not end")
            time.sleep(0.5)
        return float(run["duration"])


@contextlib.contextmanager
def running(
    server: Server, dags: Sequence[Path], files: Mapping[str, Any] | None = None, **environment: str
) -> Iterator[Airflow]:
    """An Airflow whose components run as processes, with PostgreSQL and LocalExecutor.

    :param files: environment variable to what the file that it names holds, as JSON.
    :param environment: further environment.
    """
    # Not a folder of our user alone: PostgreSQL's user cannot enter that.
    home = Path(tempfile.mkdtemp(prefix="fluxomail-bench-"))
    home.chmod(0o755)
    with Postgres(home / "postgres") as postgres:
        postgres.start()
        for name, content in (files or {}).items():
            (home / name.lower()).write_text(json.dumps(content))
        connections = {
            "FLUXOMAIL_DEFAULT": {"conn_type": "fluxomail", "host": server.url, "password": DEFAULT_API_KEY},
            "HTTP_DEFAULT": {
                "conn_type": "http",
                "host": server.url,
                "extra": {"Authorization": f"Bearer {DEFAULT_API_KEY}"},
            },
        }
        variables = {f"AIRFLOW_CONN_{name}": json.dumps(one) for name, one in connections.items()} | {
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            # Airflow's default, which the runner lowers.
            "AIRFLOW__CORE__PARALLELISM": "32",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            **{name: str(home / name.lower()) for name in files or {}},
            **environment,
        }
        with AirflowRunner(home / "airflow", dags=dags, environment=variables) as runner:
            runner.prepare(timeout=_PATIENCE)
            runner.start()
            runner.wait_until_healthy(timeout=_PATIENCE)
            yield Airflow(runner, server)
    shutil.rmtree(home)


def log_lines(logs: Iterable[Path]) -> list[dict[str, Any]]:
    """The lines of tasks' logs that Airflow has written as JSON, without one that it is just writing."""
    texts = [log.read_text(errors="replace") for log in sorted(logs)]
    lines = [line for text in texts for line in text.splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def epoch(text: str) -> float:
    """Epoch seconds of a time as Airflow writes it."""
    return datetime.datetime.fromisoformat(text).timestamp()


def bench() -> list[Row]:
    """Both Dags, one after the other."""
    with server() as one:
        made = one.make_sends(2 * WAITS)
        sends = {_OWN: made[:WAITS], _PEER: made[WAITS:]}
        with running(one, sorted(_DAGS.glob("waits_*.py")), {"BENCH_SENDS": sends}) as airflow:
            # Ours first: what Airflow learns in its first run is the peer's gain.
            own, seconds = airflow.run_200(_OWN, sends[_OWN])
            print(f"    {_OWN}: {own} processes, {seconds:.0f} s", file=sys.stderr)
            peer, peer_seconds = airflow.run_200(_PEER, sends[_PEER])
            print(f"    {_PEER}: {peer} processes, {peer_seconds:.0f} s", file=sys.stderr)
    case = f"{WAITS} waits on Airflow"
    return [
        at_most(case, "worker processes", own, WAITS, peer),
        Row(case, "wall time s", seconds, peer_seconds, "< peer", seconds < peer_seconds),
    ]
