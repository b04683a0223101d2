"""Promise 1: one logical message, one email, whatever fails; or none and a clear error."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, note, settings

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.fault_sequences import EXAMPLES, TASKS, WAYS_OF_ONE_MESSAGE, Expected, Task
from tests.support.ways import (
    ATTEMPTS,
    LONG_429,
    PASSING,
    PASSING_FEW,
    PERMANENT,
    PERMANENT_FEW,
    TIMELINE,
    TIMEOUT,
    WAYS,
    Fault,
    Outcome,
    Way,
    check_sent,
    connect,
    each_way,
    each_way_and_fault,
    queue,
    quick,
    settle,
)

__all__ = ["quick"]


def test_every_fault_is_here() -> None:
    assert {fault.kind for fault in PASSING} == {kind for kind in KINDS if not kind.startswith("stream_")}


def test_the_ways_have_names_of_their_own() -> None:
    assert len({way.name for way in WAYS}) == len(WAYS)


@pytest.mark.usefixtures("quick")
@each_way_and_fault(PASSING, PASSING_FEW)
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


@pytest.mark.usefixtures("quick")
@each_way_and_fault([*PASSING, LONG_429], [*PASSING_FEW, LONG_429])
def test_promise_1_a_fault_that_stays(fluxomail_sandbox: FluxomailSandbox, way: Way, fault: Fault) -> None:
    """The fault lasts for a whole try: it fails, and the next try sends what is not sent yet."""
    connect(fluxomail_sandbox, fault)
    # A wait that is too long is not waited out, so there is one request.
    script = way.script(fault, calls=1 if fault == LONG_429 else ATTEMPTS)
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


@pytest.mark.usefixtures("quick")
@each_way_and_fault(PERMANENT, PERMANENT_FEW)
def test_promise_1_a_fault_that_no_request_mends(fluxomail_sandbox: FluxomailSandbox, way: Way, fault: Fault) -> None:
    script = [*way.before, fault]
    for recipient in way.recipients:
        queue(fluxomail_sandbox, script, recipient)
    outcomes = way.attempt(1)
    assert [(one.error, one.final) for one in outcomes] == [(fault.error, True)] * len(way.recipients)
    requests = len(fluxomail_sandbox.requests("POST"))
    messages_at_least = 1 if fault.ends_all else len(way.recipients)
    assert messages_at_least * len(script) <= requests <= len(way.recipients) * len(script)
    fluxomail_sandbox.assert_sent(0)


@pytest.mark.usefixtures("quick")
@each_way
def test_promise_1_a_conflict_that_lasts(fluxomail_sandbox: FluxomailSandbox, way: Way) -> None:
    """A 409 may be about an identical request still in progress: it is retried, but not without end."""
    fluxomail_sandbox.fail_next(409, times=None)
    outcomes = way.attempt(1)
    conflict = errors.FluxomailIdempotencyConflictError
    assert [(one.error, one.final) for one in outcomes] == [(conflict, True)] * len(way.recipients)
    assert len(fluxomail_sandbox.requests("POST")) == ATTEMPTS * len(way.recipients)
    fluxomail_sandbox.assert_sent(0)


# The sandbox is one for all examples, so each begins with a reset of it.
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@pytest.mark.timeout(60 + 2 * EXAMPLES)
@pytest.mark.parametrize("way", WAYS_OF_ONE_MESSAGE, ids=str)
@given(task=TASKS)
@pytest.mark.usefixtures("quick")
def test_promise_1_any_sequence_of_faults(fluxomail_sandbox: FluxomailSandbox, way: Way, task: Task) -> None:
    """``FLUXOMAIL_FAULT_EXAMPLES=2000`` runs more of them for each way to send."""
    sandbox = fluxomail_sandbox
    sandbox.reset()
    if way.store is not None:
        way.store.clear()
    sandbox.connect(timeout=TIMEOUT, max_attempts=task.max_attempts)
    (recipient,) = way.recipients
    queue(sandbox, task.script, recipient)
    expected = Expected.of(task, way)
    note(f"expected: {expected}")

    tries: list[Outcome] = []
    for number in range(1, len(expected.tries) + 1):
        tries += way.attempt(number)
        assert len(sandbox.messages(recipient)) <= 1, "at most one, at any time"
    settle(sandbox)

    assert [(one.error, one.final) for one in tries] == expected.tries
    (key,) = {one.key for one in tries}
    assert len(sandbox.requests("POST", idempotency_key=key)) == expected.requests
    mails = sandbox.messages(recipient)
    assert len(mails) == expected.stored
    if expected.tries[-1][0] is None:
        assert (tries[-1].send_id, key) == (mails[0].send_id, mails[0].idempotency_key)
    assert len(sandbox.requests("POST")) == expected.requests, "no other key was sent"
