"""``@task.fluxomail_send``: what a function returns is sent, with the keys that the operators would give it."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import AirflowFailException, AirflowSkipException, Asset
from airflow_provider_fluxomail.client.errors import FluxomailBatchUnfinishedError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.configuration.old_arguments import MESSAGE_FIELDS
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.airflow_names import task
from tests.support.airflow_runs import DagRuns
from tests.support.decorated_tasks import MANY, PEOPLE, decorated
from tests.support.running import Run, context
from tests.support.timing import wait_timing
from tests.support.ways import MESSAGE, quick

__all__ = ["quick"]
pytestmark = pytest.mark.usefixtures("quick")


def keys(sandbox: Sandbox) -> list[str]:
    return [str(mail.idempotency_key) for mail in sandbox.messages()]


def test_the_fields_of_a_message_are_known_without_it() -> None:
    assert set(MESSAGE_FIELDS) == set(EmailMessage.__dataclass_fields__)
    for name in MESSAGE_FIELDS:
        with pytest.raises(TypeError, match=f"'{name}'"):
            decorated(lambda: MESSAGE, **{name: "x"})


def test_one_message_has_the_key_of_the_operator(sandbox: Sandbox) -> None:
    Run(FluxomailSendOperator(task_id="task", deferrable=False, **MESSAGE))

    async def later() -> dict[str, Any]:
        return MESSAGE

    functions: list[Any] = [lambda: MESSAGE, lambda: EmailMessage(**MESSAGE), lambda: {**MESSAGE, "cc": None}, later]
    for function in functions:
        result = Run(decorated(function)).result
        assert result["idempotency_key"] == sandbox.message().idempotency_key
        assert result["reused"]
    assert Run(decorated(lambda: MESSAGE, idempotency_key="mine")).error is None
    assert keys(sandbox)[1:] == ["mine"]


def test_events_of_outlets_name_every_message_of_a_list(sandbox: Sandbox) -> None:
    event = SimpleNamespace(extra={})

    class Events:
        def __getitem__(self, asset: Any) -> Any:
            return event

    run = Run(decorated(lambda: MANY, outlets=[Asset("x://sent")]), {**context(), "outlet_events": Events()})
    assert run.kind == "success", run.error
    assert event.extra == {name: [one[name] for one in run.result] for name in ("send_id", "message_id")}
    assert len(sandbox.messages()) == len(MANY)


def test_many_have_the_keys_of_the_batch(sandbox: Sandbox) -> None:
    more = [{**MESSAGE, "subject": subject, "to": PEOPLE[0], "key": subject} for subject in ("2nd", "3rd")]
    twice = [*MANY, *more]
    operator = decorated(lambda: twice)
    run = Run(operator)
    assert not operator.multiple_outputs, "Airflow refuses a list otherwise"
    sent = {mail.send_id: mail for mail in sandbox.assert_sent(4)}
    mails = [sent[one["send_id"]] for one in run.result]
    assert [(mail.to, mail.subject) for mail in mails] == [(one["to"], one["subject"]) for one in twice]
    assert [one["idempotency_key"] for one in run.result] == [mail.idempotency_key for mail in mails]
    assert len(set(keys(sandbox))) == 4
    batch = Run(FluxomailSendBatchOperator(task_id="task", messages=twice, deferrable=False))
    assert batch.result["replayed"] == 4

    def each() -> Iterator[dict[str, Any]]:
        yield from twice

    assert [one["reused"] for one in Run(decorated(each)).result] == [True] * 4
    assert Run(decorated(list)).result == [], "an empty list is no error"


def test_a_list_is_retried_if_a_retry_can_help_one_of_its_messages(sandbox: Sandbox) -> None:
    sandbox.fail_next(400, to=PEOPLE[0], times=None)
    sandbox.fail_next(503, to=PEOPLE[1], times=2)
    assert isinstance(Run(decorated(lambda: MANY)).error, FluxomailBatchUnfinishedError)
    assert isinstance(Run(decorated(lambda: MANY)).error, AirflowFailException)
    sandbox.assert_sent(1)


def test_a_list_stops_when_its_task_is_killed(sandbox: Sandbox) -> None:
    operator = decorated(lambda: [{**MESSAGE, "key": str(number)} for number in range(300)])
    operator.on_kill()

    def kill() -> None:
        deadline = time.monotonic() + 30
        while not sandbox.requests("POST") and time.monotonic() < deadline:
            pass
        operator.on_kill()

    # The task in this thread: Airflow 2 runs an operator in no other.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pool.submit(kill)
        run = Run(operator)
    assert isinstance(run.error, FluxomailBatchUnfinishedError)
    assert "was stopped" in str(run.error)
    assert len(sandbox.messages()) < 300


def test_one_message_may_wait_for_its_delivery(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, worker_polls=(0.0,))
    sandbox.settings(event_delay=4)
    operator = decorated(lambda: MESSAGE, wait_for="delivered", poll_interval=0.1, deferrable=True)
    run = Run(operator)
    assert (run.result["event"], len(run.deferrals)) == ("delivered", 1)
    assert operator.multiple_outputs
    assert Run(decorated(lambda: MESSAGE, wait_for="opened")).kind == "AirflowFailException"


def test_arguments_and_the_context_reach_the_function(sandbox: Sandbox) -> None:
    def function(to: str, *, subject: str, run_id: str) -> dict[str, Any]:
        return {"to": to, "subject": subject, "content": run_id}

    run = Run(decorated(function, op_args=[PEOPLE[0]], op_kwargs={"subject": "Hi", "run_id": ""}))
    assert run.kind == "AirflowFailException", "an argument goes before the context"
    run = Run(decorated(lambda run_id=None: {**MESSAGE, "content": run_id}))
    assert run.error is None
    assert sandbox.message().content == "run"


def test_what_is_returned_is_no_template_and_an_argument_no_file(sandbox: Sandbox) -> None:
    operator = decorated(lambda name: {**MESSAGE, "content": "{{ run_id }}", "subject": name}, op_args=["report.html"])
    operator.render_template_fields(context())
    assert operator.op_args == ["report.html"]
    assert Run(operator).error is None
    assert (sandbox.message().subject, sandbox.message().content) == ("report.html", "{{ run_id }}")


def test_attachments_are_read(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    with_file = {**MESSAGE, "attachments": [str(tmp_path / "rows.csv")]}
    assert Run(decorated(lambda: with_file)).error is None
    assert Run(decorated(lambda: [with_file])).error is None
    assert [file.content for mail in sandbox.messages() for file in mail.attachments] == [b"id\n1\n"] * 2


def test_what_is_no_message_fails_at_once_and_sends_nothing(sandbox: Sandbox) -> None:
    wrong: list[tuple[Any, str]] = [
        (None, "returned nothing"),
        ("text", "returned str"),
        ({**MESSAGE, "to": "nobody"}, "not an email address"),
        ({**MESSAGE, "body": "x"}, "unknown message field 'body'"),
        ({"subject": "x"}, "to is missing"),
        ([MESSAGE, {**MESSAGE, "to": "nobody"}], r"messages\[1\]: to is not an email address"),
        ([MESSAGE, None], r"messages\[1\]: is NoneType"),
        ([{**MESSAGE, "key": "a"}, {**MESSAGE, "key": "a"}], "same key"),
    ]
    for value, text in wrong:
        with pytest.raises(AirflowFailException, match=text):
            decorated(lambda value=value: value).execute(context())
    for name, argument in {"wait_for": "delivered", "idempotency_key": "k"}.items():
        with pytest.raises(AirflowFailException, match=name):
            decorated(lambda: MANY, **{name: argument}).execute(context())
    assert sandbox.requests() == []


def test_what_the_function_raises_is_the_tasks(sandbox: Sandbox) -> None:
    def function() -> None:
        raise error

    for error in (AirflowSkipException("none today"), RuntimeError("broken")):
        assert Run(decorated(function)).error is error


# Whole Dags


def test_the_example(airflow_db: Path, sandbox: Sandbox) -> None:
    run = DagRuns(airflow_db).run("fluxomail_taskflow", {})
    assert set(run.states.values()) == {"success"}
    assert {"reminders", "invitation[0]", "invitation[1]"} < set(run.states)
    report = sandbox.message(subject=f"Report of {run.run_id}")
    assert report.content == "7 rows were loaded."
    assert run.xcom("report")["send_id"] == run.xcom("report", "send_id") == report.send_id
    assert run.xcom("notice")["event"] == "delivered"
    assert {one["send_id"] for one in run.xcom("reminders")} == {
        mail.send_id for mail in sandbox.messages(subject="Reminder")
    }
    assert sorted(mail.to for mail in sandbox.messages(subject="Invitation")) == PEOPLE
    sandbox.assert_sent(6)
    send: Any = task.fluxomail_send
    assert send(lambda: MESSAGE).operator_class is FluxomailSendDecoratedOperator
