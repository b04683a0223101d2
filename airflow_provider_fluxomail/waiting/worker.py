"""The part of a wait that runs in a worker: the first looks, the deferral, and what the ending means to the task.

Shared by the sensor and by the operator's ``wait_for``, so that both have one outcome table.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_fluxomail.airflow_compat import (
    TRIGGERS_CAN_END_TASKS,
    AirflowFailException,
    AirflowSensorTimeout,
    BaseOperator,
    conf,
    has_post_execute_hook,
)
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.watching.wait import TROUBLE, Ending, Wait, now
from airflow_provider_fluxomail.links import FluxomailTimelineLink
from airflow_provider_fluxomail.metrics import Metrics
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger, FluxomailRetryAfterTrigger

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_fluxomail.hooks import FluxomailHook

log = logging.getLogger(__name__)

#: Looks in the worker before a deferral, as seconds after the first. Most mail is delivered by then, and a deferral
#: costs Airflow about 3 s and a second worker process.
WORKER_LOOKS: Final = (0.0, 1.0, 2.5, 4.5, 7.0, 10.0)
#: A task that resumes sooner than this after it deferred is at times killed by Airflow's scheduler, which still sees
#: the old process. Seconds.
RESUME_AFTER: Final = 8.0
#: Wait for a 429 that names no time, in seconds: the API's caps are per minute.
DEFAULT_RATE_LIMIT_WAIT: Final = 60.0
#: Tasks that were refused in the same second come back spread over at least so many seconds.
RATE_LIMIT_SPREAD: Final = 10.0
#: How long after the trigger's own deadline Airflow ends the deferral, should the trigger not. Seconds.
BACKSTOP: Final = 300.0


def look(hook: FluxomailHook, wait: Wait) -> Ending | None:
    """Look once; ``None`` means: go on. A 401 reads the connection anew, once: its key may have been replaced."""
    ending = _look(hook, wait)
    if ending is None and wait.trouble_is_new:
        log.warning(TROUBLE, wait.trouble)
    return ending


def _look(hook: FluxomailHook, wait: Wait) -> Ending | None:
    began = now()
    try:
        try:
            timeline = hook.get_timeline(wait.send_id, max_attempts=1)
        except FluxomailAuthError:
            hook.forget()
            timeline = hook.get_timeline(wait.send_id, max_attempts=1)
        wait.seen = began
        return wait.saw(timeline)
    except FluxomailError as error:
        return wait.met(error, now())


def look_for(
    hook: FluxomailHook,
    wait: Wait,
    interval: float,
    *,
    looks: tuple[float, ...] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Ending | None:
    """Look again and again until the wait ends.

    :param interval: seconds between looks.
    :param looks: when to look instead, as seconds after the first; ``None`` comes back after the last of them: it is
        time to defer.
    """
    until = now() + looks[-1] if looks else wait.deadline
    gaps = iter(b - a for a, b in itertools.pairwise(looks)) if looks else itertools.repeat(interval)
    while True:
        if ending := look(hook, wait):
            return ending
        if now() >= wait.deadline:
            return wait.timed_out()
        gap = next(gaps, None)
        if gap is None:
            return None
        delay = wait.delay(gap, now())
        if looks and now() + delay > until + gap:
            # The server asks for a wait that would hold the worker: the trigger obeys it without one.
            return None
        sleep(delay)


def delivery_trigger(
    wait: Wait, task: BaseOperator, *, conn_id: str, interval: float, result: dict[str, Any] | None = None
) -> FluxomailDeliveryTrigger:
    """Return the trigger that goes on with ``wait``.

    :param task: who waits.
    :param result: what it wants to have back.
    """
    return FluxomailDeliveryTrigger(
        send_id=wait.send_id,
        target=wait.target,
        fail_on=list(wait.fail_on),
        fluxomail_conn_id=conn_id,
        poll_interval=interval,
        started=wait.started,
        deadline=wait.deadline,
        resume_after=now() + RESUME_AFTER,
        next_look=now() + wait.asked,
        seen=wait.seen,
        result=result,
        end_from_trigger=can_end_in_triggerer(task),
        multiple_outputs=bool(getattr(task, "multiple_outputs", False)),
    )


def can_end_in_triggerer(task: BaseOperator) -> bool:
    """True when nothing of a success needs a worker: it would start a process only to return what is known.

    Airflow runs no callback, no ``post_execute``, no custom XCom backend and no operator link there (the one of this
    package is there before the wait), and registers no asset event and no length to map over.
    """
    if not TRIGGERS_CAN_END_TASKS:
        return False
    own = type(task)
    return (
        bool(task.do_xcom_push)
        and not task.on_success_callback
        and not task.outlets
        and all(isinstance(link, FluxomailTimelineLink) for link in task.operator_extra_links)
        and not has_post_execute_hook(task)
        and own.post_execute is BaseOperator.post_execute
        # A subclass may do more.
        and own.execute_complete.__module__.startswith("airflow_provider_fluxomail.")  # type: ignore[attr-defined]
        and task.has_dag()  # type: ignore[no-untyped-call]
        and next(iter(task.iter_mapped_dependants()), None) is None
        and conf.get("core", "xcom_backend", fallback="BaseXCom").endswith("BaseXCom")
    )


def rate_limit_trigger(
    wait: float | None, give_up_at: float, *, conn_id: str, state: dict[str, Any] | None = None
) -> FluxomailRetryAfterTrigger | None:
    """Return the trigger that waits until the cap allows another request, ``None`` if that is too late.

    :param wait: seconds that the server asks for, ``None`` if it names no time.
    :param give_up_at: epoch seconds after which the task stops trying.
    :param conn_id: whose cap it is.
    :param state: what the task wants to have back.
    """
    wait = wait or DEFAULT_RATE_LIMIT_WAIT
    if now() + wait > give_up_at:
        log.warning("Rate limited for another %.0f s, which would exceed max_rate_limit_wait; giving up.", wait)
        return None
    # Spread, so that a thousand tasks refused in the same second do not come back in the same second.
    allowed = now() + max(wait, RESUME_AFTER)
    resume_at = min(allowed + random.uniform(0, max(RATE_LIMIT_SPREAD, wait / 4)), max(allowed, give_up_at))
    Metrics(conn_id).held(resume_at - now())
    log.info("Rate limited; deferring for %.0f s.", wait)
    return FluxomailRetryAfterTrigger(resume_at=resume_at, give_up_at=give_up_at, state=state)


def give_up_time(event: object) -> float | None:
    """Return when to stop trying, as a deferral for a rate limit brought it back."""
    told = event.get("give_up_at") if isinstance(event, Mapping) else None
    if isinstance(told, int | float):
        return float(told)
    # Sending again is safe with the same key; only the limit on the deferrals is lost.
    log.warning("The trigger came back without what it was given; sending all the same.")
    return None


def backstop(deadline: float) -> timedelta:
    """Return the ``timeout`` of a deferral: later than the trigger's own, which says more."""
    return timedelta(seconds=max(0.0, deadline - now()) + BACKSTOP)


