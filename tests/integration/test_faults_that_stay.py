"""Every fault of the sandbox against every way to send: faults that stay (promise 1), and waits between tries (4).

Apart from ``test_faults.py`` so that both run side by side.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.integration.conftest import Transport
from tests.integration.ways import (
    ATTEMPTS,
    MESSAGE,
    Fault,
    Way,
    check_sent,
    connect,
    each_fault,
    each_way,
    queue,
    quick,
)

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")


@each_way
@each_fault
def test_promise_1_a_fault_that_stays(fluxomail_sandbox: FluxomailSandbox, way: Way, fault: Fault) -> None:
    """The try fails, and the next one sends what is not sent yet."""
    connect(fluxomail_sandbox, fault)
    script = way.script(fault, calls=ATTEMPTS)
    for recipient in way.recipients:
        queue(fluxomail_sandbox, script, recipient)
    first = way.attempt(1)
    if way.defers and fault.is_429:
        # The last one is waited out too.
        check_sent(fluxomail_sandbox, way, first, len(script) + 1)
        return
    assert [one.error for one in first] == [fault.error] * len(way.recipients)
    if fault.ends_all and len(way.recipients) > 1:
        # The batch ends with it, whatever the other messages would have met.
        assert len(fluxomail_sandbox.requests("POST")) <= len(script) * len(way.recipients)
        fluxomail_sandbox.clear_faults()
        assert all(one.send_id for one in way.attempt(2))
        fluxomail_sandbox.assert_sent(len(way.recipients))
        return
    assert fluxomail_sandbox.faults() == []
    for one in first:
        assert one.key
        assert len(fluxomail_sandbox.requests("POST", idempotency_key=one.key)) == len(script)
    second = way.attempt(2)
    assert [one.key for one in second] == [one.key for one in first]
    assert all(one.replays(fault) for one in second)
    check_sent(fluxomail_sandbox, way, second, len(script) + 1)


@each_way
@pytest.mark.parametrize(
    ("status", "retry_after", "seconds"),
    [(429, 0.4, 0.4), (503, 0.4, 0.4), (429, {"http_date_in": 1}, 1.0)],
    ids=["429-seconds", "503-seconds", "429-http-date"],
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
