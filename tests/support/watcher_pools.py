"""Waits of several connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.configuration import connection
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
from tests.support.running import fire


def trigger(send_id: str, **fields: Any) -> FluxomailDeliveryTrigger:
    began = now()
    how = {"started": began, "deadline": began + 60, "seen": began, "poll_interval": 30.0, **fields}
    return FluxomailDeliveryTrigger(send_id=send_id, **how)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The connections that were looked up."""
    found: list[str] = []
    real = connection.read_connection

    async def read_connection(conn_id: str) -> Any:
        found.append(conn_id)
        await asyncio.sleep(0.05)
        return await real(conn_id)

    monkeypatch.setattr(connection, "read_connection", read_connection)
    return found


@contextlib.asynccontextmanager
async def waits(sent: list[str], **fields: Any) -> Any:
    """One trigger for each send, all of them in a feed."""
    tasks = [asyncio.create_task(fire(trigger(send_id, **fields))) for send_id in sent]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
