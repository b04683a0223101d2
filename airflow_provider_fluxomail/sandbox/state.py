"""The state of one sandbox, shared by the API, the control API and the gate in front of them."""

from __future__ import annotations

import asyncio
from copy import copy
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.sandbox.clock import Clock, Stopwatch
from airflow_provider_fluxomail.sandbox.config import DEFAULT_ORGANIZATION, Bounds, Settings
from airflow_provider_fluxomail.sandbox.faults import FaultQueue
from airflow_provider_fluxomail.sandbox.ratelimit import RateWindows
from airflow_provider_fluxomail.sandbox.records import ApiKey
from airflow_provider_fluxomail.sandbox.requestlog import RequestLog
from airflow_provider_fluxomail.sandbox.store import Store

if TYPE_CHECKING:
    from os import PathLike


class Sandbox:
    """Everything a sandbox knows.

    :param api_key: the start key.
    :param data: the data file, or None for memory.
    :param settings: the switches to begin with, and to return to on a reset.
    :raises StoreError: the data file can't be used.
    """

    def __init__(self, api_key: str, *, data: str | PathLike[str] | None, settings: Settings, bounds: Bounds) -> None:
        self.bounds = bounds
        self.settings = copy(settings)
        self._start_settings = settings
        self._start_key = ApiKey(api_key, DEFAULT_ORGANIZATION)
        self.store = Store(data, bounds)
        self.store.put_start_key(self._start_key)
        self.clock = Clock(self.store.clock_offset())
        self.stopwatch = Stopwatch()
        self.rates = RateWindows()
        self.faults = FaultQueue(bounds)
        self.requests = RequestLog(bounds)
        self.stopping = asyncio.Event()

    def reset(self) -> None:
        """Back to the state of a fresh start, with the start key alone."""
        self.store.clear()
        self.store.put_start_key(self._start_key)
        self.clock.offset = 0.0
        self.settings = copy(self._start_settings)
        self.rates.clear()
        self.faults.clear()
        self.requests.clear()

    def advance(self, seconds: float) -> float:
        """Move the clock forward and return its time, in seconds since the epoch."""
        self.clock.offset += seconds
        self.store.put_clock_offset(self.clock.offset)
        return self.clock.now()

    def close(self) -> None:
        """Close the data file."""
        self.store.close()
