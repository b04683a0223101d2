"""The faults that a request can meet and the ways a message is sent: the rows and columns of every table of faults."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest

from airflow_provider_fluxomail import email_backend, triggers
from airflow_provider_fluxomail.airflow_compat import AirflowFailException
from airflow_provider_fluxomail.client import errors, retries
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from airflow_provider_fluxomail.sending import idempotency_key
from airflow_provider_fluxomail.sending.batch.sender import Sender
from airflow_provider_fluxomail.sending.send_once import send_once
from tests.support.timing import quick_waits
from tests.wire.running import Run, context

MESSAGE: Final[dict[str, Any]] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}
#: Requests of one call, at most.
ATTEMPTS: Final = 2
#: The connection's time-out for faults that are slow, and how slow they are; the one for all others. Seconds.
SHORT_TIMEOUT, SLOW, TIMEOUT = 0.5, 1.0, 10.0
#: What a 429 asks for that is longer than the connection's ``max_wait``, seconds.
LONG: Final = 100
TIMELINE: Final = "/api/v1/sends"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault of the sandbox, and what it does.

    :param stored: whether the message is stored; ``None``: later, perhaps when the client has given up.
    :param error: what a call raises that meets nothing else.
    """

    kind: str
    options: dict[str, Any]
    stored: bool | None
    error: type[errors.FluxomailError]

    def __str__(self) -> str:
        return "-".join([self.kind, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def slow(self) -> bool:
        """Whether it outlasts the time-out."""
        return "seconds" in self.options

    @property
    def is_429(self) -> bool:
        """Whether it makes a deferrable operator defer."""
        return self.error is errors.FluxomailRateLimitError

    @property
    def ends_all(self) -> bool:
        """Whether it speaks of the key or the host, so that a batch ends with it and asks for no further message."""
        about_one = (
            *(errors.FluxomailValidationError, errors.FluxomailIdempotencyConflictError, errors.FluxomailServerError),
            *(errors.FluxomailConnectionError, errors.FluxomailResponseError),
        )
        return not issubclass(self.error, about_one)


def _status(status: int, error: type[errors.FluxomailError], stored: bool = False, **options: Any) -> Fault:
    return Fault("status", {"status": status, **options}, stored, error)


LONG_429: Final = _status(429, errors.FluxomailRateLimitError, retry_after=LONG)

#: What another request may mend.
PASSING: Final = [
    Fault("delay", {"seconds": SLOW}, None, errors.FluxomailConnectionError),
    _status(408, errors.FluxomailServerError),
    _status(429, errors.FluxomailRateLimitError),
    _status(429, errors.FluxomailRateLimitError, retry_after=0),
    _status(429, errors.FluxomailRateLimitError, retry_after=0.01),
    _status(429, errors.FluxomailRateLimitError, retry_after="soon"),
    _status(429, errors.FluxomailRateLimitError, retry_after=""),
    _status(429, errors.FluxomailRateLimitError, retry_after="-5"),
    _status(429, errors.FluxomailRateLimitError, retry_after={"http_date_in": -3600}),
    _status(429, errors.FluxomailRateLimitError, stored=True, after_store=True),
    _status(500, errors.FluxomailServerError, body="out of order"),
    _status(503, errors.FluxomailServerError, retry_after={"http_date_in": -1}),
    _status(200, errors.FluxomailResponseError, body=""),
    _status(200, errors.FluxomailResponseError, body=[]),
    _status(503, errors.FluxomailServerError, stored=True, after_store=True),
    Fault("proxy_error_page", {}, False, errors.FluxomailServerError),
    Fault("proxy_error_page", {"status": 504, "after_store": True}, True, errors.FluxomailServerError),
    Fault("error_before_store", {}, False, errors.FluxomailServerError),
    Fault("error_after_store", {}, True, errors.FluxomailServerError),
    Fault("cut_before_store", {}, False, errors.FluxomailConnectionError),
    Fault("response_lost_after_store", {}, True, errors.FluxomailConnectionError),
    Fault("cut_in_body", {}, True, errors.FluxomailConnectionError),
    Fault("slow_first_byte", {"seconds": SLOW}, True, errors.FluxomailConnectionError),
    Fault("slow_body", {"seconds": SLOW}, True, errors.FluxomailConnectionError),
    Fault("malformed_json", {}, True, errors.FluxomailResponseError),
    Fault("gzip_garbage", {}, True, errors.FluxomailResponseError),
    Fault("missing_send_id", {}, True, errors.FluxomailResponseError),
]
#: What no request mends, so that there is one alone.
PERMANENT: Final = [
    _status(400, errors.FluxomailValidationError),
    _status(401, errors.FluxomailAuthError),
    _status(402, errors.FluxomailPlanRequiredError),
    _status(403, errors.FluxomailPermissionError),
    _status(403, errors.FluxomailTenantPausedError, body={"code": "tenant_paused"}),
    _status(404, errors.FluxomailNotFoundError),
    _status(413, errors.FluxomailRequestError),
    _status(422, errors.FluxomailValidationError),
    _status(422, errors.FluxomailIdempotencyConflictError, body={"code": "idempotency_conflict"}),
]
each_fault = pytest.mark.parametrize("fault", PASSING, ids=str)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one message in one try of the way it was sent.

    :param key: its idempotency key, as the result or the error says.
    :param reused: whether the key had been used before; ``None``: the way does not say.
    :param error: the class of what went wrong.
    :param final: whether no further try is to be made: the task fails without retries.
    """

    key: str | None
    send_id: str | None = None
    reused: bool | None = None
    error: type[BaseException] | None = None
    final: bool = False

    def replays(self, fault: Fault) -> bool:
        """Whether it tells of a stored message, as it must after ``fault``."""
        return fault.stored is None or self.reused in (None, fault.stored)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to send one or more messages.

    :param attempt: makes one try, given its number from 1, and says what became of each message, in their order.
    :param recipients: one for each message; each of them meets the faults.
    :param before: faults that come before those of a test: the way is in the midst of something then.
    :param after: faults that come after the first fault of a test.
    :param defers: whether it waits out a 429 by a deferral.
    :param reads: whether it reads timelines, which meet the faults too.
    """

    name: str
    attempt: Callable[[int], list[Outcome]]
    recipients: tuple[str, ...] = (MESSAGE["to"],)
    before: tuple[Fault, ...] = ()
    after: tuple[Fault, ...] = ()
    defers: bool = False
    reads: bool = False

    def __str__(self) -> str:
        return self.name

    def script(self, fault: Fault, calls: int) -> list[Fault]:
        """What the requests for one message meet, for ``fault`` to fail as many of them as one call makes."""
        return [*self.before, *([fault, *self.after] if self.after else []), *[fault] * calls]


def by_hook(number: int) -> list[Outcome]:
    hook = FluxomailHook()
    try:
        return [_of(hook.send(MESSAGE, idempotency_key="k"))]
    except errors.FluxomailError as error:
        return [_failed(error, final=error.permanent)]
    finally:
        hook.close()


def by_async_hook(number: int) -> list[Outcome]:
    try:
        return [_of(asyncio.run(FluxomailHook().asend(MESSAGE, idempotency_key="k")))]
    except errors.FluxomailError as error:
        return [_failed(error, final=error.permanent)]


def by_hand(number: int, *, asynchronous: bool = False) -> list[Outcome]:
    """In a task of one's own, whose key the hook derives."""
    hook = FluxomailHook()
    with mock.patch.object(idempotency_key, "_running_context", return_value=context(try_number=number)):
        try:
            return [_of(asyncio.run(hook.asend(MESSAGE)) if asynchronous else hook.send(MESSAGE))]
        except errors.FluxomailError as error:
            return [_failed(error, final=error.permanent)]
        finally:
            hook.close()


def by_email_backend(number: int) -> list[Outcome]:
    """In a task of one's own, by Airflow's own function. It returns nothing: what ``send_once`` returned counts."""
    sent = []

    def kept(*arguments: Any) -> Any:
        sent.append(send_once(*arguments))
        return sent[-1]

    with (
        mock.patch.object(idempotency_key, "_running_context", return_value=context(try_number=number)),
        mock.patch.object(email_backend, "send_once", kept),
    ):
        try:
            email_backend.send_email(MESSAGE["to"], MESSAGE["subject"], MESSAGE["content"])
        except errors.FluxomailError as error:
            return [_failed(error, final=error.permanent)]
    return [_of(sent[0])]


def by_decorator(number: int, store: Store | None = None) -> list[Outcome]:
    ctx = {**context(try_number=number), "task_state_store": store}
    return [outcome(Run(decorated(lambda: MESSAGE), ctx))]


def by_decorator_of_many(number: int, *, recipients: tuple[str, ...]) -> list[Outcome]:
    """The task raises one error for all: the outcome of each message is the one that the batch got."""
    outcomes: dict[str, tuple[Any, Any]] = {}
    send = Sender.send

    def kept(sender: Sender, flight: Any) -> Any:
        got = send(sender, flight)
        outcomes[flight.row.message.to] = got.sent, got.error
        return got

    operator = decorated(lambda: [{**MESSAGE, "to": recipient} for recipient in recipients])
    with mock.patch.object(Sender, "send", kept):
        run = Run(operator, context(try_number=number))
    assert (run.error is None) == (not any(error for _, error in outcomes.values()))
    if run.error is None:
        assert [one["send_id"] for one in run.result] == [outcomes[recipient][0].send_id for recipient in recipients]
    else:
        outcomes = {
            recipient: outcomes.get(recipient, (None, run.error.__cause__ or run.error)) for recipient in recipients
        }
    return [
        _of(sent) if sent else _failed(error, final=_is_final(run))
        for sent, error in (outcomes[recipient] for recipient in recipients)
    ]


def decorated(function: Callable[[], Any]) -> FluxomailSendDecoratedOperator:
    return FluxomailSendDecoratedOperator(task_id="task", python_callable=function, deferrable=False)


class Store(dict[str, Any]):
    """A task state store: it outlives the tries of a task."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


def by_operator(number: int, **fields: Any) -> list[Outcome]:
    operator = FluxomailSendOperator(task_id="task", **{"deferrable": False, **MESSAGE, **fields})
    return [outcome(Run(operator, context(try_number=number)))]


def by_deferring_operator(number: int, store: Store | None = None) -> list[Outcome]:
    return [outcome(deferring(FluxomailSendOperator(task_id="task", deferrable=True, **MESSAGE), number, store))]


def deferring(operator: Any, number: int, store: Store | None = None) -> Run:
    """Meets 429s that last longer than a worker waits; the deferral's clock runs ahead, so that nothing waits."""
    clock = itertools.count(time.time() + 2 * LONG, LONG)
    with mock.patch.object(triggers.rate_limit, "now", side_effect=clock):
        run = Run(operator, {**context(try_number=number), "task_state_store": store})
    assert all(isinstance(deferral.trigger, triggers.FluxomailRetryAfterTrigger) for deferral in run.deferrals)
    return run


def by_batch(
    number: int, *, recipients: tuple[str, ...], deferrable: bool = False, store: Store | None = None
) -> list[Outcome]:
    """Says what became of each message by the report; of those it does not name, by the task's error."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        messages = [{**MESSAGE, "to": recipient} for recipient in recipients]
        operator = FluxomailSendBatchOperator(
            task_id="task", messages=messages, report_path=str(report), deferrable=deferrable
        )
        run = deferring(operator, number, store)
        lines = [json.loads(line) for line in report.read_text("utf-8").splitlines()]
    told = {line["row"]: _line(line, run) for line in lines}
    assert len(told) == len(lines), "one line for each message"
    assert (run.error is None) == (len(told) == len(recipients) and not any(one.error for one in told.values()))
    unnamed = None if run.error is None else outcome(run)
    return [told.get(f"messages[{position}]") or unnamed or Outcome(None) for position in range(len(recipients))]


def _line(line: dict[str, Any], run: Run) -> Outcome:
    error = getattr(errors, line["error"]) if line["error"] else None
    reused = line["outcome"] == "replayed" or None
    return Outcome(line["idempotency_key"], line["send_id"], reused, error, final=bool(error) and _is_final(run))


def by_operator_that_waits(number: int) -> list[Outcome]:
    return by_operator(number, wait_for="delivered", poll_interval=0.1, wait_timeout=60, deferrable=True)


def outcome(run: Run) -> Outcome:
    """What a task made of its only message."""
    if run.error is not None:
        # What the task raised, or what made it fail without retries.
        return _failed(run.error.__cause__ if _is_final(run) else run.error, final=_is_final(run))
    return Outcome(run.result["idempotency_key"], run.result["send_id"], run.result["reused"])


def _of(sent: Any) -> Outcome:
    return Outcome(sent.idempotency_key, sent.send_id, sent.reused)


def _failed(error: BaseException | None, *, final: bool) -> Outcome:
    assert error is not None
    return Outcome(getattr(error, "idempotency_key", None), error=type(error), final=final)


def _is_final(run: Run) -> bool:
    return isinstance(run.error, AirflowFailException)


TWO: Final = ("ops@example.org", "dev@example.org")
WAYS: Final = [
    Way("hook", by_hook),
    Way("hook-async", by_async_hook),
    Way("email-backend", by_email_backend),
    Way("operator", by_operator),
    Way("decorator", by_decorator),
    Way("decorator-of-many", partial(by_decorator_of_many, recipients=TWO), TWO),
    Way("operator-deferred-then-fault", by_deferring_operator, before=(LONG_429,), defers=True),
    Way("operator-fault-then-deferred", by_deferring_operator, after=(LONG_429,), defers=True),
    Way("batch", partial(by_batch, recipients=TWO), TWO),
    Way("batch-deferred-then-fault", partial(by_batch, recipients=TWO, deferrable=True), TWO, (LONG_429,), defers=True),
    Way("operator-wait-for", by_operator_that_waits, defers=True, reads=True),
]
each_way = pytest.mark.parametrize("way", WAYS, ids=str)


@pytest.fixture
def quick(fluxomail_sandbox: FluxomailSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait little where the server names no time."""
    fluxomail_sandbox.connect(timeout=TIMEOUT, max_attempts=ATTEMPTS)
    monkeypatch.setattr(retries, "BACKOFF", retries.Backoff(first=0.01, longest=1.0))
    monkeypatch.setattr(retries, "CONFLICT_BACKOFF", retries.Backoff(first=0.02, longest=0.02))
    quick_waits(monkeypatch, rate_limit_spread=0.01, rate_limit_wait=0.01, least_interval=0.02)


def connect(sandbox: FluxomailSandbox, fault: Fault, **extras: Any) -> None:
    """Give the connection a time-out that the fault, and it alone, outlasts."""
    sandbox.connect(**{"timeout": SHORT_TIMEOUT if fault.slow else TIMEOUT, "max_attempts": ATTEMPTS, **extras})


def queue(sandbox: FluxomailSandbox, script: Sequence[Fault], recipient: str, path: str | None = None) -> None:
    """Let each of the next requests for a recipient meet the next of the faults."""
    delays = 0
    for fault in script:
        # A delay comes together with another fault, which so must let the delayed request pass.
        delayed = fault.kind == "delay"
        sandbox.fail_next(fault.kind, times=1, skip=0 if delayed else delays, to=recipient, path=path, **fault.options)
        delays += delayed


def settle(sandbox: FluxomailSandbox) -> None:
    """Wait until the sandbox is done with the requests that it held back: these store after the client gave up."""
    deadline = time.monotonic() + 30
    while any(request.status is None for request in sandbox.requests(fault="delay")):
        assert time.monotonic() < deadline, "a request that was held back was never handled"
        time.sleep(0.02)


def check_sent(sandbox: FluxomailSandbox, way: Way, outcomes: list[Outcome], requests: int) -> None:
    """Each message is stored once, under the key and id that its sender knows, with so many requests."""
    settle(sandbox)
    assert [one.error for one in outcomes] == [None] * len(way.recipients)
    sandbox.assert_sent(len(way.recipients))
    for recipient, one in zip(way.recipients, outcomes, strict=True):
        mail = sandbox.message(recipient)
        assert (one.send_id, one.key) == (mail.send_id, mail.idempotency_key)
        assert len(sandbox.requests("POST", idempotency_key=one.key)) == requests
    assert len(sandbox.requests("POST")) == requests * len(way.recipients), "each request had one of these keys"
