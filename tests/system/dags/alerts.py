"""Dags that alert: of tasks that end in each way, of a run, of deadlines, of a question, and of a worker that dies."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION, BaseOperator
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from tests.support.airflow_names import DAG

#: One for all, so that what it says of one task could be what it said of another.
ALERT = FluxomailNotifier(to=["oncall@example.org", "dba@example.org"])
DEFAULTS: dict[str, Any] = {"schedule": None, "start_date": datetime(2026, 1, 1, tzinfo=UTC), "catchup": False}


class Task(BaseOperator):
    """Ends as its parameter says."""

    def __init__(self, *, how: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how

    def execute(self, context: Any) -> None:
        """End."""
        first = context["ti"].try_number == 1
        if self.how == "die" and first:
            Path(os.environ["ALERTS_SIGN"]).write_text(str(os.getpid()))
            time.sleep(300)
        if self.how == "fail" or (self.how == "fail once" and first):
            raise ValueError("no rows for ada@example.org")


with DAG(dag_id="alerts", on_failure_callback=ALERT, **DEFAULTS):
    Task(task_id="well", how="end", on_success_callback=ALERT)
    Task(task_id="flaky", how="fail once", retries=1, retry_delay=timedelta(0), on_retry_callback=ALERT)
    Task(task_id="bad", how="fail", on_failure_callback=ALERT, on_retry_callback=ALERT)

with DAG(dag_id="alerts_dead", **DEFAULTS):
    # The callback must have fired again before the next try: Airflow 2 sets the state again each time, and processes
    # a file's callbacks some 10 s apart.
    Task(
        task_id="dies", how="die", retries=1, retry_delay=timedelta(seconds=25), on_retry_callback=[ALERT],
        email="crashes@example.org", email_on_retry=True,
    )  # fmt: skip

if AIRFLOW_VERSION >= (3, 3):
    from airflow.providers.standard.operators.hitl import ApprovalOperator
    from airflow.sdk.definitions.callback import AsyncCallback, SyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    with DAG(
        dag_id="alerts_late",
        deadline=[
            DeadlineAlert(
                reference=DeadlineReference.DAGRUN_QUEUED_AT,
                interval=timedelta(seconds=1),
                callback=callback(FluxomailNotifier, kwargs={"to": f"{name}@example.org"}),
            )
            for name, callback in {"async": AsyncCallback, "sync": SyncCallback}.items()
        ],
        **DEFAULTS,
    ):
        ApprovalOperator(
            task_id="approve",
            subject="Publish {{ run_id }}?",
            notifiers=[FluxomailNotifier(to="boss@example.org")],
        )
