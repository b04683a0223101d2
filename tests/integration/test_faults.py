"""Every fault of the sandbox against the hook, the operator and the sensor (promises 1 and 3).

One message is stored, or none and the task fails with the right error; never two.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_fluxomail import delivery
from airflow_provider_fluxomail.client import errors, retries, waiting
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.faults import KINDS
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.integration.running import Run, context

MESSAGE: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}
ATTEMPTS = 2
#: Longer than the connection's time-out, in seconds.
TIMEOUT, SLOW = 1.0, 2.0
TIMELINE = "/api/v1/sends"

#: Fault, its options, whether the message is stored (None: some time later), the error when it never ends.
FAULTS: list[tuple[Any, dict[str, Any], bool | None, type[errors.FluxomailError]]] = [
    ("delay", {"seconds": SLOW}, None, errors.FluxomailConnectionError),
    ("status", {"status": 408}, False, errors.FluxomailServerError),
    ("status", {"status": 429}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 429, "retry_after": 0}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 429, "retry_after": 0.01}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 429, "retry_after": "soon"}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 429, "retry_after": ""}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 429, "retry_after": "-5"}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 429, "retry_after": {"http_date_in": -3600}}, False, errors.FluxomailRateLimitError),
    ("status", {"status": 500, "body": "out of order"}, False, errors.FluxomailServerError),
    ("status", {"status": 503, "retry_after": {"http_date_in": 0}}, False, errors.FluxomailServerError),
    ("status", {"status": 200, "body": ""}, False, errors.FluxomailResponseError),
    ("status", {"status": 200, "body": []}, False, errors.FluxomailResponseError),
    ("status", {"status": 503, "after_store": True}, True, errors.FluxomailServerError),
    ("proxy_error_page", {}, False, errors.FluxomailServerError),
    ("proxy_error_page", {"status": 504, "after_store": True}, True, errors.FluxomailServerError),
    ("error_before_store", {}, False, errors.FluxomailServerError),
    ("error_after_store", {}, True, errors.FluxomailServerError),
    ("cut_before_store", {}, False, errors.FluxomailConnectionError),
    ("response_lost_after_store", {}, True, errors.FluxomailConnectionError),
    ("cut_in_body", {}, True, errors.FluxomailConnectionError),
    ("slow_first_byte", {"seconds": SLOW}, True, errors.FluxomailConnectionError),
    ("slow_body", {"seconds": SLOW}, True, errors.FluxomailConnectionError),
    ("malformed_json", {}, True, errors.FluxomailResponseError),
    ("gzip_garbage", {}, True, errors.FluxomailResponseError),
    ("missing_send_id", {}, True, errors.FluxomailResponseError),
]
IDS = ["-".join([kind, *(f"{name}={value}" for name, value in options.items())]) for kind, options, _, _ in FAULTS]
each_fault = pytest.mark.parametrize(("kind", "options", "stored", "error"), FAULTS, ids=IDS)


@pytest.fixture(autouse=True)
def _quick(fluxomail_sandbox: FluxomailSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    fluxomail_sandbox.connect(timeout=TIMEOUT, max_attempts=ATTEMPTS)
    monkeypatch.setattr(retries, "BACKOFF_FIRST", 0.01)
    monkeypatch.setattr(delivery, "WORKER_LOOKS", (0.0,))
    monkeypatch.setattr(delivery, "RESUME_AFTER", 0.0)
    monkeypatch.setattr(waiting, "LEAST_INTERVAL", 0.02)


def send(how: str) -> Any:
    if how == "hook":
        hook = FluxomailHook()
        try:
            return hook.send(MESSAGE, idempotency_key="k")
        finally:
            hook.close()

    return asyncio.run(FluxomailHook().asend(MESSAGE, idempotency_key="k"))


def test_every_fault_is_here() -> None:
    assert {kind for kind, *_ in FAULTS} == {kind for kind in KINDS if not kind.startswith("stream_")}


@pytest.mark.parametrize("how", ["hook", "hook-async"])
@each_fault
def test_promise_1_a_fault_that_passes(
    fluxomail_sandbox: FluxomailSandbox, how: str, kind: str, options: dict[str, Any], stored: bool | None, error: type
) -> None:
    fluxomail_sandbox.fail_next(kind, **options)
    result = send(how)
    assert result.send_id == fluxomail_sandbox.message().send_id
    assert stored in (None, result.reused)
    assert fluxomail_sandbox.faults() == []
    assert len(fluxomail_sandbox.requests()) == 2


@pytest.mark.parametrize("how", ["hook", "hook-async"])
@each_fault
def test_promise_1_a_fault_that_stays(
    fluxomail_sandbox: FluxomailSandbox, how: str, kind: str, options: dict[str, Any], stored: bool | None, error: type
) -> None:
    fluxomail_sandbox.fail_next(kind, times=None, **options)
    with pytest.raises(errors.FluxomailError) as caught:
        send(how)
    assert type(caught.value) is error
    assert caught.value.idempotency_key == "k"
    assert len(fluxomail_sandbox.requests()) == ATTEMPTS
    fluxomail_sandbox.clear_faults()
    # A fault that holds a request back may store the message after the client has given up.
    result = send(how)
    fluxomail_sandbox.assert_sent(1)
    assert stored in (None, result.reused)


@each_fault
def test_promise_1_a_task_that_is_tried_again(
    fluxomail_sandbox: FluxomailSandbox, kind: str, options: dict[str, Any], stored: bool | None, error: type
) -> None:
    fluxomail_sandbox.fail_next(kind, times=ATTEMPTS, **options)
    operator = FluxomailSendOperator(task_id="task", deferrable=False, **MESSAGE)
    assert type(Run(operator, context(try_number=1)).error) is error
    second = Run(operator, context(try_number=2))
    assert second.kind == "success", second.error
    assert second.result["send_id"] == fluxomail_sandbox.message().send_id
    assert stored in (None, second.result["reused"])


@each_fault
def test_promise_1_send_and_wait(
    fluxomail_sandbox: FluxomailSandbox, kind: str, options: dict[str, Any], stored: bool | None, error: type
) -> None:
    fluxomail_sandbox.fail_next(kind, **options)
    fluxomail_sandbox.fail_next(kind, path=TIMELINE, **options)
    run = Run(
        FluxomailSendOperator(task_id="task", wait_for="delivered", poll_interval=0.1, wait_timeout=30, **MESSAGE)
    )
    assert run.kind == "success", run.error
    assert run.result["event"] == "delivered"
    fluxomail_sandbox.assert_sent(1)


WAITS = [fault for fault in FAULTS if fault[0] != "missing_send_id"]
each_read_fault = pytest.mark.parametrize(
    ("kind", "options"), [fault[:2] for fault in WAITS], ids=[name for name in IDS if name != "missing_send_id"]
)


def sensor(deferrable: bool, timeout: float) -> Run:
    sent = send("hook")
    return Run(
        FluxomailDeliverySensor(
            task_id="wait", send_id=sent.send_id, deferrable=deferrable, poke_interval=0.1, timeout=timeout
        )
    )


@pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])
@each_read_fault
def test_promise_3_a_wait_survives_a_fault(
    fluxomail_sandbox: FluxomailSandbox, deferrable: bool, kind: str, options: dict[str, Any]
) -> None:
    fluxomail_sandbox.fail_next(kind, times=2, path=TIMELINE, **options)
    run = sensor(deferrable, timeout=30)
    assert run.kind == "success", run.error
    assert fluxomail_sandbox.faults() == []


@pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])
@each_read_fault
def test_promise_3_a_wait_ends_though_a_fault_stays(
    fluxomail_sandbox: FluxomailSandbox, deferrable: bool, kind: str, options: dict[str, Any]
) -> None:
    fluxomail_sandbox.fail_next(kind, times=None, path=TIMELINE, **options)
    run = sensor(deferrable, timeout=0.5)
    assert run.kind == "AirflowSensorTimeout", run.error
    fluxomail_sandbox.assert_sent(1)
