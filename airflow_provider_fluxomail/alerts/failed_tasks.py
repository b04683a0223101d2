"""Which tasks of a run have failed, as far as Airflow lets a callback of the Dag know it.

Airflow 2 lets callbacks read the run's task instances. Airflow 3.1 and later give the states of a run's tasks to its
Dag processor; where they do not (``dag.test()``), 3.2 and later at least name the task that failed last. Airflow 3.0
names a task of the run that may be any.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.airflow_compat import (
    CALLBACKS_READ_THE_DATABASE,
    DAG_CALLBACKS_GET_THE_LAST_FAILURE,
    task_states,
)

log = logging.getLogger(__name__)

#: Failed tasks that an alert names.
MAX_NAMED: Final = 20


def failed_tasks(context: Mapping[str, Any], dag_id: str, run_id: str) -> tuple[str, ...]:
    """Return the names of the failed tasks as ``task`` or ``task[map index]``, in order; empty if they are not known.

    How long that takes is up to Airflow, as with the connection: both are requests to the Dag processor, which responds
    to one at a time. A timeout here would only leave the connection's to wait behind it.

    :param context: of a callback of the Dag.
    """
    try:
        found = set(_failed(context, dag_id, run_id))
    except Exception as error:  # noqa: BLE001 - an alert without the names is better than none
        log.debug("Airflow does not say which tasks failed: %s", type(error).__name__)
        found = set(_last(context))
    return tuple(f"{task}[{index}]" if index >= 0 else task for task, index in sorted(found))


def told(names: tuple[str, ...]) -> str:
    """Return the names as one line."""
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _failed(context: Mapping[str, Any], dag_id: str, run_id: str) -> Iterable[tuple[str, int]]:
    if CALLBACKS_READ_THE_DATABASE:
        return [(ti.task_id, ti.map_index) for ti in context["dag_run"].get_task_instances(state=["failed"])]
    if _on_event_loop() or not (dag_id and run_id):
        return []
    known = getattr(context.get("dag"), "task_dict", None) or {}
    states = task_states(dag_id, run_id)
    return [_named(key, known) for key, state in states.items() if str(getattr(state, "value", state)) == "failed"]


def _last(context: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Give the task that failed last."""
    ti = context.get("ti")
    if DAG_CALLBACKS_GET_THE_LAST_FAILURE and ti is not None and context.get("reason") == "task_failure":
        yield ti.task_id, ti.map_index if isinstance(ti.map_index, int) else -1


def _named(key: str, known: Mapping[str, Any]) -> tuple[str, int]:
    """Read ``task`` or ``task_7``, which is what Airflow makes of a mapped task."""
    mapped = re.fullmatch(r"(.+)_(\d+)", key)
    if mapped and key not in known and mapped[1] in known:
        return mapped[1], int(mapped[2])
    return key, -1


def _on_event_loop() -> bool:
    """Tell whether a request to Airflow would block an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
