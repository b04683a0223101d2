"""What a task of an older version has left behind, and a newer one goes on with (promise 6).

Serialized triggers are in ``test_sensor.py``, keys in ``tests/unit/test_idempotency.py``.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, get_args

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.watching.wait import Ending, Status
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.batch.progress import Progress
from airflow_provider_fluxomail.sending.send_record import StoredRecord
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.running import Run, context
from tests.support.ways import MESSAGE, Store

FOLDER: Final = Path(__file__).parent
STATES, EVENTS, TRIGGERS = (
    json.loads((FOLDER / f"golden_{name}.json").read_text(encoding="utf-8"))
    for name in ("states", "events", "triggers")
)


def made(name: str) -> Any:
    """The task whose keys and digests the golden files hold."""
    if name == FluxomailDeliverySensor.__name__:
        return FluxomailDeliverySensor(task_id="task", send_id="sends_1")
    if name == FluxomailSendOperator.__name__:
        return FluxomailSendOperator(task_id="task", **MESSAGE)
    messages = [{**MESSAGE, "to": f"p{number}@example.org"} for number in range(4)]
    return FluxomailSendBatchOperator(task_id="task", messages=messages, deferrable=False)


def ending(run: Run) -> str:
    """The name of what a task raised: this package's own error where it was the cause."""
    cause = run.error.__cause__ if run.error else None
    return type(cause).__name__ if isinstance(cause, FluxomailError) else run.kind


@pytest.mark.parametrize("case", STATES, ids=lambda case: case["name"])
def test_promise_6_a_retry_knows_what_an_old_version_kept(sandbox: Sandbox, case: dict[str, Any]) -> None:
    """In Airflow's task state store. The time of the first request lies behind every retention."""
    run = Run(made(case["operator"]), {**context(try_number=2), "task_state_store": Store(case["store"])})
    assert ending(run) == case["ends"], run.error
    assert sorted(mail.to for mail in sandbox.messages()) == case["asks"]
    assert len(sandbox.requests("POST")) == len(case["asks"])


@pytest.mark.parametrize(
    ("case", "resumes"),
    [(case, resumes) for case in EVENTS for resumes in case["resumes"]],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_promise_6_a_task_resumes_with_what_an_old_trigger_fired(
    sandbox: Sandbox, case: dict[str, Any], resumes: str
) -> None:
    """The event is stored: the trigger may have fired before the upgrade, and the task resume after it."""
    name, method = resumes.split(".")
    task = made(name)
    run = Run(SimpleNamespace(execute=lambda ctx: task.resume_execution(method, {"event": case["event"]}, ctx)))
    wanted = case["resumes"][resumes]
    if isinstance(wanted, str):
        assert run.kind == wanted, run.error
        assert case["event"]["message"] in str(run.error)
    else:
        assert run.kind == "success", run.error
        assert run.result.items() >= wanted.items()
    assert sorted(mail.to for mail in sandbox.messages()) == case.get("asks", [])


def test_promise_6_every_kind_of_event_and_state_is_golden() -> None:
    waits = [case["event"] for case in EVENTS if "status" in case["event"]]
    assert {event["status"] for event in waits} == set(get_args(Status))
    fields = {field.name for field in dataclasses.fields(Ending)}
    assert all(set(event) == fields | {"result"} for event in waits)
    methods = {path.partition(".")[2] for case in TRIGGERS for path in case["resumes"]}
    assert {resumes for case in EVENTS for resumes in case["resumes"]} == methods
    (state,) = (case["event"]["state"] for case in EVENTS if case["event"].get("state"))
    assert set(state) == set(Progress().state())
    kept = [case["store"] for case in STATES]
    assert all(set(one["fluxomail_batch"]) == set(state) for one in kept if "fluxomail_batch" in one)
    names = {field.name for field in dataclasses.fields(StoredRecord)}
    assert all(set(one["fluxomail_send"]) == names for one in kept if "fluxomail_send" in one)
    assert {name for one in kept for name in one} == {"fluxomail_send", "fluxomail_batch"}
