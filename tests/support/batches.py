"""Batches, run as tasks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import pytest

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.batch.batch import Batch
from airflow_provider_fluxomail.sending.batch.outcomes import Outcomes
from airflow_provider_fluxomail.sending.batch.progress import Progress
from airflow_provider_fluxomail.sending.batch.report import Report
from airflow_provider_fluxomail.sending.batch.rows import Row, Rows
from airflow_provider_fluxomail.sending.send_once import Identity
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.timing import quick_retries, quick_waits


@pytest.fixture
def quick_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_retries(monkeypatch)
    quick_waits(monkeypatch, rate_limit_spread=0.05)


def people(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"to": f"p{n}@example.org", "subject": "Hi", "content": "Text", **fields} for n in range(count)]


def operator(messages: Any, **arguments: Any) -> FluxomailSendBatchOperator:
    return FluxomailSendBatchOperator(task_id="task", messages=messages, **{"deferrable": False, **arguments})


def run(messages: Any, *, store: Store | None = None, ctx: dict[str, Any] | None = None, **arguments: Any) -> Run:
    known = context(**(ctx or {}))
    return Run(operator(messages, **arguments), known if store is None else {**known, "task_state_store": store})


def posts(sandbox: Sandbox) -> Counter[str | None]:
    """Requests to send, by the recipient's key."""
    return Counter(request.idempotency_key for request in sandbox.requests("POST"))


class SandboxTime:
    """The sandbox's clock in place of real waiting."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox, self._ahead, self._lock = sandbox, 0.0, threading.Lock()

    def clock(self) -> float:
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._sandbox.advance(seconds)
            self._ahead += seconds


def batch(sandbox: Sandbox, rows: list[dict[str, Any]], when: SandboxTime, **options: Any) -> Batch:
    settings = FluxomailHook().get_options().settings
    outcomes = Outcomes(Progress(), Report(None, fresh=True), save=lambda _: None, clock=when.clock)

    def identify(row: Row) -> Identity:
        key = f"{options.get('name', 'b')}:{row.part}".replace(" ", "_")
        return Identity(key=key, first_try=True, names_recipient=row.key is None)

    return Batch(Rows(rows), outcomes, identify=identify, settings=settings, clock=when.clock, sleep=when.sleep)
