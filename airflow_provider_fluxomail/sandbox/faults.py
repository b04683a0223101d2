"""Faults that are waiting for the next requests that match them.

Faults are met in the order of their creation. A request takes the first that matches it; if that one is a
``delay``, it also takes the first other kind created after it.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.config import Bounds

STATUS: Final = "status"
ERROR_BEFORE_STORE: Final = "error_before_store"
ERROR_AFTER_STORE: Final = "error_after_store"
RESPONSE_LOST_AFTER_STORE: Final = "response_lost_after_store"
DELAY: Final = "delay"

KINDS: Final = (STATUS, ERROR_BEFORE_STORE, ERROR_AFTER_STORE, RESPONSE_LOST_AFTER_STORE, DELAY)
AFTER_STORE: Final = (ERROR_AFTER_STORE, RESPONSE_LOST_AFTER_STORE)


@dataclass(slots=True)
class Fault:
    """One fault.

    :param times: how many requests it meets; :param remaining: how many of them are left.
    :param method: only requests with this method.
    :param path: only requests with this path or one below it (``/api/v1/sends`` is above
        ``/api/v1/sends/x``, but not above ``/api/v1/sends-x``); with ``*``, ``?`` or ``[`` a glob for the
        whole path.
    :param status: HTTP status of kind ``status``.
    :param retry_after: its ``Retry-After``, sent as it is.
    :param body: its body, any JSON value or a text.
    :param headers: its further headers.
    :param seconds: how long kind ``delay`` holds the request back before it is handled.
    """

    number: int
    kind: str
    times: int = 1
    remaining: int = 1
    method: str | None = None
    path: str | None = None
    status: int = 500
    retry_after: str | None = None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def matches(self, method: str, path: str) -> bool:
        """Whether a request meets this fault."""
        if self.method is not None and self.method != method:
            return False
        if self.path is None:
            return True
        if any(sign in self.path for sign in "*?["):
            return fnmatch.fnmatchcase(path, self.path)
        return path == self.path or path.startswith(self.path.rstrip("/") + "/")

    def as_dict(self) -> dict[str, Any]:
        """The row that the control API shows."""
        row: dict[str, Any] = {
            "id": self.number,
            "kind": self.kind,
            "times": self.times,
            "remaining": self.remaining,
            "match": {"method": self.method, "path": self.path},
        }
        if self.kind == STATUS:
            row |= {
                "status": self.status,
                "retry_after": self.retry_after,
                "body": self.body,
                "headers": self.headers,
            }
        if self.kind == DELAY:
            row["seconds"] = self.seconds
        return row


class FaultQueue:
    """The faults that wait."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._faults: list[Fault] = []
        self._created = 0

    @property
    def full(self) -> bool:
        """Whether the bound of waiting faults is reached."""
        return len(self.waiting()) >= self._bounds.faults

    def add(self, fault: Fault) -> Fault:
        """Queue a fault; its number is given here."""
        self._created += 1
        fault.number = self._created
        self._faults = [*self.waiting(), fault]
        return fault

    def take(self, method: str, path: str) -> tuple[Fault | None, Fault | None]:
        """Take the faults that a request meets.

        :return: the delay and the other fault, each None if there is none.
        """
        delay: Fault | None = None
        for fault in self._faults:
            if not fault.remaining or not fault.matches(method, path) or (delay and fault.kind == DELAY):
                continue
            fault.remaining -= 1
            if fault.kind != DELAY:
                return delay, fault
            delay = fault
        return delay, None

    def give_back(self, fault: Fault) -> None:
        """Undo the taking of a fault that could not be applied; it keeps its place."""
        fault.remaining += 1

    def waiting(self) -> list[Fault]:
        """The faults that still have requests to meet, in their order."""
        return [fault for fault in self._faults if fault.remaining]

    def clear(self) -> None:
        """Drop all faults; numbers begin at 1 again."""
        self._faults.clear()
        self._created = 0
