"""``sendgrid_before.py`` with Fluxomail. ``check`` needs ``[email] email_backend``, see the migration guide."""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG

with DAG(
    dag_id="migrating_sendgrid_after",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["fluxomail", "example"],
):

    @task.fluxomail_send(fluxomail_conn_id="fluxomail_default")
    def remind() -> list[dict[str, str]]:
        return [
            {
                "to": person,
                "subject": f"Invoice {invoice}",
                "html_content": f"<p>Invoice {invoice} is overdue.</p>",
                "bcc": "archive@example.org",
                "key": f"invoice-{invoice}",
            }
            for person, invoice in (("ada@example.org", 1001), ("bob@example.org", 1002))
        ]

    # Unchanged: the email backend sends it.
    @task(email=["ops@example.org", "dba@example.org"], email_on_failure=True, email_on_retry=False)
    def check() -> None:
        raise ValueError("the rows are too few")

    remind()
    check()
