"""A Dag whose waits end in different ways: what needs a worker at its end, and what does not."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_provider_fluxomail.airflow_compat import Asset, BaseOperator
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG

CALLS = Path(os.environ["ENDINGS_CALLS"])


def called(context: object) -> None:
    """Note that the callback ran."""
    CALLS.write_text("called")


class Note(BaseOperator):
    """Writes down what it was given."""

    template_fields = ("value",)

    def __init__(self, *, value: object, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.value = value

    def execute(self, context: object) -> object:
        """Return it."""
        return self.value


with DAG("endings", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False):
    send = FluxomailSendOperator(
        task_id="send",
        to="never+1@example.org",
        subject="Hello",
        content="Text",
        wait_for="delivered",
        deferrable=True,
        defer_at_once=True,
    )
    first = FluxomailSendOperator(
        task_id="first", to="never+2@example.org", subject="Hello", content="Text", outlets=[Asset("endings_sent")]
    )
    FluxomailSendOperator(
        task_id="told",
        to="never+4@example.org",
        subject="Hello",
        content="Text",
        wait_for="delivered",
        deferrable=True,
        defer_at_once=True,
        outlets=[Asset("endings_told")],
    )
    sent: Any = first.output
    plain = FluxomailDeliverySensor(task_id="plain", send_id=sent["send_id"], deferrable=True, defer_at_once=True)
    FluxomailDeliverySensor(
        task_id="callback", send_id=sent["send_id"], deferrable=True, defer_at_once=True, on_success_callback=called
    )
    FluxomailDeliverySensor(
        task_id="outlet", send_id=sent["send_id"], deferrable=True, defer_at_once=True, outlets=[Asset("endings")]
    )
    other = FluxomailSendOperator(task_id="other", to="never+3@example.org", subject="Hello", content="Text")
    sent_other: Any = other.output
    FluxomailDeliverySensor(task_id="bounced", send_id=sent_other["send_id"], deferrable=True, defer_at_once=True)
    Note(task_id="note", value=plain.output)
    parts: Any = send.output
    Note(task_id="note_part", value=parts["event"])
