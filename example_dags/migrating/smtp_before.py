"""A report, an alert and a failure email by SMTP: what ``smtp_after.py`` replaces. Needs the SMTP provider."""

from __future__ import annotations

from pathlib import Path

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.providers.smtp.operators.smtp import EmailOperator

with DAG(
    dag_id="migrating_smtp_before",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["smtp", "example"],
):
    EmailOperator(
        task_id="report",
        to=["ada@example.org", "bob@example.org"],
        cc="lead@example.org",
        subject="Report of {{ run_id }}",
        html_content="<p>All rows of <b>{{ run_id }}</b> are loaded.</p>",
        files=[str(Path(__file__).parents[1] / "templates" / "rows.csv")],
        from_email="Reports <reports@example.org>",
        custom_headers={"Reply-To": "data-team@example.org"},
        conn_id="smtp_default",
    )

    @task(
        on_failure_callback=SmtpNotifier(
            to="ops@example.org; dba@example.org",
            from_email="airflow@example.org",
            subject="{{ ti.task_id }} failed",
            html_content="<p>See the <a href='{{ ti.log_url }}'>log</a>.</p>",
            smtp_conn_id="smtp_default",
        )
    )
    def load() -> None:
        raise ValueError("the warehouse has no rows of today")

    @task(email=["ops@example.org", "dba@example.org"], email_on_failure=True, email_on_retry=False)
    def check() -> None:
        raise ValueError("the rows are too few")

    load()
    check()
