"""The state of one sandbox, shared by the API, the control API and the gate in front of them."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.sandbox.api.event_bus import Feed
from airflow_provider_fluxomail.sandbox.api.rate_limit import RateWindows
from airflow_provider_fluxomail.sandbox.api.remembered_errors import Refusals
from airflow_provider_fluxomail.sandbox.clock import Clock, Stopwatch
from airflow_provider_fluxomail.sandbox.faults.queue import FaultQueue
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION
from airflow_provider_fluxomail.sandbox.store.database import Store, StoreError
from airflow_provider_fluxomail.sandbox.store.records import ApiKey
from airflow_provider_fluxomail.sandbox.store.request_log import RequestLog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from os import PathLike

    from airflow_provider_fluxomail.sandbox.limits import Bounds
    from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
    from airflow_provider_fluxomail.sandbox.store.records import StoredSend
    from airflow_provider_fluxomail.sandbox.switches import Settings


class Sandbox:
    """Everything a sandbox knows.

    :param api_key: the start key.
    :param data: the data file, or None for memory.
    :param settings: the switches to begin with, and to return to on a reset.
    :param names: host names under which control calls may be made, besides addresses and ``localhost``.
    :raises StoreError: the data file can't be used.
    """

    def __init__(
        self,
        api_key: str,
        *,
        data: str | PathLike[str] | None,
        settings: Settings,
        bounds: Bounds,
        names: Collection[str] = (),
    ) -> None:
        self.bounds = bounds
        self.names = frozenset(name.lower() for name in names)
        self.settings = settings.model_copy()
        self._start_settings = settings
        self._start_key = ApiKey(api_key, DEFAULT_ORGANIZATION)
        self.store = Store(data, bounds)
        try:
            self.store.put_start_key(self._start_key)
            self.clock = Clock(self.store.clock_offset())
        except sqlite3.Error as error:
            self.store.close()
            raise StoreError(f"can't use the data file {data}: {error}") from error
        self.stopwatch = Stopwatch()
        self.rates = RateWindows()
        self.feed = Feed(self.store.eventlog, self.clock, bounds)
        self.faults = FaultQueue(bounds)
        self.requests = RequestLog(bounds)
        self.refusals = Refusals(bounds)
        self.stopping = asyncio.Event()
        self.unread: set[Callable[[], None]] = set()
        """What ends the connections whose request has not come in full."""
        self.interrupted = asyncio.Event()
        """Set at a stop and at a reset, which puts a new one in its place: requests that are held back end."""

    @property
    def start_key(self) -> str:
        """The key that is there from the start."""
        return self._start_key.key

    def reset(self) -> None:
        """Back to the state of a fresh start, with the start key alone. Open streams end, held requests are cut."""
        self.store.clear()
        self.store.put_start_key(self._start_key)
        self.clock.offset = 0.0
        self.settings = self._start_settings.model_copy()
        self.rates.clear()
        self.faults.clear()
        self.requests.clear()
        self.refusals.clear()
        self.feed.end_all()
        self.interrupted.set()
        self.interrupted = asyncio.Event()

    def add_event(self, send: StoredSend, event: PlannedEvent) -> bool:
        """Let something happen to a message.

        :return: False if it was left out as a duplicate, by the switch ``repeated_events``.
        :raises StoreFullError: the bound of events of one message is reached.
        """
        if self.settings.repeated_events == "drop" and self.store.has_event(send, event.type):
            return False
        self.store.add_event(send, event)
        self.changed()
        return True

    def stop(self) -> None:
        """End what would keep the server: requests that are held back or half sent, and event streams."""
        self.stopping.set()
        self.interrupted.set()
        for abort in list(self.unread):
            abort()

    def advance(self, seconds: float) -> float:
        """Move the clock forward and return its time, in seconds since the epoch."""
        self.clock.offset += seconds
        self.store.put_clock_offset(self.clock.offset)
        self.changed()
        return self.clock.now()

    def changed(self) -> None:
        """Tell the event streams that there may be something for them."""
        self.feed.ring()

    def close(self) -> None:
        """Close the data file."""
        self.store.close()
