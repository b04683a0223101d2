"""Alerts by email: for a task that fails or is retried, for a whole run, and with your own text."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pendulum

try:
    from airflow.sdk import DAG, Param, get_current_context, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG, Param
    from airflow.operators.python import get_current_context

from airflow_provider_fluxomail.notifications import FluxomailNotifier

# [START howto_alert]
alert = FluxomailNotifier(to="ops@example.org, dba@example.org")

with DAG(
    dag_id="fluxomail_alerts",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # For each task that fails, or waits for its next try.
    default_args={"on_failure_callback": alert, "on_retry_callback": alert},
    # For the run as a whole.
    on_failure_callback=FluxomailNotifier(to="lead@example.org"),
    # [END howto_alert]
    params={"fail": Param(True, type="boolean")},
    template_searchpath=[str(Path(__file__).parent / "templates")],
    tags=["fluxomail", "example"],
    doc_md=__doc__,
):

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def load() -> None:
        """Fail if the param says so."""
        if get_current_context()["params"]["fail"]:
            raise ValueError("the warehouse has no rows of today")

    # [START howto_alert_words]
    @task(
        on_success_callback=FluxomailNotifier(
            to="{{ params.get('team', 'data-team@example.org') }}",
            subject="{{ ti.task_id }} is done, at try {{ alert.try_number }}",
            html_content="alert.html",
            extra_fields={"replyTo": "ops@example.org"},
        ),
    )
    def report() -> None:
        """Succeed, and send an alert about it."""

    # [END howto_alert_words]
    load()
    report()
