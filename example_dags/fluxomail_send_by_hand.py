"""Send from a task of your own with the hook, one message per row."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.exceptions import AirflowFailException

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG, Param

from airflow_provider_fluxomail.client import FluxomailError
from airflow_provider_fluxomail.hooks import FluxomailHook

with DAG(
    dag_id="fluxomail_send_by_hand",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={
        "overdue": Param(
            [{"to": "ada@example.org", "invoice": "1001"}, {"to": "bob@example.org", "invoice": "1002"}], type="array"
        )
    },
    tags=["fluxomail", "example"],
    doc_md=__doc__,
) as dag:
    # [START howto_send_by_hand]
    @task(retries=3)
    def remind(params: dict[str, Any]) -> list[str]:
        hook = FluxomailHook()
        send_ids = []
        for row in params["overdue"]:
            message = {"to": row["to"], "subject": f"Invoice {row['invoice']}", "content": "It is overdue."}
            try:
                send_ids.append(hook.send(message, part=row["invoice"]).send_id)
            except FluxomailError as error:
                if error.permanent:
                    raise AirflowFailException(str(error)) from error
                raise
        return send_ids

    # [END howto_send_by_hand]
    remind()
