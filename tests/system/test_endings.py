"""On a real Airflow: a success ends in the triggerer, unless something of it needs a worker; all else in a worker."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from scripts.airflow2_runner import Airflow2Runner
from scripts.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.postgres import Postgres
from scripts.sandbox import API_KEY, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT: Final = 300.0
AIRFLOW_2: Final = importlib.metadata.version("apache-airflow").startswith("2.")
RUN: Final = ("endings", "run")
WAITS: Final = ("send", "plain", "callback", "outlet", "bounced", "told")

pytestmark = pytest.mark.timeout(3 * LIMIT)


def until(airflow: AirflowRunner, what: str, happened: Callable[[dict[str, str]], bool]) -> dict[str, str]:
    """Wait until something holds of the tasks' states."""
    deadline = time.monotonic() + LIMIT
    while not happened(states := {task.task_id: str(task.state) for task in airflow.tasks(*RUN)}):
        airflow.check()
        assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}; {states}"
        time.sleep(0.5)
    return states


def test_a_success_ends_without_a_worker_where_it_can() -> None:
    # Not pytest's folders: PostgreSQL's user cannot enter them.
    home = Path(tempfile.mkdtemp(prefix="fluxomail-endings-"))
    home.chmod(0o755)
    calls = home / "calls"
    with Sandbox(home / "sandbox", event_delay=0) as sandbox, Postgres(home / "postgres") as postgres:
        sandbox.start()
        postgres.start()
        connection = {"conn_type": "fluxomail", "password": API_KEY, "host": sandbox.url}
        environment = {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "ENDINGS_CALLS": str(calls),
        }
        runner = Airflow2Runner if AIRFLOW_2 else AirflowRunner
        dags = [Path(__file__).parent / "dags" / "endings.py"]
        with runner(home / "airflow", dags=dags, environment=environment) as airflow:
            airflow.prepare()
            airflow.start()
            airflow.wait_until_healthy()
            airflow.wait_for_dag(RUN[0])
            airflow.trigger(*RUN)
            until(airflow, "all wait", lambda states: {states.get(task) for task in WAITS} == {"deferred"})
            for message in sandbox.control("GET", "messages")["messages"]:
                event = "bounced" if message["to"].startswith("never+3") else "delivered"
                sandbox.control("POST", f"messages/{message['send_id']}/events", json={"type": event})
            states = until(airflow, "all have ended", lambda states: set(states.values()) <= FINAL_STATES)
            assert states == {task: "failed" if task == "bounced" else "success" for task in states}
            value = airflow.xcom(*RUN, "plain")
            assert (value["event"], value["send_id"]) == ("delivered", airflow.xcom(*RUN, "first")["send_id"])
            assert airflow.xcom(*RUN, "note") == value
            sent = airflow.xcom(*RUN, "send")
            assert sent["event"] == "delivered"
            assert sent["idempotency_key"].startswith("af1:endings.send:")
            assert airflow.xcom(*RUN, "send", "send_id") == sent["send_id"]
            assert airflow.xcom(*RUN, "note_part") == "delivered"
            assert calls.read_text() == "called"
            inbox = f"{sandbox.url}/inbox/{airflow.xcom(*RUN, 'first')['send_id']}"
            # "plain" ended in the triggerer, which runs no link; "callback" in a worker, and so did "bounced", in red.
            assert link(airflow, "first") == link(airflow, "plain") == link(airflow, "callback") == inbox
            assert link(airflow, "send") == f"{sandbox.url}/inbox/{sent['send_id']}"
            assert str(link(airflow, "bounced")).startswith(f"{sandbox.url}/inbox/")
            assert link(airflow, "note") is None
            kind = "dataset" if AIRFLOW_2 else "asset"
            changes: Any = airflow.call("GET", f"{kind}s/events")[f"{kind}_events"]
            extras = {change["source_task_id"]: change["extra"] for change in changes}
            assert set(extras) == {"first", "outlet", "told"}
            for task in ("first", "told"):
                sent = airflow.xcom(*RUN, task)
                assert extras[task].items() >= {"send_id": sent["send_id"], "message_id": sent["message_id"]}.items()
            if not AIRFLOW_2:
                assert processes(airflow) == {
                    "send": 1,
                    "plain": 1,
                    "callback": 2,
                    "outlet": 2,
                    "bounced": 2,
                    "told": 2,
                }
                assert told(airflow, "plain") == {"Waiting for send", "The message was delivered"}
    shutil.rmtree(home)


def link(airflow: AirflowRunner, task: str) -> str | None:
    """The task's link, as Airflow's UI asks for it."""
    path = f"dags/{RUN[0]}/dagRuns/{RUN[1]}/taskInstances/{task}/links"
    answer: Any = airflow.call("GET", path)
    found: str | None = answer.get("extra_links", answer).get("Fluxomail timeline")
    return found


def processes(airflow: AirflowRunner) -> dict[str, int]:
    """How many processes each wait has taken: each says in the task's log that it has read the Dag."""
    folder = airflow.logs / "tasks" / f"dag_id={RUN[0]}" / f"run_id={RUN[1]}"
    return {
        task: sum(
            log.read_text(errors="replace").count('"Worker startup parse complete"')
            for log in (folder / f"task_id={task}").glob("attempt=*.log")
        )
        for task in WAITS
    }


def told(airflow: AirflowRunner, task: str) -> set[str]:
    """What the triggerer has written to the log of a wait, of what is looked for."""
    logs = (airflow.logs / "tasks" / f"dag_id={RUN[0]}" / f"run_id={RUN[1]}" / f"task_id={task}").glob("*trigger*")
    text = "".join(log.read_text(errors="replace") for log in logs)
    return {line for line in ("Waiting for send", "The message was delivered", "cannot") if line in text}
