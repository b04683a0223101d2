"""What a callback is about: read from the contexts that Airflow gives to callbacks, which are all different.

A worker knows all of a task; the Dag processor, which speaks for a worker that has died, no exception and often no
times; Dag-level callbacks may know no more than the run's id; deadline alerts get the run as a ``dict``. So whatever is
missing here is left out, and nothing that a context holds or lacks is an error.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.alerts.failed_tasks import failed_tasks, told
from airflow_provider_fluxomail.client.redaction import without_addresses

if TYPE_CHECKING:
    from jinja2 import Environment

#: Kinds, and what a subject calls them. Kinds are part of the keys of alerts: they never change.
TITLES: Final = {
    "failure": "failed",
    "retry": "up for retry",
    "success": "succeeded",
    "execute": "started",
    "skipped": "skipped",
    "input": "input needed",
    "dag_failure": "Dag failed",
    "dag_success": "Dag succeeded",
    "deadline": "deadline missed",
    "sla": "SLA missed",
    "other": "alert",
}
#: What colour the mail has: bad, warning, good, or neutral.
TONES: Final = {
    **dict.fromkeys(("failure", "dag_failure", "deadline", "sla"), "bad"),
    **dict.fromkeys(("retry", "input"), "warning"),
    **dict.fromkeys(("success", "dag_success"), "good"),
}
#: Characters of an exception, of a question to a person, and of a subject, at most.
MAX_EXCEPTION: Final = 2_000
MAX_BODY: Final = 4_000
MAX_SUBJECT: Final = 240

_TASK_LISTS: Final = {
    **{kind: f"on_{kind}_callback" for kind in ("failure", "retry", "success", "execute", "skipped")},
    "input": "notifiers",
}
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
#: Longest text that is searched for addresses.
_SEARCHED: Final = 8_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alert:
    """What an alert is about. Templates get it as ``alert``.

    :param kind: of the callback, one of :data:`TITLES`.
    :param dag_id: of the Dag.
    :param run_id: of the run.
    :param task_id: empty for an alert about a run.
    :param map_index: -1 for a task that is not mapped.
    :param try_number: of the task; None where Airflow does not tell.
    :param tries: how many there may be.
    :param occasion: what tells this alert from others of the same kind about the same: the task's try, the run's number
        of clears, the id of the deadline.
    :param exception: cut, without secrets that Airflow masks, and without addresses.
    :param reason: why a run ended, as Airflow calls it.
    :param failed_tasks: of a run that failed, as far as Airflow lets a callback know.
    :param question: of a task that waits for a person, in one line.
    :param body: what it says besides.
    :param url: the task's log, the run, or the page where a person answers.
    :param rows: all of it that is worth a line, by label.
    """

    kind: str = "other"
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int | None = None
    tries: int | None = None
    occasion: int | str = ""
    exception: str = ""
    reason: str = ""
    failed_tasks: tuple[str, ...] = ()
    question: str = ""
    body: str = ""
    url: str = ""
    rows: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What has happened, in a word or two."""
        return TITLES[self.kind]

    @property
    def tone(self) -> str:
        """``bad``, ``warning``, ``good`` or ``neutral``."""
        return TONES.get(self.kind, "neutral")

    @property
    def name(self) -> str:
        """``dag.task[map index]``, or the Dag alone."""
        index = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{index}" if self.task_id else self.dag_id or "Airflow"

    @property
    def link_text(self) -> str:
        """What the link leads to."""
        return "Answer" if self.kind == "input" else "Open the log" if self.task_id else "Open the run"

    @property
    def subject(self) -> str:
        """One line, never empty."""
        if self.question:
            detail = f": {self.question}"
        elif self.try_number is not None and self.tries is not None and self.tries > 1:
            detail = f" (try {self.try_number} of {self.tries})"
        else:
            detail = f" ({self.run_id})" if self.run_id and not self.task_id else ""
        return one_line(f"[Airflow] {self.title}: {self.name}{detail}")


def one_line(text: str) -> str:
    """Return ``text`` as a subject may be: one line, cut."""
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return text if len(text) <= MAX_SUBJECT else text[: MAX_SUBJECT - 1] + "…"


def read(context: Mapping[str, Any], notifier: object) -> Alert:
    """Return what a callback is about.

    :param context: as the callback got it.
    :param notifier: that was called; which list of the task or the Dag holds it tells the kind.
    """
    ti = _get(context, "ti") or _get(context, "task_instance")
    task = _get(context, "task") or _get(ti, "task")
    dag, run = _get(context, "dag"), _get(context, "dag_run")
    kind = _kind(context, notifier, dag=dag, task=task, ti=ti)
    of_run = kind in ("dag_failure", "dag_success", "deadline", "sla")
    about_task = None if of_run else ti
    dag_id = _first_text(_get(ti, "dag_id"), _get(run, "dag_id"), _get(dag, "dag_id"))
    run_id = _first_text(_get(ti, "run_id"), _get(context, "run_id"), _get(run, "run_id"), _get(run, "dag_run_id"))
    max_tries = _number(_get(about_task, "max_tries"))
    index = _number(_get(about_task, "map_index"))
    alert = Alert(
        kind=kind,
        dag_id=dag_id,
        run_id=run_id,
        task_id=_first_text(_get(about_task, "task_id")),
        map_index=-1 if index is None else index,
        try_number=_number(_get(about_task, "try_number")),
        tries=None if max_tries is None else max_tries + 1,
        exception="" if of_run else exception_text(_get(context, "exception")),
        reason=without_addresses(_first_text(_get(context, "reason"))),
        failed_tasks=failed_tasks(context, dag_id, run_id) if kind == "dag_failure" else (),
        question=one_line(masked(_first_text(_get(task, "subject")))) if kind == "input" else "",
        body=_cut(masked(_first_text(_get(task, "body"))), MAX_BODY) if kind == "input" else "",
    )
    return dataclasses.replace(
        alert,
        occasion=_occasion(alert, context, run),
        url=_url(alert, ti, task),
        rows=tuple(_rows(alert, context, about_task, run)),
    )


