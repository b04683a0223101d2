"""Sends by hand from a task of one's own: every try makes the same keys."""

from __future__ import annotations

import pendulum

from airflow_provider_fluxomail.airflow_compat import get_current_context
from airflow_provider_fluxomail.hooks import FluxomailHook
from tests.support.airflow_names import DAG, task

with DAG(dag_id="by_hand", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):

    @task(retries=1, retry_delay=0)
    def remind() -> list[str]:
        message = {"to": "ada@example.org", "subject": "Reminder", "content": "Text"}
        # Two hooks: what is counted is the try's, not a hook's.
        sent = [FluxomailHook().send(message), FluxomailHook().send(message)]
        sent.append(FluxomailHook().send({**message, "to": "bob@example.org"}))
        sent.append(FluxomailHook().send(message, part="summary"))
        if get_current_context()["ti"].try_number == 1:
            raise RuntimeError("the try fails after its mails went out")
        return [one.send_id for one in sent if one.reused]

    remind()