def ended(ending: Ending, *, conn_id: str, began: float | None) -> Ending:
    """Count the ending of a wait in this worker, and return it; the trigger counts its own.

    :param began: epoch seconds, ``None`` if it is not known.
    """
    Metrics(conn_id).wait_ended(ending.target, ending.status, None if began is None else now() - began)
    return ending


def conclude(ending: Ending) -> dict[str, Any]:
    """Return the result of a wait that reached its target, and raise what any other ending means.

    :raises AirflowFailException: the message bounced..., or nobody can look. Does not use up retries.
    :raises AirflowSensorTimeout: the deadline passed. Airflow does not retry it.
    """
    if ending.status == "reached":
        log.info("The message was %s (%s).", ending.event, ending.time or "no time given")
        return ending.result
    if ending.status == "timeout":
        raise AirflowSensorTimeout(ending.message)
    raise AirflowFailException(ending.message)


def ending_of(event: object) -> Ending:
    """Read what a trigger came back with.

    :raises AirflowFailException: when it is not ours: a task must not go green on it.
    """
    try:
        return Ending.from_json(event)
    except (ValueError, TypeError) as error:
        raise AirflowFailException(str(error)) from error


def fail_or_retry(error: FluxomailError) -> NoReturn:
    """Fail the task without retries on a permanent error; re-raise anything else so that Airflow retries."""
    if error.permanent:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    raise error
