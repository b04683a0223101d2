"""When a request is retried, and after how long: one decision and one wait for both transports.

The decision rests on what a second request could do. A ``POST`` that carries an idempotency key may always be repeated.
One without a key may be repeated only if the first certainly did nothing (no connection, or refused with a 429): after
a reset or a 500 the email may be on its way.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client import defaults
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailIdempotencyConflictError

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from airflow_provider_fluxomail.client.models import Request
    from airflow_provider_fluxomail.client.observer import Observer

log = logging.getLogger(__name__)

#: Returns a random number from 0 to 1.
Draw = Callable[[], float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long to wait after failures in a row: twice as long after each, with jitter: clients must not retry in step.

    ::

        Backoff(first=0.5, longest=15).seconds(3)  # from 0 to 2 s
        Backoff(first=1, longest=30, jitter=0.5).seconds(9)  # from 15 to 30 s
        Backoff(first=60, longest=60, jitter=0.2).seconds()  # from 48 to 60 s

    :param first: seconds after the first failure.
    :param longest: seconds at most.
    :param jitter: the part of the wait that is random, from 0 (none) to 1 (anything from 0 on).
    """

    first: float
    longest: float
    jitter: float = 1.0

    def seconds(self, failures: int = 1, *, at_least: float | None = None, draw: Draw = random.random) -> float:
        """Return the wait after this many failures in a row, and not less than the server asked for (``at_least``),
        see :func:`hold_seconds`.
        """
        # No wait doubles more often; a larger exponent would overflow.
        step = min(self.longest, self.first * 2.0 ** min(failures - 1, 64))
        return max(hold_seconds(at_least), step * (1 - self.jitter + self.jitter * draw()))


def spread(seconds: float, part: float, *, least: float = 0.0, draw: Draw = random.random) -> float:
    """Return a wait longer by up to ``part`` (or ``least`` seconds): tasks refused together must not retry together."""
    return seconds + draw() * max(least, part * seconds)


def jittered(seconds: float, *, draw: Draw = random.random) -> float:
    """Return a wait that is up to a fifth shorter or longer, so that clients do not act at the same time."""
    return seconds * (0.8 + 0.4 * draw())


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryTiming:
    """How long a client waits before its next request.

    :param backoff: between the attempts of one call.
    :param conflict: after a 409: a twin of the request may still be in progress.
    :param longest_hold: longest wait that a server may demand, in seconds. After it, one request shows whether the
        server still demands it.
    """

    backoff: Backoff = Backoff(first=0.5, longest=15.0)
    conflict: Backoff = Backoff(first=1.0, longest=1.0, jitter=0.8)
    longest_hold: float = 600.0


_timing = RetryTiming()


def retry_timing() -> RetryTiming:
    """Return the timing of retries in this process."""
    return _timing


def hold_seconds(asked: float | None) -> float:
    """Return how long to make no request: one wrong value must not silence a client until all waits have timed out."""
    return min(asked or 0.0, _timing.longest_hold)


#: A wait that the server asked for is extended by up to this part of it, or this many seconds if that is more.
NAMED_WAIT_SPREAD: Final = 0.1


def is_retried(error: BaseException, request: Request) -> bool:
    """Return whether ``request`` may be made again after ``error``."""
    if not isinstance(error, FluxomailError):
        return False
    if isinstance(error, FluxomailIdempotencyConflictError):
        return error.status == 409 and request.idempotency_key is not None
    if error.permanent or 300 <= (error.status or 0) < 400:
        # A redirect is the same each time.
        return False
    return request.repeatable or not error.ambiguous


def seconds_to_wait(error: BaseException, attempt: int, draw: Draw = random.random) -> float:
    """Return how many seconds to wait after the ``attempt``-th attempt (from 1) failed with ``error``."""
    if isinstance(error, FluxomailIdempotencyConflictError):
        return _timing.conflict.seconds(draw=draw)
    if isinstance(error, FluxomailError) and error.retry_after:
        return spread(error.retry_after, NAMED_WAIT_SPREAD, least=NAMED_WAIT_SPREAD, draw=draw)
    return _timing.backoff.seconds(attempt, draw=draw)


def retry_options(
    request: Request,
    *,
    max_attempts: int = defaults.MAX_ATTEMPTS,
    max_wait: float = defaults.MAX_WAIT,
    failures: list[FluxomailError],
    observer: Observer,
    draw: Draw = random.random,
) -> dict[str, Any]:
    """Return the arguments for tenacity's ``Retrying`` and ``AsyncRetrying``.

    :param max_attempts: requests at most.
    :param max_wait: seconds between attempts, all together, at most. If the server asks for more, the call does not
        wait: the error says how long it asked for, and the caller decides.
    :param failures: collects the error of each attempt that failed.
    :param observer: called before each retry.
    """

    def retry(state: RetryCallState) -> bool:
        error = _error(state)
        if isinstance(error, FluxomailError):
            failures.append(error)
        return error is not None and is_retried(error, request)

    def wait(state: RetryCallState) -> float:
        error = _error(state)
        seconds = seconds_to_wait(error, state.attempt_number, draw) if error else 0.0
        asked, left = getattr(error, "retry_after", None), max_wait - state.idle_for
        # The jitter must not push a wait that is allowed over the limit.
        return min(seconds, left) if asked and asked <= left else seconds

    def stop(state: RetryCallState) -> bool:
        return state.attempt_number >= max_attempts or state.idle_for + state.upcoming_sleep > max_wait

    def before_sleep(state: RetryCallState) -> None:
        error = _error(state)
        log.info(
            "Attempt %s of %s failed: %s. Retrying in %.1f s%s.",
            state.attempt_number,
            max_attempts,
            error,
            state.upcoming_sleep,
            " with the same idempotency key" if request.idempotency_key else "",
        )
        if isinstance(error, FluxomailError):
            observer.retrying(error, state.upcoming_sleep)

    return {"retry": retry, "wait": wait, "stop": stop, "before_sleep": before_sleep, "reraise": True}


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
