"""What the operators and the decorator do when their task runs. Only workers import it, to keep parsing cheap."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import AirflowFailException, Asset, storable_result
from airflow_provider_fluxomail.client.batch_counts import BatchCounts
from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.watching.wait import Wait, WaitOutcome, now
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.links import keep_link
from airflow_provider_fluxomail.operators.caller import BatchContent, Caller
from airflow_provider_fluxomail.sending import send_record
from airflow_provider_fluxomail.sending.attachments import read_attachments
from airflow_provider_fluxomail.sending.batch.batch import Batch
from airflow_provider_fluxomail.sending.batch.outcomes import Outcomes
from airflow_provider_fluxomail.sending.batch.progress import Progress
from airflow_provider_fluxomail.sending.batch.report import Report
from airflow_provider_fluxomail.sending.batch.rows import Rows, given_fields
from airflow_provider_fluxomail.sending.idempotency_key import content_digest, is_first_try, is_first_try_after_clear
from airflow_provider_fluxomail.sending.send_once import send_once
from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger
from airflow_provider_fluxomail.triggers.delivery import defer, hold_in_worker
from airflow_provider_fluxomail.waiting.worker import WorkerWait, rate_limit_resume, read_outcome

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.models import SendResult
    from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
    from airflow_provider_fluxomail.operators.batch import FluxomailSendBatchOperator
    from airflow_provider_fluxomail.operators.send import FluxomailSendOperator

    SendTask: TypeAlias = FluxomailSendOperator | FluxomailSendBatchOperator

log = logging.getLogger(__name__)

_Result = TypeVar("_Result", dict[str, Any], list[dict[str, Any]])

_BATCH_STATE: Final = "fluxomail_batch"
#: The part of a result that asset events contain.
_IN_EVENTS: Final = ("send_id", "message_id")


# One message


def send(
    task: FluxomailSendOperator,
    context: Context,
    *,
    message: EmailMessage | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Send the task's message, and wait for its delivery if ``wait_for`` is set.

    :param message: in place of the one that the task's arguments make.
    :param resumed: in all of these functions, the event that ended a deferral; ``None`` at the start of a try.
    """
    with _hook_for(task) as hook:
        message = message or EmailMessage(**task.message_fields(), attachments=read_attachments(task.attachments))
        task.check_tracked(message.html_content)
        caller = Caller(task, context, content_digest(message), message.to, resumed=resumed is not None)
        identity = caller.message(hook.get_options(), task.idempotency_key)
        timeout = tasks.check_seconds(task.wait_timeout, "wait_timeout")
        interval = tasks.check_seconds(task.poll_interval, "poll_interval")
        longest = tasks.check_seconds(task.max_rate_limit_wait, "max_rate_limit_wait")
        with caller.position:
            try:
                sent = send_once(message, identity, hook.get_conn())
            except FluxomailRateLimitError as error:
                if caller.may_defer:
                    _defer_rate_limit(task, error, _give_up_time(resumed) or now() + longest)
                raise
            if caller.is_task:
                keep_link(task, context, hook.get_options().settings.base_url, sent.send_id)
            result = _log_accepted(sent)
            if task.wait_for is not None:
                wait = Wait(sent.send_id, target=str(task.wait_for), started=(began := now()), deadline=began + timeout)
                result |= _await_delivery(task, hook, wait, result, interval, deferrable=caller.may_defer)
    return _finish(task, context, result)


def finish_wait(task: FluxomailSendOperator, context: Context, event: Any) -> dict[str, Any]:
    """End a deferred wait with the trigger's event."""
    reached = _conclude(read_outcome(event))
    result = event.get("result")
    return _finish(task, context, {**(result if isinstance(result, Mapping) else {}), **reached})


def _finish(task: FluxomailSendOperator, context: Context, result: _Result) -> _Result:
    """Return what the task returns, and add the sends to the events of the assets that the task changes."""
    events = context.get("outlet_events")
    for outlet in task.outlets or ():
        if events is not None and isinstance(outlet, Asset):
            for name in _IN_EVENTS:
                value = result.get(name) if isinstance(result, dict) else [one.get(name) for one in result]
                events[outlet].extra[name] = value
    return storable_result(task, result)


