"""Reads what Airflow passes to callbacks: of tasks, Dags and deadlines, and of tasks that wait for a person.

The contexts differ. A worker knows everything about a task. The Dag processor, which runs the callbacks of a worker
that died, has no exception and often no times. A Dag-level callback may get the run's id only, and a deadline's gets
the run as a ``dict``. Whatever is missing is left out of the alert; no context causes an error.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_fluxomail.airflow_compat import (
    CALLBACKS_READ_THE_DATABASE,
    CALLBACKS_SEE_THE_STATE,
    DAG_CALLBACKS_GET_THE_LAST_FAILURE,
    run_url,
    task_states,
)
from airflow_provider_fluxomail.alerts.alert import MAX_BODY, MAX_EXCEPTION, MAX_FACT, Alert, cut, masked, one_line
from airflow_provider_fluxomail.client.redaction import without_addresses

log = logging.getLogger(__name__)

_TASK_LISTS: Final = {
    **{kind: f"on_{kind}_callback" for kind in ("failure", "retry", "success", "execute", "skipped")},
    "input": "notifiers",
}
#: Kinds of alerts that are about a run, not about a task.
_OF_RUNS: Final = ("dag_failure", "dag_success", "deadline", "sla")
_DAG_LISTS: Final = {"dag_failure": "on_failure_callback", "dag_success": "on_success_callback"}
_STATES: Final = {
    "failed": "failure",
    "upstream_failed": "failure",
    "up_for_retry": "retry",
    "success": "success",
    "skipped": "skipped",
}
#: Raised by a task that Airflow does not retry.
_NO_RETRY: Final = frozenset({"AirflowFailException", "AirflowSensorTimeout"})
#: Most characters of a text that are searched for addresses.
_MAX_SEARCHED: Final = 8_000
#: Most failed tasks that an alert names.
_MAX_NAMED: Final = 20


def read(context: Mapping[str, Any], notifier: object) -> Alert:
    """Return what a callback is about; its kind follows from which list of the task or the Dag holds the notifier."""
    alert, ti, task, run = _identified(context, notifier)
    about_task = ti if alert.task_id else None
    max_tries = _number(_get(about_task, "max_tries"))
    is_input = alert.kind == "input"
    alert = dataclasses.replace(
        alert,
        tries=None if max_tries is None else max_tries + 1,
        exception=exception_text(_get(context, "exception")) if alert.kind not in _OF_RUNS else "",
        reason=without_addresses(_first_text(_get(context, "reason"))),
        failed_tasks=_failed_tasks(context, alert.dag_id, alert.run_id) if alert.kind == "dag_failure" else (),
        question=one_line(masked(_first_text(_get(task, "subject")))) if is_input else "",
        body=cut(masked(_first_text(_get(task, "body"))), MAX_BODY) if is_input else "",
    )
    return dataclasses.replace(alert, url=_url(alert, ti, task), rows=tuple(_rows(alert, context, about_task, run)))


def identity(context: Mapping[str, Any], notifier: object = None) -> dict[str, Any]:
    """Return what tells the call of a callback apart from others: arguments of :func:`.notification_key`."""
    alert, *_ = _identified(context, notifier)
    return {name: getattr(alert, name) for name in ("dag_id", "run_id", "task_id", "map_index", "occasion", "kind")}


def _identified(context: Mapping[str, Any], notifier: object) -> tuple[Alert, Any, Any, Any]:
    """Return an alert with its kind and identity alone; and task instance, task and run, each if known."""
    ti = _get(context, "ti") or _get(context, "task_instance")
    task = _get(context, "task") or _get(ti, "task")
    dag, run = _get(context, "dag"), _get(context, "dag_run")
    kind = _kind(context, notifier, dag=dag, task=task, ti=ti)
    about_task = None if kind in _OF_RUNS else ti
    index = _number(_get(about_task, "map_index"))
    alert = Alert(
        kind=kind,
        dag_id=_first_text(_get(ti, "dag_id"), _get(run, "dag_id"), _get(dag, "dag_id")),
        run_id=_first_text(_get(ti, "run_id"), _get(context, "run_id"), _get(run, "run_id"), _get(run, "dag_run_id")),
        task_id=_first_text(_get(about_task, "task_id")),
        map_index=-1 if index is None else index,
        try_number=_number(_get(about_task, "try_number")),
    )
    return dataclasses.replace(alert, occasion=_occasion(alert, context, run)), ti, task, run


def exception_text(error: object) -> str:
    """Return an exception as an alert shows it: without secrets and addresses, cut at a space.

    Secrets are masked before the text is cut: half a secret would not be recognized.
    """
    if error is None:
        return ""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - an exception that cannot be printed must not prevent the alert
        text = ""
    name = type(error).__qualname__ if isinstance(error, BaseException) else ""
    text = masked(f"{name}: {text}" if name and text else name or text)
    text = text if len(text) <= _MAX_SEARCHED else re.sub(r"\S+\Z", "", text[:_MAX_SEARCHED])
    return cut(without_addresses(text).strip(), MAX_EXCEPTION)


# ---- The kind


def _kind(context: Mapping[str, Any], notifier: object, *, dag: object, task: object, ti: object) -> str:
    if _get(context, "deadline") is not None:
        return "deadline"
    if "blocking_task_list" in context:
        return "sla"
    if "reason" in context:
        held = _holders(dag, _DAG_LISTS, notifier)
        guess = "dag_success" if _get(context, "reason") == "success" else "dag_failure"
    else:
        held = _holders(task, _TASK_LISTS, notifier)
        guess = _kind_of_state(context, task, ti)
    return held[0] if len(held) == 1 or (held and guess not in held) else guess


def _holders(owner: object, lists: Mapping[str, str], notifier: object) -> list[str]:
    """Return the kinds whose callbacks hold the notifier; more than one if it is used for several."""
    return [kind for kind, name in lists.items() if any(one is notifier for one in _callbacks(owner, name))]


def _callbacks(owner: object, name: str) -> list[Any]:
    value = _get(owner, name)
    return list(value) if isinstance(value, list | tuple | set) else [] if value is None else [value]


def _kind_of_state(context: Mapping[str, Any], task: object, ti: object) -> str:
    """Return the kind for a notifier that no list holds (a function calls it), or that several hold."""
    if ti is None:
        return "other"
    state = getattr(_get(ti, "state"), "value", _get(ti, "state"))
    if known := _STATES.get(str(state)):
        return known
    error = _get(context, "exception")
    # Airflow 2 sets the state of whatever has ended.
    if error is None and not CALLBACKS_SEE_THE_STATE and _get(ti, "end_date") is not None:
        return "success"
    if error is None and (CALLBACKS_SEE_THE_STATE or _get(ti, "start_date") is not None):
        return "execute" if _callbacks(task, "on_execute_callback") else "other"
    # It failed, or this is Airflow 3's Dag processor: it runs callbacks of dead workers only, without their times.
    tries, most = _number(_get(ti, "try_number")), _number(_get(ti, "max_tries"))
    final = any(one.__name__ in _NO_RETRY for one in type(error).__mro__)
    return "retry" if tries is not None and most is not None and tries <= most and not final else "failure"


def _occasion(alert: Alert, context: Mapping[str, Any], run: object) -> int | str:
    if alert.kind == "deadline":
        return _first_text(_get(_get(context, "deadline"), "id"))
    if alert.kind == "sla":
        missed = sorted(f"{_get(one, 'task_id')} {_get(one, 'execution_date')}" for one in _callbacks(context, "slas"))
        return hashlib.sha256("\n".join(missed).encode()).hexdigest()[:16]
    if not alert.run_id:
        # Called by hand with an empty context: nothing tells two such alerts apart, so each one is sent.
        return uuid.uuid4().hex
    number = alert.try_number if alert.task_id else _number(_get(run, "clear_number"))
    return "" if number is None else number


# ---- The failed tasks of a run


def _failed_tasks(context: Mapping[str, Any], dag_id: str, run_id: str) -> tuple[str, ...]:
    """Return the failed tasks as ``task`` or ``task[map index]``, in order; empty if Airflow does not provide them.

    Airflow decides how long that takes, as with the connection: both are requests to the Dag processor, which responds
    to one at a time. With a timeout here, the connection would only wait behind this request.
    """
    try:
        found = set(_failed(context, dag_id, run_id))
    except Exception as error:  # noqa: BLE001 - an alert without the names is better than none
        log.debug("Airflow does not provide the failed tasks: %s", type(error).__name__)
        ti = context.get("ti")
        found = set()
        # The task that failed last.
        if DAG_CALLBACKS_GET_THE_LAST_FAILURE and ti is not None and context.get("reason") == "task_failure":
            found = {(ti.task_id, ti.map_index if isinstance(ti.map_index, int) else -1)}
    return tuple(f"{task}[{index}]" if index >= 0 else task for task, index in sorted(found))


def _failed(context: Mapping[str, Any], dag_id: str, run_id: str) -> Iterable[tuple[str, int]]:
    """Return task id and map index of each failed task."""
    if CALLBACKS_READ_THE_DATABASE:
        return [(ti.task_id, ti.map_index) for ti in context["dag_run"].get_task_instances(state=["failed"])]
    if _on_event_loop() or not (dag_id and run_id):
        return []
    known = getattr(context.get("dag"), "task_dict", None) or {}
    states = task_states(dag_id, run_id)
    return [_task_and_index(key, known) for key, state in states.items() if getattr(state, "value", state) == "failed"]


def _task_and_index(key: str, known: Mapping[str, Any]) -> tuple[str, int]:
    """Split ``task_7``, Airflow's key for a mapped task, unless a task has this id."""
    mapped = re.fullmatch(r"(.+)_(\d+)", key)
    if mapped and key not in known and mapped[1] in known:
        return mapped[1], int(mapped[2])
    return key, -1


