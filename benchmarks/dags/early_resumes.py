"""Tasks that defer, and whose trigger fires as many seconds later as the run's ``conf`` says."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, task

from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger


class Defers(BaseOperator):
    """Defers once."""

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number

    def execute(self, context: Any) -> None:
        """Defer."""
        resume_at = time.time() + context["dag_run"].conf["seconds"]
        trigger = FluxomailRetryAfterTrigger(resume_at=resume_at, give_up_at=resume_at)
        self.defer(trigger=trigger, method_name="resumed")

    def resumed(self, context: Any, event: Any = None) -> None:
        """Nothing is left to do."""


@task(retries=3, retry_delay=timedelta(seconds=1))
def numbers(dag_run: Any = None) -> list[int]:
    return list(range(dag_run.conf["count"]))


start = datetime(2026, 1, 1, tzinfo=UTC)
with DAG("early_resumes", schedule=None, start_date=start, catchup=False, max_active_tasks=200):
    Defers.partial(task_id="wait", retries=0).expand(number=numbers())
