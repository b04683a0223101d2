"""Dags whose every task sends one mail: ``send`` with the default, ``resend`` with ``resend_on_clear=True``.

Each task and run has a recipient of its own, by which the tests count mail and choose faults.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_fluxomail.airflow_compat import get_current_context
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from tests.support.airflow_names import DAG, task


def address(run_id: str, task_id: str, index: int | str = "") -> str:
    """The recipient; ``never`` lets the test say when the message is delivered."""
    return f"never+{task_id}{index}.{re.sub('[^A-Za-z0-9]', '-', run_id)}@example.org"


def sends(**fields: Any) -> list[FluxomailSendOperator]:
    """Both tasks of a Dag."""
    message = {"to": "{{ address(run_id, task.task_id) }}", "subject": "Hello", "content": "Text"}
    retries = {"retries": 3, "retry_delay": timedelta(seconds=1), "deferrable": True}
    return [
        FluxomailSendOperator(task_id="send", **{**message, **retries, **fields}),
        FluxomailSendOperator(task_id="resend", resend_on_clear=True, **{**message, **retries, **fields}),
    ]


DEFAULTS: dict[str, Any] = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1, tzinfo=UTC),
    "catchup": False,
    "max_active_runs": 32,
    "user_defined_macros": {"address": address},
}

with DAG("clears", **DEFAULTS):
    sends()

with DAG("clears_retried_later", **DEFAULTS):
    sends(retry_delay=timedelta(hours=1))

with DAG("clears_waiting", **DEFAULTS):
    sends(wait_for="delivered", poll_interval=1.0)

with DAG("clears_upstream", **DEFAULTS):

    @task
    def prepare() -> None:
        """Something that the email is about."""

    prepare() >> sends()

with DAG("clears_mapped", **DEFAULTS):
    for name, resend_on_clear in (("send", False), ("resend", True)):
        FluxomailSendOperator.partial(
            task_id=name, subject="Hello", content="Text", resend_on_clear=resend_on_clear
        ).expand(to=[f"{{{{ address(run_id, task.task_id, {index}) }}}}" for index in range(3)])

with DAG("clears_remapped", **DEFAULTS):

    @task
    def people(name: str) -> list[str]:
        """Who gets an email; in another order once the task is cleared."""
        context = get_current_context()
        order = [0, 1, 2] if context["ti"].try_number == 1 else [2, 1, 0]
        return [address(context["run_id"], name, index) for index in order]

    for name, resend_on_clear in (("send", False), ("resend", True)):
        FluxomailSendOperator.partial(
            task_id=name,
            subject="Hello",
            content="Text",
            resend_on_clear=resend_on_clear,
            retries=3,
            retry_delay=timedelta(seconds=1),
        ).expand(to=people.override(task_id=f"people_{name}")(name))

# Ended long ago: the scheduler makes no run of it, a backfill does.
with DAG("clears_dated", **{**DEFAULTS, "schedule": "@daily", "end_date": datetime(2026, 1, 9, tzinfo=UTC)}):
    sends()

# Paused: the scheduler would start the tasks of a run that "airflow dags test" is running, and either could fail.
with DAG("clears_tested", is_paused_upon_creation=True, **DEFAULTS):
    sends()
