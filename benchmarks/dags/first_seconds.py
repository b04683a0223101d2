"""Sends that wait for their delivery, and poll in their worker for a shorter or a longer time before they defer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from airflow.sdk import DAG

from airflow_provider_fluxomail.client.watching.wait import WaitTiming, set_timing
from airflow_provider_fluxomail.operators import FluxomailSendOperator

HOLDS: Final = (0.0, 2.5, 10.0)


def poll_for(hold: float) -> Callable[[Any], None]:
    def set_hold(_: Any) -> None:
        usual = WaitTiming()
        polls = tuple(poll for poll in usual.worker_polls if poll <= hold)
        set_timing(dataclasses.replace(usual, worker_polls=polls, short_hold=hold))

    return set_hold


with DAG("first_seconds", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    for seconds in HOLDS:
        for where in ("triggerer", "worker"):
            FluxomailSendOperator(
                task_id=f"{where}-{seconds:g}",
                to="ops@example.org",
                subject="Nightly load finished",
                content="Loaded 20 rows.",
                wait_for="delivered",
                deferrable=True,
                defer_at_once=seconds == 0,
                pre_execute=poll_for(seconds),
                on_success_callback=None if where == "triggerer" else lambda _: None,
            )