def exception_text(error: object) -> str:
    """Return an exception as an alert may show it: without secrets and addresses, cut at a space.

    Secrets are looked for in the whole text, before it is cut: half a secret is not recognised.
    """
    if error is None:
        return ""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - whatever it is, it must not cost the alert
        said = ""
    name = type(error).__qualname__ if isinstance(error, BaseException) else ""
    text = masked(f"{name}: {said}" if name and said else name or said)
    text = text if len(text) <= _SEARCHED else re.sub(r"\S+\Z", "", text[:_SEARCHED])
    return _cut(without_addresses(text).strip(), MAX_EXCEPTION)


def masked(text: str, *, otherwise: str = "(not shown: Airflow has no secrets masker here)") -> str:
    """Return ``text`` without what Airflow masks in logs.

    :param otherwise: what to return where Airflow cannot tell.
    """
    from airflow_provider_fluxomail.airflow_compat import redact

    try:
        return str(redact(text))
    except Exception:  # noqa: BLE001 - a deployment whose logging has no masker
        return otherwise


def page(name: str, alert: Alert) -> str:
    """Render one of this package's own templates, ``alert.html`` or ``alert.txt``."""
    return _templates().get_template(name).render(alert=alert)


@functools.cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, select_autoescape

    folder = Path(__file__).parent / "templates"
    return Environment(
        loader=FileSystemLoader(folder), autoescape=select_autoescape(("html",)), trim_blocks=True, lstrip_blocks=True
    )


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
    """Tell the kind of a notifier that no list holds (a function calls it), or several."""
    from airflow_provider_fluxomail.airflow_compat import CALLBACKS_SEE_THE_STATE

    if ti is None:
        return "other"
    state = getattr(_get(ti, "state"), "value", _get(ti, "state"))
    if known := _STATES.get(str(state)):
        return known
    error = _get(context, "exception")
    # Airflow 2 has set the state of whatever has ended.
    if error is None and not CALLBACKS_SEE_THE_STATE and _get(ti, "end_date") is not None:
        return "success"
    if error is None and (CALLBACKS_SEE_THE_STATE or _get(ti, "start_date") is not None):
        return "execute" if _callbacks(task, "on_execute_callback") else "other"
    # It has failed, or Airflow 3's Dag processor speaks of it: of dead workers alone, and without times and exception.
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
        # Called by hand with no context worth the name: nothing tells two such alerts apart, so none is a repetition.
        return uuid.uuid4().hex
    number = alert.try_number if alert.task_id else _number(_get(run, "clear_number"))
    return "" if number is None else number


def _url(alert: Alert, ti: object, task: object) -> str:
    try:
        if alert.kind == "input":
            url = _get(task, "generate_link_to_ui")(task_instance=ti)
        else:
            url = _get(ti, "log_url") if alert.task_id else _run_url(alert)
    except Exception:  # noqa: BLE001 - an alert without a link is better than none
        return ""
    return url if isinstance(url, str) and re.match(r"https?://", url) else ""


def _run_url(alert: Alert) -> str:
    from airflow_provider_fluxomail.airflow_compat import run_url

    return run_url(alert.dag_id, alert.run_id) if alert.dag_id and alert.run_id else ""


def _rows(alert: Alert, context: Mapping[str, Any], ti: object, run: object) -> Iterator[tuple[str, str]]:
    """Give what is known, label by label."""
    timed = ti if alert.task_id else run
    started, ended = _time(_get(timed, "start_date")), _time(_get(timed, "end_date"))
    name = _first_text(_get(ti, "rendered_map_index"))
    known = {
        "Dag": alert.dag_id,
        "Task": alert.task_id,
        "Map index": f"{alert.map_index}{f' ({name})' if name else ''}" if alert.map_index >= 0 else "",
        "Run": alert.run_id,
        "Try": f"{alert.try_number}{f' of {alert.tries}' if alert.tries else ''}" if alert.try_number else "",
        "Reason": alert.reason.replace("_", " "),
        "Failed tasks": one_line(told(alert.failed_tasks)),
        "Deadline": _shown(_time(_get(_get(context, "deadline"), "deadline_time"))),
        "Missed by": ", ".join(sorted({str(_get(one, "task_id")) for one in _callbacks(context, "slas")})),
        "Logical date": _shown(_time(_get(run, "logical_date"))),
        "Started": _shown(started),
        "Ended": _shown(ended),
        "Duration": _duration(started, ended),
        "Answers": ", ".join(str(one) for one in _callbacks(_get(context, "task"), "options"))
        if alert.kind == "input"
        else "",
    }
    return ((label, value) for label, value in known.items() if value)


def _get(source: object, name: str) -> Any:
    """Return an item or an attribute, None when there is none, or when reading it fails (a row without a session)."""
    try:
        return source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
    except Exception:  # noqa: BLE001 - see above
        return None


def _first_text(*candidates: object) -> str:
    return next((text for text in candidates if isinstance(text, str) and text), "")


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _time(value: object) -> datetime | None:
    """Read a time; in a deadline's run they are text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _shown(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else ""


def _duration(started: datetime | None, ended: datetime | None) -> str:
    if not started or not ended or ended < started:
        return ""
    minutes, seconds = divmod(round((ended - started).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
