"""Alerts of every callback that a worker and the scheduler have: one notifier for all of them, or one for each."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pendulum

from airflow_provider_fluxomail.airflow_compat import (
    AirflowOptionalProviderFeatureException,
    AirflowSkipException,
    BaseOperator,
)
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from tests.support.airflow_names import DAG

KINDS = ("execute", "success", "retry", "failure", "skipped")


class Task(BaseOperator):
    """Ends as ``how`` says."""

    def __init__(self, *, how: str = "well", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.how = how

    def execute(self, context: Any) -> None:
        if self.how == "skip":
            raise AirflowSkipException
        if self.how == "fail" or (self.how == "fail once" and context["ti"].try_number == 1):
            raise ValueError(f"no rows for ada.l@example.org & co: <{self.task_id}>")


def build(dag_id: str, *, shared: bool) -> DAG:
    """A Dag that fails, with a task for each way to end."""
    one = FluxomailNotifier(to="ops@example.org")

    def notifier(part: str) -> FluxomailNotifier:
        return one if shared else FluxomailNotifier(to="ops@example.org", part=part)

    callbacks = {f"on_{kind}_callback": [notifier(kind)] for kind in KINDS}
    with DAG(
        dag_id=dag_id,
        schedule=None,
        start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
        default_args={"retry_delay": timedelta(0), **callbacks},
        on_failure_callback=notifier("dag failure"),
        on_success_callback=[notifier("dag success")],
    ) as dag:
        Task(task_id="well")
        Task(task_id="flaky", how="fail once", retries=1)
        Task.partial(task_id="mapped").expand(how=["well", "well"])
        Task(task_id="skips", how="skip")
        Task(task_id="bad", how="fail")
    return dag


shared = build("alerts_shared", shared=True)
each = build("alerts_each", shared=False)

with contextlib.suppress(ImportError, AirflowOptionalProviderFeatureException):  # before Airflow 3.1
    from airflow.providers.standard.operators.hitl import ApprovalOperator

    with DAG(dag_id="alerts_approval", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")) as approval:
        ApprovalOperator(
            task_id="approve",
            subject="Publish the report of {{ dag.dag_id }}?",
            body="20,112 rows",
            notifiers=[FluxomailNotifier(to="boss@example.org")],
        )
