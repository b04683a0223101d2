"""Keep a list of recipients that bounced or complained, with a Dag that runs when it happens. Needs Airflow 3."""

from __future__ import annotations

import hashlib
from email.utils import parseaddr
from typing import Any

import pendulum
from airflow.sdk import DAG, Asset, AssetWatcher, Variable, task

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.triggers import FluxomailEventTrigger

#: A Variable: it holds a digest of each address, not the address.
SUPPRESSED = "fluxomail_suppressed"


def digest(address: str) -> str:
    """Identify a recipient without the address. Before you send, check whether the list has it."""
    return hashlib.sha256(parseaddr(address)[1].lower().encode()).hexdigest()


# [START howto_suppression_list]
undeliverable = Asset(
    "fluxomail_undeliverable",
    watchers=[AssetWatcher(name="fluxomail", trigger=FluxomailEventTrigger(types=["bounced", "complained"]))],
)

with DAG(
    dag_id="fluxomail_suppression_list",
    schedule=[undeliverable],
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at a time would overwrite each other's additions.
    max_active_runs=1,
    tags=["fluxomail", "example"],
    doc_md=__doc__,
) as dag:

    @task(retries=3)
    def suppress(triggering_asset_events: Any = None) -> int:
        hook = FluxomailHook()
        suppressed = set(Variable.get(SUPPRESSED, default=[], deserialize_json=True))
        before = len(suppressed)
        # A run may get several changes of the asset, each with several events; an event may come twice.
        for change in triggering_asset_events[undeliverable]:
            for event in change.extra["payload"]["events"]:
                recipient = hook.get_timeline(event["send_id"]).recipient
                if recipient:
                    suppressed.add(digest(recipient))
        hook.close()
        Variable.set(SUPPRESSED, sorted(suppressed), serialize_json=True)
        return len(suppressed) - before

    suppress()
# [END howto_suppression_list]
