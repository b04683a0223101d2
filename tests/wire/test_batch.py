"""FluxomailSendBatchOperator against the sandbox: each message once, over faults, retries and pauses."""

from __future__ import annotations

import concurrent.futures
import json
import logging
import socket
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.client import retries
from airflow_provider_fluxomail.client.errors import (
    FluxomailBatchError,
    FluxomailBatchUnfinishedError,
    FluxomailConnectionError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.batch import outcomes as outcomes_module
from airflow_provider_fluxomail.sending.batch.batch import Batch
from airflow_provider_fluxomail.sending.batch.outcomes import Outcomes
from airflow_provider_fluxomail.sending.batch.progress import Progress
from airflow_provider_fluxomail.sending.batch.report import Report
from airflow_provider_fluxomail.sending.batch.rows import BadRow, Row, Rows
from airflow_provider_fluxomail.sending.send_once import Identity
from airflow_provider_fluxomail.sending.send_record import recipient_digest
from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger
from tests.support.airflow_facts import stored
from tests.support.running import Run, context
from tests.support.timing import quick_waits
from tests.wire.test_sendstate import StateError, Store


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACKOFF", retries.Backoff(first=0.01, longest=1.0))
    quick_waits(monkeypatch, rate_limit_spread=0.05)


def people(count: int, **fields: Any) -> list[dict[str, Any]]:
    return [{"to": f"p{n}@example.org", "subject": "Hi", "content": "Text", **fields} for n in range(count)]


def operator(messages: Any, **arguments: Any) -> FluxomailSendBatchOperator:
    return FluxomailSendBatchOperator(task_id="task", messages=messages, **{"deferrable": False, **arguments})


def run(messages: Any, *, store: Store | None = None, ctx: dict[str, Any] | None = None, **arguments: Any) -> Run:
    known = context(**(ctx or {}))
    return Run(operator(messages, **arguments), known if store is None else {**known, "task_state_store": store})


def posts(sandbox: Sandbox) -> Counter[str | None]:
    """Requests to send, by the recipient's key."""
    return Counter(request.idempotency_key for request in sandbox.requests("POST"))


def test_each_message_once(sandbox: Sandbox) -> None:
    done = run(people(50))
    assert done.kind == "success", done.error
    assert done.result == stored({"total": 50, "sent": 50, "replayed": 0, "rejected": 0, "unknown": 0, "report": None})
    mails = sandbox.assert_sent(50)
    assert sorted(mail.to for mail in mails) == sorted(row["to"] for row in people(50))
    assert len({mail.idempotency_key for mail in mails}) == 50
    assert all(str(mail.idempotency_key).startswith("af1:dag.task:") for mail in mails)
    assert json.loads(json.dumps(done.result)) == done.result


def test_promise_1_the_order_may_change_between_tries(sandbox: Sandbox) -> None:
    rows = [*people(10), *people(3, subject="Second"), {**people(1)[0], "key": "extra"}]
    assert run(rows).kind == "success"
    assert run(rows[::-1], ctx={"try_number": 2}).result["replayed"] == 14
    sandbox.assert_sent(14)


def test_promise_2_a_clear_sends_all_again_only_if_asked(sandbox: Sandbox) -> None:
    for resend, mails in ((False, 3), (True, 9)):
        for max_tries, try_number in ((3, 1), (3, 2), (5, 3)):
            ctx = {"max_tries": max_tries, "try_number": try_number}
            assert run(people(3), resend_on_clear=resend, ctx=ctx).kind == "success"
        sandbox.assert_sent(mails)


def test_promise_1_a_mapped_batch_and_the_namespace_are_told_apart(sandbox: Sandbox) -> None:
    for namespace in ("", "eu"):
        sandbox.connect(idempotency_namespace=namespace)
        for map_index in (0, 1):
            assert run(people(2), ctx={"map_index": map_index}).kind == "success"
    sandbox.assert_sent(8)


@pytest.mark.parametrize("chance", [0.3, 0.6])
@pytest.mark.parametrize(
    "fault", ["response_lost_after_store", "error_after_store", "error_before_store", "cut_in_body", "malformed_json"]
)
def test_promise_1_faults_on_the_way(sandbox: Sandbox, fault: str, chance: float) -> None:
    sandbox.connect(max_attempts=3)
    sandbox.fail_next(fault, chance=chance, seed=11)
    store = Store()
    for try_number in range(1, 12):
        last = run(people(40), store=store, ctx={"try_number": try_number})
        if last.kind == "success":
            break
        assert isinstance(last.error, FluxomailBatchUnfinishedError), last.error
        assert not last.error.permanent
    assert last.kind == "success", "Airflow's retries end it"
    sandbox.assert_sent(40)
    assert len(posts(sandbox)) == 40


# The cap


class SandboxTime:
    """The sandbox's clock in place of real waiting."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox, self._ahead, self._lock = sandbox, 0.0, threading.Lock()

    def clock(self) -> float:
        return time.monotonic() + self._ahead

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._sandbox.advance(seconds)
            self._ahead += seconds


def batch(sandbox: Sandbox, rows: list[dict[str, Any]], when: SandboxTime, **options: Any) -> Batch:
    settings = FluxomailHook().get_options().settings
    outcomes = Outcomes(Progress(), Report(None, fresh=True), save=lambda _: None, clock=when.clock)

    def identify(row: Row) -> Identity:
        key = f"{options.get('name', 'b')}:{row.part}".replace(" ", "_")
        return Identity(key=key, first_try=True, names_recipient=row.key is None)

    return Batch(Rows(rows), outcomes, identify=identify, settings=settings, clock=when.clock, sleep=when.sleep)


def test_promise_4_a_thousand_under_a_cap_of_sixty(sandbox: Sandbox) -> None:
    sandbox.key("capped", rate_limit_per_minute=60)
    sandbox.connect(key="capped")
    counts = batch(sandbox, people(1000), SandboxTime(sandbox)).run()
    assert counts.sent == 1000
    sandbox.assert_sent(1000)
    assert len(sandbox.requests("POST", status=429)) <= 10
    assert max(posts(sandbox).values()) <= 2


def test_promise_4_two_batches_at_once_share_the_cap(sandbox: Sandbox) -> None:
    sandbox.key("capped", rate_limit_per_minute=60)
    sandbox.connect(key="capped")
    when = SandboxTime(sandbox)
    both = [batch(sandbox, people(150), when, name=name) for name in ("one", "two")]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        counts = [one.result() for one in [pool.submit(one.run) for one in both]]
    assert [count.sent for count in counts] == [150, 150]
    sandbox.assert_sent(300)
    assert len(sandbox.requests("POST", status=429)) <= 3


def test_promise_4_a_long_wait_gives_the_slot_back_and_asks_for_nothing_twice(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.connect(max_wait=0, max_attempts=1)
    # Far enough apart that what is on its way when the first comes does not meet the second.
    sandbox.fail_next(429, times=1, skip=7, retry_after=1.2)
    sandbox.fail_next(429, times=1, skip=18, retry_after=1.2)
    done = run(people(30), deferrable=True, concurrency=2)
    assert done.kind == "success", done.error
    assert done.result["sent"] == 30
    assert [type(deferral.trigger) for deferral in done.deferrals] == [FluxomailRetryAfterTrigger] * 2
    stored = [request for request in sandbox.requests("POST") if request.status == 200]
    assert len(stored) == 30, "nothing that was known to be sent is asked for again"
    for deferral in done.deferrals:
        kept = json.dumps(deferral.trigger.serialize())
        assert "example.org" not in kept, "promise 5"
        assert len(kept) < 2000


def test_a_batch_that_may_not_defer_is_airflows_to_retry(sandbox: Sandbox) -> None:
    sandbox.connect(max_wait=0)
    sandbox.fail_next(429, skip=4, retry_after=100)
    stopped = run(people(10))
    assert isinstance(stopped.error, FluxomailRateLimitError)
    assert stopped.deferrals == []
    assert run(people(10), ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(10)


def test_deferrals_without_progress_are_bounded(sandbox: Sandbox) -> None:
    sandbox.connect(max_wait=0, max_attempts=1)
    sandbox.fail_next(429, times=None, retry_after=1.1)
    stopped = run(people(3), deferrable=True, max_rate_limit_wait=3)
    assert isinstance(stopped.error, FluxomailRateLimitError)
    assert 1 <= len(stopped.deferrals) <= 3
    sandbox.assert_sent(0)


# What is kept


def test_promise_1_a_batch_that_keeps_nothing_asks_for_all_again(sandbox: Sandbox) -> None:
    store = Store()
    for number in (1, 2):
        done = run(people(5), store=store, durable=False, ctx={"try_number": number})
        assert done.result["replayed"] == 5 * (number - 1)
    assert not store
    sandbox.assert_sent(5)
    assert len(sandbox.requests("POST")) == 10


def test_promise_1_a_retry_asks_only_for_what_is_not_known_to_be_sent(sandbox: Sandbox) -> None:
    store = Store()
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store", to="p3@example.org")
    sandbox.fail_next("error_before_store", to="p5@example.org")
    first = run(people(20), store=store)
    assert isinstance(first.error, FluxomailBatchUnfinishedError)
    assert vars(first.error.counts) == {"total": 20, "sent": 18, "replayed": 0, "rejected": 0, "unknown": 2}
    second = run(people(20), store=store, ctx={"try_number": 2})
    assert second.result == stored(
        {"total": 20, "sent": 19, "replayed": 1, "rejected": 0, "unknown": 0, "report": None}
    )
    sandbox.assert_sent(20)
    assert sum(posts(sandbox).values()) == 22
    assert "example.org" not in json.dumps(store), "promise 5"
    third = run(people(20), store=store, ctx={"try_number": 3, "max_tries": 6})
    assert third.result["sent"] == 19
    assert sum(posts(sandbox).values()) == 22, "a clear without resend_on_clear asks for nothing"


def test_promise_2_what_is_kept_is_no_hindrance_to_a_clear_that_shall_send_again(sandbox: Sandbox) -> None:
    store = Store()
    for max_tries, try_number, mails in ((3, 1, 5), (3, 2, 5), (5, 3, 10), (5, 4, 10)):
        ctx = {"max_tries": max_tries, "try_number": try_number}
        assert run(people(5), store=store, resend_on_clear=True, ctx=ctx).kind == "success"
        sandbox.assert_sent(mails)


def test_promise_1_another_order_asks_for_all_again(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_before_store", to="p5@example.org")
    run(people(20), store=store)
    with caplog.at_level(logging.INFO):
        second = run(people(20)[::-1], store=store, ctx={"try_number": 2})
    assert "order changed" in caplog.text
    assert second.result["sent"] == 1
    sandbox.assert_sent(20)


def test_promise_1_a_crash_goes_on_from_the_last_state(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "SAVE_SECONDS", 0.0)
    store = Store()

    class Killed(BaseException):
        pass

    written = store.set

    def dies(key: str, value: Any) -> None:
        written(key, value)
        if value["done"] >= 12:
            raise Killed

    monkeypatch.setattr(store, "set", dies)
    with pytest.raises(Killed):
        run(people(30), store=store, concurrency=2)
    monkeypatch.setattr(store, "set", written)
    before = sum(posts(sandbox).values())
    assert 10 <= before < 20
    assert run(people(30), store=store, concurrency=2, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(30)
    assert sum(posts(sandbox).values()) <= 30 + 4


class Told(BaseException):
    """What Airflow raises in a task whose time is up."""


@pytest.mark.parametrize("how", ["on_kill", "raises"])
def test_promise_1_a_task_that_is_told_to_end_does(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Airflow 2 raises in the task, Airflow 3 only calls ``on_kill``. No thread goes on sending behind its back."""
    monkeypatch.setattr(outcomes_module, "SAVE_SECONDS", 0.0)
    sandbox.fail_next(503, to="p3@example.org", retry_after=20)
    store = Store()
    task = operator(people(200), concurrency=2)
    written = store.set

    def tell(key: str, value: Any) -> None:
        written(key, value)
        if value["done"] >= 20 and not told:
            told.append(True)
            if how == "raises":
                raise Told
            task.on_kill()

    told: list[bool] = []
    monkeypatch.setattr(store, "set", tell)
    known: Any = {**context(), "task_state_store": store}
    if how == "raises":
        with pytest.raises(Told):
            task.execute(known)
    else:
        error = Run(task, known).error
        assert isinstance(error, FluxomailBatchUnfinishedError)
        assert "was told to end when" in str(error)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("fluxomail-batch")]
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert len(sandbox.requests("POST")) < 40
    (key,) = [request.idempotency_key for request in sandbox.requests("POST", status=503)]
    assert len(sandbox.requests("POST", idempotency_key=key)) == 1, "it waited to try again, and did not"
    assert run(people(200), store=store, ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(200)
    assert sum(posts(sandbox).values()) <= 200 + 4


def test_promise_1_an_outage_in_the_middle_all_are_tried_and_the_next_try_goes_on(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_before_store", times=None, skip=30)
    store = Store()
    first = run(people(80), store=store, concurrency=4)
    assert isinstance(first.error, FluxomailBatchUnfinishedError), "transient: Airflow retries it"
    assert "50 of 80 messages failed (0 rejected, 50 with unknown outcome)" in str(first.error)
    assert len(sandbox.requests("POST")) == 80
    sandbox.clear_faults()
    assert run(people(80), store=store, ctx={"try_number": 2}).result["sent"] == 80
    assert len(sandbox.requests("POST")) == 80 + 50
    sandbox.assert_sent(80)


@pytest.mark.parametrize(("seconds", "waits"), [(60.9, True), (61.9, False)])
def test_a_whole_minute_of_the_cap_is_within_a_longest_wait_of_a_minute(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, seconds: float, waits: bool
) -> None:
    when = SandboxTime(sandbox)
    one = batch(sandbox, people(1), when)
    end = when.clock() + seconds
    monkeypatch.setattr(one._pacer, "delay", lambda in_flight: max(0.0, end - when.clock()))
    if waits:
        assert one.run().sent == 1
    else:
        with pytest.raises(FluxomailRateLimitError, match="requires a wait of 6"):
            one.run()


def test_promise_1_an_attempt_that_was_cleared_stops(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes_module, "SAVE_SECONDS", 0.0)
    store = Store()
    written = store.set

    def fence(key: str, value: Any) -> None:
        written(key, value)
        if value["done"] >= 5:
            store.error = StateError(404)
        if store.error:
            raise store.error

    monkeypatch.setattr(store, "set", fence)
    stopped = run(people(50), store=store, concurrency=2)
    assert stopped.kind == "AirflowFailException"
    assert "was cleared" in str(stopped.error)
    assert len(sandbox.messages()) < 12


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_report(sandbox: Sandbox, tmp_path: Path, scheme: str) -> None:
    sandbox.connect(max_attempts=1, allowed_recipient_domains="example.org")
    path = tmp_path / "report.jsonl"
    path.write_text("left over from another run\n")
    rows = [*people(3), {**people(1)[0], "to": "x@elsewhere.example", "key": "mine"}]
    sandbox.fail_next("response_lost_after_store", to="p1@example.org")
    first = run(rows, report_path=f"{scheme}{path}")
    assert isinstance(first.error, FluxomailBatchUnfinishedError)
    told = {line["row"]: line for line in lines(path)}
    assert {row: line["outcome"] for row, line in told.items()} == {
        "messages[0]": "sent",
        "messages[1]": "unknown",
        "messages[2]": "sent",
        "messages[3]": "rejected",
    }
    mail = sandbox.message("p0@example.org")
    assert told["messages[0]"] == {
        "row": "messages[0]",
        "key": None,
        "outcome": "sent",
        "send_id": mail.send_id,
        "message_id": mail.message_id,
        "idempotency_key": mail.idempotency_key,
        "recipient_digest": recipient_digest(str(mail.idempotency_key), mail.to),
        "error": None,
        "why": None,
    }
    assert told["messages[1]"]["error"] == "FluxomailConnectionError"
    assert told["messages[3]"]["key"] == "mine"
    assert "to: the connection allows email only to example.org" in told["messages[3]"]["why"]
    assert "elsewhere.example" not in path.read_text(), "promise 5"
    before = sum(posts(sandbox).values())
    second = run(rows, report_path=f"{scheme}{path}", ctx={"try_number": 2})
    assert second.kind == "AirflowFailException", "what is left is rejected, which no retry mends"
    assert len(lines(path)) == 6
    assert sum(posts(sandbox).values()) == before + 1, "what the report knows to be sent is not asked for again"
    sandbox.assert_sent(3)


def test_a_report_that_breaks_on_the_way_stops_no_message(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full takes no line."""
    done = run(people(5), report_path="/dev/full")
    assert done.kind == "success", done.error
    sandbox.assert_sent(5)
    assert caplog.text.count("The report /dev/full is incomplete") == 1


@pytest.mark.parametrize("path", ["/proc/nowhere/report.jsonl", "nosuch://bucket/report.jsonl"])
def test_a_report_that_cannot_be_written_is_known_before_the_first_send(sandbox: Sandbox, path: str) -> None:
    done = run(people(3), report_path=path)
    assert done.kind == "AirflowFailException"
    assert "report_path" in str(done.error)
    assert sandbox.requests() == []


# Outcomes


def test_each_outcome(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(422, to="p2@example.org", body={"code": "validation_error", "message": "bad p2@example.org"})
    sandbox.fail_next(409, to="p4@example.org")
    sandbox.fail_next("error_after_store", to="p6@example.org")
    with caplog.at_level(logging.INFO):
        done = run(people(8))
    assert isinstance(done.error, FluxomailBatchUnfinishedError)
    assert vars(done.error.counts) == {"total": 8, "sent": 5, "replayed": 0, "rejected": 2, "unknown": 1}
    for words in ("messages[2]: rejected (FluxomailValidationError)", "messages[4]: rejected", "messages[6]: unknown"):
        assert words in caplog.text
    assert "@example.org" not in caplog.text + str(done.error), "promise 5"
    second = run(people(8), ctx={"try_number": 2})
    assert second.kind == "success"
    assert second.result["replayed"] == 6
    sandbox.assert_sent(8)


@pytest.mark.parametrize(("on_error", "sent"), [("continue", 29), ("stop", 4)])
def test_on_error(sandbox: Sandbox, on_error: str, sent: int) -> None:
    sandbox.fail_next(400, to="p3@example.org")
    done = run(people(30), on_error=on_error, concurrency=1)
    assert done.kind == "AirflowFailException"
    assert "1 of 30 messages failed (1 rejected" in str(done.error)
    assert len(sandbox.messages()) in (sent, sent - 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, None),
        (403, {"code": "missing_scope"}),
        (403, {"error": "Tenant paused"}),
        (402, None),
        (404, None),
        (415, None),
    ],
)
def test_what_holds_for_all_messages_ends_the_batch_at_once(sandbox: Sandbox, status: int, body: Any) -> None:
    sandbox.fail_next(status, times=None, skip=5, **({} if body is None else {"body": body}))
    done = run(people(100, policy_key="bulk"), concurrency=2)
    assert done.kind == "AirflowFailException"
    assert f"status {status}" in str(done.error)
    assert len(sandbox.requests()) <= 8
    sandbox.assert_sent(5)


def test_a_plan_without_attachments_and_a_policy_concern_single_messages(sandbox: Sandbox) -> None:
    sandbox.settings(attachments_in_plan=False)
    sandbox.fail_next(403, to="p1@example.org", body={"error": "policy forbids it"})
    rows = people(4, policy_key="bulk")
    rows[2]["attachments"] = [{"filename": "a.txt", "content": "x"}]
    done = run(rows)
    assert "2 of 4 messages failed (2 rejected" in str(done.error)
    sandbox.assert_sent(2)


def test_a_message_that_is_too_large_is_rejected_alone(sandbox: Sandbox) -> None:
    sandbox.fail_next(413, to="p1@example.org")
    done = run(people(4))
    assert "1 of 4 messages failed (1 rejected" in str(done.error)
    sandbox.assert_sent(3)


def test_a_server_that_is_not_there_ends_the_batch_and_a_later_try_goes_on(sandbox: Sandbox) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sandbox.connect(host=f"http://127.0.0.1:{nobody.getsockname()[1]}", max_attempts=1)
        done = run(people(500), concurrency=2)
    assert isinstance(done.error, FluxomailConnectionError), "transient: Airflow retries it"
    assert "Connection refused" in str(done.error)
    sandbox.connect()
    assert run(people(500), ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(500)


def test_promise_1_two_deployments_with_one_organization(sandbox: Sandbox) -> None:
    assert run(people(3, key=None)).kind == "success"
    other = run(people(3, subject="Other"))
    assert other.kind == "AirflowFailException"
    assert "3 of 3 messages failed (3 rejected" in str(other.error)
    same = run(people(3))
    assert same.kind == "success"
    assert same.result["replayed"] == 3


@pytest.mark.parametrize("kept", ["nothing", "a store", "a report"])
def test_promise_1_an_own_key_that_stands_for_another_recipient(sandbox: Sandbox, tmp_path: Path, kept: str) -> None:
    """What is known of an earlier try is no reason to take the other mail for sent."""
    memories: dict[str, dict[str, Any]] = {
        "nothing": {},
        "a store": {"store": Store()},
        "a report": {"report_path": str(tmp_path / "report.jsonl")},
    }
    how = memories[kept]
    rows = [{**row, "key": f"k{n}"} for n, row in enumerate(people(2))]
    assert run(rows, **how).kind == "success"
    swapped = [{**rows[1], "key": "k0"}, {**rows[0], "key": "k1"}]
    assert "2 of 2 messages failed (2 rejected" in str(run(swapped, **how, ctx={"try_number": 2}).error)
    assert run(rows, **how, ctx={"try_number": 3}).kind == "success"
    sandbox.assert_sent(2)


def test_the_recipients_of_staging_are_guarded(sandbox: Sandbox) -> None:
    sandbox.connect(redirect_to="qa@example.org")
    for try_number in (1, 2):
        assert run(people(3), ctx={"try_number": try_number}).kind == "success"
    assert [mail.to for mail in sandbox.messages()] == ["qa@example.org"] * 3


# Bad input


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"on_error": "ignore"}, "on_error must be"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": 65}, "concurrency must be"),
        ({"concurrency": True}, "concurrency must be"),
        ({"max_rate_limit_wait": -1}, "max_rate_limit_wait must be"),
        ({"messages": "/no/such.csv"}, "there is no file"),
        ({"messages": [{"to": "x"}]}, "messages[0]: subject is missing"),
        ({"defaults": {"subjct": "x"}}, "defaults holds 'subjct'"),
    ],
)
def test_bad_input_is_named_and_nothing_is_sent(sandbox: Sandbox, arguments: dict[str, Any], told: str) -> None:
    done = run(**{"messages": people(3), **arguments})
    assert done.kind == "AirflowFailException", "no retry mends it"
    assert told in str(done.error)
    assert sandbox.requests() == []


def test_a_bad_row_at_the_end_stops_the_first_send(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    path.write_text("\n".join([*(json.dumps(row) for row in people(20)), '{"to": 3}']))
    done = run(str(path))
    assert "line 21:" in str(done.error)
    assert sandbox.requests() == []


def test_rows_that_turn_bad_while_they_are_sent(sandbox: Sandbox, tmp_path: Path) -> None:
    class Changing(Rows):
        def __iter__(self) -> Any:
            yield from list(super().__iter__())[:5]
            yield BadRow("line 6", "is not JSON") if sandbox.requests() else list(super().__iter__())[5]

    one = batch(sandbox, [], SandboxTime(sandbox))
    one._rows = Changing(people(6))
    one._concurrency = 1
    with pytest.raises(FluxomailValidationError, match="changed while they were being sent: line 6"):
        one.run()
    assert one.outcomes.counts.sent == 5


def test_none_at_all(sandbox: Sandbox) -> None:
    assert run([]).result["total"] == 0
    assert sandbox.requests() == []


# Size


def test_a_large_file_is_streamed(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    with path.open("w") as file:
        for number in range(50_000):
            body = "x" * 500
            file.write(json.dumps({"to": f"p{number}@example.org", "subject": "Hi", "content": body}) + "\n")
    tracemalloc.start()
    assert sum(1 for _ in Rows(str(path)).check()) == 50_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


def test_progress_is_told_now_and_then(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outcomes_module, "PROGRESS_SECONDS", 0.05)
    with caplog.at_level(logging.INFO):
        run(people(100), concurrency=1)
    told = [record.message for record in caplog.records if "messages done" in record.message]
    assert told
    assert "of 100 messages done" in told[0]
    assert "a minute, about" in told[0]


def test_progress_is_told_while_the_cap_makes_it_wait(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.key("capped", rate_limit_per_minute=1)
    sandbox.connect(key="capped", max_wait=65)
    with caplog.at_level(logging.INFO):
        batch(sandbox, people(3), SandboxTime(sandbox)).run()
    told = [record.message for record in caplog.records if "messages done" in record.message]
    assert len(told) >= 5, "a whole minute is waited for, in steps of ten seconds"


@pytest.mark.parametrize("many", [5, 30])
def test_only_the_first_failures_are_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture, many: int) -> None:
    sandbox.fail_next(400, times=None)
    with caplog.at_level(logging.WARNING):
        done = run(people(many))
    assert isinstance(done.error, BaseException)
    assert sum("rejected (FluxomailValidationError)" in record.message for record in caplog.records) == min(many, 20)
    assert ("10 more messages failed: set report_path" in caplog.text) is (many == 30)


def test_the_errors_tell_what_a_retry_can_do() -> None:
    assert FluxomailBatchError.permanent
    assert not FluxomailBatchUnfinishedError.permanent
