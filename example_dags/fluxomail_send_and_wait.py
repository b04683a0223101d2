"""Send one message and wait until it is delivered.

The task ``wait`` succeeds when the timeline shows the delivery, and fails when the message bounces.
"""

from __future__ import annotations

from datetime import timedelta

import pendulum

try:
    from airflow.sdk import DAG, Param
except ImportError:  # Airflow 2.11
    from airflow.models import DAG, Param

from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

with DAG(
    dag_id="fluxomail_send_and_wait",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"to": Param("ops@example.org", type="string", description="Who gets the message")},
    tags=["fluxomail", "example"],
    doc_md=__doc__,
) as dag:
    # [START howto_send_and_wait]
    send = FluxomailSendOperator(
        task_id="send",
        to="{{ params.to }}",
        subject="Nightly load finished",
        html_content="<p>Run <b>{{ run_id }}</b> has loaded its rows.</p>",
        retries=3,
        retry_delay=timedelta(seconds=1),
        deferrable=True,
    )
    wait = FluxomailDeliverySensor(
        task_id="wait",
        send_id=send.output["send_id"],
        poke_interval=5,
        timeout=timedelta(hours=1),
        deferrable=True,
    )
    # [END howto_send_and_wait]
    send >> wait
