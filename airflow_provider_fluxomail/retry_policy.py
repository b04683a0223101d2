"""A retry policy that follows Fluxomail's ``Retry-After`` and error types. Airflow 3.3 and later."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import HAS_RETRY_POLICIES, RetryPolicy
from airflow_provider_fluxomail.client.errors import FluxomailError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context, RetryDecision

#: The longest delay, in seconds; also Airflow's limit. A server that asks for more is in error.
MAX_DELAY: Final = 24 * 3600.0
#: Retries are spread over this fraction of the delay, and over at least ``LEAST_SPREAD`` seconds, so that tasks which
#: were refused together do not retry together.
SPREAD: Final = 0.25
LEAST_SPREAD: Final = 1.0


class FluxomailRetryPolicy(RetryPolicy):
    """Waits as long as Fluxomail asks before a retry, and fails at once where a retry cannot help.

    ::

        @task(retries=3, retry_policy=FluxomailRetryPolicy())
        def remind() -> str:
            message = {"to": "ada@example.org", "subject": "Reminder", "content": "See you on Monday."}
            return FluxomailHook().send(message).send_id

    After an error with ``retry_after`` (a 429 or 503 with ``Retry-After``) that is the delay, plus up to a quarter of
    it, instead of the task's ``retry_delay``. An error that is ``permanent`` fails the task at once. The same applies
    to an error that was raised ``from`` one of these. Any other error is left to Airflow. The task's ``retries`` still
    apply.

    The operators and the sensor of this package use it by default. Set it on any task that calls
    :class:`.FluxomailHook`.

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
        """Decide in the worker, after a try ended with an error."""
        from airflow_provider_fluxomail.airflow_compat import RetryDecision
        from airflow_provider_fluxomail.client.retries import spread

        error = _find_fluxomail_error(exception)
        if error is None:
            return RetryDecision.default()
        name = type(error).__name__
        if error.permanent:
            return RetryDecision.fail(reason=f"{name}: a retry cannot help")
        if not error.retry_after or error.retry_after < 0:
            return RetryDecision.default()
        asked = min(error.retry_after, MAX_DELAY)
        delay = min(spread(asked, SPREAD, least=LEAST_SPREAD), MAX_DELAY)
        return RetryDecision.retry(delay=timedelta(seconds=delay), reason=f"{name}: Fluxomail asks to wait {asked:g} s")


def _find_fluxomail_error(exception: BaseException) -> FluxomailError | None:
    """Return the error, or the one that it was raised from.

    Not one that was being handled at the time (``__context__``): the new error may have another cause.
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
    """Make the policy the default in the arguments of an operator, unless its author or the Dag set another one."""
    # The arguments of mapped tasks contain None, which setdefault() would keep.
    if HAS_RETRY_POLICIES and not arguments.get("retry_policy"):
        # Airflow applies a Dag's default_args only to arguments that the signature names.
        defaults = arguments.get("default_args") or {}
        arguments["retry_policy"] = defaults.get("retry_policy") or FluxomailRetryPolicy()
