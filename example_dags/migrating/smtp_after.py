"""``smtp_before.py`` with Fluxomail. ``check`` needs ``[email] email_backend``.

See ``docs/guides/migrating-from-smtp.md``.
"""

from __future__ import annotations

from pathlib import Path

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG

from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendOperator

with DAG(
    dag_id="migrating_smtp_after",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["fluxomail", "example"],
):
    # Each recipient gets an email of their own. The copy goes with the first one.
    FluxomailSendOperator.partial(
        task_id="report",
        subject="Report of {{ run_id }}",
        html_content="<p>All rows of <b>{{ run_id }}</b> are loaded.</p>",
        attachments=[str(Path(__file__).parents[1] / "templates" / "rows.csv")],
        extra_fields={"replyTo": "data-team@example.org"},
        fluxomail_conn_id="fluxomail_default",
    ).expand_kwargs([{"to": "ada@example.org", "cc": "lead@example.org"}, {"to": "bob@example.org"}])

    @task(
        on_failure_callback=FluxomailNotifier(
            to="ops@example.org; dba@example.org",
            subject="{{ ti.task_id }} failed",
            html_content="<p>See the <a href='{{ ti.log_url }}'>log</a>.</p>",
            fluxomail_conn_id="fluxomail_default",
        )
    )
    def load() -> None:
        raise ValueError("the warehouse has no rows of today")

    # Unchanged: the email backend sends it.
    @task(email=["ops@example.org", "dba@example.org"], email_on_failure=True, email_on_retry=False)
    def check() -> None:
        raise ValueError("the rows are too few")

    load()
    check()
