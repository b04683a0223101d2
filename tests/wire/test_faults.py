"""Every fault of the sandbox against every way to send: faults that pass, and faults that no request mends (promise 1).

One message is stored, or none and the right error is raised; never two, and with no more requests than allowed.
"""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.sandbox.faults import KINDS
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.ways import (
    ATTEMPTS,
    PASSING,
    PERMANENT,
    TIMELINE,
    WAYS,
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


def test_every_fault_is_here() -> None:
    assert {fault.kind for fault in PASSING} == {kind for kind in KINDS if not kind.startswith("stream_")}


@each_way
@each_fault
def test_promise_1_a_fault_that_passes(fluxomail_sandbox: FluxomailSandbox, way: Way, fault: Fault) -> None:
    connect(fluxomail_sandbox, fault)
    script = way.script(fault, calls=0 if way.after else 1)
    for recipient in way.recipients:
        queue(fluxomail_sandbox, script, recipient)
        if way.reads and fault.kind != "missing_send_id":
            queue(fluxomail_sandbox, [fault], recipient, path=TIMELINE)
    outcomes = way.attempt(1)
    check_sent(fluxomail_sandbox, way, outcomes, len(script) + 1)
    assert all(one.replays(fault) for one in outcomes)
    assert fluxomail_sandbox.faults() == []


@each_way
@pytest.mark.parametrize("fault", PERMANENT, ids=str)
def test_promise_1_a_fault_that_no_request_mends(fluxomail_sandbox: FluxomailSandbox, way: Way, fault: Fault) -> None:
    script = [*way.before, fault]
    for recipient in way.recipients:
        queue(fluxomail_sandbox, script, recipient)
    outcomes = way.attempt(1)
    assert [(one.error, one.final) for one in outcomes] == [(fault.error, True)] * len(way.recipients)
    asked = 1 if fault.ends_all else len(way.recipients)
    assert asked * len(script) <= len(fluxomail_sandbox.requests("POST")) <= len(way.recipients) * len(script)
    fluxomail_sandbox.assert_sent(0)


@each_way
def test_promise_1_a_conflict_that_lasts(fluxomail_sandbox: FluxomailSandbox, way: Way) -> None:
    """409 may be a twin of the request that is still being worked on: it is asked for again, and not for ever."""
    fluxomail_sandbox.fail_next(409, times=None)
    outcomes = way.attempt(1)
    conflict = errors.FluxomailIdempotencyConflictError
    assert [(one.error, one.final) for one in outcomes] == [(conflict, True)] * len(way.recipients)
    assert len(fluxomail_sandbox.requests("POST")) == ATTEMPTS * len(way.recipients)
    fluxomail_sandbox.assert_sent(0)


def test_the_ways_have_names_of_their_own() -> None:
    assert len({way.name for way in WAYS}) == len(WAYS)
