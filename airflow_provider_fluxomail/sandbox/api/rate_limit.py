"""The rate limit of a key: one fixed window of a minute for all endpoints. https://docs.fluxomail.com/api-reference/fluxomail/rate-limits"""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import formatdate
from typing import Final

from airflow_provider_fluxomail.sandbox.limits import RATE_WINDOW_SECONDS

NOMINAL_LIMIT: Final = 1_000_000
"""The limit in the headers of a key that has none, where rate headers are always sent."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a key's rate limit.

    :param reset: when the window ends, seconds since the epoch.
    :param retry_after: whole seconds until then, at least 1.
    :param exceeded: the request that was just counted is above the limit.
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
        """``Retry-After`` in the form that the switch ``retry_after`` chooses."""
        if form == "none":
            return {}
        return {"Retry-After": formatdate(self.reset, usegmt=True) if form == "http-date" else str(self.retry_after)}


def uncapped(now: float) -> Allowance:
    """The allowance of a key without a limit.

    :param now: the sandbox clock, seconds since the epoch.
    """
    reset = (math.floor(now / RATE_WINDOW_SECONDS) + 1) * RATE_WINDOW_SECONDS
    return Allowance(NOMINAL_LIMIT, NOMINAL_LIMIT, reset, max(1, math.ceil(reset - now)), exceeded=False)


class RateWindows:
    """Counts the requests of each key in the current minute. In memory: a restart starts a new count."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def hit(self, key: str, cap: int, now: float) -> Allowance:
        """Count a request, even one that is refused for another reason.

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
        """Start a new count for a key that was created or replaced."""
        self._counts.pop(key, None)

    def clear(self) -> None:
        """Start a new count for every key."""
        self._counts.clear()
