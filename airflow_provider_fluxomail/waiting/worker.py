"""The part of a wait that runs in a worker: the first polls, and deferrals for a rate limit.

Shared by the sensor and by the operator's ``wait_for``, so that both have the same outcomes.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.airflow_compat import AirflowFailException, conf
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.retries import hold_seconds, spread
from airflow_provider_fluxomail.client.watching.wait import CANNOT_READ, Wait, WaitOutcome, now, timing
from airflow_provider_fluxomail.configuration.connection import outages
from airflow_provider_fluxomail.metrics import Metrics

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import Timeline
    from airflow_provider_fluxomail.hooks import FluxomailHook

log = logging.getLogger(__name__)

#: Airflow's default of ``[workers] min_heartbeat_interval``, in seconds.
_HEARTBEAT: Final = 5.0


class WorkerWait:
    """A wait that a task polls with its hook."""

    def __init__(self, hook: FluxomailHook, wait: Wait) -> None:
        self._hook = hook
        self.wait = wait

    def poll(self) -> WaitOutcome | None:
        """Poll once; return ``None`` if the wait continues. After a 401 the connection is read again, once."""
        wait, began = self.wait, now()
        try:
            try:
                timeline = self._read()
            except FluxomailAuthError:
                # Its key may have been replaced.
                self._hook.forget()
                timeline = self._read()
        except FluxomailError as error:
            ending = wait.on_error(error, now())
            if ending is None and wait.error_is_new:
                log.warning(CANNOT_READ, error)
            return ending
        wait.seen = began
        return wait.on_timeline(timeline)

    def _read(self) -> Timeline:
        with outages(self._hook.fluxomail_conn_id):
            # The task has looked it up before its first poll.
            self._hook.get_options()
        within = self.wait.poll_seconds(now())
        return self._hook.get_timeline(self.wait.send_id, max_attempts=1, within=within)

    def poll_until_ended(self, interval: float, *, hold: float | None) -> WaitOutcome | None:
        """Poll until the wait ends.

        :param hold: seconds for which a task that can defer polls; then this returns ``None``: it is time to defer.
        """
        wait = self.wait
        polls = () if hold is None else tuple(poll for poll in timing().worker_polls if poll <= hold)
        until = now() + polls[-1] if polls else wait.deadline
        gaps = iter(b - a for a, b in itertools.pairwise(polls)) if polls else itertools.repeat(interval)
        while True:
            if ending := self.poll():
                return ending
            if now() >= wait.deadline:
                return wait.timed_out()
            gap = next(gaps, None)
            if gap is None:
                return None
            delay = wait.delay(gap, now())
            if polls and now() + delay > until + gap:
                # The server asks for a wait that would hold the worker: the trigger waits without one.
                return None
            time.sleep(delay)

    def reschedule(self, elapsed: float, timeout: float) -> WaitOutcome | None:
        """Set how long the wait has taken across processes; return its outcome if the last poll's error now ends it."""
        self.wait.started = now() - elapsed
        self.wait.deadline = self.wait.started + timeout
        return self.wait.on_error(self.wait.last_error, now()) if self.wait.last_error else None

    def delay(self, interval: float) -> float:
        """Return the seconds to the next poll."""
        return self.wait.delay(interval, now())

    def ended(self, ending: WaitOutcome, *, rescheduled: bool = False) -> WaitOutcome:
        """Count the outcome in the metrics, and return it. A rescheduled wait does not know when it began."""
        seconds = None if rescheduled else now() - self.wait.started
        Metrics(self._hook.fluxomail_conn_id).wait_ended(ending.target, ending.status, seconds)
        return ending


def earliest_resume() -> float:
    """Return when a task that defers now may resume in a worker, epoch seconds.

    Airflow fails a task that is queued or running again when the end of its old process is reported, and that may come
    one heartbeat interval of the process's supervisor late. A shorter interval than the default is not relied on.
    """
    interval: float = conf.getfloat("workers", "min_heartbeat_interval", fallback=_HEARTBEAT)
    return now() + timing().resume_after + max(0.0, interval - _HEARTBEAT)


def rate_limit_resume(retry_after: float | None, give_up_at: float, *, conn_id: str) -> float | None:
    """Return when a rate-limited task may resume, epoch seconds, ``None`` if that is later than ``give_up_at``."""
    wait = retry_after or timing().rate_limit_wait
    if now() + wait > give_up_at:
        # The server may be mistaken: the next request shows whether it still asks for that long a wait.
        wait = hold_seconds(wait)
    if now() + wait > give_up_at:
        log.warning("Rate limited for another %.0f s, which would exceed max_rate_limit_wait; giving up.", wait)
        return None
    # Spread, so that a thousand tasks that were refused in the same second do not resume in the same second.
    allowed = max(now() + wait, earliest_resume())
    extra = spread(wait, 0.25, least=timing().rate_limit_spread) - wait
    resume_at = min(allowed + extra, max(allowed, give_up_at))
    Metrics(conn_id).held(resume_at - now())
    log.info("Rate limited; deferring for %.0f s.", wait)
    return resume_at


def read_outcome(event: object) -> WaitOutcome:
    """Read a trigger's event; fail the task if it is not the outcome of a wait."""
    try:
        return WaitOutcome.from_json(event)
    except (ValueError, TypeError) as error:
        raise AirflowFailException(str(error)) from error