def _on_event_loop() -> bool:
    """Return whether a request to Airflow would block an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# ---- The link and the rows


def _url(alert: Alert, ti: object, task: object) -> str:
    try:
        if alert.kind == "input":
            url = _get(task, "generate_link_to_ui")(task_instance=ti)
        elif alert.task_id:
            url = _get(ti, "log_url")
        else:
            url = run_url(alert.dag_id, alert.run_id) if alert.dag_id and alert.run_id else ""
    except Exception:  # noqa: BLE001 - an alert without a link is better than none
        return ""
    return url if isinstance(url, str) and re.match(r"https?://", url) else ""


def _rows(alert: Alert, context: Mapping[str, Any], ti: object, run: object) -> Iterator[tuple[str, str]]:
    """Yield label and value of each known fact."""
    timed = ti if alert.task_id else run
    started, ended = _time(_get(timed, "start_date")), _time(_get(timed, "end_date"))
    name = _first_text(_get(ti, "rendered_map_index"))
    options = _callbacks(_get(context, "task"), "options") if alert.kind == "input" else []
    more = len(alert.failed_tasks) - _MAX_NAMED
    facts = {
        "Dag": alert.dag_id,
        "Task": alert.task_id,
        "Map index": f"{alert.map_index}{f' ({name})' if name else ''}" if alert.map_index >= 0 else "",
        "Run": alert.run_id,
        "Try": f"{alert.try_number}{f' of {alert.tries}' if alert.tries else ''}" if alert.try_number else "",
        "Reason": alert.reason.replace("_", " "),
        "Failed tasks": one_line(
            ", ".join(alert.failed_tasks[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
        ),
        "Deadline": _formatted(_time(_get(_get(context, "deadline"), "deadline_time"))),
        "Missed by": ", ".join(sorted({str(_get(one, "task_id")) for one in _callbacks(context, "slas")})),
        "Logical date": _formatted(_time(_get(run, "logical_date"))),
        "Started": _formatted(started),
        "Ended": _formatted(ended),
        "Duration": _duration(started, ended),
        "Answers": ", ".join(str(one) for one in options),
    }
    return ((label, cut(value, MAX_FACT)) for label, value in facts.items() if value)


def _get(source: object, name: str) -> Any:
    """Return an item or attribute; ``None`` if it is missing or reading it fails (a row without a session)."""
    try:
        return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    except Exception:  # noqa: BLE001 - see above
        return None


def _first_text(*candidates: object) -> str:
    return next((text for text in candidates if isinstance(text, str) and text), "")


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: object) -> datetime | None:
    """Return a time in UTC; in a deadline's run times are text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _formatted(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _duration(started: datetime | None, ended: datetime | None) -> str:
    if not started or not ended or ended < started:
        return ""
    minutes, seconds = divmod(round((ended - started).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
