"""How long every way to send waits before it tries again: what the server asks for, and never all alike (promise 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.ways import ATTEMPTS, FACES, MESSAGE, TRANSPORTS, Way, check_sent, quick
from tests.wire.conftest import Transport

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("way", "status", "retry_after", "seconds"),
    [
        *((way, 429, 0.4, 0.4) for way in [*TRANSPORTS, *FACES]),
        *((way, 503, 0.4, 0.4) for way in TRANSPORTS),
        *((way, 429, {"http_date_in": 1}, 1.0) for way in TRANSPORTS),
    ],
    ids=str,
)
def test_promise_4_the_gap_between_tries_obeys_retry_after(
    fluxomail_sandbox: FluxomailSandbox, way: Way, status: int, retry_after: Any, seconds: float
) -> None:
    for recipient in way.recipients:
        fluxomail_sandbox.fail_next(status, retry_after=retry_after, to=recipient)
    outcomes = way.attempt(1)
    for one in outcomes:
        requests = fluxomail_sandbox.requests("POST", idempotency_key=one.key)
        assert len(requests) == ATTEMPTS
        assert requests.gaps[0] >= seconds
    check_sent(fluxomail_sandbox, way, outcomes, ATTEMPTS)


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        ({"kind": "error_before_store"}, 0.0),
        ({"kind": "cut_before_store"}, 0.0),
        ({"kind": "status", "status": 429}, 0.0),
        ({"kind": "status", "status": 429, "retry_after": 20}, 20.0),
        ({"kind": "status", "status": 503, "retry_after": 20}, 20.0),
        ({"kind": "status", "status": 503, "retry_after": {"http_date_in": 20}}, 20.0),
    ],
    ids=str,
)
def test_promise_4_no_two_calls_wait_alike(
    fluxomail_sandbox: FluxomailSandbox, call: Transport, fault: dict[str, Any], least: float
) -> None:
    calls = 5
    fluxomail_sandbox.fail_next(**fault, times=calls, every=2)
    settings = ClientSettings(api_key=fluxomail_sandbox.api_key, base_url=fluxomail_sandbox.url, max_attempts=2)
    for number in range(calls):
        call(settings, "send", EmailMessage(**MESSAGE), idempotency_key=f"passes{number}")
        call(settings, "send", EmailMessage(**MESSAGE), idempotency_key=f"k{number}")
    assert len(call.naps) == calls
    assert min(call.naps) >= least
    assert all(abs(one - other) > 1e-9 for one, other in pairwise(sorted(call.naps))), "jitter"
    assert len(fluxomail_sandbox.requests("POST")) == 3 * calls
    fluxomail_sandbox.assert_sent(2 * calls)
