"""Send many messages in one task: from a list that a task returns, and from a file."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG, Param

from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator

with DAG(
    dag_id="fluxomail_send_batch",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "invoices": Param(
            [{"to": "ada@example.org", "number": 1001}, {"to": "bob@example.org", "number": 1002}], type="array"
        ),
        "file": Param(str(Path(__file__).parent / "templates" / "people.csv"), type="string"),
        "report": Param("fluxomail-report.jsonl", type="string", description="A path that every worker can write"),
    },
    tags=["fluxomail", "example"],
    doc_md=__doc__,
) as dag:
    # [START howto_batch_list]
    @task
    def reminders(params: dict[str, Any]) -> list[dict[str, str]]:
        return [
            {
                "to": invoice["to"],
                "subject": f"Invoice {invoice['number']}",
                "content": f"Invoice {invoice['number']} is overdue.",
                "key": f"invoice-{invoice['number']}",
            }
            for invoice in params["invoices"]
        ]

    FluxomailSendBatchOperator(
        task_id="remind",
        messages=reminders(),
        retries=3,
        retry_delay=timedelta(minutes=1),
        deferrable=True,
    )
    # [END howto_batch_list]

    # [START howto_batch_file]
    FluxomailSendBatchOperator(
        task_id="newsletter",
        messages="{{ params.file }}",
        defaults={"subject": "News of {{ run_id }}", "content": "There is news."},
        report_path="{{ params.report }}",
        concurrency=16,
        retries=3,
        deferrable=True,
    )
    # [END howto_batch_file]
