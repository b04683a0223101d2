"""Promise 8: a passing fault is retried, a lasting one is not."""

from __future__ import annotations

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
    FluxomailValidationError,
)
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.attachments import read_attachments
from tests.support import bad_servers, batches, error_responses, retry_policies, send_operators
from tests.support.bad_servers import Serve, answers
from tests.support.running import Run, context
from tests.wire.conftest import Transport


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
    broken = b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (lines, len(body), body)
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
