"""The wrong replay: a known key that stands for somebody else's message (promise 1)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import (
    FluxomailIdempotencyConflictError,
    FluxomailServerError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import idempotency_key
from tests.support.running import Run, context
from tests.support.timing import quick_waits

ADA, BOB = "ada@example.org", "bob@example.org"
TIMELINE = "/api/v1/sends"


def send(to: str = ADA, *, subject: str = "Hi", ctx: dict[str, Any] | None = None, **arguments: Any) -> Run:
    operator = FluxomailSendOperator(
        task_id="task", **{"to": to, "subject": subject, "content": "Text", "deferrable": False, **arguments}
    )
    return Run(operator, context(**(ctx or {})))


def test_promise_1_two_deployments_with_one_organization(sandbox: Sandbox) -> None:
    assert send(ADA).kind == "success"
    second = send(BOB)
    assert second.kind == "AirflowFailException", "no retry mends it"
    told = str(second.error)
    assert "FluxomailIdempotencyConflictError" in told
    assert "another recipient" in told
    assert "idempotency_namespace" in told
    assert "not sent" in told
    assert sandbox.message().send_id in told
    for private in (ADA, BOB, "Hi", "Text"):
        assert private not in told, "promise 5"
    sandbox.connect(idempotency_namespace="staging")
    assert send(BOB).kind == "success"
    sandbox.assert_sent(1, BOB)


def test_promise_1_another_subject_counts_on_the_first_try_alone(sandbox: Sandbox) -> None:
    assert send(subject="Monday").kind == "success"
    first = send(subject="Tuesday")
    assert first.kind == "AirflowFailException"
    assert "another subject" in str(first.error)
    later = send(subject="Tuesday", ctx={"try_number": 2})
    assert later.kind == "success", "a retry may render another subject"
    assert later.result["reused"]
    sandbox.assert_sent(1)


def test_promise_1_a_constant_key_in_two_dags(sandbox: Sandbox) -> None:
    assert send(ADA, idempotency_key="report", ctx={"dag_id": "one"}).kind == "success"
    assert send(BOB, idempotency_key="report", ctx={"dag_id": "two"}).kind == "AirflowFailException"
    same = send(ADA, idempotency_key="report", ctx={"dag_id": "three"})
    assert same.kind == "success"
    assert same.result["reused"], "the same message, which is what such keys are for"


def test_promise_1_a_mapping_in_another_order(sandbox: Sandbox) -> None:
    for index, to in enumerate((ADA, BOB)):
        assert send(to, ctx={"map_index": index}).kind == "success"
    for index, to in enumerate((BOB, ADA)):
        run = send(to, ctx={"map_index": index, "try_number": 2})
        assert run.kind == "AirflowFailException"
        assert "changed their order" in str(run.error)
    sandbox.assert_sent(2)


def test_promise_1_a_retry_after_a_lost_answer_is_harmless(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    assert send().kind == "FluxomailConnectionError"
    second = send(ctx={"try_number": 2})
    assert second.kind == "success"
    assert second.result["reused"]
    sandbox.assert_sent(1)


@pytest.mark.parametrize("form", ["docs", "spec"])
def test_names_and_spelling_of_an_address_are_no_difference(sandbox: Sandbox, form: str) -> None:
    sandbox.settings(timeline_form=form)
    assert send("Ada <ada@example.org>", subject="Hi  there").kind == "success"
    assert send("ADA@example.org", subject="Hi there").kind == "success"


def test_a_replay_of_this_calls_own_making_is_not_compared(sandbox: Sandbox) -> None:
    sandbox.fail_next("response_lost_after_store")
    run = send()
    assert run.kind == "success"
    assert run.result["reused"]
    assert "own_replay" not in run.result
    assert sandbox.requests("GET") == []


def test_a_replay_after_a_refusal_that_stored_nothing_is_compared(sandbox: Sandbox) -> None:
    assert send(ADA).kind == "success"
    sandbox.fail_next(429, retry_after=0.01)
    assert send(BOB).kind == "AirflowFailException"


def test_the_redirected_recipient_is_the_one_that_counts(sandbox: Sandbox) -> None:
    sandbox.connect(redirect_to="qa@example.org")
    assert send().kind == "success"
    assert send().kind == "success"
    sandbox.connect()
    run = send(ctx={"try_number": 2})
    assert run.kind == "AirflowFailException", "the mail went to the staging address, never to the recipient"


@pytest.mark.parametrize("why", ["send-only key", "not found", "no recipient"])
def test_a_stored_send_that_cannot_be_read_is_a_warning(
    sandbox: Sandbox, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(ADA).kind == "success"
    if why == "send-only key":
        sandbox.key("sender", scopes=["send_email"])
        sandbox.connect(key="sender")
    elif why == "not found":
        sandbox.fail_next(404, path=TIMELINE)
    else:
        sandbox.fail_next(200, path=TIMELINE, body={"events": []})
    with caplog.at_level(logging.WARNING):
        run = send(BOB)
    assert run.kind == "success"
    assert ("cannot be read" in caplog.text) is (why != "no recipient")
    assert BOB not in caplog.text


def test_an_outage_while_comparing_is_airflows_to_retry(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    assert send(ADA).kind == "success"
    sandbox.fail_next(503, path=TIMELINE)
    assert isinstance(send(BOB).error, FluxomailServerError)
    assert send(BOB, ctx={"try_number": 2}).kind == "AirflowFailException"


def test_a_gateways_404_while_comparing_is_airflows_to_retry(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    assert send(ADA).kind == "success"
    no_id = {"X-Request-Id": "", "Fluxomail-Request-Id": ""}
    sandbox.fail_next(404, path=TIMELINE, headers=no_id, body={"message": "no Route matched with those values"})
    assert send(BOB).kind == "FluxomailResponseError"
    assert send(BOB, ctx={"try_number": 2}).kind == "AirflowFailException"


class RendersAnew(FluxomailSendOperator):
    """Has another subject after a deferral, as one with the time in it has."""

    def send_after_rate_limit(self, context: Any, event: Any = None) -> Any:
        self.subject = "Rendered later"
        return super().send_after_rate_limit(context, event)


def test_promise_1_a_subject_rendered_anew_after_a_deferral_is_harmless(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_waits(monkeypatch)
    sandbox.connect(max_wait=0.5)
    sandbox.fail_next("error_after_store")
    sandbox.fail_next(429, retry_after=1)
    run = Run(RendersAnew(task_id="task", to=ADA, subject="Rendered first", content="Text", deferrable=True))
    assert run.kind == "success", run.error
    assert len(run.deferrals) == 1
    assert sandbox.message().subject == "Rendered first"


@pytest.mark.parametrize(("try_number", "told"), [(1, "idempotency_namespace"), (2, "has probably sent the email")])
def test_promise_1_a_conflict_that_the_server_finds(sandbox: Sandbox, try_number: int, told: str) -> None:
    sandbox.settings(idempotency_conflict="conflict")
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_after_store")
    assert isinstance(send(content="Rendered at 10:00").error, FluxomailServerError)
    run = send(content="Rendered at 10:05", ctx={"try_number": try_number})
    assert run.kind == "AirflowFailException", "no retry mends it"
    assert told in str(run.error)
    assert "status 409" in str(run.error)
    sandbox.assert_sent(1)


# By hand, in a task


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make the hook believe that a task runs, with the context that a test wants."""

    def run(**fields: Any) -> None:
        ctx = context(**fields)
        monkeypatch.setattr(idempotency_key, "_running_context", lambda: ctx)

    return run


