"""The state of one sandbox, shared by the API, the control API, the inbox and the middleware."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection
from os import PathLike

from airflow_provider_fluxomail.sandbox.api.event_bus import EventBus
from airflow_provider_fluxomail.sandbox.api.rate_limit import RateWindows
from airflow_provider_fluxomail.sandbox.api.remembered_errors import RememberedErrors
from airflow_provider_fluxomail.sandbox.clock import Clock, Stopwatch
from airflow_provider_fluxomail.sandbox.faults.queue import FaultQueue
from airflow_provider_fluxomail.sandbox.intake import Intake
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION, Bounds
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.store.database import Store
from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoredSend, StoreError
from airflow_provider_fluxomail.sandbox.store.refused_requests import RefusedRequests
from airflow_provider_fluxomail.sandbox.store.request_log import RequestLog
from airflow_provider_fluxomail.sandbox.switches import Switches
from airflow_provider_fluxomail.sandbox.tracking.source import File, source
from airflow_provider_fluxomail.sandbox.webhooks.sender import WebhookSender


class Sandbox:
    """Everything one sandbox holds.

    :param data: the data file, or None for memory.
    :param switches: those of a fresh start, and of a reset.
    :param names: host names for control calls, besides addresses and ``localhost``.
    :param root_path: the path prefix, without a slash at its end.
    :raises StoreError: the data file cannot be used.
    """

    def __init__(
        self,
        api_key: str,
        *,
        data: str | PathLike[str] | None,
        switches: Switches,
        bounds: Bounds,
        names: Collection[str] = (),
        root_path: str = "",
    ) -> None:
        self.bounds = bounds
        self.root_path = root_path
        self.names = frozenset(name.lower() for name in names)
        self.switches = switches.model_copy()
        self._start_switches = switches
        self._start_key = ApiKey(api_key, DEFAULT_ORGANIZATION)
        self.store = Store(data, bounds)
        try:
            self.store.keys.put_start_key(self._start_key)
            self.clock = Clock(self.store.clock_offset())
        except sqlite3.Error as error:
            self.store.close()
            raise StoreError(f"cannot use the data file {data}: {error}") from error
        self.stopwatch = Stopwatch()
        self.rates = RateWindows()
        self.event_bus = EventBus(self.store.event_log, self.clock, bounds)
        self.faults = FaultQueue(bounds)
        self.requests = RequestLog(bounds)
        self.refused = RefusedRequests()
        self.remembered_errors = RememberedErrors(bounds)
        self.intake = Intake(bounds)
        self.webhooks = WebhookSender(self.store, self.clock, self.event_bus, bounds, lambda: self.switches)
        self.stopping = asyncio.Event()
        self.unread: set[Callable[[], None]] = set()
        """Functions that close the connections whose request is not complete yet."""
        self.interrupted = asyncio.Event()
        """Set at a stop and at a reset, which replaces it: requests that are held back are cut."""

    @property
    def start_key(self) -> str:
        return self._start_key.key

    def reset(self) -> None:
        """Back to the state of a fresh start, with only the start key. Open streams close, held requests are cut."""
        self.store.clear()
        self.store.keys.put_start_key(self._start_key)
        self.clock.offset = 0.0
        self.switches = self._start_switches.model_copy()
        self.rates.clear()
        self.faults.clear()
        self.requests.clear()
        self.refused.clear()
        self.remembered_errors.clear()
        self.event_bus.close_all()
        self.webhooks.reset()
        self.interrupted.set()
        self.interrupted = asyncio.Event()

    def add_event(self, send: StoredSend, event: PlannedEvent) -> bool:
        """Let something happen to a message.

        :return: False if it was left out as a duplicate, by the switch ``repeated_events``.
        :raises StoreFullError: the bound of events of one message is reached.
        """
        if self.switches.repeated_events == "drop" and self.store.event_log.count(send, event.type):
            return False
        self.store.add_event(send, event)
        self.event_bus.notify()
        return True

    def source(self, send: StoredSend) -> bytes:
        """The MIME document that the recipients of a message get."""
        files = [
            File(file.filename, file.content_type, self.store.attachment_content(send, position) or b"")
            for position, file in enumerate(self.store.attachments(send))
        ]
        return source(send, self.store.deliveries.get(send), files)

    def stop(self) -> None:
        """End what would keep the server running: requests that are held back or incomplete, and event streams."""
        self.stopping.set()
        self.interrupted.set()
        for abort in list(self.unread):
            abort()

    def advance(self, seconds: float) -> float:
        self.clock.offset += seconds
        self.store.put_clock_offset(self.clock.offset)
        self.event_bus.notify()
        return self.clock.now()

    def close(self) -> None:
        self.store.close()
