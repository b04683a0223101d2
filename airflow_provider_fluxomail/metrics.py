"""Metrics, emitted through Airflow's own stats: StatsD, Datadog or OpenTelemetry, as its section ``[metrics]`` says.

``docs/operate/operations.md`` lists them. A metric never costs a message: errors in here are only logged.
"""

from __future__ import annotations

import functools
import logging
import math
import re
import socket
import threading
import weakref
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import airflow_stats
from airflow_provider_fluxomail.client.errors import FluxomailRateLimitError
from airflow_provider_fluxomail.client.observer import Observer

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.models import SendResult

log = logging.getLogger(__name__)

_PREFIX: Final = "fluxomail"
#: The last state of each watcher of this process: number of waits, and whether they follow the event stream.
_watchers: Final[weakref.WeakKeyDictionary[object, tuple[int, bool]]] = weakref.WeakKeyDictionary()
#: Watchers may run on event loops of several threads.
_lock: Final = threading.Lock()


class Metrics(Observer):
    """Counts what happens through one connection::

        client = FluxomailClient(dataclasses.replace(settings, observer=Metrics("fluxomail_default")))

    :param conn_id: id of the connection, for the tag ``conn_id``.
    """

    def __init__(self, conn_id: str) -> None:
        self._tags = {"conn_id": conn_id}

    def sent(self, result: SendResult) -> None:
        """Count a message; a replay that a retry of the same call caused counts as sent."""
        self._count("replayed" if result.reused and not result.own_replay else "sent")

    def not_sent(self, error: FluxomailError) -> None:
        """Count a send that failed: permanently (``refused``), or with a transient error (``failed``)."""
        self._count("refused" if error.permanent else "failed", error=type(error).__name__)

    def redirected(self, messages: int = 1) -> None:
        """Log that messages go to ``redirect_to``."""
        what = "the message goes" if messages == 1 else f"{messages} messages go"
        log.info("Redirected: %s to redirect_to of connection %r, not to the recipients.", what, self._tags["conn_id"])

    def retrying(self, error: FluxomailError, seconds: float) -> None:
        """Count the retry of a request."""
        self._count("retried", error=type(error).__name__)
        if isinstance(error, FluxomailRateLimitError):
            self.held(seconds)

    def rate_limited(self) -> None:
        """Count a 429."""
        self._count("rate_limited")

    def held(self, seconds: float) -> None:
        """Time a wait for the rate limit."""
        _time("rate_limit_wait", seconds, self._tags)

    def wait_ended(self, target: str, outcome: str, seconds: float | None) -> None:
        """Count and time a wait for an event; ``outcome`` is the status of a :class:`.WaitOutcome`."""
        tags = {**self._tags, "target": target}
        _emit("incr", f"wait.{outcome}", tags=tags)
        if seconds is not None:
            _time("wait.duration", max(0.0, seconds), {**tags, "outcome": outcome})

    def watching(self, watcher: object, waits: int, *, by_events: bool) -> None:
        """Report how many waits this process has, and how many watchers follow the stream or poll timelines."""
        with _lock:
            _watchers[watcher] = (waits, by_events)
            known = list(_watchers.values())
        modes = [by_events for count, by_events in known if count]
        for name, value in (
            ("waits.open", sum(count for count, _ in known)),
            ("watchers.events", modes.count(True)),
            ("watchers.timelines", modes.count(False)),
        ):
            # Twice, like Airflow's own gauges: without tags, the gauges of two triggerers would overwrite each other.
            _emit("gauge", name, value, tags={"hostname": _hostname()})
            _emit("gauge", f"{name}.{_hostname()}", value)

    def _count(self, name: str, **tags: str) -> None:
        _emit("incr", name, tags={**self._tags, **tags})


def _time(name: str, seconds: float, tags: dict[str, str]) -> None:
    if math.isfinite(seconds):
        # Longer than any wait, and within the range of timedelta.
        _emit("timing", name, timedelta(seconds=min(seconds, 1e9)), tags=tags)


def _emit(method: str, name: str, *value: Any, **options: Any) -> None:
    try:
        getattr(airflow_stats(), method)(f"{_PREFIX}.{name}", *value, **options)
    except Exception as error:  # noqa: BLE001 - whatever it is, it concerns a metric only
        log.debug("Could not emit metric %s.%s: %s", _PREFIX, name, error)


@functools.cache
def _hostname() -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())
