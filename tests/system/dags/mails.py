"""Airflow's own emails, by ``[email] email_backend``: of tasks that fail, and of code that calls ``send_email``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.utils.email import send_email

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from tests.support.airflow_names import DAG, task

with DAG(
    "mails",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    default_args={"retry_delay": timedelta(0)},
):

    @task(email=["owner@example.org", "owner@customer.example"], email_on_retry=True, email_on_failure=True, retries=1)
    def fails() -> None:
        """Fail in each try."""
        raise ValueError("no rows")

    @task(email=["quiet@example.org"], email_on_retry=False, email_on_failure=True, retries=1)
    def recovers(ti: Any = None) -> None:
        """Fail once, with no email about it."""
        if ti.try_number == 1:
            raise ValueError("no rows")

    @task(email=["half@example.org", "half-refused@example.org"], email_on_retry=False, email_on_failure=True)
    def half() -> None:
        """Fail; one of the recipients is refused."""
        raise ValueError("no rows")

    @task(retries=1)
    def tells(ti: Any = None) -> None:
        """Say the same twice, in each try; fail after that."""
        for _ in range(2):
            send_email("told-1@example.org, told-2@example.org; told@customer.example", "Told", "<p>Rows: <b>7</b></p>")
        if ti.try_number == 1:
            raise RuntimeError("lost after it was sent")

    fails()
    recovers()
    half()
    tells()
    FluxomailSendOperator(
        task_id="guarded", fluxomail_conn_id="fluxomail_guarded", to="guarded@customer.example", subject="Invoice",
        content="Text", html_content="<p>HTML</p>",
    )  # fmt: skip

    if AIRFLOW_VERSION < (3, 0):
        from airflow.operators.email import EmailOperator  # type: ignore[import-not-found]

        EmailOperator(
            task_id="operator", to=["operator@example.org"], cc="copy@example.org", subject="Run {{ run_id }}",
            html_content="<p>Hello</p>",
        )  # fmt: skip
