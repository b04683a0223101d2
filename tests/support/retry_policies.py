"""The retry policy's decisions."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.airflow_compat import HAS_RETRY_POLICIES
from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.retry_policy import FluxomailRetryPolicy

since_3_3 = pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="Airflow has retry policies since 3.3")
EVERY_ERROR = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.FluxomailError)
]


def decision(error: BaseException) -> tuple[str, float | None]:
    made = FluxomailRetryPolicy().evaluate(error, try_number=1, max_tries=3)
    return made.action.value, made.retry_delay.total_seconds() if made.retry_delay else None
