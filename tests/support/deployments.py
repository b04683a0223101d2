"""Sends of several deployments and tasks with one organization."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sending import idempotency_key
from tests.support import send_operators
from tests.support.running import Run, context
from tests.support.state_store import Store

ADA, BOB = "ada@example.org", "bob@example.org"


def send(to: str = ADA, *, ctx: dict[str, Any] | None = None, store: Store | None = None, **arguments: Any) -> Run:
    return Run(send_operators.operator(to=to, **arguments), {**context(**(ctx or {})), "task_state_store": store})


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the hook believe that a task runs, with the context that a test wants."""

    def run(**fields: Any) -> None:
        ctx = context(**fields)
        monkeypatch.setattr(idempotency_key, "_running_context", lambda: ctx)

    return run


@pytest.fixture(params=["sync", "async"])
def by_hand(request: pytest.FixtureRequest) -> Any:
    def send(to: str = ADA, **arguments: Any) -> Any:
        message = {"to": to, "subject": arguments.pop("subject", "Hi"), "content": "Text"}
        hook = FluxomailHook()
        if request.param == "async":
            return asyncio.run(hook.asend(message, **arguments))
        try:
            return hook.send(message, **arguments)
        finally:
            hook.close()

    return send
