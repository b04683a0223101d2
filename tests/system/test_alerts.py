"""On a real Airflow: what each callback sends, from a worker, the Dag processor, the triggerer and an executor."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from scripts.airflow2_runner import Airflow2Runner
from scripts.airflow_cluster import AirflowCluster, end
from scripts.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.postgres import Postgres
from scripts.sandbox import API_KEY, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT: Final = 300.0
AIRFLOW_2: Final = importlib.metadata.version("apache-airflow").startswith("2.")
DAG: Final = Path(__file__).parent / "dags" / "alerts.py"
ALERTS, DEAD, LATE = (("alerts", "one"), ("alerts_dead", "two"), ("alerts_late", "three"))
#: Airflow learns soon that a worker is dead.
TIMEOUTS: Final = {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}

pytestmark = pytest.mark.timeout(3 * LIMIT)


class Scene:
    """One Airflow, and the mails that came of it."""

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox) -> None:
        self.airflow, self.sandbox = airflow, sandbox

    def until(self, what: str, happened: Callable[[], object]) -> None:
        """Wait until something has happened."""
        deadline = time.monotonic() + LIMIT
        while not happened():
            self.airflow.check()
            assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}; see {self.airflow.logs}"
            time.sleep(0.25)

    def ended(self, run: tuple[str, str]) -> None:
        """Wait until a run has ended."""
        self.until(f"{run[0]} ends", lambda: self.airflow.run_state(*run) in FINAL_STATES)

    def subjects(self, to: str = "ops@example.org") -> list[str]:
        """The subjects of all mails to somebody."""
        return sorted(row["subject"] for row in self.sandbox.stored(to=to)[1])

    def asked(self, key: str) -> int:
        """How many requests there were with a key."""
        rows = self.sandbox.control("GET", "requests", params={"idempotency_key": key})["requests"]
        return len(rows)


def test_alerts_of_every_callback() -> None:
    # Not pytest's folders: PostgreSQL's user cannot enter them.
    home = Path(tempfile.mkdtemp(prefix="fluxomail-alerts-"))
    home.chmod(0o755)
    sign = home / "sign"
    with Sandbox(home / "sandbox", event_delay=0) as sandbox, Postgres(home / "postgres") as postgres:
        sandbox.start()
        postgres.start()
        connection = {"conn_type": "fluxomail", "password": API_KEY, "host": sandbox.url}
        environment = TIMEOUTS | {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "ALERTS_SIGN": str(sign),
        }
        runner = Airflow2Runner if AIRFLOW_2 else AirflowCluster
        with runner(home / "airflow", dags=[DAG], environment=environment) as airflow:
            airflow.prepare()
            airflow.start()
            airflow.wait_until_healthy()
            scene = Scene(airflow, sandbox)
            runs = [ALERTS] if AIRFLOW_2 else [DEAD, LATE, ALERTS]
            for run in runs:
                airflow.wait_for_dag(run[0])
                airflow.trigger(*run)
            if isinstance(airflow, AirflowCluster):
                scene.until("the task runs that is to die", sign.exists)
                (row,) = airflow.call("GET", f"dags/{DEAD[0]}/dagRuns/{DEAD[1]}/taskInstances")["task_instances"]
                process = airflow.task_processes()[row["id"]]
                process.suspend()
                airflow.kill_worker_of(process)
                assert end(process)
            callbacks(scene)
            if not AIRFLOW_2:
                deadlines_and_questions(scene)
                dead_worker(scene)
            nothing_private_in_logs(airflow)
    shutil.rmtree(home)


def callbacks(scene: Scene) -> None:
    """Of tasks in a worker, of the run in the Dag processor; to each recipient one."""
    scene.ended(ALERTS)
    wanted = [
        f"[Airflow] Dag failed: alerts ({ALERTS[1]})",
        "[Airflow] failed: alerts.bad",
        "[Airflow] succeeded: alerts.well",
        "[Airflow] up for retry: alerts.flaky (try 1 of 2)",
    ]
    for to in ("ops@example.org", "dba@example.org"):
        scene.until("the run's alert", lambda to=to: any("Dag failed" in one for one in scene.subjects(to)))  # type: ignore[misc]
        assert [one for one in scene.subjects(to) if "alerts_dead" not in one] == wanted
    mails = {row["subject"]: row for row in scene.sandbox.stored(to="ops@example.org")[1]}
    failed = mails["[Airflow] failed: alerts.bad"]["content"]
    assert "\nValueError: no rows for <address>\n" in failed
    assert f"\nOpen the log: {scene.airflow.url}/dags/alerts/" in failed
    assert f"\nOpen the run: {scene.airflow.url}/dags/alerts/" in mails[wanted[0]]["content"]


def deadlines_and_questions(scene: Scene) -> None:
    """In the triggerer, in an executor, and in a worker."""
    missed = f"[Airflow] deadline missed: {LATE[0]} ({LATE[1]})"
    for to in ("async@example.org", "sync@example.org"):
        scene.until("the deadline's alert", lambda to=to: scene.subjects(to))  # type: ignore[misc]
        assert scene.subjects(to) == [missed]
    scene.until("the question", lambda: scene.subjects("boss@example.org"))
    assert scene.subjects("boss@example.org") == [f"[Airflow] input needed: alerts_late.approve: Publish {LATE[1]}?"]


def dead_worker(scene: Scene) -> None:
    """Promise 1: the scheduler asks twice for the callback of a worker that is dead, and one mail comes of it."""
    subject = "[Airflow] up for retry: alerts_dead.dies (try 1 of 2)"
    scene.until("the alert", lambda: subject in scene.subjects())
    (mail,) = [row for row in scene.sandbox.stored(to="ops@example.org")[1] if row["subject"] == subject]
    scene.until("the callback fires again", lambda: scene.asked(mail["idempotency_key"]) == 2)
    scene.ended(DEAD)
    assert scene.subjects().count(subject) == 1
    assert scene.subjects("dba@example.org").count(subject) == 1


def nothing_private_in_logs(airflow: AirflowRunner) -> None:
    """Promise 5: all processes that ran callbacks have told of it, and named nobody."""
    logs = [path.read_text(errors="replace") for path in airflow.logs.rglob("*.log") if path.is_file()]
    assert any("Fluxomail accepted the alert" in text for text in logs)
    for private in ("ops@example.org", "async@example.org", "sync@example.org", "boss@example.org", API_KEY):
        told = [line for text in logs for line in text.splitlines() if private in line]
        assert told == [], told[:3]
