"""Airflow's own emails, sent by Fluxomail. Needs ``[email] email_backend``, see ``docs/guides/email-backend.md``."""

from __future__ import annotations

from typing import Any

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG
from airflow.utils.email import send_email


# [START howto_callback]
def alert(context: Any) -> None:
    ti = context["ti"]
    send_email(
        to="ops@example.org",
        subject=f"Failed: {ti.dag_id}.{ti.task_id}",
        html_content=f"<p>Run {ti.run_id}, try {ti.try_number}: <a href='{ti.log_url}'>log</a></p>",
    )


# [END howto_callback]

with DAG(
    dag_id="fluxomail_email_backend",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"rows": 0},
):
    # [START howto_email_on_failure]
    @task(email=["ops@example.org", "data-team@example.org"], email_on_failure=True, email_on_retry=False)
    def load(params: dict[str, Any]) -> int:
        if not params["rows"]:
            raise ValueError("the source is empty")
        return int(params["rows"])

    # [END howto_email_on_failure]

    # [START howto_callback_of_a_task]
    @task(on_failure_callback=alert)
    def check(rows: int) -> None:
        if rows < 10:
            raise ValueError(f"{rows} rows are too few")

    # [END howto_callback_of_a_task]

    # [START howto_send_email]
    @task(retries=2)
    def report(rows: int) -> None:
        send_email(
            to=["ops@example.org", "data-team@example.org"],
            subject="Rows loaded",
            html_content=f"<p>Today <b>{rows}</b> rows were loaded.</p>",
        )

    # [END howto_send_email]

    loaded: Any = load()
    check(loaded)
    report(loaded)
