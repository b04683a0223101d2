"""The pending faults, and which requests meet them.

Faults are met in the order of their creation. A request takes the first that is due; if that one is a ``delay``, it
also takes the first other kind created after it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_fluxomail.sandbox.faults.models import (
    AnyFault,
    Delay,
    Match,
    MissingSendId,
    StreamGap,
    handled_first,
)
from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.store.request_log import path_matches


class Subject:
    """What faults match a request by. What is expensive to find out is found out when a fault needs it.

    :param stream: it asks for the event stream.
    :param about: returns its idempotency key, None if there is none, and its recipient in each form: as it was sent
        and as a bare address.
    """

    def __init__(
        self,
        method: str,
        path: str,
        *,
        stream: bool = False,
        api_key: str | None = None,
        about: Callable[[], tuple[str | None, Collection[str]]] = lambda: (None, ()),
    ) -> None:
        self.method = method
        self.path = path
        self.stream = stream
        self.api_key = api_key
        self._about = about

    @cached_property
    def _found(self) -> tuple[str | None, Collection[str]]:
        return self._about()

    def matches(self, match: Match) -> bool:
        """Whether everything that is given holds."""
        return (
            (match.method is None or fnmatchcase(self.method, match.method.upper()))
            and (match.path is None or path_matches(self.path, match.path))
            and (match.api_key is None or _glob(self.api_key, match.api_key))
            and (match.idempotency_key is None or _glob(self._found[0], match.idempotency_key))
            and (match.recipient is None or any(_glob(to.lower(), match.recipient.lower()) for to in self._found[1]))
        )


def _glob(value: str | None, pattern: str) -> bool:
    return value is not None and fnmatchcase(value, pattern)


class QueuedFault:
    """A fault in the queue; ``number`` increases with every fault."""

    def __init__(self, number: int, spec: AnyFault) -> None:
        self.number = number
        self.spec = spec
        self.met = 0
        self._seen = 0

    @property
    def pending(self) -> bool:
        return self.spec.times is None or self.met < self.spec.times

    def acquire(self) -> bool:
        """Count a matching request; return whether it meets the fault."""
        self._seen += 1
        after = self._seen - self.spec.skip
        if after < 1 or after % self.spec.every:
            return False
        if self.spec.chance is not None:
            # Seeded by the position of the request, so that one that is released is drawn the same again.
            drawn = random.Random(f"{self.spec.seed}:{self._seen}").random()
            if drawn >= self.spec.chance:
                return False
        self.met += 1
        return True

    def release(self) -> None:
        """Undo an :meth:`acquire`: the fault could not be applied to the request."""
        self._seen -= 1
        self.met -= 1

    def state(self) -> PendingFault:
        """What the control API shows of it."""
        remaining = None if self.spec.times is None else self.spec.times - self.met
        counts = {"id": self.number, "met": self.met, "remaining": remaining}
        return PendingFault.model_validate(counts | self.spec.model_dump())


class PendingFault(BaseModel):
    """A pending fault, with the fields it was given."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: int
    kind: str
    met: int = Field(description="Requests that it has met.")
    remaining: int | None = Field(description="Requests that it will still meet; null for no limit.")
    match: dict[str, str | None] = Field(description="What must hold of a request.")

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class FaultQueue:
    """The faults, in the order of their creation."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._faults: list[QueuedFault] = []
        self._created = 0

    @property
    def full(self) -> bool:
        return len(self.pending()) >= self._bounds.faults

    def add(self, spec: AnyFault) -> QueuedFault:
        self._created += 1
        fault = QueuedFault(self._created, spec)
        if len(self._faults) > 2 * self._bounds.faults:
            # Not sooner: a fault that is being applied may be released.
            self._faults = self.pending()
        self._faults.append(fault)
        return fault

    def acquire(self, subject: Subject) -> tuple[QueuedFault | None, QueuedFault | None]:
        """Acquire the faults that a request meets.

        A fault that changes a whole response never meets an event stream, which has no end.

        :return: the delay and the other fault, each None if there is none.
        """
        delay: QueuedFault | None = None
        for fault in self._faults:
            spec = fault.spec
            is_delay = isinstance(spec, Delay)
            if not fault.pending or spec.stream or (is_delay and delay) or not subject.matches(spec.match):
                continue
            if subject.stream and not is_delay and handled_first(spec):
                continue
            if isinstance(spec, MissingSendId) and subject.method != "POST":
                continue
            if not fault.acquire():
                continue
            if not is_delay:
                return delay, fault
            delay = fault
        return delay, None

    def acquire_for_stream(self, subject: Subject, counted: set[int], *, resumed: bool = False) -> list[QueuedFault]:
        """Acquire the faults that an event stream meets.

        :param counted: numbers of the faults that have counted this stream already; this call adds to it.
        :param resumed: the stream is just opening, and resumes after an event.
        """
        acquired = []
        for fault in self._faults:
            spec = fault.spec
            if not spec.stream or not fault.pending or fault.number in counted or not subject.matches(spec.match):
                continue
            if isinstance(spec, StreamGap) and not resumed:
                continue
            counted.add(fault.number)
            if fault.acquire():
                acquired.append(fault)
        return acquired

    def pending(self) -> list[QueuedFault]:
        return [fault for fault in self._faults if fault.pending]

    def clear(self) -> None:
        """Drop all faults; numbers start at 1 again."""
        self._faults.clear()
        self._created = 0
