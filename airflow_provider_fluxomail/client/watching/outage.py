"""Pauses after failed requests: what the server asks for holds all requests, and a broken server gets few of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.pacing import Turns

#: Requests that may fail in a row before all of them pause, and the longest pause in seconds.
_FAILURES: Final = 3
_LONGEST_PAUSE: Final = 30.0


class Outage:
    """Counts the requests that fail in a row, and holds the next ones.

    :param turns: what it holds.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self._failures = 0

    def on_success(self) -> None:
        """Note that a request has succeeded."""
        self._failures = 0

    def on_error(self, error: FluxomailError) -> None:
        """Hold all requests for as long as the server asks, or after several failures."""
        pause = error.retry_after or 0.0
        if not error.permanent:
            self._failures += 1
            over = min(10, self._failures - _FAILURES)
            if over > 0:
                pause = max(pause, min(_LONGEST_PAUSE, 2.0**over / 2) * random.uniform(0.5, 1.0))
        self.turns.hold(pause)
