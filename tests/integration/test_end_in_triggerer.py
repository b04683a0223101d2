"""A success ends in the triggerer where nothing of it needs a worker; on Airflow 3.3 and later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, Asset, BaseOperator

from airflow_provider_fluxomail import delivery
from airflow_provider_fluxomail.client.waiting import now
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
from airflow_provider_fluxomail.version_compat import AIRFLOW_V_3_3_PLUS
from tests.integration.watching import send

WORKER, TRIGGERER = False, AIRFLOW_V_3_3_PLUS


class Own(FluxomailDeliverySensor):
    def execute_complete(self, context: Any, event: Any = None) -> Any:
        return {**super().execute_complete(context, event), "more": True}


class After(FluxomailDeliverySensor):
    def post_execute(self, context: Any, result: Any = None) -> None: ...


@contextlib.contextmanager
def dag() -> Iterator[None]:
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        yield


def wait(kind: type[FluxomailDeliverySensor] = FluxomailDeliverySensor, **fields: Any) -> FluxomailDeliverySensor:
    return kind(task_id="wait", send_id="s1", **fields)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, TRIGGERER),
        ({"on_failure_callback": print}, TRIGGERER),
        ({"retries": 3, "soft_fail": True}, TRIGGERER),
        ({"on_success_callback": print}, WORKER),
        ({"on_success_callback": [print]}, WORKER),
        ({"outlets": [Asset("asset")]}, WORKER),
        ({"do_xcom_push": False}, WORKER),
        ({"post_execute": print}, WORKER),
        ({"kind": Own}, WORKER),
        ({"kind": After}, WORKER),
    ],
    ids=str,
)
def test_what_needs_a_worker_for_its_success(fields: dict[str, Any], where: bool) -> None:
    with dag():
        assert delivery.can_end_in_triggerer(wait(**fields)) is where


def test_what_is_mapped_over_needs_its_length() -> None:
    class Down(BaseOperator):
        def __init__(self, *, values: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    with dag():
        task = wait()
        Down.partial(task_id="down").expand(values=task.output)
        assert delivery.can_end_in_triggerer(task) is WORKER


def test_another_xcom_backend_needs_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "my.Backend")
    with dag():
        assert delivery.can_end_in_triggerer(wait()) is WORKER


def test_the_operator_that_waits_too() -> None:
    with dag():
        task = FluxomailSendOperator(task_id="send", to="ops@example.org", subject="Hi", content="Text")
        assert delivery.can_end_in_triggerer(task) is TRIGGERER


def fired(**fields: Any) -> Any:
    began = now()
    trigger = FluxomailDeliveryTrigger(started=began, deadline=began + 20, resume_after=began + 0.5, **fields)

    async def first() -> Any:
        async with contextlib.aclosing(trigger.run()) as events:  # type: ignore[type-var]
            return await anext(events)

    return asyncio.run(first())


@pytest.mark.parametrize("multiple_outputs", [False, True])
def test_the_result_is_pushed_from_the_triggerer(sandbox: Sandbox, multiple_outputs: bool) -> None:
    (sent,) = send(sandbox, to="ops@example.org")
    result = {"send_id": sent, "reused": False}
    began = now()
    event = fired(send_id=sent, result=result, end_from_trigger=True, multiple_outputs=multiple_outputs)
    assert now() < began + 0.5, "Airflow can take it at once"
    value = {**result, "event": "delivered", "time": event.payload["time"]}
    assert type(event).__name__ == "TaskSuccessEvent"
    assert event.xcoms == {**(value if multiple_outputs else {}), "return_value": value}
    # dag.test() resumes the task with the payload.
    assert FluxomailSendOperator(task_id="send", to="a@example.org", subject="Hi").execute_complete(
        {}, event.payload
    ) == value  # fmt: skip


@pytest.mark.parametrize("to", ["bounced@example.org", "unknown"])
def test_all_but_a_success_resumes_in_a_worker(sandbox: Sandbox, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_fluxomail.client.waiting.NOT_FOUND_GRACE", 0.0)
    sent = "s1" if to == "unknown" else send(sandbox, to=to)[0]
    event = fired(send_id=sent, end_from_trigger=True)
    assert type(event).__name__ == "TriggerEvent"
    assert event.payload["status"] == ("error" if to == "unknown" else "failed")
