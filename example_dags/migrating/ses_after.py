"""``ses_before.py`` with Fluxomail, and with what SES cannot do: the task ends when the report is delivered."""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG

from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendOperator

with DAG(
    dag_id="migrating_ses_after",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["fluxomail", "example"],
):
    report = FluxomailSendOperator(
        task_id="report",
        to="ada@example.org",
        cc=["lead@example.org", "bob@example.org"],
        subject="Report of {{ run_id }}",
        html_content="<p>All rows of <b>{{ run_id }}</b> are loaded.</p>",
        extra_fields={"replyTo": "data-team@example.org"},
        wait_for="delivered",
        fluxomail_conn_id="fluxomail_default",
    )

    @task(
        on_failure_callback=FluxomailNotifier(
            to=["ops@example.org", "dba@example.org"],
            subject="{{ ti.task_id }} failed",
            html_content="<p>See the <a href='{{ ti.log_url }}'>log</a>.</p>",
            fluxomail_conn_id="fluxomail_default",
        )
    )
    def load() -> None:
        raise ValueError("the warehouse has no rows of today")

    load()
