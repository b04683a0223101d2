"""FluxomailSendBatchOperator against the sandbox: each message once, over faults, retries and pauses."""

from __future__ import annotations

import json
import logging
import socket
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import (
    FluxomailBatchUnfinishedError,
    FluxomailConnectionError,
    FluxomailRateLimitError,
)
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.batch import rows, sender
from airflow_provider_fluxomail.sending.batch.row_files import BadRow
from airflow_provider_fluxomail.sending.batch.rows import Rows
from airflow_provider_fluxomail.sending.send_once import send_once
from airflow_provider_fluxomail.sending.send_record import recipient_digest
from tests.support.airflow_facts import stored
from tests.support.batches import SandboxTime, batch, people, posts, quick_batches, run
from tests.support.timing import batch_timing

__all__ = ["quick_batches"]
pytestmark = pytest.mark.usefixtures("quick_batches")


def test_each_message_once(sandbox: Sandbox) -> None:
    done = run(people(50))
    assert done.kind == "success", done.error
    assert done.result == stored({"total": 50, "sent": 50, "replayed": 0, "rejected": 0, "unknown": 0, "report": None})
    mails = sandbox.assert_sent(50)
    assert sorted(mail.to for mail in mails) == sorted(row["to"] for row in people(50))
    assert len({mail.idempotency_key for mail in mails}) == 50
    assert all(str(mail.idempotency_key).startswith("af1:dag.task:") for mail in mails)
    assert json.loads(json.dumps(done.result)) == done.result


# The rate limit


def test_deferrals_without_progress_are_bounded(sandbox: Sandbox) -> None:
    sandbox.connect(max_wait=0, max_attempts=1)
    sandbox.fail_next(429, times=None, retry_after=1.1)
    stopped = run(people(3), deferrable=True, max_rate_limit_wait=3)
    assert isinstance(stopped.error, FluxomailRateLimitError)
    assert 1 <= len(stopped.deferrals) <= 3
    sandbox.assert_sent(0)


