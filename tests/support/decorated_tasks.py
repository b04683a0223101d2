"""Tasks of ``@task.fluxomail_send``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from tests.support.ways import MESSAGE

PEOPLE = ["ada@example.org", "bob@example.org"]
MANY = [{**MESSAGE, "to": person} for person in PEOPLE]


def decorated(function: Callable[..., Any], **arguments: Any) -> FluxomailSendDecoratedOperator:
    how = {"task_id": "task", "deferrable": False, **arguments}
    return FluxomailSendDecoratedOperator(python_callable=function, **how)
