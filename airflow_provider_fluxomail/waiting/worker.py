"""The part of a wait that runs in a worker: the first polls, and deferrals for a rate limit.

Shared by the sensor and by the operator's ``wait_for``, so that both have the same outcomes.
"""

from __future__ import annotations

import itertools
import logging
import time
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.airflow_compat import AirflowFailException
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.retries import hold_seconds, spread
from airflow_provider_fluxomail.client.watching.wait import CANNOT_READ, Ending, Wait, now, timing
from airflow_provider_fluxomail.configuration.connection import outages
from airflow_provider_fluxomail.metrics import Metrics

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import Timeline
    from airflow_provider_fluxomail.hooks import FluxomailHook

log = logging.getLogger(__name__)


class WorkerWait:
    """A wait that a task polls with its hook."""

    def __init__(self, hook: FluxomailHook, wait: Wait) -> None:
        self._hook = hook
        self.wait = wait

    def poll(self) -> Ending | None:
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
            if ending is None and wait.trouble_is_new:
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

    def poll_until_ended(self, interval: float, *, deferrable: bool) -> Ending | None:
        """Poll until the wait ends. A deferrable one polls a few times only; ``None``: it is time to defer."""
        wait = self.wait
        polls = timing().worker_polls if deferrable else ()
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
                # The server asks for a wait that would hold the worker: the trigger obeys it without one.
                return None
            time.sleep(delay)

    def reschedule(self, elapsed: float, timeout: float) -> Ending | None:
        """Set how long the wait has taken across processes; return how that ends it after the last poll's error."""
        self.wait.started = now() - elapsed
        self.wait.deadline = self.wait.started + timeout
        return self.wait.on_error(self.wait.trouble, now()) if self.wait.trouble else None

    def delay(self, interval: float) -> float:
        """Return the seconds to the next poll."""
        return self.wait.delay(interval, now())

    def ended(self, ending: Ending, *, rescheduled: bool = False) -> Ending:
        """Count the ending in the metrics, and return it. A rescheduled wait does not know when it began."""
        seconds = None if rescheduled else now() - self.wait.started
        Metrics(self._hook.fluxomail_conn_id).wait_ended(ending.target, ending.status, seconds)
        return ending


def rate_limit_resume(retry_after: float | None, give_up_at: float, *, conn_id: str) -> float | None:
    """Return when a rate-limited task may resume, epoch seconds, ``None`` if that is later than ``give_up_at``."""
    wait = retry_after or timing().rate_limit_wait
    if now() + wait > give_up_at:
        # Perhaps by mistake: a request shows whether the server still asks for it.
        wait = hold_seconds(wait)
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


def ending_of(event: object) -> Ending:
    """Read the event of a trigger; one of another kind fails the task, which must not succeed because of it."""
    try:
        return Ending.from_json(event)
    except (ValueError, TypeError) as error:
        raise AirflowFailException(str(error)) from error
