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
    """What is left of a key's rate limit after ``count`` requests in the current window.

    :param now: the sandbox clock, seconds since the epoch.
    """

    limit: int
    count: int
    now: float

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.count)

    @property
    def exceeded(self) -> bool:
        """Whether the request that was just counted is above the limit."""
        return self.count > self.limit

    @property
    def reset(self) -> int:
        """When the window ends, seconds since the epoch."""
        return (math.floor(self.now / RATE_WINDOW_SECONDS) + 1) * RATE_WINDOW_SECONDS

    @property
    def retry_after(self) -> int:
        """Whole seconds until the window ends, at least 1."""
        return max(1, math.ceil(self.reset - self.now))

    def headers(self) -> dict[str, str]:
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


class RateWindows:
    """Counts the requests of each key in the current minute. In memory: a restart starts a new count."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def hit(self, key: str, cap: int, now: float) -> Allowance:
        """Count a request, even one that is refused for another reason."""
        window = math.floor(now / RATE_WINDOW_SECONDS)
        counted, count = self._counts.get(key, (window, 0))
        count = count + 1 if counted == window else 1
        self._counts[key] = (window, count)
        return Allowance(cap, count, now)

    def forget(self, key: str) -> None:
        """Start a new count for a key that was created or replaced."""
        self._counts.pop(key, None)

    def clear(self) -> None:
        self._counts.clear()
