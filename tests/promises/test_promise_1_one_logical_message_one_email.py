"""Promise 1: one logical message, one email, whatever fails; or none and a clear error."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import hypothesis
import pytest

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION, AirflowFailException
from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.errors import (
    FluxomailBatchUnfinishedError,
    FluxomailError,
    FluxomailIdempotencyConflictError,
    FluxomailServerError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import idempotency_key
from tests.support import (
    bad_servers,
    batches,
    client_calls,
    decorated_tasks,
    deployments,
    durable_sends,
    emails,
    notifiers,
)
from tests.support.airflow_facts import NO_FAILURE_MAILS, stored
from tests.support.airflow_runs import DagRunResult, DagRuns
from tests.support.failure_mails import RECORD
from tests.support.fault_sequences import EXAMPLES, TASKS, WAYS_OF_ONE_MESSAGE, Expected, Task
from tests.support.running import Run, context
from tests.support.state_store import StateError, Store
from tests.support.timing import batch_timing, quick_waits
from tests.support.ways import (
    ATTEMPTS,
    LONG_429,
    MESSAGE,
    PASSING,
    PASSING_FEW,
    PERMANENT,
    PERMANENT_FEW,
    TIMELINE,
    TIMEOUT,
    WAYS,
    Fault,
    Outcome,
    Way,
    check_sent,
    connect,
    each_way,
    each_way_and_fault,
    queue,
    settle,
)
from tests.wire.conftest import Transport


def test_the_table_has_every_fault() -> None:
    assert {fault.kind for fault in PASSING} == {kind for kind in KINDS if not kind.startswith("stream_")}


def test_each_way_has_its_own_name() -> None:
    assert len({way.name for way in WAYS}) == len(WAYS)


@pytest.mark.usefixtures("quick")
@each_way_and_fault(PASSING, PASSING_FEW)
def test_promise_1_a_transient_fault(sandbox: Sandbox, way: Way, fault: Fault) -> None:
    connect(sandbox, fault)
    script = way.script(fault, calls=0 if way.after else 1)
    for recipient in way.recipients:
        queue(sandbox, script, recipient)
        if way.reads and fault.kind != "missing_send_id":
            queue(sandbox, [fault], recipient, path=TIMELINE)
    outcomes = way.attempt(1)
    check_sent(sandbox, way, outcomes, len(script) + 1)
    assert all(one.replays(fault) for one in outcomes)
    assert sandbox.faults() == []


@pytest.mark.usefixtures("quick")
@each_way_and_fault([*PASSING, LONG_429], [*PASSING_FEW, LONG_429])
def test_promise_1_a_fault_that_lasts_for_a_whole_try(sandbox: Sandbox, way: Way, fault: Fault) -> None:
    """The try fails, and the next one sends what is not sent yet."""
    connect(sandbox, fault)
    # The wait is longer than max_wait, so there is only one request.
    script = way.script(fault, calls=1 if fault == LONG_429 else ATTEMPTS)
    for recipient in way.recipients:
        queue(sandbox, script, recipient)
    first = way.attempt(1)
    if way.defers and fault.is_429:
        # The deferral waits for the last one too.
        check_sent(sandbox, way, first, len(script) + 1)
        return
    assert [(one.error, one.final) for one in first] == [(fault.error, False)] * len(way.recipients)
    if fault.ends_all and len(way.recipients) > 1:
        # The batch ends at once, whatever faults are left for the other messages.
        assert len(sandbox.requests("POST")) <= len(script) * len(way.recipients)
        sandbox.clear_faults()
        assert all(one.send_id for one in way.attempt(2))
        sandbox.assert_sent(len(way.recipients))
        return
    assert sandbox.faults() == []
    for one in first:
        assert one.key
        assert len(sandbox.requests("POST", idempotency_key=one.key)) == len(script)
    second = way.attempt(2)
    assert [one.key for one in second] == [one.key for one in first]
    assert all(one.replays(fault) for one in second)
    check_sent(sandbox, way, second, len(script) + 1)


@pytest.mark.usefixtures("quick")
@each_way_and_fault(PERMANENT, PERMANENT_FEW)
def test_promise_1_a_permanent_error(sandbox: Sandbox, way: Way, fault: Fault) -> None:
    script = [*way.before, fault]
    for recipient in way.recipients:
        queue(sandbox, script, recipient)
    outcomes = way.attempt(1)
    assert [(one.error, one.final) for one in outcomes] == [(fault.error, True)] * len(way.recipients)
    requests = len(sandbox.requests("POST"))
    messages_at_least = 1 if fault.ends_all else len(way.recipients)
    assert messages_at_least * len(script) <= requests <= len(way.recipients) * len(script)
    sandbox.assert_sent(0)


@each_way
def test_promise_1_a_conflict_that_lasts(sandbox: Sandbox, quick: None, way: Way) -> None:
    """A 409 may be about an identical request still in progress: it is retried, but not forever."""
    sandbox.fail_next(409, times=None)
    outcomes = way.attempt(1)
    conflict = errors.FluxomailIdempotencyConflictError
    assert [(one.error, one.final) for one in outcomes] == [(conflict, True)] * len(way.recipients)
    assert len(sandbox.requests("POST")) == ATTEMPTS * len(way.recipients)
    sandbox.assert_sent(0)


# The sandbox is one for all examples, so each begins with a reset of it.
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
@pytest.mark.timeout(60 + 2 * EXAMPLES)
@pytest.mark.parametrize("way", WAYS_OF_ONE_MESSAGE, ids=str)
@hypothesis.given(task=TASKS)
@pytest.mark.usefixtures("quick")
def test_promise_1_any_sequence_of_faults(sandbox: Sandbox, way: Way, task: Task) -> None:
    """``FLUXOMAIL_FAULT_EXAMPLES=2000`` runs more of them for each way to send."""
    sandbox.reset()
    if way.store is not None:
        way.store.clear()
    sandbox.connect(timeout=TIMEOUT, max_attempts=task.max_attempts)
    (recipient,) = way.recipients
    queue(sandbox, task.script, recipient)
    expected = Expected.of(task, way)
    hypothesis.note(f"expected: {expected}")

    tries: list[Outcome] = []
    for number in range(1, len(expected.tries) + 1):
        tries += way.attempt(number)
        assert len(sandbox.messages(recipient)) <= 1, "at most one, at any time"
    settle(sandbox)

    assert [(one.error, one.final) for one in tries] == expected.tries
    (key,) = {one.key for one in tries}
    assert len(sandbox.requests("POST", idempotency_key=key)) == expected.requests
    mails = sandbox.messages(recipient)
    assert len(mails) == expected.stored
    if expected.tries[-1][0] is None:
        assert (tries[-1].send_id, key) == (mails[0].send_id, mails[0].idempotency_key)
    assert len(sandbox.requests("POST")) == expected.requests, "no other key was sent"


def test_promise_1_a_refused_connection_is_not_ambiguous(call: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(errors.FluxomailConnectionError, match="Connection refused") as caught:
        call(bad_servers.settings(f"http://127.0.0.1:{port}", max_attempts=3), "send", bad_servers.MESSAGE)
    assert not caught.value.ambiguous
    assert len(call.naps) == 2, "repeated without a key: nothing was sent"


def test_promise_1_the_order_may_change_between_tries(sandbox: Sandbox) -> None:
    second = [{**row, "key": f"second {n}"} for n, row in enumerate(batches.people(3, subject="Second"))]
    rows = [*batches.people(10), *batches.people(1), *second]
    assert batches.run(rows).kind == "success"
    assert batches.run(rows[::-1], ctx={"try_number": 2}).result["replayed"] == 14
    sandbox.assert_sent(14)


def test_promise_1_map_index_and_namespace_are_part_of_a_batchs_keys(sandbox: Sandbox) -> None:
    for namespace in ("", "eu"):
        sandbox.connect(idempotency_namespace=namespace)
        for map_index in (0, 1):
            assert batches.run(batches.people(2), ctx={"map_index": map_index}).kind == "success"
    sandbox.assert_sent(8)


@pytest.mark.parametrize("fault", ["response_lost_after_store", "error_before_store", "malformed_json"])
def test_promise_1_a_batch_meets_a_fault_at_random(sandbox: Sandbox, fault: str) -> None:
    sandbox.connect(max_attempts=3)
    sandbox.fail_next(fault, chance=0.6, seed=11)
    store = Store()
    for try_number in range(1, 12):
        last = batches.run(batches.people(40), store=store, ctx={"try_number": try_number})
        if last.kind == "success":
            break
        assert isinstance(last.error, FluxomailBatchUnfinishedError), last.error
        assert not last.error.permanent
    assert last.kind == "success", "Airflow's retries end it"
    sandbox.assert_sent(40)
    assert len(batches.posts(sandbox)) == 40


def test_promise_1_a_batch_without_stored_progress_requests_all_again(sandbox: Sandbox) -> None:
    store = Store()
    for number in (1, 2):
        done = batches.run(batches.people(5), store=store, durable=False, ctx={"try_number": number})
        assert done.result["replayed"] == 5 * (number - 1)
    assert not store
    sandbox.assert_sent(5)
    assert len(sandbox.requests("POST")) == 10


def test_promise_1_a_retry_requests_only_what_is_not_known_to_be_sent(sandbox: Sandbox) -> None:
    store = Store()
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store", to="p3@example.org")
    sandbox.fail_next("error_before_store", to="p5@example.org")
    first = batches.run(batches.people(20), store=store)
    assert isinstance(first.error, FluxomailBatchUnfinishedError)
    assert vars(first.error.counts) == {"total": 20, "sent": 18, "replayed": 0, "rejected": 0, "unknown": 2}
    second = batches.run(batches.people(20), store=store, ctx={"try_number": 2})
    assert second.result == stored(
        {"total": 20, "sent": 19, "replayed": 1, "rejected": 0, "unknown": 0, "report": None}
    )
    sandbox.assert_sent(20)
    assert sum(batches.posts(sandbox).values()) == 22
    assert "example.org" not in json.dumps(store), "promise 5"
    third = batches.run(batches.people(20), store=store, ctx={"try_number": 3, "max_tries": 6})
    assert third.result["sent"] == 19
    assert sum(batches.posts(sandbox).values()) == 22, "a clear without resend_on_clear requests nothing"


def test_promise_1_another_order_requests_all_again(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_before_store", to="p5@example.org")
    batches.run(batches.people(20), store=store)
    with caplog.at_level(logging.INFO):
        second = batches.run(batches.people(20)[::-1], store=store, ctx={"try_number": 2})
    assert "order changed" in caplog.text
    assert second.result["sent"] == 1
    sandbox.assert_sent(20)


class StopTask(BaseException):
    """What Airflow 2 raises in a task whose time is up, or the end of its process."""


@pytest.fixture
def on_save(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], None]:
    """Save the progress of a batch after each response, and then call a function with the number of messages done."""

    def register(act: Callable[[int], None]) -> None:
        def save(key: str, value: Any) -> None:
            Store.set(store, key, value)
            act(value["done"])

        batch_timing(monkeypatch, save=0.0)
        monkeypatch.setattr(store, "set", save)

    return register


def test_promise_1_after_a_crash_a_batch_continues_from_the_last_state(
    sandbox: Sandbox, store: Store, on_save: Any
) -> None:
    def crash(done: int) -> None:
        if done >= 12:
            raise StopTask

    on_save(crash)
    with pytest.raises(StopTask):
        batches.run(batches.people(30), store=store, concurrency=2)
    assert 10 <= sum(batches.posts(sandbox).values()) < 20
    on_save(lambda done: None)
    assert batches.run(batches.people(30), store=store, concurrency=2, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(30)
    assert sum(batches.posts(sandbox).values()) <= 30 + 4


@pytest.mark.parametrize("how", ["on_kill", "raises"])
def test_promise_1_a_task_that_is_stopped_ends(sandbox: Sandbox, store: Store, on_save: Any, how: str) -> None:
    """Airflow 2 raises in the task, Airflow 3 only calls ``on_kill``. No thread continues to send."""
    sandbox.fail_next(503, to="p3@example.org", retry_after=20)
    task = batches.operator(batches.people(200), concurrency=2)
    stopped: list[int] = []

    def stop(done: int) -> None:
        if done >= 20 and not stopped:
            stopped.append(done)
            if how == "raises":
                raise StopTask
            task.on_kill()

    on_save(stop)
    known: Any = {**context(), "task_state_store": store}
    if how == "raises":
        with pytest.raises(StopTask):
            task.execute(known)
    else:
        error = Run(task, known).error
        assert isinstance(error, FluxomailBatchUnfinishedError)
        assert "was stopped when" in str(error)
    for thread in threading.enumerate():
        if thread.name.startswith("fluxomail-batch"):
            thread.join(120)
            assert not thread.is_alive()
    assert len(sandbox.requests("POST")) < 40
    (key,) = [request.idempotency_key for request in sandbox.requests("POST", status=503)]
    assert len(sandbox.requests("POST", idempotency_key=key)) == 1, "its retry was pending, and is cancelled"
    assert batches.run(batches.people(200), store=store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(200)
    assert sum(batches.posts(sandbox).values()) <= 200 + 4


def test_promise_1_a_batch_that_was_cleared_stops(sandbox: Sandbox, store: Store, on_save: Any) -> None:
    def clear(done: int) -> None:
        if done >= 5:
            store.error = StateError(404)
        if store.error:
            raise store.error

    on_save(clear)
    stopped = batches.run(batches.people(50), store=store, concurrency=2)
    assert stopped.kind == "AirflowFailException"
    assert "was cleared" in str(stopped.error)
    assert len(sandbox.messages()) < 12


def test_promise_1_two_deployments_with_one_organization_send_batches(sandbox: Sandbox) -> None:
    assert batches.run(batches.people(3, key=None)).kind == "success"
    other = batches.run(batches.people(3, subject="Other"))
    assert other.kind == "AirflowFailException"
    assert "3 of 3 messages failed (3 rejected" in str(other.error)
    same = batches.run(batches.people(3))
    assert same.kind == "success"
    assert same.result["replayed"] == 3


@pytest.mark.parametrize("kept", ["nothing", "a store", "a report"])
def test_promise_1_a_rows_key_that_belongs_to_another_recipient(sandbox: Sandbox, tmp_path: Path, kept: str) -> None:
    """The state of an earlier try must not make the other email count as sent."""
    memories: dict[str, dict[str, Any]] = {
        "nothing": {},
        "a store": {"store": Store()},
        "a report": {"report_path": str(tmp_path / "report.jsonl")},
    }
    how = memories[kept]
    rows = [{**row, "key": f"k{n}"} for n, row in enumerate(batches.people(2))]
    assert batches.run(rows, **how).kind == "success"
    swapped = [{**rows[1], "key": "k0"}, {**rows[0], "key": "k1"}]
    assert "2 of 2 messages failed (2 rejected" in str(batches.run(swapped, **how, ctx={"try_number": 2}).error)
    assert batches.run(rows, **how, ctx={"try_number": 3}).kind == "success"
    sandbox.assert_sent(2)


@pytest.mark.parametrize(
    ("fault", "error", "stored"),
    [
        ("500 before the store", errors.FluxomailServerError, 0),
        ("500 after the store", errors.FluxomailServerError, 1),
        ("response lost after the store", errors.FluxomailConnectionError, 1),
        ("200 of a proxy", errors.FluxomailResponseError, 0),
        ("408", errors.FluxomailServerError, 0),
        ("409", errors.FluxomailIdempotencyConflictError, 0),
    ],
)
def test_promise_1_without_a_key_nothing_ambiguous_is_repeated(
    call: Transport, sandbox: Sandbox, fault: str, error: type[Exception], stored: int
) -> None:
    sandbox.fail_next(**client_calls.FAULTS[fault], times=9)
    with pytest.raises(error):
        call(client_calls.with_key(sandbox), "send", client_calls.MESSAGE)
    assert len(sandbox.requests("POST")) == 1
    assert len(sandbox.messages()) == stored


def test_promise_1_a_retry_after_a_lost_response_sends_no_second_email(dags: DagRuns, sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    dag = dags.load("fluxomail_send_and_wait")
    dag.get_task("send").retry_delay = timedelta(0)
    run = DagRunResult(dags, dag.dag_id, dag.test(run_conf={"to": "ada@example.org"}).run_id)
    assert run.states == {"send": "success", "wait": "success"}
    assert run.tries("send") == 2
    assert run.xcom("send", "reused") is True
    keys = [request.idempotency_key for request in sandbox.requests("POST")]
    assert keys == [run.xcom("send", "idempotency_key")] * 2
    sandbox.assert_sent(1)


def test_promise_1_a_batch_over_a_real_retry(dags: DagRuns, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store", to="bob@example.org", idempotency_key="*.newsletter:*")
    dag = dags.load("fluxomail_send_batch")
    for task in dag.tasks:
        task.retry_delay = timedelta(0)
    run = DagRunResult(dags, dag.dag_id, dag.test(run_conf={"report": str(tmp_path / "report.jsonl")}).run_id)
    assert set(run.states.values()) == {"success"}, run.states
    assert (run.tries("remind"), run.tries("newsletter")) == (1, 2)
    sandbox.assert_sent(4)
    assert len(sandbox.requests("POST")) == 5, "only the one of unknown outcome was repeated"


@pytest.mark.usefixtures("quick")
def test_promise_1_the_next_try_sends_the_missing_messages_in_any_order(sandbox: Sandbox) -> None:
    sandbox.fail_next(503, to=decorated_tasks.PEOPLE[0], times=2)
    assert isinstance(Run(decorated_tasks.decorated(lambda: decorated_tasks.MANY)).error, FluxomailBatchUnfinishedError)
    assert [mail.to for mail in sandbox.messages()] == [decorated_tasks.PEOPLE[1]], (
        "one that fails does not stop the others"
    )
    run = Run(decorated_tasks.decorated(lambda: decorated_tasks.MANY[::-1]), context(try_number=2))
    assert [one["reused"] for one in run.result] == [True, False]
    sandbox.assert_sent(2)


def expire_keys(sandbox: Sandbox, store: Store) -> None:
    """Let Fluxomail forget the keys that a task has used."""
    for name in store:
        store[name]["asked"] -= 30 * 24 * 3600
    sandbox.advance(30 * 24 * 3600)


def test_promise_1_a_late_retry_of_a_list_requests_none_of_it_again(sandbox: Sandbox, store: Store) -> None:
    ctx = {**context(), "task_state_store": store}
    first = Run(decorated_tasks.decorated(lambda: decorated_tasks.MANY), ctx)
    assert len(store) == 2
    expire_keys(sandbox, store)
    again = Run(decorated_tasks.decorated(lambda: decorated_tasks.MANY[::-1]), {**ctx, **context(try_number=2)})
    assert [one["send_id"] for one in again.result] == [one["send_id"] for one in first.result][::-1]
    sandbox.assert_sent(2)


def test_promise_1_a_message_of_unknown_outcome_does_not_stop_the_others(sandbox: Sandbox, store: Store) -> None:
    ctx = {**context(), "task_state_store": store}
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store", to=decorated_tasks.PEOPLE[0])
    first = Run(decorated_tasks.decorated(lambda: decorated_tasks.MANY[:1]), ctx)
    assert isinstance(first.error, FluxomailBatchUnfinishedError)
    expire_keys(sandbox, store)
    late = Run(decorated_tasks.decorated(lambda: decorated_tasks.MANY), {**ctx, **context(try_number=2)})
    assert late.kind == "AirflowFailException", "a later request could send it twice"
    for person in decorated_tasks.PEOPLE:
        sandbox.assert_sent(1, person)


def test_promise_1_a_failure_that_airflow_reports_three_times_is_one_email(
    sandbox: Sandbox, clock: emails.Clock
) -> None:
    """The scheduler of Airflow 2 does so when a worker dies; a Dag processor that is restarted may do it twice."""
    subject, body = f"Airflow alert: {RECORD}", "Try 2 out of 3<br>Exception:<br>no rows<br>"
    for _ in range(3):
        send_email(emails.PEOPLE, subject, body)
        clock.moment += timedelta(minutes=9)
    assert [mail.to for mail in sandbox.assert_sent(2)] == emails.PEOPLE
    assert re.fullmatch("af1:email:[0-9a-f]{32}", str(sandbox.messages()[0].idempotency_key))
    # Another text is another email, and so is the same text an hour later.
    send_email(emails.PEOPLE, subject, body + "<p>Other words</p>")
    sandbox.assert_sent(4)
    clock.moment += timedelta(hours=1)
    send_email(emails.PEOPLE, subject, body)
    sandbox.assert_sent(6)


def test_promise_1_two_deployments_send_one_email_each(sandbox: Sandbox) -> None:
    for namespace in ("", "staging"):
        sandbox.connect(idempotency_namespace=namespace)
        send_email(emails.PEOPLE[0], "News", "<p>Text</p>")
    sandbox.assert_sent(2)


def as_airflow_before_3_2(subject: str, *, to: list[str]) -> None:
    """Airflow treats any error as a template error, and calls again with another text while it handles the error."""
    try:
        emails.airflows_send_email(to, subject, "<p>no rows</p>")
    except Exception:  # noqa: BLE001 - as Airflow does
        emails.airflows_send_email(to, subject, "<p>Failed attempt to attach error logs</p>")


def test_promise_1_a_refused_recipient_causes_no_second_email_to_the_others(sandbox: Sandbox) -> None:
    everybody = [*emails.PEOPLE, "refused@example.org", "no address", "Cy <cy@example.org>"]
    sandbox.fail_next(400, to="refused@example.org", times=None)
    for _ in range(3):
        with pytest.raises(FluxomailValidationError):
            as_airflow_before_3_2(f"Airflow alert: {RECORD}", to=everybody)
    mails = sandbox.assert_sent(3)
    assert [mail.to for mail in mails] == [*emails.PEOPLE, "Cy <cy@example.org>"]
    assert {mail.content for mail in mails} == {"no rows"}


@pytest.mark.parametrize(("status", "refused"), [(400, emails.PEOPLE[1:]), (401, emails.PEOPLE)])
def test_promise_1_recipients_without_an_email_get_the_second_text(
    sandbox: Sandbox, status: int, refused: list[str]
) -> None:
    """A 400 concerns one recipient, a 401 all of them."""
    sandbox.fail_next(status, to=refused[0])
    as_airflow_before_3_2("Airflow alert", to=emails.PEOPLE)
    mails = sandbox.assert_sent(2)
    second = [mail.to for mail in mails if mail.content == "Failed attempt to attach error logs"]
    assert ([mail.to for mail in mails], second) == (emails.PEOPLE, refused)


def test_promise_1_within_a_task_a_retry_sends_nothing_twice_and_loses_nothing(sandbox: Sandbox, running: Any) -> None:
    for number in (1, 2):
        running(try_number=number)
        for words in ("same", "same", f"try {number}"):
            send_email(emails.PEOPLE, "News", f"<p>{words}</p>")
    assert sorted(mail.content for mail in sandbox.messages(emails.PEOPLE[0])) == ["same", "same", "try 1", "try 2"]
    sandbox.assert_sent(8)


@pytest.mark.skipif(bool(NO_FAILURE_MAILS), reason=NO_FAILURE_MAILS)
def test_promise_1_a_refused_recipient_of_airflows_email_causes_no_second_email(
    dags: DagRuns, sandbox: Sandbox
) -> None:
    sandbox.fail_next(400, to=emails.PEOPLE[1])
    dags.run("alerts", {})
    first, second = (mail.content for mail in sandbox.messages(emails.PEOPLE[0]))
    assert ("broken in try 1" in first, "broken in try 2" in second) == (True, True)
    *before, last = (mail.content for mail in sandbox.messages(emails.PEOPLE[1]))
    assert "broken in try 2" in last
    assert ["attach error logs" in text for text in before] == [True] * (AIRFLOW_VERSION < (3, 2))


@pytest.mark.skipif(not notifiers.AIRFLOW_3, reason="on Airflow 2 a dead worker's context is that of a live one")
def test_promise_1_a_dead_worker_whose_callbacks_fire_twice(airflow_db: Path, sandbox: Sandbox) -> None:
    """Run by the Dag processor's own code, on the requests that the scheduler makes."""
    import structlog
    from airflow.api_fastapi.execution_api.datamodels import taskinstance as datamodel
    from airflow.callbacks.callback_requests import DagCallbackRequest, DagRunContext, TaskCallbackRequest
    from airflow.dag_processing import processor
    from airflow.utils.state import TaskInstanceState

    dag = DagRuns(airflow_db).load("alerts_shared")
    bag: Any = SimpleNamespace(dags={dag.dag_id: dag})
    now = datetime.now(UTC)
    run = {
        "dag_id": dag.dag_id,
        "run_id": "run_1",
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
    }
    run |= dict.fromkeys(("logical_date", "start_date", "run_after"), now)
    run |= dict.fromkeys(("data_interval_start", "data_interval_end", "end_date", "partition_key"))
    where: dict[str, Any] = {"filepath": "notifier.py", "bundle_name": "dags", "bundle_version": None}

    def made(context: Any, clear_number: int = 0, **fields: Any) -> Any:
        """A context with the fields of a Dag run that this Airflow's model has."""
        annotation = context.model_fields["dag_run"].annotation
        model = next(one for one in (annotation, *get_args(annotation)) if hasattr(one, "model_fields"))
        known = {
            name: value for name, value in {**run, "clear_number": clear_number}.items() if name in model.model_fields
        }
        return context.model_validate({"dag_run": known, **fields})

    def instance(task_id: str, try_number: int) -> dict[str, Any]:
        ids = {name: f"019ab0a2-0000-7000-8000-00000000000{n}" for n, name in enumerate(("id", "dag_version_id"))}
        return {**ids, "task_id": task_id, "dag_id": dag.dag_id, "run_id": "run_1", "try_number": try_number}

    def task_dies(try_number: int, state: TaskInstanceState) -> None:
        ti = datamodel.TaskInstance.model_validate(instance("flaky", try_number))
        context = made(datamodel.TIRunContext, max_tries=1)
        request = TaskCallbackRequest(ti=ti, task_callback_type=state, context_from_server=context, **where)
        # The heartbeat that is missing, and the executor that reports another state.
        for _ in range(2):
            processor._execute_task_callbacks(bag, request, structlog.get_logger())

    def run_fails(clear_number: int, last_ti: dict[str, Any] | None) -> None:
        context = made(DagRunContext, clear_number, last_ti=last_ti)
        ids = {"dag_id": dag.dag_id, "run_id": "run_1"}
        request = DagCallbackRequest(**ids, msg="task_failure", context_from_server=context, **where)
        for _ in range(2):
            processor._execute_dag_callbacks(bag, request, structlog.get_logger())

    task_dies(1, TaskInstanceState.UP_FOR_RETRY)
    task_dies(2, TaskInstanceState.FAILED)
    run_fails(0, instance("bad", 1))
    run_fails(1, instance("bad", 1))
    run_fails(0, None)
    assert [mail.subject for mail in sandbox.messages()] == [
        "[Airflow] up for retry: alerts_shared.flaky (try 1 of 2)",
        "[Airflow] failed: alerts_shared.flaky (try 2 of 2)",
        *["[Airflow] Dag failed: alerts_shared (run_1)"] * 3,
    ]


