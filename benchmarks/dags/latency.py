"""Waits for the sends that a run's ``conf`` names: with this package's sensor, and with Airflow's HTTP sensor.

``latency_worker`` waits as ``latency_fluxomail`` does, but its success needs a worker, for a callback.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG, task

from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

FLUXOMAIL: Final[dict[str, dict[str, Any]]] = {
    "latency_fluxomail": {},
    "latency_worker": {"on_success_callback": lambda _: None},
}
HTTP: Final[dict[str, dict[str, Any]]] = {
    # Every sensor's default, 60 s.
    "latency_http": {},
    "latency_http_5": {"poke_interval": 5.0},
}


def a_dag(dag_id: str) -> DAG:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return DAG(dag_id, schedule=None, start_date=start, catchup=False, max_active_tasks=200, max_active_runs=50)


@task(retries=3, retry_delay=timedelta(seconds=1))
def sends(dag_run: Any = None) -> list[str]:
    return list(dag_run.conf["sends"])


for dag_id, fields in FLUXOMAIL.items():
    with a_dag(dag_id):
        FluxomailDeliverySensor.partial(
            task_id="wait", deferrable=True, defer_at_once=True, timeout=1800.0, **fields
        ).expand(send_id=sends())

for dag_id, fields in HTTP.items():
    with a_dag(dag_id):
        HttpSensor.partial(
            task_id="wait", deferrable=True, timeout=1800.0, request_params={"until": "delivered"}, **fields
        ).expand(endpoint=sends().map(lambda send_id: f"/api/v1/sends/{send_id}"))
