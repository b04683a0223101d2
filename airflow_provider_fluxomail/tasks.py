"""What the operators, the sensor and the decorator share: arguments, and what an error or a deferral means to a task.

Arguments are checked while the Dag is parsed and in the worker. Every parse of a Dag imports this module, so it imports
very little.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_fluxomail.airflow_compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    has_pre_execute_hook,
    is_unmapped,
)
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailValidationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jinja2 import Environment

    from airflow_provider_fluxomail.airflow_compat import BaseOperator
    from airflow_provider_fluxomail.client.watching.wait import WaitOutcome

log = logging.getLogger(__name__)

#: How long after the trigger's own deadline Airflow ends the deferral, should the trigger not. Seconds.
BACKSTOP: Final = 300.0

_TEMPLATE: Final = re.compile(r"\{[{%#]")
_PLAIN: Final = (type(None), bool, int, float, bytes, timedelta)


class Constants:
    """Which arguments of a task are constants: ``"subject" in constants`` if it has the same value in the worker.

    :param complete: whether the Dag is complete. Before that, missing arguments may still be set.
    """

    def __init__(self, task: BaseOperator, *, complete: bool) -> None:
        self._task = task
        self.complete = complete

    def __contains__(self, name: str) -> bool:
        value = getattr(self._task, name)
        if name in self._task.template_fields and self._other_templates():
            return False
        try:
            return is_constant(value) and (self.complete or not _is_empty(value))
        except RecursionError:
            # The check says which value contains itself.
            return True

    def _other_templates(self) -> bool:
        """Return whether the Dag has unusual templates: other delimiters, or text that renders to lists and numbers."""
        dag = self._task.dag
        options = getattr(dag, "jinja_environment_kwargs", None) or {}
        return bool(
            getattr(dag, "render_template_as_native_obj", False)
            or any(name.endswith(("_start_string", "_prefix", "extensions")) for name in options)
        )


def is_constant(value: object) -> bool:
    """Return whether a value is the same in the worker: no template, no output of another task."""
    if isinstance(value, str):
        return not _TEMPLATE.search(value)
    if isinstance(value, list | tuple | set | frozenset):
        return all(is_constant(item) for item in value)
    if isinstance(value, Mapping):
        return all(is_constant(item) for pair in value.items() for item in pair)
    return isinstance(value, _PLAIN)


def check_while_parsing(task: BaseOperator, check: Callable[[Constants], None], *, complete: bool = False) -> None:
    """Check the constants of a task while its Dag is parsed, so that a mistake is an import error of the Dag.

    Only the worker checks tasks without a Dag (run by hand), mapped tasks, and subclasses and tasks with
    ``pre_execute``, which may set missing arguments when they run.
    """
    own = type(task).__module__.startswith("airflow_provider_fluxomail.")
    if not own or is_unmapped(task) or has_pre_execute_hook(task) or not task.has_dag():  # type: ignore[no-untyped-call]
        return
    try:
        check(Constants(task, complete=complete))
    except FluxomailValidationError as error:
        raise FluxomailValidationError(f"task {task.task_id!r}: {error.message}") from None


def check_send_id(send_id: object) -> str:
    """Return the send id; one that is empty, as after a skipped upstream task, is an error."""
    if send_id is None or (isinstance(send_id, str) and send_id.strip() in ("", "None")):
        raise FluxomailValidationError(
            "send_id came out empty: the task that sends was skipped, or returned nothing. Skip the wait with it "
            "(trigger_rule), or check what send_id refers to"
        )
    if not isinstance(send_id, str):
        raise FluxomailValidationError(
            f"send_id must be text, not {type(send_id).__name__}: use send.output['send_id'], or when mapped "
            "send.output.map(lambda result: result['send_id'])"
        )
    return send_id.strip()


def check_seconds(value: float | timedelta, field: str) -> float:
    """Return a duration in seconds; one that is negative or not a duration is an error."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise FluxomailValidationError(f"{field} must be a timedelta or a number of seconds, 0 or more")
    return float(seconds)


def check_key_text(key: object) -> str:
    """Return an idempotency key that the author chose; one that is empty or contains a line break is an error."""
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)  # a Dag that renders native objects turns "20260101" into a number
    if not isinstance(key, str) or key.strip() in ("", "None"):
        # "None" is what a template renders for a missing XCom: it would be one key for all such messages.
        raise FluxomailValidationError("idempotency_key came out empty: leave it out to have it derived from the task")
    if re.search(r"[\x00-\x1f\x7f]", key):
        raise FluxomailValidationError("idempotency_key holds a line break or control character: give one line")
    return key


def with_template_file(text: str, field: str, environment: Environment) -> str:
    """Return the template of a text: the template file that it names, or the text itself.

    A file is looked up as Airflow does it, or by an absolute path. What looks like the name of a file and is none is an
    error, unless it may be a sentence that ends with such a name.
    """
    # Only workers render.
    from jinja2 import TemplateNotFound

    from airflow_provider_fluxomail.client.text_fields import may_name_file, names_file

    name = text.strip()
    if not may_name_file(name):
        return text
    path = Path(name)
    if path.is_absolute() and path.is_file():
        return path.read_text(encoding="utf-8")
    try:
        if environment.loader is None:
            raise TemplateNotFound(name)  # noqa: TRY301
        environment.get_template(name)
    except TemplateNotFound:
        if not names_file(name, field):
            return text
        raise FluxomailValidationError(
            f"{field}: there is no template file {name!r} in the folder of the Dag or its template_searchpath"
            + ("" if environment.loader else ", as there is no Dag here: give an absolute path")
        ) from None
    # Includes the file instead of returning its text: autoescaping may depend on its name.
    quoted = json.dumps(name, ensure_ascii=False)
    return f"{environment.block_start_string} include {quoted} {environment.block_end_string}"


def fail_or_retry(error: FluxomailError) -> NoReturn:
    """Fail the task without retries on a permanent error; re-raise anything else so that Airflow retries."""
    if error.permanent:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    raise error


def conclude(ending: WaitOutcome, *, on_timeout: type[Exception] = AirflowSensorTimeout) -> dict[str, Any]:
    """Return the result of a wait that reached its target, or fail the task: it bounced, or its timeline is unreadable.

    :param on_timeout: the error of a wait that timed out. Airflow retries neither.
    """
    if ending.status == "reached":
        log.info("The message was %s (%s).", ending.event, ending.time or "no time given")
        return ending.result
    raise (on_timeout if ending.status == "timeout" else AirflowFailException)(ending.message)


def backstop(deadline: float) -> timedelta:
    """Return the ``timeout`` of a deferral: later than the trigger's own deadline, whose message says more."""
    return timedelta(seconds=max(0.0, deadline - time.time()) + BACKSTOP)


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str | list | tuple | set | frozenset | Mapping) and not value)
