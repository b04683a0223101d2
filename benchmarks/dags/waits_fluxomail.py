"""One mapped task that waits for the sends that a file lists, with this package's sensor."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG

from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

DAG_ID = "waits_fluxomail"

with DAG(DAG_ID, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_tasks=100):
    FluxomailDeliverySensor.partial(task_id="wait", deferrable=True, poke_interval=5.0, timeout=1800.0).expand(
        send_id=json.loads(Path(os.environ["BENCH_SENDS"]).read_text())[DAG_ID]
    )
