"""Every outcome in every mode, as tasks of one Dag: the cells of the outcome table, run by Airflow itself."""

from __future__ import annotations

from typing import Any

import pendulum

from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG

OUTCOMES = ("delivered", "bounced", "never", "unknown")
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferrable": {"deferrable": True},
}

with DAG(dag_id="waits", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    for outcome in OUTCOMES:
        for mode, how in MODES.items():
            for soft_fail in (False, True):
                FluxomailDeliverySensor(
                    task_id=f"{outcome}-{mode}-{'soft' if soft_fail else 'hard'}",
                    send_id=f"{{{{ dag_run.conf['{outcome}'] }}}}",
                    poke_interval=0.2,
                    timeout=0.5 if outcome == "never" else 30,
                    soft_fail=soft_fail,
                    retries=3,
                    retry_delay=0,
                    **how,
                )
