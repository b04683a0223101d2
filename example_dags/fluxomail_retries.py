"""Retries at the time that Fluxomail asks for. Needs Airflow 3.3."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, task

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.retry_policy import FluxomailRetryPolicy

MESSAGE: dict[str, Any] = {"subject": "Rows loaded", "content": "All of them."}

with DAG(
    dag_id="fluxomail_retries",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
):
    # The operator uses the policy by default: after a 429 it is retried when Fluxomail says, not after ten minutes.
    FluxomailSendOperator(
        task_id="by_operator", to="ops@example.org", retries=2, retry_delay=timedelta(minutes=10), **MESSAGE
    )

    # [START howto_retry_policy]
    @task(retries=2, retry_delay=timedelta(minutes=10), retry_policy=FluxomailRetryPolicy())
    def by_hand() -> str:
        with contextlib.closing(FluxomailHook()) as hook:
            return hook.send({"to": "ops@example.org", **MESSAGE}).send_id

    # [END howto_retry_policy]

    @task(retries=2, retry_delay=timedelta(minutes=10), retry_policy=FluxomailRetryPolicy())
    def refused() -> str:
        with contextlib.closing(FluxomailHook()) as hook:
            return hook.send({"to": "data-team@example.org", **MESSAGE}).send_id

    by_hand()
    refused()
