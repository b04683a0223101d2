"""Promise 2: a retry is not a re-send; a clear is one only if asked."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox, FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import idempotency_key
from airflow_provider_fluxomail.sending.idempotency_key import task_key
from tests.support import batches, decorated_tasks, durable_sends, emails, golden_keys, send_operators
from tests.support.airflow_runs import DagRuns
from tests.support.batches import quick_batches
from tests.support.deployments import by_hand, running
from tests.support.durable_sends import advance_clock, store
from tests.support.emails import backend_emails, clock
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.ways import MESSAGE, quick
from tests.support.whole_dags import quick_whole_dags

__all__ = [
    "advance_clock",
    "backend_emails",
    "by_hand",
    "clock",
    "quick",
    "quick_batches",
    "quick_whole_dags",
    "running",
    "store",
]


def test_promise_2_a_retry_keeps_the_key_and_a_clear_only_if_not_asked() -> None:
    first, retry, cleared = (golden_keys.context(try_number=n, max_tries=m) for n, m in ((1, 3), (2, 3), (3, 5)))
    assert task_key(first, namespace="") == task_key(retry, namespace="") == task_key(cleared, namespace="")
    asked = [task_key(one, namespace="", resend_on_clear=True) for one in (first, retry, cleared)]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.usefixtures("quick_batches")
def test_promise_2_a_clear_sends_all_again_only_if_asked(sandbox: Sandbox) -> None:
    for resend, mails in ((False, 3), (True, 9)):
        for max_tries, try_number in ((3, 1), (3, 2), (5, 3)):
            ctx = {"max_tries": max_tries, "try_number": try_number}
            assert batches.run(batches.people(3), resend_on_clear=resend, ctx=ctx).kind == "success"
        sandbox.assert_sent(mails)


@pytest.mark.usefixtures("quick_batches")
def test_promise_2_what_is_kept_is_no_hindrance_to_a_clear_that_shall_send_again(sandbox: Sandbox) -> None:
    store = Store()
    for max_tries, try_number, mails in ((3, 1, 5), (3, 2, 5), (5, 3, 10), (5, 4, 10)):
        ctx = {"max_tries": max_tries, "try_number": try_number}
        assert batches.run(batches.people(5), store=store, resend_on_clear=True, ctx=ctx).kind == "success"
        sandbox.assert_sent(mails)


@pytest.mark.usefixtures("quick_whole_dags")
@pytest.mark.skipif(
    importlib.util.find_spec("airflow.models.task_state_store") is None, reason="Airflow has no task state store"
)
def test_promise_2_a_task_keeps_its_send_where_airflow_can(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    run = dags.run("fluxomail_send_and_wait", {"to": "ada@example.org"})
    ((value,),) = dags.query(
        "SELECT value FROM task_state_store WHERE dag_id = ? AND run_id = ? AND task_id = 'send'",
        run.dag_id,
        run.run_id,
    )
    assert sandbox.message().send_id in value
    # Not the name alone: a digest may hold these letters.
    assert "example.org" not in value


@pytest.mark.usefixtures("quick")
def test_promise_2_a_clear_sends_again_only_if_asked(sandbox: Sandbox) -> None:
    for resend, sent in ((False, 2), (True, 6)):
        for max_tries in (3, 5):
            for function in (lambda: MESSAGE, lambda: decorated_tasks.MANY[:1]):
                assert (
                    Run(decorated_tasks.decorated(function, resend_on_clear=resend), context(max_tries=max_tries)).error
                    is None
                )
        sandbox.assert_sent(sent)


@pytest.mark.usefixtures("backend_emails", "clock")
def test_promise_2_within_a_task_a_clear_sends_again_only_if_asked(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for max_tries in (3, 5):
        task = context(max_tries=max_tries, try_number=max_tries)
        monkeypatch.setattr(idempotency_key, "_running_context", lambda task=task: task)
        emails.airflows_send_email(emails.PEOPLE[0], "Once", "<p>Text</p>")
        emails.airflows_send_email(emails.PEOPLE[0], "Again", "<p>Text</p>", resend_on_clear=True)
    assert sorted(mail.subject for mail in sandbox.messages()) == ["Again", "Again", "Once"]


def test_promise_2_retries_send_once_and_clears_only_if_asked(sandbox: Sandbox) -> None:
    for resend, mails in ((False, 1), (True, 3)):
        for max_tries, try_number in ((3, 1), (3, 2), (5, 3)):
            run = Run(
                send_operators.operator(resend_on_clear=resend), context(max_tries=max_tries, try_number=try_number)
            )
            assert run.kind == "success"
        assert len(sandbox.messages()) == mails


def test_promise_2_by_hand_a_clear_sends_only_if_asked(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    for resend, mails in ((False, 1), (True, 3)):
        for max_tries, try_number in ((3, 1), (3, 2), (5, 3)):
            running(max_tries=max_tries, try_number=try_number)
            by_hand(resend_on_clear=resend)
        sandbox.assert_sent(mails)


def test_promise_2_a_clear_that_shall_send_again_does(sandbox: Sandbox, store: Store, advance_clock: Any) -> None:
    for max_tries, try_number, mails in ((3, 1, 1), (3, 2, 1), (5, 3, 2), (5, 4, 2)):
        assert (
            durable_sends.send(store, resend_on_clear=True, ctx={"max_tries": max_tries, "try_number": try_number}).kind
            == "success"
        )
        sandbox.assert_sent(mails)
        advance_clock(durable_sends.HOUR)
