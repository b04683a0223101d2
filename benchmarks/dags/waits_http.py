"""One mapped task that waits for the sends that a file lists, with Airflow's HTTP sensor.

It cannot defer and look at an answer's body, so it is answered with 404 until there is a delivery, see
``benchmarks/server.py``.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.providers.http.sensors.http import HttpSensor
from airflow.sdk import DAG

DAG_ID = "waits_http"
SENDS = json.loads(Path(os.environ["BENCH_SENDS"]).read_text())[DAG_ID]

with DAG(DAG_ID, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_tasks=100):
    HttpSensor.partial(
        task_id="wait", deferrable=True, poke_interval=5.0, timeout=1800.0, request_params={"until": "delivered"}
    ).expand(endpoint=[f"/api/v1/sends/{send_id}" for send_id in SENDS])
