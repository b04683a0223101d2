"""A StatsD server that keeps what it receives."""

from __future__ import annotations

import functools
import importlib
import re
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_fluxomail import airflow_compat, metrics
from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION, Stats
from airflow_provider_fluxomail.operators import FluxomailSendOperator

NEW: Any = airflow_compat.airflow_stats.__wrapped__
MAIL: Any = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}


class StatsD:
    """A StatsD server, which keeps what it receives."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self._lines: list[tuple[str, float, str]] = []

    def lines(self) -> list[tuple[str, float, str]]:
        """Name, value and kind of all metrics of this package so far."""
        try:
            while True:
                for line in self._server.recv(65536).decode().splitlines():
                    name, value, kind = re.fullmatch(r"([^:]+):([^|]+)\|(\w+)", line).groups()  # type: ignore[union-attr]
                    if name.startswith("airflow.fluxomail."):
                        self._lines.append((name.removeprefix("airflow.fluxomail."), float(value), kind))
        except BlockingIOError:
            return self._lines

    def counts(self) -> dict[str, float]:
        """The sums of the counters."""
        sums: dict[str, float] = {}
        for name, value, kind in self.lines():
            if kind == "c":
                sums[name] = sums.get(name, 0) + value
        return sums

    def timings(self, name: str) -> list[float]:
        """In seconds."""
        return [value / 1000 for known, value, kind in self.lines() if (known, kind) == (name, "ms")]

    def gauge(self, name: str) -> float | None:
        """What a gauge shows now."""
        return next((value for known, value, kind in reversed(self.lines()) if (known, kind) == (name, "g")), None)


def set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Airflow's stats forget how they were set up, as those of a new process."""
    monkeypatch.setattr(metrics, "airflow_stats", functools.cache(NEW))
    stats: Any = Stats
    module = sys.modules[stats.__module__]
    if hasattr(module, "_factory"):
        monkeypatch.setattr(module, "_factory", None)
        monkeypatch.setattr(module, "_backend", None)
        return
    monkeypatch.setattr(stats, "instance", None)
    if AIRFLOW_VERSION >= (3, 2):
        # Airflow 3.2.
        monkeypatch.setattr(stats, "factory", None)
        return
    # Before it reads the configuration when it is imported.
    logger = importlib.import_module("airflow.metrics.statsd_logger")
    monkeypatch.setattr(type(stats), "factory", logger.get_statsd_logger, raising=False)


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsD]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        for name, value in {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.getsockname()[1])}.items():
            monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
        set_up(monkeypatch)
        yield StatsD(server)
        stats: Any = Stats
        backend = getattr(sys.modules[stats.__module__], "_backend", None) or vars(stats).get("instance")
        if client := getattr(backend, "statsd", None):
            client.close()


def operator(**fields: Any) -> FluxomailSendOperator:
    return FluxomailSendOperator(task_id="task", **{**MAIL, **fields})
