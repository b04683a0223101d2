"""All that the package does with a message that must not be seen, as tasks of one Dag: see promise 5."""

from __future__ import annotations

from typing import Any

import pendulum

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG, task

MESSAGE: dict[str, Any] = {
    "subject": "Veiled subject",
    "content": "Veiled words",
    "html_content": "<p>Veiled markup</p>",
    "cc": ["veiled-copy@example.org"],
    "bcc": ["veiled-blind@example.org"],
    "attachments": [{"filename": "veiled.txt", "content": "Veiled file"}],
    "extra_fields": {"replyTo": "veiled-reply@example.org"},
}
QUICK: dict[str, Any] = {"retries": 2, "retry_delay": 0}
MODES: dict[str, dict[str, Any]] = {
    "poke": {"deferrable": False},
    "reschedule": {"mode": "reschedule", "deferrable": False},
    "deferrable": {"deferrable": True},
}
WAIT: dict[str, Any] = {"poke_interval": 0.2, "timeout": 60, **QUICK}


def send(task_id: str, outcome: str = "delivered", **fields: Any) -> FluxomailSendOperator:
    to = f"veiled-{task_id}+{outcome}@example.org"
    return FluxomailSendOperator(task_id=task_id, to=to, **{**MESSAGE, **QUICK, "poll_interval": 0.2, **fields})


with DAG(dag_id="privacy", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC"), catchup=False):
    plain = send("plain", deferrable=False)
    send("tried_again", deferrable=False)
    send("refused", deferrable=False)
    send("unauthorized", deferrable=False)
    send("rate_limited", deferrable=True)
    send("waits", deferrable=True, wait_for="delivered")
    send("bounces", "bounced", deferrable=True, wait_for="delivered")
    send("times_out", "never", deferrable=False, wait_for="delivered", wait_timeout=1)
    # Templates: mistakes in constants are import errors of the Dag.
    send("invalid", subject="{{ 'Veiled\nsubject' }}")
    send("mistaken", cc="{{ 'veiled-one@example.org and veiled-two@example.org' }}")
    # The same key for another recipient: the wrong replay.
    send("wrong_replay", idempotency_key=plain.output["idempotency_key"])  # type: ignore[index]
    for mode, how in MODES.items():
        FluxomailDeliverySensor(
            task_id=f"sensor_{mode}",
            send_id=plain.output["send_id"],  # type: ignore[index]
            **{**WAIT, **how},
        )
    FluxomailSendBatchOperator(
        task_id="batch", messages=[{"to": f"veiled-{n}@example.org"} for n in range(3)], defaults=MESSAGE, **QUICK
    )
    FluxomailSendBatchOperator(
        task_id="bad_batch", messages=[{"to": "veiled person"}, {"to": "veiled-refused@example.org"}], defaults=MESSAGE
    )

    @task(retries=2, retry_delay=0)
    def by_hand() -> str:
        hook = FluxomailHook()
        try:
            return hook.send({"to": "veiled-by-hand@example.org", **MESSAGE}).send_id
        finally:
            hook.close()

    by_hand()
