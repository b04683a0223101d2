"""Promise 8: a passing fault is retried, a lasting one is not."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.errors import (
    FluxomailBatchError,
    FluxomailBatchUnfinishedError,
    FluxomailRateLimitError,
    FluxomailServerError,
    FluxomailStorageError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.attachments import read_attachments
from tests.support import bad_servers, batches, error_responses, retry_policies, send_operators
from tests.support.bad_servers import Serve, answers
from tests.support.flaky_storage import FlakyStorage, StorageResetError, flaky_storage
from tests.support.running import Run, context
from tests.wire.conftest import Transport

__all__ = ["flaky_storage"]


#: What storages raise when they do not respond, and what they raise for what stays as it is.
class S3ClientError(Exception):
    """What S3 responded; as its library, its errors are raised from one."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def of_s3(code: str) -> PermissionError:
    error = PermissionError("Forbidden")
    error.__cause__ = S3ClientError(code)
    return error


PASSING = (
    of_s3("ExpiredToken"),
    StorageResetError("reset"), ConnectionResetError(104, "Connection reset by peer"), TimeoutError("timed out"),
    OSError(5, "Input/output error"), OSError(28, "No space left on device"), ValueError("no JSON"), KeyError("Body"),
)  # fmt: skip
LASTING = (
    of_s3("AccessDenied"),
    PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a directory"), OSError(30, "Read-only"),
    ImportError("Install s3fs"), NotImplementedError("read-only storage"),
)  # fmt: skip


@pytest.mark.parametrize("status", error_responses.BY_STATUS)
def test_promise_8_408_is_transient_and_any_other_4xx_but_429_permanent(status: int) -> None:
    assert error_responses.error(status, {"error": "x"}).permanent is (400 <= status < 500 and status not in (408, 429))


def test_promise_8_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "rows.csv").touch()
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FluxomailValidationError, match=r"cannot read .*rows\.csv.*: Permission denied"):
        read_attachments([tmp_path / "rows.csv"])


@retry_policies.since_3_3
@pytest.mark.parametrize("kind", retry_policies.EVERY_ERROR)
def test_promise_8_an_error_that_is_permanent_fails_at_once(kind: type[errors.FluxomailError]) -> None:
    assert retry_policies.decision(kind("no")) == ("fail" if kind.permanent else "default", None)


def test_promise_8_the_errors_of_a_batch_say_whether_a_retry_can_help() -> None:
    assert FluxomailBatchError.permanent
    assert not FluxomailBatchUnfinishedError.permanent


def test_promise_8_permanent_errors_do_not_use_up_retries(sandbox: Sandbox) -> None:
    for key, paused, words in (
        ("wrong", False, "FluxomailAuthError"),
        ("", False, "no API key"),
        (sandbox.api_key, True, "FluxomailTenantPausedError"),
    ):
        sandbox.connect(key=key)
        if paused:
            sandbox.pause()
        run = Run(send_operators.operator())
        assert run.kind == "AirflowFailException"
        assert words in str(run.error)


@pytest.mark.parametrize("task", [send_operators.operator, partial(batches.operator, batches.people(3))])
def test_promise_8_a_long_rate_limit_without_deferral_is_airflows_to_retry(sandbox: Sandbox, task: Any) -> None:
    sandbox.fail_next(429, retry_after=100)
    run = Run(task())
    assert isinstance(run.error, FluxomailRateLimitError)
    assert run.error.retry_after == 100
    assert run.deferrals == []
    assert Run(task(), context(try_number=2)).kind == "success"


