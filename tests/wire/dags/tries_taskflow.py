"""Functions whose messages need a second try."""

from __future__ import annotations

from typing import Any

import pendulum

from tests.support.airflow_names import DAG, task

MESSAGE = {"subject": "Hi", "content": "Text"}

with DAG(dag_id="tries_taskflow", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    send: Any = task.fluxomail_send

    @send(retries=1, retry_delay=0)  # type: ignore[untyped-decorator]
    def many() -> list[dict[str, Any]]:
        return [{**MESSAGE, "to": person} for person in ("ada@example.org", "bob@example.org")]

    @send(retries=1, retry_delay=0)  # type: ignore[untyped-decorator]
    def one() -> dict[str, Any]:
        return {**MESSAGE, "to": "carl@example.org"}

    many() >> one()