def test_promise_1_a_callback_that_fires_twice_sends_one_email(
    sandbox: Sandbox, way: notifiers.Way, log: pytest.LogCaptureFixture
) -> None:
    """The second time without exception and times, unknown to the Dag processor; also if the server objects."""
    notifier = FluxomailNotifier(to=notifiers.OPS)
    for conflict in ("replay", "conflict"):
        sandbox.settings(idempotency_conflict=conflict)
        way(notifier, notifiers.context(exception=ValueError("x")))
        way(notifier, notifiers.context(end_date=None, exception=None))
    sandbox.assert_sent(1)
    assert notifiers.log_lines(log) == []
    assert "had already accepted" in notifiers.log_lines(log, logging.INFO)[1]
    assert "Airflow called the callback twice" in notifiers.log_lines(log, logging.INFO)[3]


def test_promise_1_an_alert_whose_response_is_lost_is_requested_again(sandbox: Sandbox, way: notifiers.Way) -> None:
    sandbox.fail_next("response_lost_after_store", times=2)
    way(FluxomailNotifier(to=notifiers.OPS), notifiers.context())
    sandbox.assert_sent(1)
    assert len(sandbox.requests("POST")) == 3


def test_promise_1_two_deployments_with_one_organization(sandbox: Sandbox) -> None:
    assert deployments.send(deployments.ADA).kind == "success"
    second = deployments.send(deployments.BOB)
    assert second.kind == "AirflowFailException", "a retry cannot fix it"
    text = str(second.error)
    assert "FluxomailIdempotencyConflictError" in text
    assert "another recipient" in text
    assert "idempotency_namespace" in text
    assert "not sent" in text
    assert sandbox.message().send_id in text
    for private in (deployments.ADA, deployments.BOB, "Hi", "Text"):
        assert private not in text, "promise 5"
    sandbox.connect(idempotency_namespace="staging")
    assert deployments.send(deployments.BOB).kind == "success"
    sandbox.assert_sent(1, deployments.BOB)


