"""Random sequences of faults over several tries of a task (promise 1): whatever comes, one message or none.

Hypothesis draws the sequences, shrinks one that fails and prints how to repeat it. More of them for each way to send:
``FLUXOMAIL_FAULT_EXAMPLES=2000 pytest tests/wire/test_fault_sequences.py``.
"""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import Final

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.ways import (
    LONG_429,
    PASSING,
    PERMANENT,
    TIMEOUT,
    WAYS,
    Fault,
    Outcome,
    Store,
    Way,
    by_batch,
    by_deferring_operator,
    by_hand,
    queue,
    quick,
    settle,
)

__all__ = ["quick"]

EXAMPLES: Final = int(os.environ.get("FLUXOMAIL_FAULT_EXAMPLES", "40"))

#: None of them takes long: a time-out of every kind is in the table of ``test_faults.py``.
FAULTS: Final = [*(fault for fault in PASSING if not fault.slow), LONG_429]
LAST: Final = [*PERMANENT, Fault("status", {"status": 409}, False, errors.FluxomailIdempotencyConflictError)]


@dataclasses.dataclass(frozen=True)
class Task:
    """A task as Airflow runs it, and what its requests meet.

    :param script: one fault a request; none after them.
    :param max_attempts: requests of one call, of the connection.
    :param tries: of the task, at most.
    """

    script: tuple[Fault, ...]
    max_attempts: int
    tries: int


@dataclasses.dataclass
class Expected:
    """What must come of a task.

    :param tries: the error of each try, ``None`` for the one that succeeds, and whether it is the last one.
    """

    tries: list[tuple[type[errors.FluxomailError] | None, bool]] = dataclasses.field(default_factory=list)
    requests: int = 0
    stored: bool = False

    @classmethod
    def of(cls, task: Task, way: Way) -> Expected:
        """Play the task by the rules that the documentation states."""
        end, faults = cls(), iter(task.script)
        for _ in range(task.tries):
            fault = end._try(task, way, faults)
            final = fault in LAST
            end.tries.append((fault.error if fault else None, final))
            if fault is None or final:
                break
        return end

    def _try(self, task: Task, way: Way, faults: object) -> Fault | None:
        """One try: a call, and another one after each deferral."""
        while True:
            fault = self._call(task, faults)
            if fault is None or not (fault.is_429 and way.defers):
                return fault

    def _call(self, task: Task, faults: object) -> Fault | None:
        """One call: requests until one succeeds, the policy forbids another, or another is of no use."""
        fault: Fault | None = None
        for _ in range(task.max_attempts):
            fault = next(faults, None)  # type: ignore[call-overload]
            self.requests += 1
            self.stored = self.stored or fault is None or bool(fault.stored)
            if fault is None or fault == LONG_429 or fault in PERMANENT:
                break
        return fault


ONE: Final = ("ops@example.org",)
STORE: Final = Store()
#: Of a batch one message: what ends it would leave open how far the others came.
ONE_MESSAGE: Final = [
    *(way for way in WAYS if len(way.recipients) == 1 and not (way.before or way.reads)),
    Way("batch", partial(by_batch, recipients=ONE)),
    Way("batch-deferrable", partial(by_batch, recipients=ONE, deferrable=True), defers=True),
    Way("by-hand", by_hand),
    Way("by-hand-async", partial(by_hand, asynchronous=True)),
    # As from Airflow 3.3 on: what a try leaves in the store, the next one finds.
    Way("operator-with-store", partial(by_deferring_operator, store=STORE), defers=True),
    Way("batch-with-store", partial(by_batch, recipients=ONE, deferrable=True, store=STORE), defers=True),
]
TASKS: Final = st.builds(
    Task,
    script=st.lists(st.one_of(st.sampled_from(FAULTS), st.sampled_from(FAULTS), st.sampled_from(LAST)), max_size=8).map(
        tuple
    ),
    max_attempts=st.integers(1, 4),
    tries=st.integers(1, 4),
)


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
@pytest.mark.parametrize("way", ONE_MESSAGE, ids=str)
@given(task=TASKS)
@pytest.mark.usefixtures("quick")
def test_promise_1_any_sequence_of_faults(fluxomail_sandbox: FluxomailSandbox, way: Way, task: Task) -> None:
    sandbox = fluxomail_sandbox
    sandbox.reset()
    STORE.clear()
    sandbox.connect(timeout=TIMEOUT, max_attempts=task.max_attempts)
    for recipient in way.recipients:
        queue(sandbox, task.script, recipient)
    expected = Expected.of(task, way)
    note(f"expected: {expected}")

    tries: list[list[Outcome]] = []
    for number in range(1, len(expected.tries) + 1):
        tries.append(way.attempt(number))
        for recipient in way.recipients:
            assert len(sandbox.messages(recipient)) <= 1, "at most one, at any time"
    settle(sandbox)

    for position, recipient in enumerate(way.recipients):
        outcomes = [outcomes[position] for outcomes in tries]
        assert [(one.error, one.final) for one in outcomes] == expected.tries
        (key,) = {one.key for one in outcomes}
        requests = sandbox.requests("POST", idempotency_key=key)
        assert len(requests) == expected.requests
        mails = sandbox.messages(recipient)
        assert len(mails) == expected.stored
        if expected.tries[-1][0] is None:
            assert (outcomes[-1].send_id, key) == (mails[0].send_id, mails[0].idempotency_key)
    assert len(sandbox.requests("POST")) == expected.requests * len(way.recipients), "no other key was sent"
