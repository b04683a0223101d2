"""The client against the sandbox, over real HTTP, with both transports."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest

from airflow_provider_fluxomail.client import errors, flows, wire
from airflow_provider_fluxomail.client.flows import Flow
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.wire.conftest import Transport

TIMELINE = "/api/v1/sends"
MESSAGE = EmailMessage(to="ops@example.org", subject="Hi", content="Text")


@pytest.fixture
def settings(sandbox: Sandbox) -> ClientSettings:
    return with_key(sandbox)


def with_key(sandbox: Sandbox, key: str = "fm_sandbox", **fields: Any) -> ClientSettings:
    return ClientSettings(api_key=key, base_url=sandbox.url, **{"timeout": 2, **fields})


def test_send_and_timeline(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sent = call(settings, "send", MESSAGE, idempotency_key="k1")
    assert (sent.status, sent.reused, sent.idempotency_key) == ("sent", False, "k1")
    (stored,) = sandbox.messages()
    assert (stored.send_id, stored.message_id) == (sent.send_id, sent.message_id)
    assert stored.idempotency_key == "k1"
    timeline = call(settings, "get_timeline", sent.send_id)
    assert [event.type for event in timeline.events] == ["sent", "delivered"]
    assert (timeline.recipient, timeline.subject, timeline.idempotency_key) == ("ops@example.org", "Hi", "k1")
    assert timeline.events[0].provider_message_id == sent.message_id


def test_every_field_arrives(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    data = bytes(range(256)) * 1000
    message = EmailMessage(
        to="Ops \u00dc <ops@example.org>",
        subject="\U0001f4e7 Gr\u00fc\u00dfe",
        html_content="<p>Hello <b>\u4f60\u597d</b></p>",
        cc=["a@example.org"],
        bcc=["b@example.org"],
        attachments=[Attachment("data.bin", data)],
        policy_key="bulk",
        extra_fields={"replyTo": "r@example.org"},
    )
    call(settings, "send", message, idempotency_key="k1")
    (stored,) = sandbox.messages()
    assert stored.to == "Ops \u00dc <ops@example.org>"
    assert stored.subject == "\U0001f4e7 Gr\u00fc\u00dfe"
    assert stored.content == "Hello \u4f60\u597d"
    assert stored.html_content == "<p>Hello <b>\u4f60\u597d</b></p>"
    assert (stored.cc, stored.bcc, stored.policy_key) == (["a@example.org"], ["b@example.org"], "bulk")
    assert stored.extra_fields == {"replyTo": "r@example.org"}
    (attachment,) = stored.attachments
    assert (attachment.filename, attachment.size) == ("data.bin", len(data))
    assert attachment.content == data


def test_a_replay_says_so(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    first, second = (call(settings, "send", MESSAGE, idempotency_key="k1") for _ in range(2))
    assert (first.send_id, first.reused, second.reused) == (second.send_id, False, True)
    assert len(sandbox.messages()) == 1


FAULTS: dict[str, dict[str, Any]] = {
    "500 before the store": {"kind": "error_before_store"},
    "500 after the store": {"kind": "error_after_store"},
    "response lost after the store": {"kind": "response_lost_after_store"},
    "429": {"kind": "status", "status": 429, "retry_after": 1},
    "429 without Retry-After": {"kind": "status", "status": 429},
    "503": {"kind": "status", "status": 503, "retry_after": "2"},
    "408": {"kind": "status", "status": 408},
    "409": {"kind": "status", "status": 409},
    "200 of a proxy": {"kind": "status", "status": 200, "body": "<html>hello</html>"},
    "200 without a sendId": {"kind": "status", "status": 200, "body": {"status": "sent"}},
    "answer too late": {"kind": "delay", "seconds": 1.5},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_promise_1_a_fault_ends_with_one_mail(call: Transport, sandbox: Sandbox, fault: str) -> None:
    sandbox.fail_next(**FAULTS[fault])
    settings = with_key(sandbox, timeout=1)
    sent = call(settings, "send", MESSAGE, idempotency_key="k1")
    (stored,) = sandbox.messages()
    assert stored.send_id == sent.send_id
    posts = sandbox.requests("POST")
    assert len(posts) == 2
    assert {post.idempotency_key for post in posts} == {"k1"}
    asked = float(FAULTS[fault].get("retry_after", 0))
    assert asked <= call.naps[0] <= max(1.0, asked * 1.1 + 0.1)


@pytest.mark.parametrize("fault", ["500 before the store", "500 after the store", "response lost after the store"])
def test_promise_1_the_last_attempt_counts_too(call: Transport, sandbox: Sandbox, fault: str) -> None:
    sandbox.fail_next(**FAULTS[fault], times=3)
    call(with_key(sandbox), "send", MESSAGE, idempotency_key="k1")
    assert len(sandbox.requests("POST")) == 4
    assert len(sandbox.messages()) == 1


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
    call: Transport, sandbox: Sandbox, settings: ClientSettings, fault: str, error: type[Exception], stored: int
) -> None:
    sandbox.fail_next(**FAULTS[fault], times=9)
    with pytest.raises(error):
        call(settings, "send", MESSAGE)
    assert len(sandbox.requests("POST")) == 1
    assert len(sandbox.messages()) == stored


def test_a_429_is_repeated_even_without_a_key(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sandbox.fail_next(**FAULTS["429"])
    assert not call(settings, "send", MESSAGE).reused
    assert len(sandbox.messages()) == 1


def test_attempts_end(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sandbox.fail_next("error_before_store", times=9)
    with pytest.raises(errors.FluxomailServerError, match="idempotency key k1") as caught:
        call(settings, "send", MESSAGE, idempotency_key="k1")
    assert caught.value.request_id
    assert len(sandbox.requests("POST")) == 4


def test_promise_4_a_wait_that_is_too_long_is_left_to_the_caller(
    call: Transport, sandbox: Sandbox, settings: ClientSettings
) -> None:
    sandbox.fail_next(429, retry_after=61)
    with pytest.raises(errors.FluxomailRateLimitError) as caught:
        call(settings, "send", MESSAGE, idempotency_key="k1")
    assert caught.value.retry_after == 61
    assert call.naps == []


def test_promise_4_the_sandboxes_own_cap_is_waited_out(call: Transport, sandbox: Sandbox) -> None:
    sandbox.key("capped", rate_limit_per_minute=1)
    settings = with_key(sandbox, "capped", max_attempts=1)
    call(settings, "send", MESSAGE, idempotency_key="k1")
    with pytest.raises(errors.FluxomailRateLimitError) as caught:
        call(settings, "send", MESSAGE, idempotency_key="k2")
    assert caught.value.retry_after is not None
    assert 0 < caught.value.retry_after <= 60
    sandbox.advance(caught.value.retry_after)
    call(settings, "send", MESSAGE, idempotency_key="k2")
    assert len(sandbox.messages()) == 2


@pytest.mark.parametrize("header", ["Retry-After", "X-RateLimit-Reset"])
def test_promise_4_waits_by_date_and_by_reset(call: Transport, sandbox: Sandbox, header: str) -> None:
    """A sandbox whose clock is a day ahead: only the answer's own Date tells how long the wait is."""
    sandbox.advance(86_400)
    now = sandbox.now()
    value = formatdate(now + 30, usegmt=True) if header == "Retry-After" else str(int(now + 30))
    sandbox.fail_next(429, headers={header: value})
    call(with_key(sandbox), "send", MESSAGE, idempotency_key="k1")
    assert 28 <= call.naps[0] <= 34


