"""Every fault of the sandbox against every way to send, for as long as a whole try takes (promise 1).

Apart from ``test_faults.py`` so that both run side by side.
"""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.ways import (
    ATTEMPTS,
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
    assert [(one.error, one.final) for one in first] == [(fault.error, False)] * len(way.recipients)
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
