"""Errors of sends that are remembered under their idempotency key, if the switch ``idempotency_errors`` is on."""

from __future__ import annotations

from collections import OrderedDict
from copy import copy

from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.limits import Bounds


class RememberedErrors:
    """The newest errors, in memory: a restart forgets them."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._kept: OrderedDict[tuple[str, str], tuple[int, ApiError]] = OrderedDict()

    def keep(self, organization: str, key: str, at_ms: int, error: ApiError) -> None:
        """Remember the error of a key, in place of one that is no longer found."""
        self._kept.pop((organization, key), None)
        # A copy has no traceback, whose frames would keep the whole request in memory.
        self._kept[organization, key] = at_ms, copy(error)
        while len(self._kept) > self._bounds.keys:
            self._kept.popitem(last=False)

    def find(self, organization: str, key: str, since_ms: int) -> ApiError | None:
        at_ms, error = self._kept.get((organization, key), (since_ms, None))
        return copy(error) if error is not None and at_ms > since_ms else None

    def clear(self) -> None:
        self._kept.clear()