def test_permanent_errors_are_typed_and_not_repeated(call: Transport, sandbox: Sandbox) -> None:
    sandbox.key("reader", scopes=["read_sends"])
    sandbox.key("sender", scopes=["send_email"])
    cases: list[tuple[str, str, tuple[Any, ...], type[errors.FluxomailError], str]] = [
        ("wrong", "send", (MESSAGE,), errors.FluxomailAuthError, "Invalid API key"),
        ("reader", "send", (MESSAGE,), errors.FluxomailPermissionError, "send_email"),
        ("sender", "get_timeline", ("s1",), errors.FluxomailPermissionError, "read_sends"),
        ("fm_sandbox", "get_timeline", ("s1",), errors.FluxomailNotFoundError, "not"),
    ]
    for key, method, args, error, told in cases:
        with pytest.raises(error, match=told) as caught:
            call(with_key(sandbox, key), method, *args)
        assert type(caught.value) is error
        assert caught.value.permanent
        assert key == "fm_sandbox" or key not in str(caught.value).replace("send_email", "")
    assert len(sandbox.requests()) == len(cases)
    sandbox.pause()
    with pytest.raises(errors.FluxomailTenantPausedError):
        call(with_key(sandbox), "send", MESSAGE, idempotency_key="k1")


def test_a_conflict_that_lasts_fails(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sandbox.settings(idempotency_conflict="conflict")
    call(settings, "send", MESSAGE, idempotency_key="k1")
    other = EmailMessage(to="b@example.org", subject="Hi", content="Text")
    with pytest.raises(errors.FluxomailIdempotencyConflictError, match="already used"):
        call(settings, "send", other, idempotency_key="k1")
    assert all(0.2 <= nap <= 1.0 for nap in call.naps)
    assert len(call.naps) == 3


@pytest.mark.parametrize("form", ["docs", "spec"])
def test_timelines_in_every_form(call: Transport, sandbox: Sandbox, settings: ClientSettings, form: str) -> None:
    sandbox.settings(timeline_form=form)
    sent = call(settings, "send", EmailMessage(to="bounced@example.org", subject="Hi", content="x"))
    timeline = call(settings, "get_timeline", sent.send_id)
    assert [event.type for event in timeline.events] == ["sent", "bounced"]
    assert timeline.events[1].reason is not None
    assert "550" in timeline.events[1].reason


def test_a_read_is_repeated_too(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sent = call(settings, "send", MESSAGE)
    sandbox.fail_next(502, times=3, path=TIMELINE, body="<html><title>Bad Gateway</title></html>")
    assert call(settings, "get_timeline", sent.send_id).events
    sandbox.fail_next(502, path=TIMELINE)
    with pytest.raises(errors.FluxomailServerError):
        call(settings, "get_timeline", sent.send_id, max_attempts=1)


def test_the_user_agent_and_version_are_sent(call: Transport, sandbox: Sandbox) -> None:
    call(with_key(sandbox, user_agent="test/1", api_version="2030-01-01"), "send", MESSAGE)
    (request,) = sandbox.requests()
    assert request.headers["user-agent"] == "test/1"
    assert request.headers["fluxomail-version"] == "2030-01-01"
    assert request.headers["accept-encoding"] == "identity"
    assert request.path == "/api/v1/emails/send"


def test_a_flow_catches_the_error_of_one_request_and_makes_another(
    call: Transport, sandbox: Sandbox, settings: ClientSettings
) -> None:
    sent = call(settings, "send", MESSAGE, idempotency_key="k1")

    def flow() -> Flow[tuple[int | None, Timeline]]:
        try:
            yield from flows.timeline("sends_unknown")
        except errors.FluxomailNotFoundError as error:
            return error.status, (yield from flows.timeline(sent.send_id))
        raise AssertionError("there is no such send")

    status, timeline = call(settings, "run", flow())
    assert (status, [event.type for event in timeline.events]) == (404, ["sent", "delivered"])


def test_an_error_that_a_flow_does_not_catch_comes_out_without_a_context(
    call: Transport, settings: ClientSettings
) -> None:
    with pytest.raises(errors.FluxomailNotFoundError) as caught:
        call(settings, "run", flows.timeline("sends_unknown"))
    assert (caught.value.__context__, caught.value.__cause__) == (None, None)


def test_a_flow_that_any_other_error_interrupts_is_closed_at_once(call: Transport, settings: ClientSettings) -> None:
    closed: list[bool] = []

    def read(*_: object) -> None:
        raise KeyError("not Fluxomail's")

    def flow() -> Flow[None]:
        try:
            yield from flows.call(wire.timeline_request("sends_unknown"), read)
        finally:
            closed.append(True)

    kept = flow()
    with pytest.raises(KeyError):
        call(settings, "run", kept)
    assert closed == [True]
