"""Promise 2: a retry is not a re-send; a clear is one only if asked."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.idempotency_key import task_key
from tests.support import batches, decorated_tasks, emails, golden_keys, send_operators
from tests.support.airflow_runs import DagRuns
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.ways import MESSAGE


def test_promise_2_a_retry_keeps_the_key_and_a_clear_only_if_not_asked() -> None:
    first, retry, cleared = (golden_keys.context(try_number=n, max_tries=m) for n, m in ((1, 3), (2, 3), (3, 5)))
    assert task_key(first, namespace="") == task_key(retry, namespace="") == task_key(cleared, namespace="")
    asked = [task_key(one, namespace="", resend_on_clear=True) for one in (first, retry, cleared)]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.skipif(
    importlib.util.find_spec("airflow.models.task_state_store") is None, reason="Airflow has no task state store"
)
def test_promise_2_the_send_is_recorded_where_airflow_has_a_state_store(dags: DagRuns, sandbox: Sandbox) -> None:
    run = dags.run("fluxomail_send_and_wait", {"to": "ada@example.org"})
    ((value,),) = dags.query(
        "SELECT value FROM task_state_store WHERE dag_id = ? AND run_id = ? AND task_id = 'send'",
        run.dag_id,
        run.run_id,
    )
    assert sandbox.message().send_id in value
    # Not the name alone: a digest may hold these letters.
    assert "example.org" not in value


#: ``max_tries`` and ``try_number`` of a first try, its retry, a first try after a clear, and the retry of that.
TRIES: Final = ((3, 1), (3, 2), (5, 3), (5, 4))
TASKS: Final[dict[str, Callable[..., Any]]] = {
    "operator": send_operators.operator,
    "batch": partial(batches.operator, batches.people(1)),
    "decorator": partial(decorated_tasks.decorated, lambda: MESSAGE),
    "decorator of many": partial(decorated_tasks.decorated, lambda: [MESSAGE]),
}


@pytest.mark.parametrize("kept", [False, True], ids=["nothing kept", "state store"])
@pytest.mark.parametrize(("resend", "mails"), [(False, [1, 1, 1, 1]), (True, [1, 1, 2, 2])])
@pytest.mark.parametrize("task", TASKS)
def test_promise_2_a_clear_sends_again_only_if_asked(
    sandbox: Sandbox, store: Store, task: str, resend: bool, mails: list[int], kept: bool
) -> None:
    sent = []
    for max_tries, try_number in TRIES:
        ctx = context(max_tries=max_tries, try_number=try_number)
        run = Run(TASKS[task](resend_on_clear=resend), {**ctx, "task_state_store": store if kept else None})
        assert run.kind == "success", run.error
        sent.append(len(sandbox.messages()))
    assert sent == mails
    assert bool(store) is kept


def test_promise_2_within_a_task_a_clear_sends_again_only_if_asked(sandbox: Sandbox, running: Any) -> None:
    for max_tries, try_number in TRIES:
        running(max_tries=max_tries, try_number=try_number)
        emails.airflows_send_email(emails.PEOPLE[0], "Once", "<p>Text</p>")
        emails.airflows_send_email(emails.PEOPLE[0], "Again", "<p>Text</p>", resend_on_clear=True)
    assert sorted(mail.subject for mail in sandbox.messages()) == ["Again", "Again", "Once"]


@pytest.mark.parametrize(("resend", "mails"), [(False, 1), (True, 2)])
def test_promise_2_by_hand_a_clear_sends_again_only_if_asked(
    sandbox: Sandbox, running: Any, by_hand: Any, resend: bool, mails: int
) -> None:
    for max_tries, try_number in TRIES:
        running(max_tries=max_tries, try_number=try_number)
        by_hand(resend_on_clear=resend)
    sandbox.assert_sent(mails)
