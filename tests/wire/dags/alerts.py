"""Tasks that have mails sent in Airflow's own ways: by ``[email] email_backend``."""

from __future__ import annotations

import warnings
from typing import Any

import pendulum

from airflow_provider_fluxomail.airflow_compat import get_current_context
from tests.support.airflow_names import DAG, task

with warnings.catch_warnings():
    # Airflow 3 would have its users name a notifier in place of an address.
    warnings.simplefilter("ignore")
    START: Any = pendulum.datetime(2026, 1, 1, tz="UTC")
    with DAG(dag_id="alerts", schedule=None, start_date=START, catchup=False):

        @task(
            email=["ada@example.org", "bob@example.org"],
            email_on_retry=True,
            email_on_failure=True,
            retries=1,
            retry_delay=0,
        )
        def fails() -> None:
            raise RuntimeError(f"it's broken in try {get_current_context()['ti'].try_number}")

        fails()
