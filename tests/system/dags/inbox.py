"""A Dag whose waits end by what a person does in the sandbox's inbox."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

from airflow_provider_fluxomail.client.watching.wait import WaitTiming, set_timing
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG, task

# Otherwise each worker polls for 10 s before it defers.
set_timing(WaitTiming(worker_polls=(0.0,)))

HTML = f'<a href="{os.environ["INBOX_REPORT"]}" style="display: block; height: 150px">Open the report</a>'


with DAG("inbox", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):

    @task
    def send() -> dict[str, str]:
        """Send one message for each wait, and return their ids."""
        hook = FluxomailHook()
        found = {}
        for name in ("opened", "clicked", "bounced"):
            to = f"{name}-in-the-inbox+never@example.org"
            message = {"to": to, "subject": f"To be {name}", "content": "The report", "html_content": HTML}
            found[name] = hook.send(message, part=name).send_id
        return found

    sent: Any = send()
    FluxomailDeliverySensor(task_id="opened", send_id=sent["opened"], target="opened", deferrable=True)
    FluxomailDeliverySensor(task_id="clicked", send_id=sent["clicked"], target="clicked", deferrable=True)
    FluxomailDeliverySensor(task_id="bounced", send_id=sent["bounced"], deferrable=True)
