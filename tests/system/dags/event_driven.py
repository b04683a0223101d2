"""A Dag that runs when a message bounces, beside the example of the suppression list: two assets on one connection."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_fluxomail.triggers import FluxomailEventTrigger

bounces = Asset("bounces", watchers=[AssetWatcher(name="fluxomail", trigger=FluxomailEventTrigger(types=["bounced"]))])

with DAG("on_bounces", schedule=[bounces], start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):

    @task
    def note(triggering_asset_events: Any = None) -> list[Any]:
        return [event for change in triggering_asset_events[bounces] for event in change.extra["payload"]["events"]]

    note()
