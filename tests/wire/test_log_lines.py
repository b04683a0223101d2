"""Log lines that save a reader the search in the docs: a clear, a redirect, a skip."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import pytest

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import idempotency_key
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.timing import quick_waits

MESSAGE: Final[dict[str, Any]] = {"to": "veiled@example.org", "subject": "Veiled", "content": "Veiled"}
ROWS: Final = [{**MESSAGE, "to": f"veiled-{number}@example.org"} for number in range(3)]
RETRIES: Final = 3
#: Sends in a task, given its context and whether a clear sends again.
Face = Callable[[Any, bool], None]


@pytest.fixture(autouse=True)
def _log_everything(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(FluxomailDeliverySensor, "log", logging.getLogger("sensor under test"), raising=False)
    quick_waits(monkeypatch)
    with caplog.at_level(logging.INFO):
        yield


def by_operator(ctx: Any, resend: bool) -> None:
    check(Run(FluxomailSendOperator(task_id="task", resend_on_clear=resend, **MESSAGE), ctx))


def by_function_of_one_in_a_list(ctx: Any, resend: bool) -> None:
    check(Run(decorated(lambda: [MESSAGE], resend), ctx))


def by_batch(ctx: Any, resend: bool) -> None:
    check(Run(FluxomailSendBatchOperator(task_id="task", messages=[MESSAGE], resend_on_clear=resend), ctx))


def by_hook(ctx: Any, resend: bool) -> None:
    with mock.patch.object(idempotency_key, "_running_context", return_value=ctx):
        FluxomailHook().send(MESSAGE, resend_on_clear=resend)


def by_email_backend(ctx: Any, resend: bool) -> None:
    with mock.patch.object(idempotency_key, "_running_context", return_value=ctx):
        send_email(MESSAGE["to"], MESSAGE["subject"], MESSAGE["content"], resend_on_clear=resend)


FACES: Final = [by_operator, by_function_of_one_in_a_list, by_batch, by_hook, by_email_backend]


def decorated(function: Callable[[], Any], resend: bool = False) -> FluxomailSendDecoratedOperator:
    return FluxomailSendDecoratedOperator(task_id="task", python_callable=function, resend_on_clear=resend)


def check(run: Run) -> None:
    assert run.kind == "success", run.error


def running(try_number: int, max_tries: int, *, cleared: int = 1, store: Any = None) -> Any:
    ctx = context(try_number=try_number, max_tries=max_tries)
    task = {"task": SimpleNamespace(retries=RETRIES), "dag_run": SimpleNamespace(clear_number=cleared)}
    return {**ctx, **task, "task_state_store": store}


def lines(caplog: pytest.LogCaptureFixture, word: str, level: int = logging.INFO) -> list[str]:
    found = [record.getMessage() for record in caplog.records if word in record.getMessage() if record.levelno >= level]
    assert not [line for line in found if "veiled" in line.lower()], "promise 5"
    return found


# A clear that sends nothing


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("durable", [False, True])
def test_a_cleared_task_that_sends_nothing_says_why_and_what_to_set(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, face: Face, durable: bool
) -> None:
    store = Store() if durable else None
    face(running(1, RETRIES, cleared=0, store=store), False)
    assert lines(caplog, "resend_on_clear") == []
    face(running(2, RETRIES + 1, store=store), False)
    (line,) = lines(caplog, "resend_on_clear=True", logging.WARNING)
    assert line.startswith("This task was cleared, but ")
    assert sandbox.message().send_id in line or "1 of its messages" in line
    sandbox.assert_sent(1)


@pytest.mark.parametrize("face", FACES)
def test_no_line_about_any_other_clear_or_retry(sandbox: Sandbox, caplog: pytest.LogCaptureFixture, face: Face) -> None:
    face(running(1, RETRIES, cleared=0), False)
    for retry in ((2, RETRIES), (3, RETRIES + 1)):
        face(running(*retry), False)
    sandbox.assert_sent(1)
    sandbox.connect(idempotency_namespace="resent")
    face(running(1, RETRIES, cleared=0), True)
    face(running(2, RETRIES + 1), True)
    sandbox.assert_sent(3)
    sandbox.connect(idempotency_namespace="had sent nothing")
    face(running(2, RETRIES + 1), False)
    assert lines(caplog, "was cleared") == []
    sandbox.assert_sent(4)


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="Airflow counts all clears of a run from 3.2 on")
def test_a_retry_with_fewer_retries_than_the_first_try_is_no_clear(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    by_operator(running(1, RETRIES + 1, cleared=0), False)
    by_operator(running(2, RETRIES + 1, cleared=0), False)
    assert lines(caplog, "was cleared") == []


def test_a_cleared_batch_says_how_many_of_its_messages_it_does_not_send_again(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    check(Run(FluxomailSendBatchOperator(task_id="task", messages=ROWS[:2]), running(1, RETRIES, cleared=0)))
    check(Run(FluxomailSendBatchOperator(task_id="task", messages=ROWS), running(2, RETRIES + 1)))
    (line,) = lines(caplog, "was cleared")
    assert "2 of its messages were sent before" in line
    sandbox.assert_sent(3)


# A redirect


def by_notifier(ctx: Any, resend: bool) -> None:
    FluxomailNotifier(to=MESSAGE["to"])(ctx)


@pytest.mark.parametrize("face", [*FACES, by_notifier])
def test_each_redirected_send_says_once_that_it_was(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, face: Face
) -> None:
    face(running(1, RETRIES), False)
    assert lines(caplog, "redirect") == []
    sandbox.connect(redirect_to="qa@example.org", idempotency_namespace="redirected")
    wanted = "Redirected: the message goes to redirect_to of connection 'fluxomail_default', not to the recipients."
    # The second is a replay, and so compared with what is stored.
    for number in (1, 2):
        face(running(number, RETRIES), False)
        assert lines(caplog, "edirect") == [wanted] * number
    assert sandbox.messages("qa@example.org")


def test_a_batch_says_in_one_line_how_many_messages_were_redirected(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    sandbox.connect(redirect_to="qa@qa.example", allowed_recipient_domains="example.org")
    rows = [*ROWS, *({**MESSAGE, "to": f"veiled-{number}@elsewhere.example"} for number in range(20))]
    check(Run(FluxomailSendBatchOperator(task_id="task", messages=rows), running(1, RETRIES)))
    (line,) = lines(caplog, "edirect")
    assert line.startswith("Redirected: 20 messages go to redirect_to of connection 'fluxomail_default'")
    assert len(sandbox.messages("qa@qa.example")) == 20


def test_a_redirect_is_logged_once_and_only_if_it_happens(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.connect(redirect_to="qa@qa.example", allowed_recipient_domains="example.org")
    by_operator(running(1, RETRIES), False)
    assert lines(caplog, "edirect") == []
    sandbox.connect(redirect_to="qa@example.org", idempotency_namespace="redirected")
    sandbox.fail_next("error_before_store", times=2)
    by_operator(running(1, RETRIES), False)
    assert len(lines(caplog, "edirect")) == 1


# A sensor that skips


def wait(mode: str, to: str, **fields: Any) -> tuple[str, Run]:
    how: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"deferrable": False}
    hook = FluxomailHook()
    send_id = hook.send({**MESSAGE, "to": to}, idempotency_key=to).send_id
    hook.close()
    task = FluxomailDeliverySensor(
        task_id="task", send_id=send_id, poke_interval=0.1, **{"timeout": 20, **how, **fields}
    )
    return send_id, Run(task)


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
@pytest.mark.parametrize("option", ["soft_fail", "never_fail"])
@pytest.mark.parametrize(
    ("outcome", "fields", "text"),
    [
        ("bounced", {}, "the message bounced at 2"),
        ("never", {"timeout": 0.5}, "not delivered within 0 s; last event: sent at 2"),
        ("delivered", {}, "cannot read the timeline: "),
    ],
)
def test_a_sensor_that_skips_says_first_what_it_would_have_failed_with(
    sandbox: Sandbox,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    option: str,
    outcome: str,
    fields: dict[str, Any],
    text: str,
) -> None:
    if outcome == "delivered":
        sandbox.fail_next(403, times=None, path="/api/v1/sends")
    send_id, run = wait(mode, f"veiled+{outcome}@example.org", **{option: True, **fields})
    assert run.kind == "AirflowSkipException", run.error
    (line,) = lines(caplog, "Skipping the task", logging.WARNING)
    assert line.startswith(f"Skipping the task instead of failing it ({option}): ")
    assert text in line
    assert (": 550 5.1.1" in line) is (outcome == "bounced")
    assert line.count(send_id) == 1


def test_a_reason_that_names_the_recipient_is_logged_without_it(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    hook = FluxomailHook()
    send_id = hook.send({**MESSAGE, "to": "veiled+never@example.org"}, idempotency_key="k").send_id
    hook.close()
    sandbox.bounce(reason="550 5.1.1 <veiled@example.org>: no such user")
    task = FluxomailDeliverySensor(task_id="task", send_id=send_id, soft_fail=True, deferrable=False)
    assert Run(task).kind == "AirflowSkipException"
    (line,) = lines(caplog, "Skipping the task")
    assert "550 5.1.1 <<address>>: no such user" in line


def test_never_fail_after_an_error_that_is_not_fluxomails(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the database of veiled@example.org is down")

    monkeypatch.setattr(FluxomailHook, "get_timeline", broken)
    send_id, run = wait("poke", "veiled+delivered@example.org", never_fail=True)
    assert run.kind == "AirflowSkipException"
    (line,) = lines(caplog, "Skipping the task")
    assert "RuntimeError: the database of <address> is down" in line
    assert send_id in line
