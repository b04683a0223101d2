"""Every fault that a request can meet, and every way to send a message. A new way is one entry in :data:`WAYS`."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import pytest

from airflow_provider_fluxomail import email_backend
from airflow_provider_fluxomail.airflow_compat import AirflowFailException
from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from airflow_provider_fluxomail.sending import idempotency_key
from airflow_provider_fluxomail.sending.batch.sender import Sender
from airflow_provider_fluxomail.sending.send_once import send_once
from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger, rate_limit
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.timing import quick_retries, quick_waits

MESSAGE: Final[dict[str, Any]] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}
#: Requests of one call, at most.
ATTEMPTS: Final = 2
#: The connection's timeout for slow faults, how slow these are, and the timeout for all others, in seconds.
SHORT_TIMEOUT, SLOW, TIMEOUT = 2.0, 4.0, 10.0
#: ``Retry-After`` of a 429 that exceeds the connection's ``max_wait``, in seconds.
LONG: Final = 100
TIMELINE: Final = "/api/v1/sends"


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault of the sandbox, and its effect.

    :param stored: whether the message is stored; ``None``: later, perhaps after the client has given up.
    :param error: the class of the error that it causes.
    """

    kind: str
    options: dict[str, Any]
    stored: bool | None
    error: type[errors.FluxomailError]

    def __str__(self) -> str:
        return "-".join([self.kind, *(f"{name}={value}" for name, value in self.options.items())])

    @property
    def slow(self) -> bool:
        """Whether it exceeds the timeout."""
        return "seconds" in self.options

    @property
    def is_429(self) -> bool:
        """Whether it makes a deferrable operator defer."""
        return self.error is errors.FluxomailRateLimitError

    @property
    def ends_all(self) -> bool:
        """Whether it concerns all messages: the API key or the host. A batch ends with it."""
        about_one = (
            *(errors.FluxomailValidationError, errors.FluxomailIdempotencyConflictError, errors.FluxomailServerError),
            *(errors.FluxomailConnectionError, errors.FluxomailResponseError),
        )
        return not issubclass(self.error, about_one)


def _status(status: int, error: type[errors.FluxomailError], stored: bool = False, **options: Any) -> Fault:
    return Fault("status", {"status": status, **options}, stored, error)


LONG_429: Final = _status(429, errors.FluxomailRateLimitError, retry_after=LONG)

