"""Send operators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow_provider_fluxomail.operators import FluxomailSendOperator
from tests.support.airflow_names import DAG


def operator(**fields: Any) -> FluxomailSendOperator:
    message = {"to": "ops@example.org", "subject": "Hi", "content": "Text", "deferrable": False}
    return FluxomailSendOperator(task_id="task", **{**message, **fields})


def render(task: FluxomailSendOperator, tmp_path: Path, **values: Any) -> FluxomailSendOperator:
    with DAG(dag_id="d", schedule=None, template_searchpath=[str(tmp_path)]) as dag:
        dag.add_task(task)
    task.resolve_template_files()
    task.render_template_fields({"params": values, **values})  # type: ignore[typeddict-item]
    return task