def _log_accepted(sent: SendResult) -> dict[str, Any]:
    """Log a send, and return it as the task returns it."""
    log.info(
        "Fluxomail %s send %s (status %s, idempotency key %s, request id %s).",
        "had already accepted" if sent.reused else "accepted",
        sent.send_id,
        sent.status,
        sent.idempotency_key,
        sent.request_id,
    )
    result = dataclasses.asdict(sent)
    del result["own_replay"]
    return result


def _await_delivery(
    task: FluxomailSendOperator,
    hook: FluxomailHook,
    wait: Wait,
    result: dict[str, Any],
    interval: float,
    *,
    deferrable: bool,
) -> dict[str, Any]:
    polls = WorkerWait(hook, wait)
    if ending := polls.poll_until_ended(interval, hold=hold_in_worker(task) if deferrable else None):
        return _conclude(polls.ended(ending))
    defer(task, wait, interval=interval, result=result)


def _conclude(ending: WaitOutcome) -> dict[str, Any]:
    """End the wait. A timeout fails the task without retries, which would only wait again for the same send."""
    return tasks.conclude(ending, on_timeout=AirflowFailException)


def _defer_rate_limit(
    task: SendTask, error: FluxomailRateLimitError, give_up_at: float, *, state: dict[str, Any] | None = None
) -> None:
    """Free the worker slot until the rate limit allows another request; return if that is not possible."""
    if resume_at := rate_limit_resume(error.retry_after, give_up_at, conn_id=task.fluxomail_conn_id):
        task.defer(
            trigger=FluxomailRetryAfterTrigger(resume_at=resume_at, give_up_at=give_up_at, state=state),
            method_name=task.send_after_rate_limit.__name__,
            timeout=tasks.backstop(resume_at),
        )


def _give_up_time(resumed: Mapping[str, Any] | None) -> float | None:
    """Return when to stop retrying, if the event of a deferral for a rate limit says so."""
    if resumed is None:
        return None
    moment = resumed.get("give_up_at")
    if isinstance(moment, int | float):
        return float(moment)
    # Sending again is safe with the same key; only the limit of all deferrals together is lost.
    log.warning("The trigger returned without its state; sending anyway.")
    return None


# Many messages