#: Transient: another request may succeed.
PASSING: Final = [
    Fault("delay", {"seconds": SLOW}, None, errors.FluxomailConnectionError),
    _status(408, errors.FluxomailServerError),
    _status(429, errors.FluxomailRateLimitError),
    _status(429, errors.FluxomailRateLimitError, retry_after=0.01),
    _status(429, errors.FluxomailRateLimitError, retry_after="soon"),
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
#: Permanent: there is one request.
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


def _named(faults: Sequence[Fault], *names: str) -> list[Fault]:
    chosen = [fault for fault in faults if str(fault) in names]
    assert len(chosen) == len(names), names
    return chosen


#: One of each kind that a way may treat differently; the transports meet all of them.
PASSING_FEW: Final = _named(
    PASSING, "status-status=429-retry_after=0.01", "error_before_store", "response_lost_after_store", "malformed_json"
)
PERMANENT_FEW: Final = [fault for fault in PERMANENT if fault.options["status"] in (401, 402, 422)]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one try made of one message.

    :param key: its idempotency key, as the result or the error says.
    :param reused: whether the key had been used before; ``None``: the way does not say.
    :param error: the class of what went wrong.
    :param final: whether the task fails without retries.
    """

    key: str | None
    send_id: str | None = None
    reused: bool | None = None
    error: type[BaseException] | None = None
    final: bool = False

    def replays(self, fault: Fault) -> bool:
        """Whether it reports a stored message, as it must after ``fault``."""
        return fault.stored is None or self.reused in (None, fault.stored)


@dataclasses.dataclass(frozen=True)
class Sent:
    """What one try returned or raised, and what that means to each message.

    :param report: the report of a batch.
    """

    run: Run
    outcomes: list[Outcome]
    report: str = ""


Message = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Try:
    """One try of a task, or one call: what it sends.

    :param number: of the try, from 1.
    :param store: the task's state store, as Airflow has it from 3.3 on.
    """

    messages: Sequence[Message]
    number: int = 1
    store: Store | None = None

    @property
    def context(self) -> Any:
        """The context of the task."""
        return {**context(try_number=self.number), "task_state_store": self.store}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to send one or more messages.

    :param send: makes one try.
    :param recipients: one for each message; each of them meets the faults.
    :param before: faults that come before those of a test, so that the way is in the middle of something.
    :param after: faults that come after the first fault of a test.
    :param defers: whether it waits out a 429 by a deferral.
    :param reads: whether it reads timelines, which meet the faults too.
    :param alert: it raises nothing and returns nothing, so no outcome is known.
    :param store: of the task, for all its tries.
    """

    name: str
    send: Callable[[Try], Sent]
    recipients: tuple[str, ...] = (MESSAGE["to"],)
    before: tuple[Fault, ...] = ()
    after: tuple[Fault, ...] = ()
    defers: bool = False
    reads: bool = False
    alert: bool = False
    store: Store | None = None

    def __str__(self) -> str:
        return self.name

    def attempt(self, number: int) -> list[Outcome]:
        """Make one try, and say what it made of each message."""
        messages = [{**MESSAGE, "to": recipient} for recipient in self.recipients]
        return self.send(Try(messages, number, self.store)).outcomes

    def script(self, fault: Fault, calls: int) -> list[Fault]:
        """What the requests for one message meet, for ``fault`` to fail as many of them as one call makes."""
        return [*self.before, *([fault, *self.after] if self.after else []), *[fault] * calls]


def by_hook(sending: Try) -> Sent:
    hook = FluxomailHook()
    try:
        return _called(lambda: hook.send(sending.messages[0], idempotency_key="k"))
    finally:
        hook.close()


def by_async_hook(sending: Try) -> Sent:
    return _called(lambda: asyncio.run(FluxomailHook().asend(sending.messages[0], idempotency_key="k")))


def by_hand(sending: Try, *, asynchronous: bool = False) -> Sent:
    """In a task of one's own, whose key the hook derives."""
    hook, message = FluxomailHook(), sending.messages[0]
    with mock.patch.object(idempotency_key, "_running_context", return_value=sending.context):
        try:
            return _called(lambda: asyncio.run(hook.asend(message)) if asynchronous else hook.send(message))
        finally:
            hook.close()


def by_email_backend(sending: Try) -> Sent:
    """In a task of one's own, by Airflow's own function. It returns nothing: what ``send_once`` returned counts."""
    (message,) = sending.messages
    body = message.get("html_content", "") + message["content"]
    copies = {name: message[name] for name in ("cc", "bcc") if name in message}
    reply_to = message.get("extra_fields", {}).get("replyTo")
    headers = {"Reply-To": reply_to} if reply_to else None
    results: list[Any] = []

    def recorded(*args: Any, **how: Any) -> Any:
        results.append(send_once(*args, **how))
        return results[-1]

    def send() -> Any:
        email_backend.send_email(
            message["to"], message["subject"], body, message.get("attachments"), custom_headers=headers, **copies
        )
        return results[-1]

    with (
        mock.patch.object(idempotency_key, "_running_context", return_value=sending.context),
        mock.patch.object(email_backend, "send_once", recorded),
    ):
        return _called(send)


def by_notifier(sending: Try, *, asynchronous: bool = False, **fields: Any) -> Sent:
    """Send an alert. It raises nothing, so the log shows whether it was sent."""
    (message,) = sending.messages
    # An alert has neither copies nor attachments.
    notifier = FluxomailNotifier(
        **{name: value for name, value in message.items() if name not in ("cc", "bcc", "attachments")}, **fields
    )
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("airflow.task")

    def notify(ctx: Any) -> None:
        logger.addHandler(handler)
        try:
            asyncio.run(notifier.async_notify(ctx)) if asynchronous else notifier(ctx)
        finally:
            logger.removeHandler(handler)
        if not any("accepted the alert" in line for line in lines):
            raise RuntimeError("not sent")

    return Sent(Run(SimpleNamespace(execute=notify), sending.context), [])


def by_decorator(sending: Try) -> Sent:
    return _task(decorated(lambda: dict(sending.messages[0])), sending)


def by_decorator_of_many(sending: Try) -> Sent:
    """The task raises one error for all: the outcome of each message is the one that the batch got."""
    results: dict[str, Any] = {}
    send = Sender.send

    def recorded(sender: Sender, flight: Any) -> Any:
        result = send(sender, flight)
        results[flight.row.message.to] = result
        return result

    with mock.patch.object(Sender, "send", recorded):
        run = Run(decorated(lambda: [dict(message) for message in sending.messages]), sending.context)
    recipients = [message["to"] for message in sending.messages]
    assert (run.error is None) == (not any(result.error for result in results.values()))
    if run.error is None:
        assert [one["send_id"] for one in run.result] == [results[recipient].sent.send_id for recipient in recipients]
    return Sent(run, [_of_row(results.get(recipient), run) for recipient in recipients])


def _of_row(result: Any, run: Run) -> Outcome:
    """The outcome of one message of a batch; if the batch never sent it, the task's error is its error."""
    if result is None:
        assert run.error is not None
        return _failed(run.error.__cause__ or run.error, final=_is_final(run))
    return _of(result.sent) if result.sent is not None else _failed(result.error, final=_is_final(run))


def decorated(function: Callable[[], Any]) -> FluxomailSendDecoratedOperator:
    return FluxomailSendDecoratedOperator(task_id="task", python_callable=function, deferrable=False)


def by_operator(sending: Try, **fields: Any) -> Sent:
    how = {"deferrable": False, **sending.messages[0], **fields}
    return _task(FluxomailSendOperator(task_id="task", **how), sending)


def by_deferring_operator(sending: Try) -> Sent:
    operator = FluxomailSendOperator(task_id="task", deferrable=True, **sending.messages[0])
    run = deferring(operator, sending.number, sending.store)
    return Sent(run, [outcome(run)])


def by_operator_that_waits(sending: Try) -> Sent:
    return by_operator(sending, wait_for="delivered", poll_interval=0.1, wait_timeout=60, deferrable=True)


def deferring(operator: Any, number: int, store: Store | None = None) -> Run:
    """Meets 429s that last longer than a worker waits; the deferral's clock runs ahead, so that nothing waits."""
    clock = itertools.count(time.time() + 2 * LONG, LONG)
    with mock.patch.object(rate_limit, "now", side_effect=clock):
        run = Run(operator, {**context(try_number=number), "task_state_store": store})
    assert all(isinstance(deferral.trigger, FluxomailRetryAfterTrigger) for deferral in run.deferrals)
    return run


def by_batch(sending: Try, *, deferrable: bool = False) -> Sent:
    """The report has the outcome of each message; for those that it does not name, the task's error has."""
    run, report = run_batch(
        [dict(message) for message in sending.messages], sending.number, sending.store, deferrable=deferrable
    )
    lines = [json.loads(line) for line in report.splitlines()]
    by_row = {line["row"]: _line(line, run) for line in lines}
    assert len(by_row) == len(lines), "one line for each message"
    every = len(sending.messages)
    assert (run.error is None) == (len(by_row) == every and not any(one.error for one in by_row.values()))
    unnamed = None if run.error is None else outcome(run)
    outcomes = [by_row.get(f"messages[{position}]") or unnamed or Outcome(None) for position in range(every)]
    return Sent(run, outcomes, report)


def run_batch(messages: Any, number: int = 1, store: Store | None = None, **fields: Any) -> tuple[Run, str]:
    """Run a batch, and return its report too."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.jsonl"
        how = {"messages": messages, "report_path": str(report), "deferrable": False, **fields}
        run = deferring(FluxomailSendBatchOperator(task_id="task", **how), number, store)
        return run, report.read_text("utf-8") if report.exists() else ""


def _line(line: dict[str, Any], run: Run) -> Outcome:
    error = getattr(errors, line["error"]) if line["error"] else None
    reused = line["outcome"] == "replayed" or None
    return Outcome(line["idempotency_key"], line["send_id"], reused, error, final=bool(error) and _is_final(run))


def outcome(run: Run) -> Outcome:
    """What a task made of its only message."""
    if run.error is not None:
        # What the task raised, or what made it fail without retries.
        cause = run.error.__cause__ if _is_final(run) else None
        return _failed(cause or run.error, final=_is_final(run))
    return Outcome(run.result["idempotency_key"], run.result["send_id"], run.result["reused"])


def _task(operator: Any, sending: Try) -> Sent:
    run = Run(operator, sending.context)
    return Sent(run, [outcome(run)])


def _called(send: Callable[[], Any]) -> Sent:
    """Of a call that is no task: Airflow fails the task around it, and retries it unless the error is permanent."""
    run = Run(SimpleNamespace(execute=lambda _: send()))
    return Sent(
        run, [_of(run.result) if run.error is None else _failed(run.error, getattr(run.error, "permanent", False))]
    )


def _of(result: Any) -> Outcome:
    return Outcome(result.idempotency_key, result.send_id, result.reused)


def _failed(error: BaseException, final: bool) -> Outcome:
    return Outcome(getattr(error, "idempotency_key", None), error=type(error), final=final)


def _is_final(run: Run) -> bool:
    return isinstance(run.error, AirflowFailException)


TWO: Final = ("ops@example.org", "dev@example.org")
#: What moves the bytes: these meet every fault.
TRANSPORTS: Final = [Way("hook", by_hook), Way("hook-async", by_async_hook)]
#: What decides what an error means to a message and to a task: these meet a few of each kind.
FACES: Final = [
    Way("by-hand", by_hand),
    Way("by-hand-async", partial(by_hand, asynchronous=True)),
    Way("email-backend", by_email_backend),
    Way("operator", by_operator),
    Way("operator-deferred-then-fault", by_deferring_operator, before=(LONG_429,), defers=True),
    Way("operator-fault-then-deferred", by_deferring_operator, after=(LONG_429,), defers=True),
    Way("operator-wait-for", by_operator_that_waits, defers=True, reads=True),
    Way("decorator", by_decorator),
    Way("decorator-of-many", by_decorator_of_many, TWO),
    Way("batch", by_batch, TWO),
    Way("batch-deferred-then-fault", partial(by_batch, deferrable=True), TWO, (LONG_429,), defers=True),
]
ALERTS: Final = [
    Way("notifier", by_notifier, alert=True),
    Way("notifier-async", partial(by_notifier, asynchronous=True), alert=True),
]
WAYS: Final = [*TRANSPORTS, *FACES, *ALERTS]
each_way = pytest.mark.parametrize("way", [*TRANSPORTS, *FACES], ids=str)


def each_way_and_fault(faults: Sequence[Fault], few: Sequence[Fault]) -> pytest.MarkDecorator:
    """Every fault for both transports, and a few for each of the other ways."""
    pairs = [
        *((way, fault) for way in TRANSPORTS for fault in faults),
        *((way, fault) for way in FACES for fault in few),
    ]
    # A deferred wait runs in real time.
    pairs = [(way, fault) for way, fault in pairs if not (way.reads and fault == LONG_429)]
    return pytest.mark.parametrize(("way", "fault"), [pytest.param(*pair, id=f"{pair[0]}-{pair[1]}") for pair in pairs])


@pytest.fixture
def quick(fluxomail_sandbox: FluxomailSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every wait for which the server names no time."""
    fluxomail_sandbox.connect(timeout=TIMEOUT, max_attempts=ATTEMPTS)
    quick_retries(monkeypatch)
    quick_waits(monkeypatch, rate_limit_spread=0.01, rate_limit_wait=0.01, least_interval=0.02)


def connect(sandbox: FluxomailSandbox, fault: Fault, **extras: Any) -> None:
    """Give the connection a timeout that only a slow fault exceeds."""
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
    """Wait until the sandbox has handled the requests that it delayed: these are stored after the client gave up."""
    deadline = time.monotonic() + 30
    while any(request.status is None for request in sandbox.requests(fault="delay")):
        assert time.monotonic() < deadline, "a delayed request was never handled"
        time.sleep(0.02)


def check_sent(sandbox: FluxomailSandbox, way: Way, outcomes: list[Outcome], requests: int) -> None:
    """Each message is stored once, under the key and id that its sender knows, with this many requests."""
    settle(sandbox)
    assert [one.error for one in outcomes] == [None] * len(way.recipients)
    sandbox.assert_sent(len(way.recipients))
    for recipient, one in zip(way.recipients, outcomes, strict=True):
        mail = sandbox.message(recipient)
        assert (one.send_id, one.key) == (mail.send_id, mail.idempotency_key)
        assert len(sandbox.requests("POST", idempotency_key=one.key)) == requests
    assert len(sandbox.requests("POST")) == requests * len(way.recipients), "each request had one of these keys"
