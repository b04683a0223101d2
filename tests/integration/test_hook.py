"""The hook: connection, sync and async twins, guards, and the test button."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.integration.conftest import Handler, RawServer
from tests.integration.test_bad_servers import answers, head

FIELDS: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``call(hook, "send", ...)`` by either twin."""

    def made(hook: FluxomailHook, method: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "async":
            return asyncio.run(getattr(hook, f"a{method}")(*args, **kwargs))
        answer = getattr(hook, method)(*args, **kwargs)
        hook.close()
        return answer

    return made


def test_twins_take_the_same_arguments() -> None:
    for name in ("send", "get_timeline"):
        sync, twin = (inspect.signature(getattr(FluxomailHook, prefix + name)) for prefix in ("", "a"))
        assert sync == twin


@pytest.mark.parametrize("message", [FIELDS, EmailMessage(**FIELDS)])
def test_send_and_timeline(sandbox: Sandbox, call: Callable[..., Any], message: Any) -> None:
    sent = call(FluxomailHook(), "send", message, idempotency_key="k1")
    assert [mail.idempotency_key for mail in sandbox.messages()] == ["k1"]
    assert call(FluxomailHook(), "get_timeline", sent.send_id).events[0].type == "sent"
    agent = sandbox.requests()[0].headers["user-agent"]
    assert agent.startswith("airflow-provider-fluxomail/")
    assert "apache-airflow/" in agent


def test_another_connection(sandbox: Sandbox, call: Callable[..., Any]) -> None:
    sandbox.connect("other", key="wrong")
    with pytest.raises(FluxomailAuthError):
        call(FluxomailHook("other"), "send", FIELDS, idempotency_key="k")


def test_bad_messages_and_keys_are_refused_before_any_request(sandbox: Sandbox, call: Callable[..., Any]) -> None:
    for message, key in [({**FIELDS, "to": ""}, None), ({**FIELDS, "subject": "a\nb"}, None), (FIELDS, "a b")]:
        with pytest.raises(FluxomailValidationError):
            call(FluxomailHook(), "send", message, idempotency_key=key)
    assert sandbox.requests() == []


def test_the_guards_hold(sandbox: Sandbox, call: Callable[..., Any]) -> None:
    sandbox.connect(redirect_to="qa@example.org")
    call(FluxomailHook(), "send", FIELDS, idempotency_key="k")
    sandbox.connect(allowed_recipient_domains="ours.example")
    with pytest.raises(FluxomailValidationError, match=r"ours\.example"):
        call(FluxomailHook(), "send", FIELDS, idempotency_key="k")
    with FluxomailHook().get_conn() as client, pytest.raises(FluxomailValidationError, match=r"ours\.example"):
        client.send(EmailMessage(**FIELDS))
    (mail,) = sandbox.messages()
    assert mail.to == "qa@example.org"
    assert "was for to: ops@example.org" in mail.content


def test_forget_reads_the_connection_anew(sandbox: Sandbox) -> None:
    sandbox.connect(key="old")
    hook = FluxomailHook()
    with pytest.raises(FluxomailAuthError):
        hook.send(FIELDS, idempotency_key="k")
    sandbox.connect()
    with pytest.raises(FluxomailAuthError):
        hook.send(FIELDS, idempotency_key="k")
    hook.forget()
    assert hook.send(FIELDS, idempotency_key="k").send_id
    hook.close()
    assert hook.send(FIELDS, idempotency_key="k").send_id, "a closed hook opens again"
    hook.close()


def test_test_connection_says_each_case_in_its_own_words(
    sandbox: Sandbox, serve: Callable[[Handler], RawServer]
) -> None:
    sandbox.key("sender", scopes=["send_email"])
    sandbox.key("capped", rate_limit_per_minute=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    not_found = serve(answers(head("404 Not Found", Content_Length=9) + b"not found")).url
    json_404 = serve(answers(head("404 Not Found", Content_Length=2) + b"{}")).url
    page = serve(answers(head(Content_Length=6) + b"<html>")).url
    said = {}
    for name, connection, good in [
        ("good", {}, True),
        ("bad key", {"key": "wrong"}, False),
        ("no read_sends", {"key": "sender"}, True),
        ("unreachable", {"host": closed}, False),
        ("a 404 page", {"host": not_found}, False),
        ("another API", {"host": json_404}, False),
        ("a page", {"host": page}, False),
        ("no key", {"key": ""}, False),
        ("http elsewhere", {"host": "http://mail.example"}, False),
    ]:
        sandbox.connect("probe", **connection)
        ok, text = FluxomailHook("probe").test_connection()
        assert ok is good, (name, text)
        said[name] = text
    told = {
        "good": "may read sends",
        "bad key": "not accepted",
        "no read_sends": "read_sends",
        "unreachable": "cannot be reached",
        "a 404 page": "not as Fluxomail does",
        "another API": "not as Fluxomail does",
        "a page": "does not come from Fluxomail",
        "no key": "no API key",
        "http elsewhere": "unencrypted",
    }
    for name, words in told.items():
        assert words in said[name], said[name]
    assert len(set(said.values())) >= 8
    sandbox.connect("probe", key="capped")
    FluxomailHook("probe").test_connection()
    ok, text = FluxomailHook("probe").test_connection()
    assert ok
    assert "cap per minute" in text
    assert sandbox.messages() == [], "it sends nothing"


def test_test_connection_of_a_paused_organization(sandbox: Sandbox) -> None:
    sandbox.fail_next(403, path="/api/v1/sends", body={"code": "tenant_paused"})
    ok, text = FluxomailHook().test_connection()
    assert not ok
    assert "paused" in text


def silence(connection: socket.socket, request: bytes) -> None:
    connection.recv(1)


def test_test_connection_answers_within_its_timeout(sandbox: Sandbox, serve: Callable[[Handler], RawServer]) -> None:
    server = serve(silence)
    # Long enough for a slow machine; the server is silent for longer.
    timeout = 6
    sandbox.connect("probe", host=server.url, timeout=timeout)
    started = time.monotonic()
    ok, text = FluxomailHook("probe").test_connection()
    assert time.monotonic() - started < timeout
    assert not ok
    assert "cannot be reached" in text


def test_a_connection_that_any_send_exists_for_is_good(serve: Callable[[Handler], RawServer], sandbox: Sandbox) -> None:
    body = b'{"events": []}'
    sandbox.connect("probe", host=serve(answers(head(Content_Length=len(body)) + body)).url)
    assert FluxomailHook("probe").test_connection() == (True, "The API key is accepted, and may read sends.")
