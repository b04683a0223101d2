"""Functions that return the message, or the messages, to send."""

from __future__ import annotations

from typing import Any

import pendulum

try:
    from airflow.sdk import DAG, task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task
    from airflow.models import DAG

from airflow_provider_fluxomail.client import EmailMessage
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

with DAG(
    dag_id="fluxomail_taskflow",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    params={"people": ["ada@example.org", "bob@example.org"]},
):

    @task
    def people(params: dict[str, Any]) -> list[str]:
        return list(params["people"])

    addresses: Any = people()

    # [START howto_taskflow]
    @task.fluxomail_send(retries=3)
    def report(rows: int, run_id: str) -> dict[str, Any]:
        return {
            "to": "ops@example.org",
            "subject": f"Report of {run_id}",
            "html_content": f"<p><b>{rows}</b> rows were loaded.</p>",
        }

    sent = report(rows=7)
    FluxomailDeliverySensor(task_id="arrived", send_id=sent["send_id"], poke_interval=5, timeout=600)
    # [END howto_taskflow]

    # [START howto_taskflow_wait]
    @task.fluxomail_send(wait_for="delivered", wait_timeout=600, deferrable=True, retries=3)
    def notice() -> EmailMessage:
        return EmailMessage(to="ops@example.org", subject="Maintenance", content="Tonight at ten.")

    # [END howto_taskflow_wait]
    notice()

    # [START howto_taskflow_list]
    @task.fluxomail_send(retries=3)
    def reminders(people: list[str]) -> list[dict[str, Any]]:
        return [{"to": person, "subject": "Reminder", "content": "Friday at noon."} for person in people]

    # [END howto_taskflow_list]
    reminders(addresses)

    # [START howto_taskflow_mapped]
    @task.fluxomail_send(retries=3)
    def invitation(person: str, room: str) -> dict[str, Any]:
        return {"to": person, "subject": "Invitation", "content": f"Room {room}."}

    invitation.partial(room="A").expand(person=addresses)
    # [END howto_taskflow_mapped]
