"""Waits that follow the event stream."""

from __future__ import annotations

from airflow_provider_fluxomail.client.watching.watched_wait import FOLLOWING_EVENTS
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.watching import Waits, until

EVENTS = "/api/v1/events"
STREAM = f"{EVENTS}/stream"
TIMELINES = "/api/v1/sends"


async def following(sandbox: Sandbox, waits: Waits) -> None:
    """Wait until every wait counts on the events."""
    await until(
        lambda: (
            waits.started == len(waits.log)
            and all(any(FOLLOWING_EVENTS in line for line in lines) for lines in list(waits.log.values()))
        ),
        "following",
    )
