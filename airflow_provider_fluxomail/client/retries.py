"""When a request is made again, and after how long: one decision and one wait for both transports.

The decision rests on what a second request could do. A ``POST`` that carries an idempotency key may always be repeated.
One without a key may be repeated only when the first certainly did nothing (no connection, or refused with a 429):
after a reset or a 500 the mail may be on its way.
"""

from __future__ import annotations

import dataclasses
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailError,
    FluxomailIdempotencyConflictError,
    FluxomailRateLimitError,
    FluxomailResponseError,
    FluxomailServerError,
)
from airflow_provider_fluxomail.client.observer import Observer

if TYPE_CHECKING:
    from tenacity import RetryCallState

    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.client.wire import Request, SendResult

log = logging.getLogger(__name__)

#: First step and ceiling of the exponential wait, seconds. Full jitter: anything from 0 to the step.
BACKOFF_FIRST: Final = 0.5
BACKOFF_MAX: Final = 15.0
#: A 409 may be a twin of this request that is still being worked on: wait this long, at least and at most, seconds.
CONFLICT_WAIT: Final = (0.2, 1.0)
#: Added to a wait that the server named, as a part of it: a thousand tasks must not come back in the same instant.
JITTER: Final = 0.1


def is_repeatable(error: BaseException, request: Request) -> bool:
    """Decide whether ``request`` may be made again after ``error``."""
    if isinstance(error, FluxomailRateLimitError):
        return True
    if isinstance(error, FluxomailConnectionError):
        return request.repeatable or not error.ambiguous
    if isinstance(error, FluxomailResponseError):
        # A redirect answers the same each time.
        return request.repeatable and not 300 <= (error.status or 0) < 400
    if isinstance(error, FluxomailIdempotencyConflictError):
        return error.status == 409 and request.idempotency_key is not None
    return isinstance(error, FluxomailServerError) and request.repeatable


def seconds_to_wait(error: BaseException, attempt: int, draw: Callable[[], float] = random.random) -> float:
    """Return how long to wait after the ``attempt``-th attempt (from 1) failed with ``error``, in seconds.

    :param draw: a random number from 0 to 1.
    """
    if isinstance(error, FluxomailIdempotencyConflictError):
        least, most = CONFLICT_WAIT
        return least + (most - least) * draw()
    step = draw() * min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** (attempt - 1))
    asked = error.retry_after if isinstance(error, FluxomailError) else None
    if asked:
        return asked + draw() * max(JITTER, JITTER * asked)
    return step


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how long one call tries.

    :param max_attempts: requests at most.
    :param max_wait: seconds between attempts, all together, at most. A server that asks for more gets no wait at all:
        the error says how much it asked for, and who called decides.
    :param draw: a random number from 0 to 1.
    :param failures: takes the error of each attempt that failed.
    :param observer: is told of each request that is made again.
    """

    max_attempts: int = 4
    max_wait: float = 60.0
    draw: Callable[[], float] = random.random
    failures: list[FluxomailError] = dataclasses.field(default_factory=list)
    observer: Observer = dataclasses.field(default_factory=Observer)

    @classmethod
    def of(
        cls, settings: ClientSettings, max_attempts: int | None = None, failures: list[FluxomailError] | None = None
    ) -> RetryPolicy:
        """Return the policy of one call.

        :param max_attempts: other than the settings' own.
        """
        return cls(
            max_attempts=max_attempts or settings.max_attempts,
            max_wait=settings.max_wait,
            failures=[] if failures is None else failures,
            observer=settings.observer,
        )

    def options(self, request: Request) -> dict[str, Any]:
        """Arguments for tenacity's ``Retrying`` and ``AsyncRetrying``."""

        def retry(state: RetryCallState) -> bool:
            error = _error(state)
            if isinstance(error, FluxomailError):
                self.failures.append(error)
            return error is not None and is_repeatable(error, request)

        def wait(state: RetryCallState) -> float:
            error = _error(state)
            seconds = seconds_to_wait(error, state.attempt_number, self.draw) if error else 0.0
            asked, left = getattr(error, "retry_after", None), self.max_wait - state.idle_for
            # What is added to a wait that the server named must not make it one that is not allowed.
            return min(seconds, left) if asked and asked <= left else seconds

        def stop(state: RetryCallState) -> bool:
            return bool(
                state.attempt_number >= self.max_attempts or state.idle_for + state.upcoming_sleep > self.max_wait
            )

        def before_sleep(state: RetryCallState) -> None:
            error = _error(state)
            log.info(
                "Attempt %s of %s failed: %s. Trying again in %.1f s%s.",
                state.attempt_number,
                self.max_attempts,
                error,
                state.upcoming_sleep,
                " with the same idempotency key" if request.idempotency_key else "",
            )
            if isinstance(error, FluxomailError):
                self.observer.retrying(error, state.upcoming_sleep)

        return {"retry": retry, "wait": wait, "stop": stop, "before_sleep": before_sleep, "reraise": True}


class Doubt:
    """Whether an attempt of one send may have stored the mail although it failed.

    Of an error the caller must know that, whichever attempt raised it; of a replay, that it may be the call's own.

    :param observer: is told how the send ends.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self.failures: list[FluxomailError] = []

    def __enter__(self) -> Doubt:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FluxomailError):
            error.ambiguous = error.ambiguous or self.there
            self._observer.not_sent(error)

    def settle(self, sent: SendResult) -> SendResult:
        """Return the result of the send, with what is known of its replay."""
        sent = dataclasses.replace(sent, own_replay=sent.reused and self.there)
        self._observer.sent(sent)
        return sent

    @property
    def there(self) -> bool:
        """True when an attempt that failed so far may have stored it."""
        return any(error.ambiguous for error in self.failures)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None
