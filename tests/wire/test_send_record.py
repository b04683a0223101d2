"""What a task keeps of its send where Airflow can keep it (promises 1 and 2), with a store as Airflow's behaves."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.durable_sends import HOUR, advance_clock, send, store
from tests.support.state_store import StateError, Store

__all__ = ["advance_clock", "store"]


def test_the_record_of_a_send(sandbox: Sandbox, store: Store) -> None:
    run = send(store)
    (kept,) = store.values()
    assert kept["key"] == run.result["idempotency_key"]
    assert kept["send_id"] == run.result["send_id"]
    assert "ada@" not in str(kept["recipient"]), "promise 5: a digest"


def test_a_late_retry_whose_send_is_gone_relies_on_the_record(
    sandbox: Sandbox, store: Store, advance_clock: Any
) -> None:
    send(store)
    advance_clock(25 * HOUR)
    sandbox.fail_next(404, path="/api/v1/sends")
    assert send(store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(1)


def test_the_retention_is_the_connections(sandbox: Sandbox, store: Store, advance_clock: Any) -> None:
    sandbox.connect(max_attempts=1, key_retention_hours=48)
    sandbox.fail_next("error_before_store")
    send(store)
    advance_clock(47 * HOUR)
    assert send(store, ctx={"try_number": 2}).kind == "success"


def test_a_request_that_stored_nothing_is_no_use_of_the_key(sandbox: Sandbox, store: Store, advance_clock: Any) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(429)
    assert send(store).kind == "FluxomailRateLimitError"
    advance_clock(25 * HOUR)
    assert send(store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(1)


def test_a_clear_while_the_email_goes_out_is_no_error(
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


@pytest.mark.parametrize("what", ["get", "delete"])
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


def broken_store(store: Store, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise StateError(500)

    for name in names:
        monkeypatch.setattr(store, name, broken)


#: Names of a first request's outcome, and what a later try meets.
LATER: dict[str, Any] = {
    "just inside the retention": {"hours": 23.95},
    "after the retention": {"hours": 25.0},
    "another API key": {"hours": 0.1, "key": "other"},
    "another API key, long after": {"hours": 25.0, "key": "other"},
}


@pytest.mark.parametrize("ctx", [{"try_number": 2}, {"try_number": 2, "max_tries": 4}], ids=["retry", "clear"])
@pytest.mark.parametrize("lost", [True, False], ids=["response lost", "response known"])
@pytest.mark.parametrize("later", LATER.values(), ids=LATER)
def test_no_later_try_requests_what_fluxomail_may_not_know_any_more(
    sandbox: Sandbox, store: Store, advance_clock: Any, later: dict[str, Any], lost: bool, ctx: dict[str, Any]
) -> None:
    sandbox.connect(max_attempts=1)
    if lost:
        sandbox.fail_next("response_lost_after_store")
    first = send(store)
    advance_clock(later["hours"] * HOUR)
    if "key" in later:
        sandbox.key(later["key"])
        sandbox.connect(key=later["key"])
    for _ in range(2):
        late = send(store, ctx=ctx)
        if lost:
            assert late.kind == "AirflowFailException"
            assert "FluxomailUnknownOutcomeError" in str(late.error)
            assert "Search for the key in Fluxomail" in str(late.error)
        else:
            assert late.result["send_id"] == first.result["send_id"]
    assert len(sandbox.requests("POST")) == 1


def test_a_retry_that_cannot_read_the_record_waits_for_one_that_can(
    sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch, advance_clock: Any
) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    send(store)
    advance_clock(25 * HOUR)
    with monkeypatch.context() as patch:
        broken_store(store, patch, "get")
        assert send(store, ctx={"try_number": 2}).kind == "FluxomailStateError"
    assert "FluxomailUnknownOutcomeError" in str(send(store, ctx={"try_number": 3}).error)
    sandbox.assert_sent(1)


def test_without_its_record_nothing_is_requested(
    sandbox: Sandbox, store: Store, monkeypatch: pytest.MonkeyPatch, advance_clock: Any
) -> None:
    with monkeypatch.context() as patch:
        broken_store(store, patch, "set")
        run = send(store)
    assert run.kind == "FluxomailStateError"
    assert "durable=False" in str(run.error)
    assert sandbox.requests() == []
    advance_clock(25 * HOUR)
    assert send(store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(1)


def test_what_other_code_wrote_is_ignored(sandbox: Sandbox, store: Store) -> None:
    values: list[Any] = ["text", 3, [], {}, {"key": "other"}, {"key": "K", "asked": "soon"}]
    for value in values:
        store["fluxomail_send"] = value
        assert send(store, idempotency_key="K").kind == "success"
        assert store["fluxomail_send"]["send_id"] == sandbox.message().send_id