def test_promise_1_another_subject_is_a_conflict_on_the_first_try_only(sandbox: Sandbox) -> None:
    assert deployments.send(subject="Monday").kind == "success"
    first = deployments.send(subject="Tuesday")
    assert first.kind == "AirflowFailException"
    assert "another subject" in str(first.error)
    later = deployments.send(subject="Tuesday", ctx={"try_number": 2})
    assert later.kind == "success", "a retry may render another subject"
    assert later.result["reused"]
    sandbox.assert_sent(1)


def test_promise_1_a_constant_key_in_two_dags(sandbox: Sandbox) -> None:
    assert deployments.send(deployments.ADA, idempotency_key="report", ctx={"dag_id": "one"}).kind == "success"
    assert (
        deployments.send(deployments.BOB, idempotency_key="report", ctx={"dag_id": "two"}).kind
        == "AirflowFailException"
    )
    same = deployments.send(deployments.ADA, idempotency_key="report", ctx={"dag_id": "three"})
    assert same.kind == "success"
    assert same.result["reused"], "the same message, which is what such keys are for"


def test_promise_1_a_mapping_in_another_order(sandbox: Sandbox) -> None:
    for index, to in enumerate((deployments.ADA, deployments.BOB)):
        assert deployments.send(to, ctx={"map_index": index}).kind == "success"
    for index, to in enumerate((deployments.BOB, deployments.ADA)):
        run = deployments.send(to, ctx={"map_index": index, "try_number": 2})
        assert run.kind == "AirflowFailException"
        assert "changed their order" in str(run.error)
    sandbox.assert_sent(2)


