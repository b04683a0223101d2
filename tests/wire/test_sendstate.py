"""What a task keeps of its send where Airflow can keep it (promises 1 and 2), with a store as Airflow's behaves."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.running import Run, context

HOUR = 3600.0
ADA, BOB = "ada@example.org", "bob@example.org"


class StateError(Exception):
    """As Airflow tells what its API server said."""

    def __init__(self, status: int) -> None:
        super().__init__(f"API_SERVER_ERROR: {status}")
        self.error = SimpleNamespace(detail={"status_code": status})


class Store(dict[str, Any]):
    """A task state store: it outlives tries and clears."""

    error: Exception | None = None

    def set(self, key: str, value: Any) -> None:
        if self.error:
            raise self.error
        self[key] = value

    def delete(self, key: str) -> None:
        if self.error:
            raise self.error
        self.pop(key, None)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def clock(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Move the time of the task and of the sandbox."""
    offset = [0.0]
    monkeypatch.setattr(wait, "now", lambda: now() + offset[0])

    def advance(seconds: float) -> None:
        offset[0] += seconds
        sandbox.advance(seconds)

    return advance


def send(store: Store, to: str = ADA, *, ctx: dict[str, Any] | None = None, **arguments: Any) -> Run:
    operator = FluxomailSendOperator(
        task_id="task", **{"to": to, "subject": "Hi", "content": "Text", "deferrable": False, **arguments}
    )
    return Run(operator, {**context(**(ctx or {})), "task_state_store": store})


def test_what_is_kept(sandbox: Sandbox, store: Store) -> None:
    run = send(store)
    (kept,) = store.values()
    assert kept["key"] == run.result["idempotency_key"]
    assert kept["send_id"] == run.result["send_id"]
    assert "ada@" not in str(kept["recipient"]), "promise 5: a digest"


def test_promise_1_a_late_retry_after_a_lost_answer_fails_instead_of_sending_again(
    sandbox: Sandbox, store: Store, clock: Any
) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    assert send(store).kind == "FluxomailConnectionError"
    clock(25 * HOUR)
    run = send(store, ctx={"try_number": 2})
    assert run.kind == "AirflowFailException"
    assert "FluxomailUnknownOutcomeError" in str(run.error)
    assert "25.0 hours ago" in str(run.error)
    sandbox.assert_sent(1)


def test_promise_1_a_late_retry_of_a_send_that_is_known_sends_nothing(
    sandbox: Sandbox, store: Store, clock: Any
) -> None:
    first = send(store)
    clock(25 * HOUR)
    for ctx in ({"try_number": 2}, {"try_number": 3, "max_tries": 5}):
        run = send(store, ctx=ctx)
        assert run.kind == "success"
        assert run.result["send_id"] == first.result["send_id"]
        assert run.result["reused"]
    sandbox.assert_sent(1)


def test_promise_1_a_task_that_keeps_nothing_has_the_key_alone(sandbox: Sandbox, store: Store) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    assert send(store, durable=False).kind == "FluxomailConnectionError"
    assert send(store, durable=False, ctx={"try_number": 2}).result["reused"]
    assert not store
    sandbox.assert_sent(1)


def test_promise_1_the_stored_send_is_looked_at_before_it_is_believed(
    sandbox: Sandbox, store: Store, clock: Any
) -> None:
    send(store)
    clock(25 * HOUR)
    (kept,) = store.values()
    sandbox.connect(idempotency_namespace="")
    kept["recipient"] = ""
    run = send(store, BOB, ctx={"try_number": 2})
    assert run.kind == "AirflowFailException"
    assert "another recipient" in str(run.error)


