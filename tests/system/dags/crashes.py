"""Dags whose task sends one mail and halts where the run's configuration says, so that a test can kill it there.

Folders of ``CRASHES_FOLDER``, named by the run, hold the signs between a task and its test.
"""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_fluxomail.operators import FluxomailSendOperator
from tests.support.airflow_names import DAG


def address(run_id: str, task_id: str) -> str:
    """The recipient; ``never`` lets the test say when the message is delivered."""
    return f"never+{task_id}.{re.sub('[^A-Za-z0-9]', '-', run_id)}@example.org"


class HaltingOperator(FluxomailSendOperator):
    """On its first try, says where it is and continues only when it may."""

    def pre_execute(self, context: Any) -> None:
        """Halt before anything is sent."""
        self._halt("before", context)

    def post_execute(self, context: Any, result: Any = None) -> None:
        """Halt before the result is an XCom."""
        self._halt("answered", context)

    def _halt(self, point: str, context: Any) -> None:
        conf = context["dag_run"].conf or {}
        if conf.get("halt") != point or context["ti"].try_number > 1:
            return
        signs = Path(os.environ["CRASHES_FOLDER"])
        (signs / f"{context['run_id']}.halted").touch()
        deadline = time.monotonic() + 1000
        while not (signs / f"{context['run_id']}.go").exists():
            if time.monotonic() > deadline:
                raise TimeoutError("nobody let this task go on")
            time.sleep(0.05)


DEFAULTS: dict[str, Any] = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 100,
    "user_defined_macros": {"address": address},
}


def send(**fields: Any) -> None:
    """The one task of each Dag."""
    message = {"to": "{{ address(run_id, task.task_id) }}", "subject": "Hello", "content": "Text"}
    HaltingOperator(task_id="send", **{**message, "retry_delay": timedelta(seconds=1), **fields})


with DAG("crashes", **DEFAULTS):
    send(retries=5)

with DAG("crashes_no_retries", **DEFAULTS):
    send(retries=0)

# Nothing that a triggerer goes through may cost a try.
with DAG("crashes_waiting", **DEFAULTS):
    send(retries=0, wait_for="delivered", deferrable=True, poll_interval=1.0)

with DAG("crashes_often", **DEFAULTS):
    send(retries=50)

with DAG("crashes_once_retried", **DEFAULTS):
    send(retries=1)

with DAG("crashes_often_waiting", **DEFAULTS):
    send(retries=50, wait_for="delivered", deferrable=True, poll_interval=1.0)