@pytest.fixture(params=["sync", "async"])
def by_hand(request: pytest.FixtureRequest) -> Any:
    def send(to: str = ADA, **arguments: Any) -> Any:
        message = {"to": to, "subject": arguments.pop("subject", "Hi"), "content": "Text"}
        hook = FluxomailHook()
        if request.param == "async":
            return asyncio.run(hook.asend(message, **arguments))
        try:
            return hook.send(message, **arguments)
        finally:
            hook.close()

    return send


def test_promise_1_by_hand_the_key_comes_from_the_task(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    for try_number in (1, 2):
        running(try_number=try_number)
        sent = [by_hand(ADA), by_hand(BOB), by_hand(ADA, subject="Again"), by_hand(ADA, part="summary")]
        assert [one.reused for one in sent] == [try_number == 2] * 4
    assert len({mail.idempotency_key for mail in sandbox.assert_sent(4)}) == 4
    assert all(str(mail.idempotency_key).startswith("af1:dag.task:") for mail in sandbox.messages())


def test_promise_2_by_hand_a_clear_sends_only_if_asked(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    for resend, mails in ((False, 1), (True, 3)):
        for max_tries, try_number in ((3, 1), (3, 2), (5, 3)):
            running(max_tries=max_tries, try_number=try_number)
            by_hand(resend_on_clear=resend)
        sandbox.assert_sent(mails)


def test_by_hand_the_recipient_counts_however_it_is_spelt(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    running()
    keys = [by_hand(to).idempotency_key for to in ("Ada <ada@example.org>", "ADA@example.org")]
    assert keys[0] != keys[1], "two messages to one person"
    running(try_number=2)
    assert [by_hand(to).idempotency_key for to in ("ada@example.org", "A <ada@example.org>")] == keys


def test_promise_1_by_hand_a_foreign_replay_fails(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    running()
    by_hand(ADA, part="report")
    with pytest.raises(FluxomailIdempotencyConflictError, match="another recipient"):
        by_hand(BOB, part="report")


def test_by_hand_the_redirected_recipient_is_the_one_that_counts(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    sandbox.connect(redirect_to="qa@example.org")
    for try_number in (1, 2):
        running(try_number=try_number)
        assert by_hand().reused is (try_number == 2)


def test_by_hand_a_part_is_no_recipient(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    running()
    assert by_hand(ADA).idempotency_key != by_hand(ADA, part="to:ada@example.org:0").idempotency_key


def test_by_hand_outside_of_a_task_a_key_is_required(sandbox: Sandbox, by_hand: Any) -> None:
    for arguments in ({}, {"part": "x"}):
        with pytest.raises(FluxomailValidationError, match="give idempotency_key"):
            by_hand(**arguments)
    assert by_hand(idempotency_key="k").send_id
    sandbox.assert_sent(1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"part": ""}, "part came out empty"),
        ({"part": 3}, "part came out empty"),
        ({"idempotency_key": ""}, "idempotency_key must be 1 to 128"),
        ({"idempotency_key": "k", "part": "x"}, "belong to a derived key"),
        ({"idempotency_key": "k", "resend_on_clear": True}, "belong to a derived key"),
    ],
)
def test_by_hand_bad_input_is_named(
    sandbox: Sandbox, running: Any, by_hand: Any, arguments: dict[str, Any], told: str
) -> None:
    running()
    with pytest.raises(FluxomailValidationError, match=told):
        by_hand(**arguments)
    assert sandbox.requests() == []
