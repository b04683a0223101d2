"""A read that times out while its task is cancelled."""

from __future__ import annotations

import asyncio

import httpx

from airflow_provider_fluxomail.client import wire
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.settings import ClientSettings


def read_that_times_out(*, cancelled: bool) -> asyncio.Task[None]:
    """Let a read time out, in the moment in which its task is cancelled."""
    client = AsyncFluxomailClient(ClientSettings(api_key="key", base_url="http://127.0.0.1:9"))

    async def read() -> None:
        with client._transport_errors(wire.timeline_request("sends_1")):
            task = asyncio.current_task()
            assert task is not None
            if cancelled:
                task.cancel()
            raise httpx.ReadTimeout("")

    async def run() -> asyncio.Task[None]:
        task = asyncio.ensure_future(read())
        await asyncio.wait({task})
        return task

    return asyncio.run(run())
