"""On a real Airflow, from 3.3 on: a task is retried when Fluxomail says, and not at all where no retry helps."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final

import pytest
from packaging.version import Version

from scripts.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.sandbox import API_KEY, Sandbox

LIMIT: Final = 240.0
RUN: Final = ("fluxomail_retries", "run")
#: What the tasks of the example have, in seconds. A task that waited for it would be tried again after the test's end.
RETRY_DELAY: Final = 600.0
ASKED: Final = 3.0
DAG: Final = Path(__file__).parents[2] / "example_dags" / "fluxomail_retries.py"

pytestmark = [
    pytest.mark.timeout(2 * LIMIT),
    pytest.mark.skipif(
        Version(importlib.metadata.version("apache-airflow")) < Version("3.3"),
        reason="Airflow has retry policies since 3.3",
    ),
]


def test_retry_after_is_the_delay_and_a_permanent_error_ends_the_task() -> None:
    home = Path(tempfile.mkdtemp(prefix="fluxomail-retries-"))
    with Sandbox(home / "sandbox", event_delay=0) as sandbox:
        sandbox.start()
        connection = {
            "conn_type": "fluxomail", "password": API_KEY, "host": sandbox.url, "extra": {"max_attempts": 1},
        }  # fmt: skip
        match = {"method": "POST"}
        for recipient, fault in (
            ("ops@example.org", {"status": 429, "retry_after": ASKED, "times": 2}),
            ("data-team@example.org", {"status": 400, "times": None}),
        ):
            sandbox.control(
                "POST", "faults", json={"kind": "status", **fault, "match": {**match, "recipient": recipient}}
            )
        environment = {"AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection)}
        with AirflowRunner(home / "airflow", dags=[DAG], environment=environment) as airflow:
            airflow.prepare()
            airflow.start()
            airflow.wait_until_healthy()
            airflow.wait_for_dag(RUN[0])
            airflow.trigger(*RUN)
            deadline = time.monotonic() + LIMIT
            while True:
                tasks = {task.task_id: task for task in airflow.tasks(*RUN)}
                if tasks and all(task.state in FINAL_STATES for task in tasks.values()):
                    break
                airflow.check()
                assert time.monotonic() < deadline, {name: str(task.state) for name, task in tasks.items()}
                time.sleep(0.5)
            states = {name: str(task.state) for name, task in tasks.items()}
            assert states == {"by_operator": "success", "by_hand": "success", "refused": "failed"}
            assert {name: task.try_number for name, task in tasks.items()}["refused"] == 1
            waited = []
            for name in ("by_operator", "by_hand"):
                first, *later = airflow.tries(*RUN, name)
                for again in later:
                    assert first.ended
                    assert again.started
                    waited.append((again.started - first.ended).total_seconds())
                    first = again
            # Which of the two tasks met the faults is theirs to decide.
            assert len(waited) == 2
            assert all(ASKED <= seconds < RETRY_DELAY for seconds in waited), waited
        assert len(sandbox.control("GET", "messages")["messages"]) == 2
    shutil.rmtree(home)