def test_a_whole_minute_of_the_rate_limit_is_within_a_longest_wait_of_a_minute(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, waits in ((60.9, True), (68.9, False)):
        when = SandboxTime(sandbox)
        one = batch(sandbox, people(1), when)
        end = when.clock() + seconds
        monkeypatch.setattr(one._pacer, "delay", lambda _, end=end, when=when: max(0.0, end - when.clock()))
        if waits:
            assert one.run().sent == 1
            continue
        with pytest.raises(FluxomailRateLimitError, match="requires a wait of 6"):
            one.run()


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
    by_row = [line for _, line in sorted((line["row"], line) for line in lines(path))]
    assert [line["outcome"] for line in by_row] == ["sent", "unknown", "sent", "rejected"]
    mail = sandbox.message("p0@example.org")
    assert by_row[0] == {
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
    assert by_row[1]["error"] == "FluxomailConnectionError"
    assert by_row[3]["key"] == "mine"
    assert "to: the connection allows email only to example.org" in by_row[3]["why"]
    assert "elsewhere.example" not in path.read_text(), "promise 5"
    before = sum(posts(sandbox).values())
    second = run(rows, report_path=f"{scheme}{path}", ctx={"try_number": 2})
    assert second.kind == "AirflowFailException", "what is left is rejected, which no retry can fix"
    assert len(lines(path)) == 6
    assert sum(posts(sandbox).values()) == before + 1, "what the report knows to be sent is not requested again"
    sandbox.assert_sent(3)


def test_a_report_that_breaks_on_the_way_stops_no_message(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full takes no line."""
    done = run(people(5), report_path="/dev/full")
    assert done.kind == "success", done.error
    sandbox.assert_sent(5)
    assert caplog.text.count("The report /dev/full is incomplete") == 1


def test_a_report_that_cannot_be_written_is_known_before_the_first_send(sandbox: Sandbox) -> None:
    for path in ("/proc/nowhere/report.jsonl", "nosuch://bucket/report.jsonl"):
        done = run(people(3), report_path=path)
        assert done.kind == "AirflowFailException"
        assert "report_path" in str(done.error)
    assert sandbox.requests() == []


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


def test_an_unexpected_error_of_one_message_is_that_ones(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(message: Any, *args: Any) -> Any:
        if message.to == "p3@example.org":
            raise LookupError(message.to)
        return send_once(message, *args)

    with monkeypatch.context() as patched:
        patched.setattr(sender, "send_once", fails)
        done = run(people(8))
    assert isinstance(done.error, FluxomailBatchUnfinishedError), "Airflow's to retry"
    assert "messages[3]: unknown (FluxomailError): unexpected LookupError in test_batch.py" in caplog.text
    sandbox.assert_sent(7)
    assert run(people(8), ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(8)


def test_what_ends_a_thread_ends_the_batch(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as an exit that a library calls while it sends: nothing waits for that thread's message."""

    def send(message: Any, *arguments: Any) -> Any:
        if message.to == "p3@example.org":
            raise SystemExit("in the thread")
        return send_once(message, *arguments)

    monkeypatch.setattr(sender, "send_once", send)
    one = batch(sandbox, people(200), SandboxTime(sandbox))
    deadline = threading.Timer(20, one.stop)
    deadline.start()
    with pytest.raises(SystemExit, match="in the thread"):
        one.run()
    deadline.cancel()
    assert 3 <= len(sandbox.messages()) < 100
    for thread in threading.enumerate():
        if thread.name.startswith("fluxomail-batch"):
            thread.join(10)
            assert not thread.is_alive()


def test_a_row_that_cannot_be_checked_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fields: Any, **how: Any) -> Any:
        raise LookupError(str(fields)) if fields["to"] == "p3@example.org" else OSError("storage")

    monkeypatch.setattr(rows, "given_fields", fails)
    done = run(people(8)[3:4])
    assert "messages[0]: unexpected LookupError in test_batch.py" in str(done.error)
    assert "p3@" not in str(done.error)
    assert isinstance(run(people(8)).error, OSError), "Airflow's to retry"
    sandbox.assert_sent(0)


@pytest.mark.parametrize(("on_error", "sent"), [("continue", 29), ("stop", 4)])
def test_on_error(sandbox: Sandbox, on_error: str, sent: int) -> None:
    sandbox.fail_next(400, to="p3@example.org")
    done = run(people(30), on_error=on_error, concurrency=1)
    assert done.kind == "AirflowFailException"
    assert "1 of 30 messages failed (1 rejected" in str(done.error)
    assert len(sandbox.messages()) in (sent, sent - 1)


def test_what_holds_for_all_messages_ends_the_batch_at_once(sandbox: Sandbox) -> None:
    """Of which errors that is true: ``tests/unit/client/test_errors.py``."""
    for number, (status, code) in enumerate([(401, ""), (402, ""), (403, "missing_scope")]):
        sandbox.clear_faults()
        sandbox.fail_next(status, times=None, skip=5, body={"code": code})
        before = len(sandbox.requests())
        done = run(people(50, policy_key=str(number)), concurrency=2, ctx={"run_id": str(number)})
        assert done.kind == "AirflowFailException"
        assert f"status {status}" in str(done.error)
        assert len(sandbox.requests()) - before <= 8
        sandbox.assert_sent(5 * (number + 1))


def test_what_concerns_single_messages_rejects_these_alone(sandbox: Sandbox) -> None:
    sandbox.settings(attachments_in_plan=False)
    sandbox.fail_next(403, to="p1@example.org", body={"error": "policy forbids it"})
    sandbox.fail_next(413, to="p3@example.org")
    messages = people(5, policy_key="bulk")
    messages[2]["attachments"] = [{"filename": "a.txt", "content": "x"}]
    done = run(messages)
    assert "3 of 5 messages failed (3 rejected" in str(done.error)
    sandbox.assert_sent(2)


def test_a_server_that_is_down_ends_the_batch_and_a_later_try_continues(sandbox: Sandbox) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sandbox.connect(host=f"http://127.0.0.1:{nobody.getsockname()[1]}", max_attempts=1)
        done = run(people(100), concurrency=2)
    assert isinstance(done.error, FluxomailConnectionError), "transient: Airflow retries it"
    assert "Connection refused" in str(done.error)
    sandbox.connect()
    assert run(people(100), ctx={"try_number": 2}).kind == "success"
    sandbox.assert_sent(100)


def test_the_recipients_of_staging_are_guarded(sandbox: Sandbox) -> None:
    sandbox.connect(redirect_to="qa@example.org")
    for try_number in (1, 2):
        assert run(people(3), ctx={"try_number": try_number}).kind == "success"
    assert [mail.to for mail in sandbox.messages()] == ["qa@example.org"] * 3


def test_rows_that_turn_bad_while_they_are_sent(sandbox: Sandbox, tmp_path: Path) -> None:
    class Changing(Rows):
        def __iter__(self) -> Any:
            yield from list(super().__iter__())[:5]
            yield BadRow("line 6", "is not JSON") if sandbox.requests() else list(super().__iter__())[5]

    one = batch(sandbox, [], SandboxTime(sandbox))
    one._rows = Changing(people(6))
    one._concurrency = 1
    with pytest.raises(FluxomailBatchUnfinishedError, match="changed while they were being sent: line 6"):
        one.run()
    assert one.outcomes.counts.sent == 5


def test_none_at_all(sandbox: Sandbox) -> None:
    assert run([]).result["total"] == 0
    assert sandbox.requests() == []


def test_a_large_file_is_streamed(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    row = {"to": "ops@example.org", "subject": "Hi", "content": "x" * 4_000}
    path.write_text((json.dumps(row) + "\n") * 4_000, encoding="utf-8")
    tracemalloc.start()
    assert sum(1 for _ in Rows(str(path)).check()) == 4_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < path.stat().st_size / 2


def test_progress_is_logged_now_and_then(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch_timing(monkeypatch, log=0.05)
    with caplog.at_level(logging.INFO):
        run(people(100), concurrency=1)
    first = next(record.message for record in caplog.records if "messages done" in record.message)
    assert "of 100 messages done" in first
    assert "a minute, about" in first


def test_progress_is_logged_while_the_rate_limit_holds_it(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.key("capped", rate_limit_per_minute=1)
    sandbox.connect(key="capped", max_wait=65)
    with caplog.at_level(logging.INFO):
        batch(sandbox, people(3), SandboxTime(sandbox)).run()
    logged = sum("messages done" in record.message for record in caplog.records)
    assert logged >= 5, "a whole minute is waited for, in steps of ten seconds"


def test_only_the_first_failures_are_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    sandbox.fail_next(400, times=None)
    for many in (5, 30):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run(people(many))
        logged = sum("rejected (FluxomailValidationError)" in record.message for record in caplog.records)
        assert logged == min(many, 20)
        assert ("10 more messages failed: set report_path" in caplog.text) is (many == 30)
