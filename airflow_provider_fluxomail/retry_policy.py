"""When Airflow tries a task again, by what Fluxomail said. Airflow 3.3 and later."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import HAS_RETRY_POLICIES, RetryPolicy
from airflow_provider_fluxomail.client.errors import FluxomailError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context, RetryDecision

#: A longer delay than a day is a mistake, which must not put a task off for good. Seconds; Airflow's own limit.
MAX_DELAY: Final = 24 * 3600.0
#: Tasks that were refused in the same second come back spread over so much of the delay, and at least so many seconds.
SPREAD: Final = 0.25
LEAST_SPREAD: Final = 1.0


class FluxomailRetryPolicy(RetryPolicy):
    """Retries a task when Fluxomail asked for it, and not at all where no retry helps.

    An error with ``retry_after`` (a 429 or 503 with ``Retry-After``) makes that the delay, plus up to a quarter of it,
    in place of the task's ``retry_delay``. An error that is ``permanent`` fails the task at once. An error that was
    raised ``from`` one of these counts as it. Anything else is left to Airflow. The task's ``retries`` hold in any
    case.

    Operators and sensor of this package have it unless they are given another policy. It is of use to any task that
    calls :class:`.FluxomailHook`.

    .. seealso:: :doc:`/guides/retries`

    :raises AirflowOptionalProviderFeatureException: before Airflow 3.3.
    """

    def __init__(self) -> None:
        if not HAS_RETRY_POLICIES:
            from airflow_provider_fluxomail.airflow_compat import AirflowOptionalProviderFeatureException

            raise AirflowOptionalProviderFeatureException(
                "FluxomailRetryPolicy needs Airflow 3.3 or later: leave it out, and give the task a retry_delay of a "
                "minute or more, or the operator deferrable=True"
            )

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """Decide, in the worker, about the error that ended a try."""
        from airflow_provider_fluxomail.airflow_compat import RetryDecision

        error = _of_fluxomail(exception)
        if error is None:
            return RetryDecision.default()
        name = type(error).__name__
        if error.permanent:
            return RetryDecision.fail(reason=f"{name}: no retry mends it")
        if not error.retry_after or error.retry_after < 0:
            return RetryDecision.default()
        asked = min(error.retry_after, MAX_DELAY)
        delay = min(asked + random.uniform(0, max(LEAST_SPREAD, SPREAD * asked)), MAX_DELAY)
        return RetryDecision.retry(delay=timedelta(seconds=delay), reason=f"{name}: Fluxomail asks to wait {asked:g} s")


def _of_fluxomail(exception: BaseException) -> FluxomailError | None:
    """Return the error, or the one that it was raised from.

    Not one that was merely being handled (``__context__``): what went wrong then may be something else.
    """
    seen: set[int] = set()
    error: BaseException | None = exception
    while error is not None and id(error) not in seen:
        if isinstance(error, FluxomailError):
            return error
        seen.add(id(error))
        error = error.__cause__
    return None


def give_retry_policy(arguments: dict[str, Any]) -> None:
    """Give an operator the policy, in its ``__init__``, unless its author or the Dag gave it one.

    :param arguments: for Airflow's own ``__init__``. Of mapped tasks they hold ``None``, which ``setdefault`` keeps.
    """
    if HAS_RETRY_POLICIES and not arguments.get("retry_policy"):
        # Airflow puts a Dag's default_args only into arguments that the signature names.
        defaults = arguments.get("default_args") or {}
        arguments["retry_policy"] = defaults.get("retry_policy") or FluxomailRetryPolicy()