def test_a_late_retry_whose_send_cannot_be_read_any_more_believes_what_it_knows(
    sandbox: Sandbox, store: Store, clock: Any
) -> None:
    send(store)
    clock(25 * HOUR)
    sandbox.fail_next(404, path="/api/v1/sends")
    assert send(store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(1)


def test_the_retention_is_the_connections(sandbox: Sandbox, store: Store, clock: Any) -> None:
    sandbox.connect(max_attempts=1, key_retention_hours=48)
    sandbox.fail_next("error_before_store")
    send(store)
    clock(47 * HOUR)
    assert send(store, ctx={"try_number": 2}).kind == "success"


def test_a_request_that_stored_nothing_is_no_use_of_the_key(sandbox: Sandbox, store: Store, clock: Any) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(429)
    assert send(store).kind == "FluxomailRateLimitError"
    clock(25 * HOUR)
    assert send(store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(1)


def test_promise_1_one_doubtful_request_among_several_counts(sandbox: Sandbox, store: Store, clock: Any) -> None:
    sandbox.connect(max_attempts=2, max_wait=1)
    sandbox.fail_next("response_lost_after_store")
    sandbox.fail_next(429, retry_after=100)
    assert send(store).kind == "FluxomailRateLimitError"
    clock(25 * HOUR)
    assert "FluxomailUnknownOutcomeError" in str(send(store, ctx={"try_number": 2}).error)
    sandbox.assert_sent(1)


def test_promise_1_a_doubtful_try_counts_whatever_the_next_one_is_told(
    sandbox: Sandbox, store: Store, clock: Any
) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    assert send(store).kind == "FluxomailConnectionError"
    sandbox.fail_next(429)
    assert send(store, ctx={"try_number": 2}).kind == "FluxomailRateLimitError"
    clock(25 * HOUR)
    assert "FluxomailUnknownOutcomeError" in str(send(store, ctx={"try_number": 3}).error)
    sandbox.assert_sent(1)


def test_promise_1_another_recipient_on_a_later_try_sends_nothing(sandbox: Sandbox, store: Store) -> None:
    send(store)
    run = send(store, BOB, ctx={"try_number": 2})
    assert run.kind == "AirflowFailException"
    assert "another recipient" in str(run.error)
    assert len(sandbox.requests()) == 1, "it is known without a request"


def test_promise_2_a_clear_that_shall_send_again_does(sandbox: Sandbox, store: Store, clock: Any) -> None:
    for max_tries, try_number, mails in ((3, 1, 1), (3, 2, 1), (5, 3, 2), (5, 4, 2)):
        assert (
            send(store, resend_on_clear=True, ctx={"max_tries": max_tries, "try_number": try_number}).kind == "success"
        )
        sandbox.assert_sent(mails)
        clock(HOUR)


def test_promise_1_an_attempt_that_was_cleared_does_not_send(sandbox: Sandbox, store: Store) -> None:
    store.error = StateError(404)
    run = send(store)
    assert run.kind == "AirflowFailException"
    assert "FluxomailClearedError" in str(run.error)
    assert sandbox.requests() == []


def test_a_clear_while_the_mail_goes_out_is_no_error(
    sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = store.set

    def fence(key: str, value: Any) -> None:
        written(key, value)
        store.error = StateError(404)

    monkeypatch.setattr(store, "set", fence)
    with caplog.at_level(logging.WARNING):
        assert send(store).kind == "success"
    assert "was cleared" in caplog.text
    sandbox.assert_sent(1)


@pytest.mark.parametrize("what", ["set", "get", "delete"])
def test_a_store_that_is_out_of_order_does_not_stop_a_send(
    sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise StateError(500)

    monkeypatch.setattr(store, what, broken)
    if what == "delete":
        sandbox.connect(max_attempts=1)
        sandbox.fail_next(429)
        assert send(store).kind == "FluxomailRateLimitError"
    with caplog.at_level(logging.WARNING):
        assert send(store).kind == "success"
    sandbox.assert_sent(1)


@pytest.mark.parametrize("value", ["text", 3, [], {}, {"key": "other"}, {"key": "K", "asked": "soon"}])
def test_what_somebody_else_wrote_is_passed_over(sandbox: Sandbox, store: Store, value: Any) -> None:
    store["fluxomail_send"] = value
    assert send(store, idempotency_key="K").kind == "success"
    assert store["fluxomail_send"]["send_id"] == sandbox.message().send_id
