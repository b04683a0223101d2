"""The part of a wait that runs in a worker: the first polls, and what the ending means to the task.

Shared by the sensor and by the operator's ``wait_for``, so that both have the same outcomes.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.airflow_compat import AirflowFailException, AirflowSensorTimeout
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.retries import spread
from airflow_provider_fluxomail.client.watching.wait import CANNOT_READ, Ending, Wait, now, timing
from airflow_provider_fluxomail.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_fluxomail.hooks import FluxomailHook

log = logging.getLogger(__name__)


def poll(hook: FluxomailHook, wait: Wait) -> Ending | None:
    """Poll once; return ``None`` if the wait continues. After a 401 the connection is read again, once."""
    ending = _poll(hook, wait)
    if ending is None and wait.trouble_is_new:
        log.warning(CANNOT_READ, wait.trouble)
    return ending


def _poll(hook: FluxomailHook, wait: Wait) -> Ending | None:
    began = now()
    try:
        try:
            timeline = hook.get_timeline(wait.send_id, max_attempts=1)
        except FluxomailAuthError:
            # Its key may have been replaced.
            hook.forget()
            timeline = hook.get_timeline(wait.send_id, max_attempts=1)
    except FluxomailError as error:
        return wait.on_error(error, now())
    wait.seen = began
    return wait.on_timeline(timeline)


def poll_until_ended(
    hook: FluxomailHook, wait: Wait, interval: float, *, deferrable: bool, sleep: Callable[[float], None] = time.sleep
) -> Ending | None:
    """Poll until the wait ends.

    :param interval: seconds between polls.
    :param deferrable: poll a few times only, as :attr:`.WaitTiming.worker_polls` says; then ``None`` is returned, and
        it is time to defer.
    """
    polls = timing().worker_polls if deferrable else ()
    until = now() + polls[-1] if polls else wait.deadline
    gaps = iter(b - a for a, b in itertools.pairwise(polls)) if polls else itertools.repeat(interval)
    while True:
        if ending := poll(hook, wait):
            return ending
        if now() >= wait.deadline:
            return wait.timed_out()
        gap = next(gaps, None)
        if gap is None:
            return None
        delay = wait.delay(gap, now())
        if polls and now() + delay > until + gap:
            # The server asks for a wait that would hold the worker: the trigger obeys it without one.
            return None
        sleep(delay)


def rate_limit_resume(retry_after: float | None, give_up_at: float, *, conn_id: str) -> float | None:
    """Return when a rate-limited task may resume, epoch seconds, ``None`` if that is too late.

    :param retry_after: seconds that the server asks to wait, ``None`` if it names no time.
    :param give_up_at: epoch seconds after which the task stops retrying.
    :param conn_id: the connection whose rate limit it is.
    """
    wait = retry_after or timing().rate_limit_wait
    if now() + wait > give_up_at:
        log.warning("Rate limited for another %.0f s, which would exceed max_rate_limit_wait; giving up.", wait)
        return None
    # Spread, so that a thousand tasks that were refused in the same second do not resume in the same second.
    allowed = now() + max(wait, timing().resume_after)
    extra = spread(wait, 0.25, least=timing().rate_limit_spread) - wait
    resume_at = min(allowed + extra, max(allowed, give_up_at))
    Metrics(conn_id).held(resume_at - now())
    log.info("Rate limited; deferring for %.0f s.", wait)
    return resume_at


def ended(ending: Ending, *, conn_id: str, began: float | None) -> Ending:
    """Count the ending of a wait in this worker, and return it; the trigger counts its own.

    :param began: epoch seconds, ``None`` if it is not known.
    """
    Metrics(conn_id).wait_ended(ending.target, ending.status, None if began is None else now() - began)
    return ending


def conclude(ending: Ending) -> dict[str, Any]:
    """Return the result of a wait that reached its target, or raise the error that its ending means.

    :raises AirflowFailException: the message bounced (or was dropped, ...), or its timeline cannot be read. Airflow
        does not retry it.
    :raises AirflowSensorTimeout: the deadline has passed. Airflow does not retry it.
    """
    if ending.status == "reached":
        log.info("The message was %s (%s).", ending.event, ending.time or "no time given")
        return ending.result
    if ending.status == "timeout":
        raise AirflowSensorTimeout(ending.message)
    raise AirflowFailException(ending.message)


def ending_of(event: object) -> Ending:
    """Read the event of a trigger.

    :raises AirflowFailException: it is not from this package's trigger: a task must not succeed because of it.
    """
    try:
        return Ending.from_json(event)
    except (ValueError, TypeError) as error:
        raise AirflowFailException(str(error)) from error
