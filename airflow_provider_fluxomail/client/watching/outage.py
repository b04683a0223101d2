"""Pauses after failed requests: what the server asks for holds all requests, and a broken server gets few of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.retries import Backoff

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.pacing import Turns

#: Requests that may fail in a row before all of them pause.
_FAILURES: Final = 3
_BACKOFF: Final = Backoff(first=1.0, longest=30.0, jitter=0.5)


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
            if self._failures > _FAILURES:
                pause = _BACKOFF.seconds(self._failures - _FAILURES, at_least=pause)
        self.turns.hold(pause)
