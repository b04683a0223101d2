"""More options of a send: template files, attachments, bodies that Airflow does not store, keys of your own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pendulum

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2.11
    from airflow.models import DAG, Param

from airflow_provider_fluxomail.client import Attachment
from airflow_provider_fluxomail.operators import FluxomailSendOperator, Unrecorded

with DAG(
    dag_id="fluxomail_send_options",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "report": Param(str(Path(__file__).parent / "templates" / "rows.csv"), type="string"),
        "code": Param("123456", type="string"),
    },
    template_searchpath=[str(Path(__file__).parent / "templates")],
    tags=["fluxomail", "example"],
    doc_md=__doc__,
) as dag:
    # [START howto_template_file]
    FluxomailSendOperator(
        task_id="from_template_files",
        to="Ops <ops@example.org>",
        subject="Report of {{ run_id }}",
        content="report.txt",
        html_content="report.html",
        cc=["lead@example.org"],
        attachments=[
            "{{ params.report }}",
            Attachment(filename="note.txt", content="made by Airflow"),
        ],
        policy_key="transactional",
        extra_fields={"replyTo": "data-team@example.org"},
    )
    # [END howto_template_file]

    # [START howto_wait_for]
    FluxomailSendOperator(
        task_id="send_and_wait_in_one_task",
        to="ops@example.org",
        subject="Nightly load finished",
        content="Loaded 20 rows.",
        wait_for="delivered",
        wait_timeout=timedelta(minutes=30),
        poll_interval=timedelta(seconds=5),
        deferrable=True,
    )
    # [END howto_wait_for]

    # [START howto_unrecorded]
    FluxomailSendOperator(
        task_id="body_that_airflow_does_not_store",
        to="ada@example.org",
        subject="Your code",
        content=Unrecorded("Your code is {{ params.code }}."),
    )
    # [END howto_unrecorded]

    # [START howto_key]
    FluxomailSendOperator(
        task_id="one_mail_a_day_whatever_runs",
        to="ops@example.org",
        subject="Summary of the day",
        content="All is well.",
        idempotency_key="daily-summary-{{ (logical_date or dag_run.run_after) | ds }}",
        resend_on_clear=True,
    )
    # [END howto_key]
