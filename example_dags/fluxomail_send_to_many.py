"""Send one message each to many people, and wait for all of them."""

from __future__ import annotations

import pendulum

try:
    from airflow.sdk import DAG, Param, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG, Param

from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

with DAG(
    dag_id="fluxomail_send_to_many",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"people": Param(["ada@example.org", "bob@example.org"], type="array")},
    tags=["fluxomail", "example"],
    doc_md=__doc__,
) as dag:
    # [START howto_send_to_many]
    @task
    def people(params: dict[str, list[str]]) -> list[str]:
        return params["people"]

    send = FluxomailSendOperator.partial(
        task_id="send",
        subject="Your weekly report",
        content="The report of {{ ds | default(run_id) }} is ready.",
    ).expand(to=people())

    wait = FluxomailDeliverySensor.partial(
        task_id="wait",
        timeout=600,
        poke_interval=5,
        deferrable=True,
    ).expand(send_id=send.output.map(lambda result: result["send_id"]))
    # [END howto_send_to_many]
