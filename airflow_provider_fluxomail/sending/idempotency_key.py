"""What makes two messages the same one: the idempotency key, which is the same for all tries of a task.

The form of derived keys never changes: if a key changed between two versions, every task that is retried across an
upgrade would send a second email.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.airflow_compat import COUNTS_EVERY_CLEAR, runs_execute_callback
from airflow_provider_fluxomail.client.addresses import normalised
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.wire import MAX_KEY_LENGTH, check_idempotency_key
from airflow_provider_fluxomail.sending.position import Position, claim
from airflow_provider_fluxomail.tasks import check_key_text

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import BaseOperator, Context
    from airflow_provider_fluxomail.client.messages import EmailMessage

_SCHEME = "af1"
_DIGEST_LENGTH = 32
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")


def derive_key(
    *,
    namespace: str,
    dag_id: str,
    run_id: str,
    task_id: str,
    map_index: int = -1,
    generation: int | str = "",
    part: str = "",
) -> str:
    """Return ``af1:<dag_id>.<task_id>:<digest>``, at most 128 characters of ``[A-Za-z0-9_.:-]``.

    The digest is over a JSON list, not over joined text, so that ``("a", "b.c")`` and ``("a.b", "c")`` differ. The
    readable part is for people who search Fluxomail's log; it identifies nothing.

    :param namespace: of the deployment, from the connection.
    :param map_index: -1 for a task that is not mapped.
    :param generation: empty, or a value that changes when a person clears the task (see :func:`task_generation`).
    :param part: names one of several messages of the task.
    """
    return _key(f"{dag_id}.{task_id}", [namespace, dag_id, run_id, task_id, map_index, generation, part])


def task_key(context: Context, *, namespace: str, resend_on_clear: bool = False, part: str = "") -> str:
    """Return the key of the running task.

    :param context: as ``execute`` got it, in a worker. A triggerer does not know all parts of the key.
    :param resend_on_clear: derive a new key after a person cleared the task.
    """
    ti = context["ti"]
    return derive_key(
        namespace=namespace,
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=_map_index(ti),
        generation=task_generation(context) if resend_on_clear else "",
        part=part,
    )


def notification_key(
    *,
    namespace: str,
    dag_id: str,
    run_id: str,
    task_id: str = "",
    map_index: int = -1,
    occasion: int | str = "",
    kind: str,
    recipient: str,
    configuration: Mapping[str, Any],
    part: str = "",
) -> str:
    """Return the key of one alert to one recipient, in the form of :func:`derive_key`.

    Airflow calls some callbacks twice, the second time with less information (no exception, no times). So the key is
    derived from the notifier's configuration, not from its text.

    :param task_id: empty for an alert about a whole run.
    :param occasion: the task's try, the run's number of clears, or the id of the deadline.
    :param kind: of the callback, see :mod:`.alerts`.
    :param configuration: of the notifier, before it is rendered, without the arguments that were left out: a version
        that adds an argument changes no key of notifiers that do not use it.
    :param part: distinguishes alerts that are otherwise the same.
    """
    about = [namespace, dag_id, run_id, task_id, map_index, occasion]
    # Starts with a word: no list of another length or kind can be equal.
    identity = ["notification", *about, kind, normalised(recipient), configuration, part]
    return _key(f"{dag_id}.{task_id}" if task_id else dag_id, identity)


def explicit_key(key: object, context: Context, *, resend_on_clear: bool = False) -> str:
    """Return a key that the author chose, different for each mapped task and, if requested, after a clear.

    A key that is too long, or contains characters that a header cannot, is cut and gets a digest of the whole.
    """
    key = check_key_text(key)
    map_index = _map_index(context.get("ti"))
    if map_index >= 0:
        key = f"{key}:{map_index}"
    if resend_on_clear:
        key = f"{key}:g{task_generation(context)}"
    try:
        return check_idempotency_key(key)
    except FluxomailValidationError:
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
        return f"{_readable(key, len(digest) + 1)}:{digest}"


def part_in_task(message: EmailMessage, part: str | None) -> tuple[str, Context, Position | None]:
    """Return the ``part`` of a message that the running task's own code sends, and the context of that task.

    Without a ``part``, the position among the messages to the recipient in this try counts, across all hooks.
    """
    context = _running_context()
    # An on_execute_callback of Airflow 3: each try has its own messages.
    prefix = f"callback:execute:{context['ti'].try_number}:" if runs_execute_callback() else ""
    if part is None:
        position = claim(context, prefix + recipient_part(message.to, 0), content_digest(message))
        return prefix + recipient_part(message.to, position.ordinal), context, position
    if not isinstance(part, str) or not part.strip():
        raise FluxomailValidationError("part came out empty: give each message of the task its own, or leave it out")
    return prefix + named_part(part), context, None


def operator_position(
    task: BaseOperator, context: Context, content: object, recipient: str = "", *, resumed: bool = False
) -> Position:
    """Return the position of what an operator sends; the running task's own first message has the task's key.

    An operator that other code runs (``FluxomailSendOperator(...).execute(context)`` in a ``@task``, a callback or a
    subclass that sends more than once) must never take that key. See :func:`operator_part`.

    :param content: equal if a second call repeats the first.
    :param recipient: empty for a batch.
    """
    name = f"operator:{task.task_id}:{recipient_part(recipient, 0)}"
    return claim(context, name, content, of_task=task if is_running_task(task, context) else None, resumed=resumed)


def operator_part(task: BaseOperator, position: Position, rest: str = "", recipient: str = "") -> str:
    """Return the ``part`` of a message of an operator at a position.

    :param rest: the ``part`` of a batch's row.
    :param recipient: of a single message.
    """
    if position.of_task:
        return rest
    name = recipient_part(recipient, position.ordinal) if recipient else f"{position.ordinal}:{rest}"
    return f"operator:{task.task_id}:{name}"


def is_running_task(task: BaseOperator, context: Context) -> bool:
    """Return whether an operator is the task that runs, not one that other code runs within it."""
    running, ti = context.get("task"), context.get("ti")
    if running is None:
        return bool(getattr(ti, "task_id", None) == task.task_id)
    if not hasattr(running, "task_id"):
        # Not a context of Airflow's: nothing else can be meant.
        return True
    # In Airflow 3.0, the context has the task before it was prepared.
    return running is task or getattr(ti, "task", None) is task


def is_callback(context: Context) -> bool:
    """Return whether a callback runs with this context, not the task."""
    if runs_execute_callback():
        return True
    try:
        _running_context()
    except FluxomailValidationError:
        # Airflow's contexts have a Dag, or say why there is none.
        return any(context.get(name) is not None for name in ("dag", "task", "reason", "deadline"))
    return False


def recipient_part(recipient: str, ordinal: int) -> str:
    """Return the ``part`` of a message that is identified by its recipient.

    :param ordinal: 0 for the first message to that recipient, 1 for the second.
    """
    return f"to:{normalised(recipient)}:{ordinal}"


def named_part(name: str) -> str:
    """Return the ``part`` of a message that its author named; never equal to a :func:`recipient_part`."""
    return f"key:{name}"


def content_part(message: EmailMessage) -> tuple[str, Position] | None:
    """Return the ``part`` of a message that is identified by its content, ``None`` if no task is running.

    Two messages of a task are the same if every word and file is. If a try sends identical messages, their position
    (first, second, ...) is part of the key.
    """
    try:
        context = _running_context()
    except FluxomailValidationError:
        return None
    digest = content_digest(message)
    position = claim(context, f"content:{digest}", digest)
    return f"content:{digest}:{position.ordinal}", position


def content_digest(message: EmailMessage) -> str:
    """Return a digest of the message as its author wrote it, without text that was derived from HTML."""
    files = [[file.filename, hashlib.sha256(file.data).hexdigest()] for file in message.attachments]
    body = message.html_content if message.html_content is not None else message.content
    said = [recipient_part(message.to, 0), message.subject, body, list(message.cc), list(message.bcc), files]
    return hashlib.sha256(json.dumps(said, ensure_ascii=True).encode()).hexdigest()[:_DIGEST_LENGTH]


def email_key(message: EmailMessage, *, namespace: str, now: datetime) -> str:
    """Return the key of an email that is sent outside of a task: ``af1:email:<digest>``.

    Equal emails in the same clock hour (UTC) have one key: Airflow may request the email of one failure several times.

    :param now: current time; compute the key once, so that retries of the request keep it.
    """
    hour = f"{now.astimezone(UTC):%Y-%m-%dT%H}"
    # Starts with a word, so that it equals no list of another kind.
    return _key("email", ["email", namespace, content_digest(message), hour])


def is_first_try(context: Context) -> bool:
    """Return whether the task was neither tried nor cleared before, so that no try of it can have sent."""
    return int(getattr(context.get("ti"), "try_number", 0) or 0) <= 1


def is_first_try_after_clear(context: Context) -> bool:
    """Return whether this is the first try after a person cleared the task, as far as Airflow knows.

    A clear sets ``max_tries`` to the tries made plus ``retries``; Airflow's own retries do not change it. Lowering
    ``retries`` between two tries looks the same, so the run must also have been cleared, if Airflow counts that.
    """
    ti, retries = context.get("ti"), getattr(context.get("task"), "retries", None)
    if ti is None or not isinstance(retries, int):
        return False
    tries_before = task_generation(context) - retries
    if tries_before < 1 or int(getattr(ti, "try_number", 0) or 0) != tries_before + 1:
        return False
    # Airflow before 3.2 counts only clears of runs that had finished.
    return not COUNTS_EVERY_CLEAR or getattr(context.get("dag_run"), "clear_number", None) != 0


def is_task_running() -> bool:
    """Return whether a task's own code calls."""
    try:
        _running_context()
    except FluxomailValidationError:
        return False
    return True


