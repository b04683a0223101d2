"""A Dag that a test copies under another name and edits: the lines with capitals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow_provider_fluxomail.operators import FluxomailSendOperator
from tests.support.airflow_names import DAG

SUBJECT = "First"
RETRIES = 3
RETRY_DELAY = 3600

with DAG(Path(__file__).stem, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    for name in ("send", "resend"):
        FluxomailSendOperator(
            task_id=name,
            to=f"never+{name}.{{{{ run_id }}}}@example.org",
            subject=SUBJECT,
            content="Text",
            resend_on_clear=name == "resend",
            retries=RETRIES,
            retry_delay=timedelta(seconds=RETRY_DELAY),
        )
