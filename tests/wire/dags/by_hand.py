"""Operators that other code runs: in a task, in its callbacks and in a subclass that sends more than once."""

from __future__ import annotations

import warnings
from typing import Any

import pendulum

from airflow_provider_fluxomail.airflow_compat import get_current_context
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from tests.support.airflow_names import DAG, task

START: Any = pendulum.datetime(2026, 1, 1, tz="UTC")
ADA = "ada@example.org"


def fields(text: str) -> dict[str, Any]:
    return {"to": ADA, "subject": "One subject", "content": text}


def send(text: str, context: Any, task_id: str = "mail") -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FluxomailSendOperator(task_id=task_id, deferrable=True, **fields(text)).execute(context)


def alert(context: Any, error: str = "no error") -> None:
    """Of each callback of each try: three texts, of which two are by one operator."""
    for number, name in enumerate(("mail", "mail", "hand")):
        send(f"callback {number}, try {context['ti'].try_number}, {error}", context, name)


def alert_of_error(context: Any) -> None:
    # Not by context["exception"]: dag.test() has none before Airflow 3.2.
    alert(context, "failed")


class Twice(FluxomailSendOperator):
    """Sends two emails."""

    def execute(self, context: Any) -> Any:
        super().execute(context)
        self.content = "subclass 1"
        super().execute(context)


def fail_first(context: Any) -> None:
    if context["ti"].try_number == 1:
        raise RuntimeError("the first try fails")


common: Any = {"retries": 1, "retry_delay": 0, "on_retry_callback": alert_of_error, "on_execute_callback": alert}

with DAG(dag_id="by_hand", schedule=None, start_date=START, catchup=False):

    @task(**common, on_success_callback=alert)
    def hand() -> None:
        context = get_current_context()
        for number in range(3):
            send(f"operator {number}", context, "hand" if number else "other")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in ("batch", "batch", "hand"):
                rows = [{**fields(f"{name} {number}"), "key": str(number)} for number in range(2)]
                FluxomailSendBatchOperator(task_id=name, messages=rows).execute(context)
            FluxomailSendDecoratedOperator(task_id="hand", python_callable=lambda: fields("decorator")).execute(context)
        FluxomailHook().send(fields("hook"))
        fail_first(context)

    hand()
    Twice(
        task_id="twice",
        **fields("subclass 0"),
        **common,
        post_execute=lambda context, result=None: fail_first(context),
    )
    FluxomailSendOperator.partial(task_id="mapped", subject="One subject", to=ADA, **common).expand(
        content=["mapped 0", "mapped 1"]
    )
