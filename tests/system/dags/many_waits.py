"""A Dag whose one task is mapped over the sends that a file lists, and waits for each in the triggerer."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG

with DAG("many_waits", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False, max_active_tasks=100):
    FluxomailDeliverySensor.partial(
        task_id="wait", deferrable=True, defer_at_once=True, retries=0, timeout=3600.0
    ).expand(send_id=json.loads(Path(os.environ["MANY_WAITS_SENDS"]).read_text()))
