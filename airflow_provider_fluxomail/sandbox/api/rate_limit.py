"""The per-minute cap of a key: one fixed window for all endpoints. https://docs.fluxomail.com/api-reference/fluxomail/rate-limits"""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from airflow_provider_fluxomail.sandbox.limits import RATE_WINDOW_SECONDS

NOMINAL_LIMIT: Final = 1_000_000
"""What a key without a cap shows as its limit, where rate headers are sent always."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key may still do.

    :param reset: when the window ends, seconds since the epoch.
    :param retry_after: whole seconds until then, at least 1.
    :param exceeded: the request that was just counted is one too many.
    """

    limit: int
    remaining: int
    reset: int
    retry_after: int
    exceeded: bool

    def headers(self) -> dict[str, str]:
        """``X-RateLimit-*``."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset),
        }

    def retry_after_header(self, form: str) -> dict[str, str]:
        """``Retry-After`` in the form that the settings ask for."""
        if form == "none":
            return {}
        return {"Retry-After": formatdate(self.reset, usegmt=True) if form == "http-date" else str(self.retry_after)}


def uncapped(now: float) -> Allowance:
    """What a key without a cap is told.

    :param now: the sandbox clock, seconds since the epoch.
    """
    reset = (math.floor(now / RATE_WINDOW_SECONDS) + 1) * RATE_WINDOW_SECONDS
    return Allowance(NOMINAL_LIMIT, NOMINAL_LIMIT, reset, max(1, math.ceil(reset - now)), exceeded=False)


class RateWindows:
    """Counts the requests of each key in the current minute. Kept in memory: a restart begins a new count."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def hit(self, key: str, cap: int, now: float) -> Allowance:
        """Count a request, also one that is refused for another reason.

        :param cap: requests per minute.
        :param now: the sandbox clock, seconds since the epoch.
        """
        window = math.floor(now / RATE_WINDOW_SECONDS)
        counted, count = self._counts.get(key, (window, 0))
        count = count + 1 if counted == window else 1
        self._counts[key] = (window, count)
        reset = (window + 1) * RATE_WINDOW_SECONDS
        return Allowance(cap, max(0, cap - count), reset, max(1, math.ceil(reset - now)), exceeded=count > cap)

    def forget(self, key: str) -> None:
        """Begin a new count for a key that was created or replaced."""
        self._counts.pop(key, None)

    def clear(self) -> None:
        """Begin a new count for every key."""
        self._counts.clear()
