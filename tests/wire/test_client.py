"""The client against the sandbox, over real HTTP, with both transports."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.client import errors, flows, wire
from airflow_provider_fluxomail.client.flows import Flow
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.client_calls import FAULTS, MESSAGE, settings, with_key
from tests.wire.conftest import Transport

__all__ = ["settings"]

TIMELINE = "/api/v1/sends"


@pytest.mark.parametrize("form", ["docs", "spec"])
def test_send_and_timeline(call: Transport, sandbox: Sandbox, form: str) -> None:
    sandbox.settings(timeline_form=form)
    settings = with_key(sandbox, user_agent="test/1", api_version="2030-01-01")
    sent, again = (call(settings, "send", MESSAGE, idempotency_key="k1") for _ in range(2))
    assert (sent.status, sent.reused, sent.idempotency_key) == ("sent", False, "k1")
    assert (again.send_id, again.reused) == (sent.send_id, True)
    stored = sandbox.message()
    assert (stored.send_id, stored.message_id, stored.idempotency_key) == (sent.send_id, sent.message_id, "k1")
    timeline = call(settings, "get_timeline", sent.send_id)
    assert [event.type for event in timeline.events] == ["sent", "delivered"]
    assert (timeline.recipient, timeline.subject, timeline.idempotency_key) == ("ops@example.org", "Hi", "k1")
    if form == "docs":
        assert timeline.events[0].provider_message_id == sent.message_id
    request = sandbox.requests()[0]
    names = ("user-agent", "fluxomail-version", "accept-encoding")
    assert [request.headers[name] for name in names] == ["test/1", "2030-01-01", "identity"]
    assert request.path == "/api/v1/emails/send"


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


def test_an_error_says_that_an_earlier_attempt_may_have_been_accepted(
    call: Transport, sandbox: Sandbox, settings: ClientSettings
) -> None:
    sandbox.fail_next("error_after_store")
    sandbox.fail_next(401)
    with pytest.raises(errors.FluxomailAuthError) as caught:
        call(settings, "send", MESSAGE, idempotency_key="k1")
    assert caught.value.ambiguous
    assert len(sandbox.messages()) == 1


def test_a_429_is_retried_even_without_a_key(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sandbox.fail_next(**FAULTS["429"])
    assert not call(settings, "send", MESSAGE).reused
    assert len(sandbox.messages()) == 1


def test_a_read_is_retried_too(call: Transport, sandbox: Sandbox, settings: ClientSettings) -> None:
    sent = call(settings, "send", MESSAGE)
    sandbox.fail_next(502, times=3, path=TIMELINE, body="<html><title>Bad Gateway</title></html>")
    assert call(settings, "get_timeline", sent.send_id).events
    sandbox.fail_next(502, path=TIMELINE)
    with pytest.raises(errors.FluxomailServerError):
        call(settings, "get_timeline", sent.send_id, max_attempts=1)


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
