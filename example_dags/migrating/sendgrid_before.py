"""Reminders and a failure email by SendGrid: what ``sendgrid_after.py`` replaces. Needs the SendGrid provider.

``check`` needs ``[email] email_backend = airflow.providers.sendgrid.utils.emailer.send_email``.
"""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG
from airflow.providers.sendgrid.utils.emailer import send_email

with DAG(
    dag_id="migrating_sendgrid_before",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["sendgrid", "example"],
):

    @task
    def remind() -> None:
        for person, invoice in (("ada@example.org", 1001), ("bob@example.org", 1002)):
            send_email(
                to=person,
                subject=f"Invoice {invoice}",
                html_content=f"<p>Invoice {invoice} is overdue.</p>",
                bcc="archive@example.org",
                from_email="billing@example.org",
                from_name="Billing",
                categories=["reminder"],
                conn_id="sendgrid_default",
            )

    @task(email=["ops@example.org", "dba@example.org"], email_on_failure=True, email_on_retry=False)
    def check() -> None:
        raise ValueError("the rows are too few")

    remind()
    check()
