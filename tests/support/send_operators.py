"""Send operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.operators.templates import RendersMessages
from tests.support.airflow_names import DAG

_Task = TypeVar("_Task", bound=RendersMessages)


def operator(**fields: Any) -> FluxomailSendOperator:
    message = {"to": "ops@example.org", "subject": "Hi", "content": "Text", "deferrable": False}
    return FluxomailSendOperator(task_id="task", **{**message, **fields})


def render(task: _Task, tmp_path: Path, **values: Any) -> _Task:
    with DAG(dag_id="d", schedule=None, template_searchpath=[str(tmp_path)]) as dag:
        dag.add_task(task)
    task.resolve_template_files()
    task.render_template_fields({"params": values, **values})  # type: ignore[typeddict-item]
    return task
