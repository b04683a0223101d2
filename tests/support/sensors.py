"""Delivery sensors."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.running import context
from tests.support.timing import quick_waits

TIMELINE = "/api/v1/sends"


@pytest.fixture
def quick_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_waits(monkeypatch)


def send(to: str = "ops@example.org", **fields: Any) -> str:
    hook = FluxomailHook()
    message = {"to": to, "subject": "Hi", "content": "Text", "html_content": "<p>Hi</p>", **fields}
    sent = hook.send(message, idempotency_key=str(uuid.uuid4()))
    hook.close()
    return sent.send_id


def sensor(mode: str, **fields: Any) -> FluxomailDeliverySensor:
    how: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode, "deferrable": False}
    return FluxomailDeliverySensor(task_id="task", **{"poke_interval": 0.1, "timeout": 20, **how, **fields})


MODES = ["poke", "deferrable"]  # reschedule needs Airflow around it: see test_dags.py


def deferred(sandbox: Sandbox, **fields: Any) -> Any:
    task = sensor("deferrable", **{"send_id": send("never@example.org"), **fields})
    with pytest.raises(BaseException) as caught:
        task.execute(context())
    return caught.value
