"""Sends of a task that keeps its state."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support import deployments
from tests.support.running import Run
from tests.support.state_store import Store

HOUR = 3600.0


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def advance_clock(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Move the time of the task and of the sandbox."""
    offset = [0.0]
    monkeypatch.setattr(wait, "now", lambda: now() + offset[0])

    def advance(seconds: float) -> None:
        offset[0] += seconds
        sandbox.advance(seconds)

    return advance


def send(store: Store, to: str = deployments.ADA, **how: Any) -> Run:
    return deployments.send(to, store=store, **how)