def test_promise_8_a_5xx_that_lasts_is_airflows_to_retry(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_before_store")
    assert isinstance(Run(send_operators.operator()).error, FluxomailServerError)


@pytest.mark.parametrize("lines", [b"Content-Length: 5\r\n", b"Content-Encoding: gzip\r\n"])
def test_promise_8_a_response_that_cannot_be_read_is_retried_with_the_same_key(
    call: Transport, serve: Serve, lines: bytes
) -> None:
    """The message may be stored by then: what the response looks like says nothing of that."""
    body = b'{"sendId": "s1"}'
    broken = b"HTTP/1.1 200 OK\r\nConnection: close\r\n%sContent-Length: %d\r\n\r\n%s" % (lines, len(body), body)
    server = serve(answers(broken))
    with pytest.raises(errors.FluxomailError) as caught:
        call(
            bad_servers.settings(server.url, max_attempts=3, timeout=10),
            "send",
            bad_servers.MESSAGE,
            idempotency_key="k1",
        )
    assert (caught.value.ambiguous, caught.value.permanent) == (True, False)
    assert [b"idempotency-key: k1" in request.lower() for request in server.seen] == [True] * 3


@pytest.mark.parametrize("at", ["info", "open", "read"])
@pytest.mark.parametrize("error", [*PASSING, *LASTING], ids=repr)
def test_promise_8_a_storage_that_does_not_respond_is_airflows_to_retry(
    sandbox: Sandbox, tmp_path: Path, flaky_storage: FlakyStorage, error: Exception, at: str
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in batches.people(3)))
    flaky_storage.error, flaky_storage.at = error, at
    url = flaky_storage.url(rows)
    row = {**batches.people(1)[0], "attachments": [url]}
    tasks: dict[str, Any] = {
        "attachments[0]": partial(send_operators.operator, attachments=[url]),
        "messages": partial(batches.operator, url),
        "messages[0]: attachments[0]": partial(batches.operator, [row]),
        "report_path": partial(batches.operator, batches.people(1), report_path=flaky_storage.url(tmp_path / "report")),
    }
    if at != "open":
        del tasks["report_path"]  # a new one is only written
    for field, task in tasks.items():
        run = Run(task())
        assert run.kind == ("FluxomailStorageError" if error in PASSING else "AirflowFailException"), field
        assert f"{field}: cannot" in str(run.error)
        assert flaky_storage.conn_id not in str(run.error)
    assert sandbox.requests() == []
    flaky_storage.error = None
    for task in tasks.values():
        assert Run(task(), context(try_number=2)).error is None


@pytest.mark.parametrize("error", [*PASSING, *LASTING, FileNotFoundError(2, "No such file")], ids=repr)
def test_promise_8_rows_that_cannot_be_read_to_the_end_are_read_again_by_the_next_try(
    sandbox: Sandbox, tmp_path: Path, flaky_storage: FlakyStorage, error: Exception
) -> None:
    """However lasting it looks: some messages are sent, and a task that fails for good would not send the others."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in batches.people(10)))
    flaky_storage.error, flaky_storage.opens, flaky_storage.after = error, 1, path.stat().st_size // 2
    run = Run(batches.operator(flaky_storage.url(path)))
    assert isinstance(run.error, FluxomailBatchUnfinishedError)
    assert "while they were being sent: messages: cannot read" in str(run.error)
    sent = run.error.counts.sent
    assert 0 < sent < 10
    flaky_storage.error = None
    assert Run(batches.operator(flaky_storage.url(path)), context(try_number=2)).kind == "success"
    sandbox.assert_sent(10)


def test_promise_8_a_missing_file_is_permanent_and_an_unresponsive_storage_is_not(
    tmp_path: Path, flaky_storage: FlakyStorage
) -> None:
    with pytest.raises(FluxomailValidationError, match="there is no file"):
        read_attachments([flaky_storage.url(tmp_path / "nothing")])
    with pytest.raises(FluxomailValidationError, match="there is no file"):
        read_attachments([flaky_storage.url(tmp_path)])
    # fsspec's own isfile() makes a missing file of any error.
    flaky_storage.error, flaky_storage.at = StorageResetError("reset"), "info"
    with pytest.raises(FluxomailStorageError, match="cannot read"):
        read_attachments([flaky_storage.url(tmp_path / "nothing")])
