"""A success ends in the triggerer where nothing of it needs a worker; on Airflow 3.3 and later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import (
    TRIGGERS_CAN_END_TASKS,
    Asset,
    BaseOperator,
    BaseOperatorLink,
    XCom,
)
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
from airflow_provider_fluxomail.triggers.delivery import can_end_in_triggerer
from airflow_provider_fluxomail.waiting import worker
from tests.support.airflow_names import DAG, TaskDeferred
from tests.support.running import Run, context
from tests.support.timing import wait_timing
from tests.support.watching import send

WORKER, TRIGGERER = False, TRIGGERS_CAN_END_TASKS


class Own(FluxomailDeliverySensor):
    def execute_complete(self, context: Any, event: Any = None) -> Any:
        return {**super().execute_complete(context, event), "more": True}


class After(FluxomailDeliverySensor):
    def post_execute(self, context: Any, result: Any = None) -> None: ...


class Link(BaseOperatorLink):
    name = "Another"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        return ""


class Linked(FluxomailDeliverySensor):
    operator_extra_links = (*FluxomailDeliverySensor.operator_extra_links, Link())  # type: ignore[assignment]


@pytest.fixture
def dag() -> Iterator[None]:
    with DAG("dag", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        yield


def wait(kind: type[FluxomailDeliverySensor] = FluxomailDeliverySensor, **fields: Any) -> FluxomailDeliverySensor:
    return kind(task_id="wait", **{"send_id": "s1", **fields})


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        *(({}, TRIGGERER), ({"on_failure_callback": print}, TRIGGERER), ({"soft_fail": True}, TRIGGERER)),
        *(({"on_success_callback": print}, WORKER), ({"on_success_callback": [print]}, WORKER)),
        *(
            ({"outlets": [Asset("asset")]}, WORKER),
            ({"do_xcom_push": False}, WORKER),
            ({"post_execute": print}, WORKER),
        ),
        *(({"kind": Own}, WORKER), ({"kind": Linked}, WORKER), ({"kind": After}, WORKER)),
    ],
    ids=str,
)
def test_what_needs_a_worker_for_its_success(dag: None, fields: dict[str, Any], where: bool) -> None:
    assert can_end_in_triggerer(wait(**fields)) is where


def test_the_operator_that_waits_and_another_xcom_backend(dag: None, monkeypatch: pytest.MonkeyPatch) -> None:
    task = FluxomailSendOperator(task_id="send", to="ops@example.org", subject="Hi", content="Text")
    assert can_end_in_triggerer(task) is TRIGGERER
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "my.Backend")
    assert can_end_in_triggerer(task) is WORKER


def test_what_is_mapped_over_needs_its_length(dag: None) -> None:
    class Down(BaseOperator):
        def __init__(self, *, values: Any = None, **kwargs: Any) -> None:
            super().__init__(**kwargs)

    task = wait()
    Down.partial(task_id="down").expand(values=task.output)
    assert can_end_in_triggerer(task) is WORKER


MESSAGE: dict[str, Any] = {"to": "never@example.org", "subject": "Hi", "content": "Text"}
FACES: dict[str, Callable[..., Any]] = {
    "sensor": lambda sandbox, **fields: FluxomailDeliverySensor(
        task_id="task", send_id=send(sandbox, to="never@example.org")[0], deferrable=True, **fields
    ),
    "operator": lambda sandbox, **fields: FluxomailSendOperator(
        task_id="task", wait_for="delivered", deferrable=True, **MESSAGE, **fields
    ),
    "mapped sensor": lambda sandbox, **fields: unmapped(
        FluxomailDeliverySensor.partial(task_id="task", deferrable=True, **fields).expand(
            send_id=send(sandbox, to="never@example.org")
        )
    ),
}


def unmapped(task: Any) -> Any:
    return task.unmap({**task.partial_kwargs, "send_id": task.expand_input.value["send_id"][0]})


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    ("fields", "polls"),
    [
        ({}, 3 if TRIGGERER else 4),
        ({"on_success_callback": print}, 4),
        ({"defer_at_once": True}, 1),
        ({"defer_at_once": True, "on_success_callback": print}, 1),
    ],
    ids=str,
)
def test_a_worker_polls_longer_if_a_later_success_needs_another_one(
    sandbox: Sandbox, dag: None, monkeypatch: pytest.MonkeyPatch, face: str, fields: dict[str, Any], polls: int
) -> None:
    wait_timing(monkeypatch, worker_polls=(0.0, 0.4, 0.8, 1.2), short_hold=0.8, least_interval=0.01)
    # The time that requests take must not count: a slow machine would poll less often.
    began, slept = now(), [0.0]
    monkeypatch.setattr(worker, "now", lambda: began + sum(slept))
    monkeypatch.setattr(worker, "time", SimpleNamespace(sleep=slept.append))
    task = FACES[face](sandbox, **fields)
    with pytest.raises(TaskDeferred):
        task.execute(context())
    assert len(sandbox.requests("GET")) == polls


def test_a_task_that_cannot_defer_polls_in_its_worker(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, least_interval=0.01)
    (sent,) = send(sandbox, to="ops@example.org")
    sandbox.fail_next(503, path="/api/v1/sends", times=2)
    task = wait(send_id=sent, deferrable=False, defer_at_once=True, poke_interval=0.05, timeout=60)
    run = Run(task)
    assert (run.kind, run.deferrals) == ("success", [])
    assert len(sandbox.requests("GET")) == 3


def fired(where: Any = None, **fields: Any) -> Any:
    """What a trigger fires, of the task ``where``."""
    began = now()
    trigger = FluxomailDeliveryTrigger(started=began, deadline=began + 20, resume_after=began + 0.5, **fields)
    trigger.task_instance = where

    async def first() -> Any:
        events: Any = trigger.run()
        async with contextlib.aclosing(events):
            return await anext(events)

    return asyncio.run(first())


TASK: Any = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=3)


@pytest.mark.skipif(not TRIGGERS_CAN_END_TASKS, reason="before 3.3 every wait ends in a worker")
@pytest.mark.parametrize("multiple_outputs", [False, True])
def test_the_result_is_pushed_from_the_triggerer(
    sandbox: Sandbox, multiple_outputs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: dict[str, Any] = {}

    def push(key: str, value: Any, **where: Any) -> None:
        assert where == vars(TASK)
        pushed[key] = value

    monkeypatch.setattr(XCom, "set", push)
    (sent,) = send(sandbox, to="ops@example.org")
    result = {"send_id": sent, "reused": False}
    event = fired(TASK, send_id=sent, result=result, end_from_trigger=True, multiple_outputs=multiple_outputs)
    assert type(event).__name__ == "TaskSuccessEvent"
    assert not event.xcoms
    value = pushed["return_value"]
    assert value == {**result, "event": "delivered", "time": value["time"]}
    assert pushed == {**(value if multiple_outputs else {}), "return_value": value}


@pytest.mark.parametrize("where", [None, TASK], ids=["dag.test", "no database"])
def test_a_result_that_cannot_be_pushed_is_a_workers(
    sandbox: Sandbox, where: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(**_: Any) -> None:
        raise RuntimeError("no database")

    monkeypatch.setattr(XCom, "set", push)
    (sent,) = send(sandbox, to="ops@example.org")
    began = now()
    event = fired(where, send_id=sent, result={"send_id": sent}, end_from_trigger=True)
    assert now() >= began + 0.5, "Airflow may kill a task that resumes sooner"
    assert type(event).__name__ == "TriggerEvent"
    task = FluxomailSendOperator(task_id="send", to="a@example.org", subject="Hi", content="Text")
    assert task.execute_complete({}, event.payload)["event"] == "delivered"


@pytest.mark.parametrize("to", ["bounced@example.org", "unknown"])
def test_all_but_a_success_resumes_in_a_worker(sandbox: Sandbox, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, not_found_grace=0.0)
    sent = "s1" if to == "unknown" else send(sandbox, to=to)[0]
    event = fired(TASK, send_id=sent, end_from_trigger=True)
    assert type(event).__name__ == "TriggerEvent"
    assert event.payload["status"] == ("error" if to == "unknown" else "failed")