def send_batch(
    task: FluxomailSendBatchOperator, context: Context, *, resumed: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Send the messages of a batch that are not known to be sent."""
    content = BatchContent(task.messages, task.defaults)
    with _hook_for(task) as hook, (caller := Caller(task, context, content, resumed=resumed is not None)).position:
        task.check_arguments()
        store, name = caller.store, caller.state_name(_BATCH_STATE)

        def save(state: dict[str, Any], *, required: bool = False) -> None:
            if store is not None:
                send_record.save(store, name, state, required=required)

        state = (resumed or {}).get("state") or {}
        if not state and store is not None:
            # Also if the trigger of a deferral returned without it.
            required = resumed is not None or not is_first_try(context)
            state = send_record.load(store, name, required=required)
        outcomes = Outcomes(
            Progress(state, same_try=resumed is not None),
            Report(task.report_path or None, fresh=is_first_try(context) and resumed is None),
            requested=caller.requested(hook.get_options(), state),
            save=save,
            announce=functools.partial(save, required=True),
            stop_on_error=task.on_error == "stop",
            cleared=not task.resend_on_clear and is_first_try_after_clear(context),
        )
        rows = Rows(
            task.messages,
            defaults=task.defaults,
            file_format=task.file_format,
            attachment_folder=task.attachment_folder,
            own_rows=task.own_rows,
            own_defaults=task.own_defaults,
        )
        counts = _run_batch(task, caller, hook, rows, outcomes, resumed=resumed, concurrency=task.concurrency)
    return storable_result(task, {**dataclasses.asdict(counts), "report": outcomes.report.path})


def send_returned(
    task: FluxomailSendDecoratedOperator, context: Context, *, resumed: Mapping[str, Any] | None = None
) -> Any:
    """Call the task's function, and send the message or the messages that it returns."""
    try:
        returned = _read_returned(task.call(context))
    except FluxomailValidationError as error:
        tasks.fail_or_retry(error)
    if isinstance(returned, EmailMessage):
        return send(task, context, message=returned, resumed=resumed)
    # Airflow splits only mappings.
    task.multiple_outputs = False
    return _send_list(task, context, returned, resumed=resumed)


def _send_list(
    task: FluxomailSendDecoratedOperator, context: Context, rows: Rows, *, resumed: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Send a list of messages as a batch, and return the result of each.

    It has no progress that survives a try: a later try requests every message again, with the same key, to have all
    results. With ``durable`` each message has a record of its own instead.
    """
    results: dict[int, dict[str, Any]] = {}

    def keep(position: int, sent: SendResult) -> None:
        results[position] = _log_accepted(sent)

    content = BatchContent(rows.source)
    with _hook_for(task) as hook, (caller := Caller(task, context, content, resumed=resumed is not None)).position:
        if task.wait_for is not None:
            raise FluxomailValidationError(
                "wait_for is for a function that returns one message: map the task, or wait with a sensor"
            )
        if task.idempotency_key is not None:
            raise FluxomailValidationError(
                "idempotency_key is for a function that returns one message: give each message of a list its own 'key'"
            )
        outcomes = Outcomes(
            Progress(),
            Report(None, fresh=True),
            on_accepted=keep,
            cleared=not task.resend_on_clear and is_first_try_after_clear(context),
        )
        _run_batch(task, caller, hook, rows, outcomes, resumed=resumed, recorded=task.durable)
    return _finish(task, context, [results[position] for position in sorted(results)])


@contextlib.contextmanager
def _hook_for(task: SendTask) -> Iterator[FluxomailHook]:
    """Open a hook; on an error, fail the task or leave the retry to Airflow."""
    with contextlib.closing(FluxomailHook(task.fluxomail_conn_id)) as hook:
        try:
            yield hook
        except FluxomailError as error:
            tasks.fail_or_retry(error)


def _run_batch(
    task: FluxomailSendBatchOperator | FluxomailSendDecoratedOperator,
    caller: Caller,
    hook: FluxomailHook,
    rows: Rows,
    outcomes: Outcomes,
    *,
    resumed: Mapping[str, Any] | None,
    concurrency: int = 8,
    recorded: bool | None = None,
) -> BatchCounts:
    """Send a batch; defer for a long rate limit.

    :param recorded: whether each message has a record; ``None``: the progress of the batch as a whole is kept instead.
    """
    longest = tasks.check_seconds(task.max_rate_limit_wait, "max_rate_limit_wait")
    give_up_at = _give_up_time(resumed)
    connection = hook.get_options()
    identify = functools.partial(caller.row, connection, recorded=bool(recorded))
    # on_kill stops it.
    task.running_batch = Batch(rows, outcomes, identify=identify, settings=connection.settings, concurrency=concurrency)
    try:
        return task.running_batch.run()
    except FluxomailRateLimitError as error:
        kept = recorded is None
        if give_up_at is None or (kept and outcomes.progressed):
            give_up_at = now() + longest
        if caller.may_defer:
            _defer_rate_limit(task, error, give_up_at, state=outcomes.state() if kept else None)
        raise


@private
def _read_returned(value: Any) -> EmailMessage | Rows:
    """Return what a decorated function returned: a message, or several."""
    if isinstance(value, EmailMessage):
        return value
    if isinstance(value, Mapping):
        return EmailMessage.of(given_fields(value))
    if isinstance(value, list | tuple | Iterator):
        return Rows(list(value))
    if value is None:
        raise FluxomailValidationError(
            "the function returned nothing: return a message, or a list of messages. To send none, return an empty "
            "list, or raise AirflowSkipException, which skips the tasks after it too"
        )
    raise FluxomailValidationError(
        f"the function returned {type(value).__name__}: return a mapping of a message's fields, an EmailMessage, or a "
        "list of them"
    )