def _running_context() -> Context:
    from airflow_provider_fluxomail.airflow_compat import get_current_context

    try:
        context: Context = get_current_context()
    except Exception:  # noqa: BLE001 - each version has its own class
        raise FluxomailValidationError(
            "no task is running that a key could be derived from: give idempotency_key, the same for all tries of the "
            "message; in a callback, use FluxomailNotifier"
        ) from None
    return context


def task_generation(context: Context) -> int:
    """Return the number that survives retries, crashes, deferrals and reschedules, and changes with a clear.

    That is the raw ``max_tries``: a clear sets it to the tries made plus ``retries``. Not ``max_tries - retries``,
    which changes when ``retries`` is edited between two tries, and would send a second email.
    """
    return int(context["ti"].max_tries or 0)


def _map_index(ti: Any) -> int:
    index = getattr(ti, "map_index", -1)
    return -1 if index is None else int(index)


def _key(name: str, identity: list[Any]) -> str:
    digest = _digest(identity)
    return f"{_SCHEME}:{_readable(name, len(_SCHEME) + len(digest) + 2)}:{digest}"


def _digest(identity: list[Any]) -> str:
    text = json.dumps(
        identity,
        ensure_ascii=True,
        separators=(",", ":"),
        sort_keys=True,
        # By its class alone: the repr of an object may differ between processes.
        default=lambda value: type(value).__qualname__,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_LENGTH]


def _readable(text: str, taken: int) -> str:
    return _UNSAFE.sub("_", text)[: MAX_KEY_LENGTH - taken]
