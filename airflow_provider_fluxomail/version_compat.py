"""Which Airflow this is."""

from __future__ import annotations

from collections.abc import Mapping

from airflow import __version__ as airflow_version
from packaging.version import Version

#: A release candidate counts as its release.
AIRFLOW_VERSION = Version(Version(airflow_version).base_version).release[:2]
AIRFLOW_V_3_3_PLUS = AIRFLOW_VERSION >= (3, 3)


def is_unmapped(task: object) -> bool:
    """Tell whether Airflow has just made this operator, in a worker, out of a mapped one. Private to all releases."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def task_states(dag_id: str, run_id: str) -> Mapping[str, object]:
    """Ask Airflow for the states of a run's tasks, in a process that it supervises. Airflow 3.1 and later.

    The Dag processor of 3.0 does not answer, and would block its callback for ever.

    :raises LookupError: before Airflow 3.1.
    """
    if AIRFLOW_VERSION < (3, 1):
        raise LookupError("Airflow 3.1 and later give task states to callbacks")
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states: Mapping[str, object] = RuntimeTaskInstance.get_task_states(dag_id=dag_id, run_ids=[run_id]).get(run_id, {})
    return states
