"""Tasks that meet a rate limit, or an error that no retry fixes: with what every supported Airflow has."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_fluxomail.airflow_compat import AirflowFailException
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from tests.support.airflow_names import DAG, task

MESSAGE: dict[str, Any] = {"subject": "Rows loaded", "content": "All of them."}
#: A task that is retried after this is not over when its test is.
NEVER = timedelta(hours=1)

with DAG("retries", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    FluxomailSendOperator(task_id="deferred", to="deferred@example.org", deferrable=True, retries=0, **MESSAGE)
    FluxomailSendOperator(
        task_id="retried", to="retried@example.org", retries=1, retry_delay=timedelta(seconds=5), **MESSAGE
    )
    FluxomailSendOperator(task_id="refused", to="refused@example.org", retries=3, retry_delay=NEVER, **MESSAGE)

    @task(retries=3, retry_delay=NEVER)
    def refused_by_hand() -> str:
        """Fail at once where no retry helps."""
        with contextlib.closing(FluxomailHook()) as hook:
            try:
                return hook.send({"to": "refused-by-hand@example.org", **MESSAGE}).send_id
            except FluxomailError as error:
                if error.permanent:
                    raise AirflowFailException(str(error)) from error
                raise

    refused_by_hand()