class RendersAgain(FluxomailSendOperator):
    """Has another subject after a deferral, like a subject that holds the time."""

    def send_after_rate_limit(self, context: Any, event: Any = None) -> Any:
        self.subject = "Rendered later"
        return super().send_after_rate_limit(context, event)


def test_promise_1_a_subject_rendered_again_after_a_deferral_is_harmless(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_waits(monkeypatch)
    sandbox.connect(max_wait=0.5)
    sandbox.fail_next("error_after_store")
    sandbox.fail_next(429, retry_after=1)
    run = Run(
        RendersAgain(task_id="task", to=deployments.ADA, subject="Rendered first", content="Text", deferrable=True)
    )
    assert run.kind == "success", run.error
    assert len(run.deferrals) == 1
    assert sandbox.message().subject == "Rendered first"


@pytest.mark.parametrize(("try_number", "text"), [(1, "idempotency_namespace"), (2, "has probably sent the email")])
def test_promise_1_a_conflict_that_the_server_detects(sandbox: Sandbox, try_number: int, text: str) -> None:
    sandbox.settings(idempotency_conflict="conflict")
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_after_store")
    assert isinstance(deployments.send(content="Rendered at 10:00").error, FluxomailServerError)
    run = deployments.send(content="Rendered at 10:05", ctx={"try_number": try_number})
    assert run.kind == "AirflowFailException", "a retry cannot fix it"
    assert text in str(run.error)
    assert "status 409" in str(run.error)
    sandbox.assert_sent(1)


def test_promise_1_by_hand_the_key_comes_from_the_task(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    for try_number in (1, 2):
        running(try_number=try_number)
        sent = [
            by_hand(deployments.ADA),
            by_hand(deployments.ADA),
            by_hand(deployments.BOB),
            by_hand(deployments.ADA, subject="Again"),
            by_hand(deployments.ADA, part="summary"),
        ]
        assert [one.reused for one in sent] == [try_number == 2] * 5
    assert len({mail.idempotency_key for mail in sandbox.assert_sent(5)}) == 5
    assert all(str(mail.idempotency_key).startswith("af1:dag.task:") for mail in sandbox.messages())


def test_promise_1_by_hand_a_foreign_replay_fails(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    running()
    by_hand(deployments.ADA, part="report")
    with pytest.raises(FluxomailIdempotencyConflictError, match="another recipient"):
        by_hand(deployments.BOB, part="report")


def by_hook(text: str) -> None:
    with contextlib.closing(FluxomailHook()) as hook:
        hook.send({"to": deployments.ADA, "subject": text, "content": text})


def by_operator(text: str) -> None:
    arguments: dict[str, Any] = {"to": deployments.ADA, "subject": text, "content": text}
    FluxomailSendOperator(task_id="by_hand", **arguments).execute(idempotency_key._running_context())


def by_batch(text: str) -> None:
    rows = [{"to": person, "subject": text, "content": text} for person in emails.PEOPLE]
    FluxomailSendBatchOperator(task_id="by_hand", messages=rows).execute(idempotency_key._running_context())


def by_email(text: str) -> None:
    send_email(emails.PEOPLE, text, f"<p>{text}</p>")


@pytest.mark.parametrize("send", [by_hook, by_operator, by_batch, by_email])
@pytest.mark.parametrize("fault", ["response_lost_after_store", "error_before_store", "malformed_json", 429, 400])
def test_promise_1_an_authors_own_loop_sends_each_message_once(
    sandbox: Sandbox, running: Any, send: Callable[[str], None], fault: Any
) -> None:
    """Each call is repeated until it succeeds, then the next follows. A retry of the task sends nothing more."""
    for try_number in (1, 2):
        running(try_number=try_number)
        for text in ("One", "Two"):
            for number in range(3):
                if try_number == 1 and number < 2:
                    sandbox.connect(max_attempts=1)
                    last = emails.PEOPLE[-1] if send in (by_batch, by_email) else deployments.ADA
                    sandbox.fail_next(fault, to=last)
                with contextlib.suppress(FluxomailError, AirflowFailException):
                    send(text)
                    break
    people = emails.PEOPLE if send in (by_batch, by_email) else [deployments.ADA]
    assert Counter((mail.to, mail.subject) for mail in sandbox.messages()) == Counter(
        (person, text) for person in people for text in ("One", "Two")
    )


@pytest.mark.parametrize("send", [by_hook, by_operator, by_batch])
def test_promise_1_after_an_unknown_outcome_another_text_to_the_same_person_waits_for_the_retry(
    sandbox: Sandbox, running: Any, send: Callable[[str], None]
) -> None:
    """It may be the message of unknown outcome, rendered again, or the next one."""
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    running()
    errors: list[FluxomailError] = []
    for text in ("One", "Two"):
        try:
            send(text)
        except FluxomailError as error:
            errors.append(error)
    assert [error.permanent for error in errors] == [False, False]
    assert "part=" in str(errors[1]), "says what to do"
    running(try_number=2)
    for text in ("One", "Two"):
        send(text)
    texts = Counter(mail.subject for mail in sandbox.messages())
    assert set(texts) == {"One", "Two"}
    assert len(set(texts.values())) == 1
    assert len({mail.idempotency_key for mail in sandbox.messages()}) == len(sandbox.messages())


@pytest.mark.parametrize("send", [by_hook, by_operator])
def test_promise_1_two_texts_to_one_person_in_another_order_are_a_conflict(
    sandbox: Sandbox, running: Any, send: Callable[[str], None]
) -> None:
    running()
    send("One")
    running(try_number=2)
    send("Two")
    with pytest.raises((FluxomailIdempotencyConflictError, AirflowFailException), match="their order changed"):
        send("One")
    sandbox.assert_sent(1)


def by_hook_with_one_subject(text: str, part: str | None = None) -> None:
    with contextlib.closing(FluxomailHook()) as hook:
        hook.send({"to": deployments.ADA, "subject": "Invoice", "content": text}, part=part)


def test_promise_1_texts_with_one_subject_by_hook_are_messages_of_their_own(sandbox: Sandbox, running: Any) -> None:
    for number in (1, 2):
        running(try_number=number)
        for text in ("One", "Two", "Three"):
            by_hook_with_one_subject(text)
    running(try_number=3)
    # A part holds for any order.
    by_hook_with_one_subject("Four", part="four")
    by_hook_with_one_subject("One")
    assert [mail.content for mail in sandbox.messages()] == ["One", "Two", "Three", "Four"]


def test_promise_1_a_text_in_place_of_one_that_was_refused_needs_no_part(sandbox: Sandbox, running: Any) -> None:
    running()
    sandbox.fail_next(400)
    with pytest.raises(FluxomailValidationError, match="status 400"):
        by_hook_with_one_subject("One")
    by_hook_with_one_subject("Shorter")
    assert [mail.content for mail in sandbox.messages()] == ["Shorter"]


@pytest.mark.parametrize("sent", [["One"], ["One", "Two"]], ids=str)
def test_promise_1_texts_with_one_subject_by_operators_in_another_order_are_no_two_mails(
    sandbox: Sandbox, store: Store, sent: list[str]
) -> None:
    def send(text: str, **ctx: Any) -> None:
        arguments: dict[str, Any] = {"to": deployments.ADA, "subject": "Invoice", "content": text}
        FluxomailSendOperator(task_id="by_hand", **arguments).execute(contexts[ctx["try_number"]])

    contexts: Any = {n: {**context(try_number=n), "task_state_store": store} for n in (1, 2, 3)}
    for text in sent:
        send(text, try_number=1)
    send("Two", try_number=2)
    with pytest.raises(AirflowFailException, match="their order changed"):
        send("One", try_number=2)
    assert [mail.content for mail in sandbox.messages()] == sent
    for text in ("One", "Two"):
        send(text, try_number=3)
    assert sorted(mail.content for mail in sandbox.messages()) == ["One", "Two"]


def rows_task(task: Any, rows: list[dict[str, Any]]) -> Any:
    return task((lambda: rows) if task is decorated_tasks.decorated else rows)


ONE, TWO, NAMED = (
    {**MESSAGE, "content": "One"},
    {**MESSAGE, "content": "Two"},
    {**MESSAGE, "content": "Two", "key": "2"},
)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("task", [batches.operator, decorated_tasks.decorated])
@pytest.mark.parametrize(
    "then", [[ONE, NAMED], [NAMED, ONE], [ONE], [NAMED]], ids=["same", "moved", "removed", "first"]
)
@pytest.mark.parametrize("first", [[ONE, NAMED], [ONE], [NAMED]], ids=["both", "one", "two"])
def test_promise_1_rows_to_one_person_are_each_sent_once_however_they_change(
    sandbox: Sandbox, store: Store, task: Any, first: Any, then: Any, kept: bool
) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(503)
    for number, rows in enumerate([first, then, then], start=1):
        ctx = {**context(try_number=number), "task_state_store": store if kept else None}
        run = Run(rows_task(task, rows), ctx)
    assert run.kind == "success", run.error
    sent = Counter(mail.content for mail in sandbox.messages())
    assert set(sent) >= {row["content"] for row in then}
    assert set(sent.values()) == {1}


@pytest.mark.parametrize("task", [batches.operator, decorated_tasks.decorated])
@pytest.mark.parametrize(
    "other", [{"content": "Two"}, {"subject": "Two"}, {"extra_fields": {"n": 2}}, {"cc": "cc@example.org"}], ids=str
)
def test_promise_1_rows_that_differ_need_keys(sandbox: Sandbox, task: Any, other: dict[str, Any]) -> None:
    """By their positions or contents, they would be taken for each other once a row is added, removed or moved."""
    run = Run(rows_task(task, [ONE, {**ONE, "to": "dev@example.org"}, {**ONE, **other}]))
    assert run.kind == "AirflowFailException"
    assert "messages[2]: has the recipient of messages[0] and another content: give it a 'key'" in str(run.error)
    assert sandbox.requests() == []
    assert Run(rows_task(task, [ONE, ONE])).kind == "success", "equal ones are told apart by their position"
    sandbox.assert_sent(2)


def test_promise_1_a_late_retry_of_a_send_that_is_known_sends_nothing(
    sandbox: Sandbox, store: Store, advance_clock: Any
) -> None:
    first = durable_sends.send(store)
    advance_clock(25 * durable_sends.HOUR)
    for ctx in ({"try_number": 2}, {"try_number": 3, "max_tries": 5}):
        run = durable_sends.send(store, ctx=ctx)
        assert run.kind == "success"
        assert run.result["send_id"] == first.result["send_id"]
        assert run.result["reused"]
    sandbox.assert_sent(1)


def test_promise_1_without_a_record_only_the_key_protects(sandbox: Sandbox, store: Store) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store")
    assert durable_sends.send(store, durable=False).kind == "FluxomailConnectionError"
    assert durable_sends.send(store, durable=False, ctx={"try_number": 2}).result["reused"]
    assert not store
    sandbox.assert_sent(1)


def test_promise_1_the_stored_send_is_checked_before_it_is_trusted(
    sandbox: Sandbox, store: Store, advance_clock: Any
) -> None:
    durable_sends.send(store)
    advance_clock(25 * durable_sends.HOUR)
    (kept,) = store.values()
    sandbox.connect(idempotency_namespace="")
    kept["recipient"] = ""
    run = durable_sends.send(store, deployments.BOB, ctx={"try_number": 2})
    assert run.kind == "AirflowFailException"
    assert "another recipient" in str(run.error)


@pytest.mark.parametrize("tries", [[["lost"]], [["lost", "429"]], [["lost"], ["429"]]], ids=str)
def test_promise_1_a_late_retry_after_a_lost_response_fails_instead_of_sending_again(
    sandbox: Sandbox, store: Store, advance_clock: Any, tries: list[list[str]]
) -> None:
    """One request of unknown outcome counts, whatever the response to the next one."""
    for number, faults in enumerate(tries, start=1):
        sandbox.connect(max_attempts=len(faults), max_wait=1)
        for fault in faults:
            if fault == "lost":
                sandbox.fail_next("response_lost_after_store")
            else:
                sandbox.fail_next(429, retry_after=100)
        error = "FluxomailConnectionError" if faults[-1] == "lost" else "FluxomailRateLimitError"
        assert durable_sends.send(store, ctx={"try_number": number}).kind == error
    advance_clock(25 * durable_sends.HOUR)
    late = durable_sends.send(store, ctx={"try_number": len(tries) + 1})
    assert late.kind == "AirflowFailException"
    assert "FluxomailUnknownOutcomeError" in str(late.error)
    assert "25.0 hours ago" in str(late.error)
    sandbox.assert_sent(1)


def test_promise_1_another_recipient_on_a_later_try_sends_nothing(sandbox: Sandbox, store: Store) -> None:
    durable_sends.send(store)
    run = durable_sends.send(store, deployments.BOB, ctx={"try_number": 2})
    assert run.kind == "AirflowFailException"
    assert "another recipient" in str(run.error)
    assert len(sandbox.requests()) == 1, "it is known without a request"


def test_promise_1_an_attempt_that_was_cleared_does_not_send(sandbox: Sandbox, store: Store) -> None:
    store.error = StateError(404)
    run = durable_sends.send(store)
    assert run.kind == "AirflowFailException"
    assert "FluxomailClearedError" in str(run.error)
    assert sandbox.requests() == []
