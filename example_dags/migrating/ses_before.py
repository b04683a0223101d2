"""A report and an alert by Amazon SES: what ``ses_after.py`` replaces. Needs the Amazon provider."""

from __future__ import annotations

import pendulum
from airflow.providers.amazon.aws.notifications.ses import SesNotifier
from airflow.providers.amazon.aws.operators.ses import SesEmailOperator

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG

with DAG(
    dag_id="migrating_ses_before",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["ses", "example"],
):
    report = SesEmailOperator(
        task_id="report",
        mail_from="reports@example.org",
        to="ada@example.org",
        cc=["lead@example.org", "bob@example.org"],
        subject="Report of {{ run_id }}",
        html_content="<p>All rows of <b>{{ run_id }}</b> are loaded.</p>",
        reply_to="data-team@example.org",
        aws_conn_id="aws_default",
    )

    @task(
        on_failure_callback=SesNotifier(
            mail_from="airflow@example.org",
            to=["ops@example.org", "dba@example.org"],
            subject="{{ ti.task_id }} failed",
            html_content="<p>See the <a href='{{ ti.log_url }}'>log</a>.</p>",
            aws_conn_id="aws_default",
        )
    )
    def load() -> None:
        raise ValueError("the warehouse has no rows of today")

    load()
