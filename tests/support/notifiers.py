"""Notifiers, called as Airflow does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

import pytest

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION
from airflow_provider_fluxomail.notifications import FluxomailNotifier

OPS: Final = "ops@example.org"
URL: Final = "https://airflow.example.org"
AIRFLOW_3: Final = AIRFLOW_VERSION >= (3, 0)
#: How alerts are sent: from a callback, and from an event loop.
Way = Callable[[FluxomailNotifier, Any], None]


def by_call(notifier: FluxomailNotifier, context: Any) -> None:
    notifier(context)


def by_call_on_a_loop(notifier: FluxomailNotifier, context: Any) -> None:
    async def alert() -> None:
        notifier(context)

    asyncio.run(alert())


def by_await(notifier: FluxomailNotifier, context: Any) -> None:
    async def alert() -> None:
        notifier.context = context
        await notifier

    asyncio.run(alert())


@pytest.fixture(params=[by_call, by_call_on_a_loop, by_await], ids=["sync", "sync on a loop", "async"])
def way(request: pytest.FixtureRequest) -> Way:
    chosen: Way = request.param
    return chosen


@pytest.fixture
def base_url_notifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"AIRFLOW__{'API' if AIRFLOW_3 else 'WEBSERVER'}__BASE_URL", URL)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What notifiers log."""
    monkeypatch.setattr(FluxomailNotifier, "log", logging.getLogger("alerts under test"))
    caplog.set_level(logging.INFO, "alerts under test")
    return caplog


def log_lines(log: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [
        record.getMessage() for record in log.records if record.name == "alerts under test" and record.levelno >= level
    ]


def context(**fields: Any) -> Any:
    """The part of a worker's context that an alert is made of."""
    ti = {
        "dag_id": "load",
        "run_id": "run_1",
        "task_id": "copy",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 2,
        "state": "failed",
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "end_date": datetime(2026, 1, 1, 0, 2, 5, tzinfo=UTC),
        "log_url": "https://airflow.example.org/dags/load?a=1&b=2",
    }
    extra = {name: fields.pop(name) for name in ("exception", "reason", "dag", "task", "dag_run") if name in fields}
    return {"ti": SimpleNamespace(**{**ti, **fields}), "run_id": "run_1", **extra}
