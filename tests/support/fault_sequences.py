"""Random sequences of faults over several tries of a task, and what must come of them, by the rules the docs state."""

from __future__ import annotations

import dataclasses
import os
from functools import partial
from typing import Final

from hypothesis import strategies as st

from airflow_provider_fluxomail.client import errors
from tests.support.state_store import Store
from tests.support.ways import (
    FACES,
    LONG_429,
    PASSING,
    PERMANENT,
    TRANSPORTS,
    Fault,
    Way,
    by_batch,
    by_deferring_operator,
)

#: For each way to send.
EXAMPLES: Final = int(os.environ.get("FLUXOMAIL_FAULT_EXAMPLES", "15"))

#: No slow ones: a timeout of every kind is in the table of single faults.
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
        """One call: requests until one succeeds, the policy forbids another, or another would not help."""
        fault: Fault | None = None
        for _ in range(task.max_attempts):
            fault = next(faults, None)  # type: ignore[call-overload]
            self.requests += 1
            self.stored = self.stored or fault is None or bool(fault.stored)
            if fault is None or fault == LONG_429 or fault in PERMANENT:
                break
        return fault


#: Of a batch one message: an error that ends a batch would leave open how far the others came.
WAYS_OF_ONE_MESSAGE: Final = [
    *(way for way in [*TRANSPORTS, *FACES] if len(way.recipients) == 1 and not (way.before or way.after or way.reads)),
    Way("operator-deferrable", by_deferring_operator, defers=True),
    Way("batch", by_batch),
    Way("batch-deferrable", partial(by_batch, deferrable=True), defers=True),
    # As from Airflow 3.3 on: what a try leaves in the store, the next one finds.
    Way("operator-with-store", by_deferring_operator, defers=True, store=Store()),
    Way("batch-with-store", partial(by_batch, deferrable=True), defers=True, store=Store()),
]
TASKS: Final = st.builds(
    Task,
    script=st.lists(st.one_of(st.sampled_from(FAULTS), st.sampled_from(FAULTS), st.sampled_from(LAST)), max_size=8).map(
        tuple
    ),
    max_attempts=st.integers(1, 4),
    tries=st.integers(1, 4),
)
