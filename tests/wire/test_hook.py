"""The hook: connection, sync and async twins, guards, and the test button."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import (
    FluxomailAuthError,
    FluxomailNotFoundError,
    FluxomailResponseError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.watching.wait import Wait
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.bad_servers import answers, head
from tests.support.timing import enter_window
from tests.wire.conftest import Handler, RawServer

FIELDS: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``call(hook, "send", ...)`` by either twin."""

    def made(hook: FluxomailHook, method: str, *args: Any, **kwargs: Any) -> Any:
        if request.param == "async":
            return asyncio.run(getattr(hook, f"a{method}")(*args, **kwargs))
        result = getattr(hook, method)(*args, **kwargs)
        hook.close()
        return result

    return made


def test_twins_take_the_same_arguments() -> None:
    for name in ("send", "get_timeline"):
        sync, twin = (inspect.signature(getattr(FluxomailHook, prefix + name)) for prefix in ("", "a"))
        assert sync == twin


def test_send_and_timeline(sandbox: Sandbox, call: Callable[..., Any]) -> None:
    sent = call(FluxomailHook(), "send", FIELDS, idempotency_key="k1")
    assert call(FluxomailHook(), "send", EmailMessage(**FIELDS), idempotency_key="k1").reused
    assert sandbox.message().idempotency_key == "k1"
    assert call(FluxomailHook(), "get_timeline", sent.send_id).events[0].type == "sent"
    agent = sandbox.requests()[0].headers["user-agent"]
    assert agent.startswith("airflow-provider-fluxomail/")
    assert "apache-airflow/" in agent


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


def test_forget_reads_the_connection_again(sandbox: Sandbox) -> None:
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
    enter_window(sandbox)
    sandbox.key("sender", scopes=["send_email"])
    sandbox.key("capped", rate_limit_per_minute=1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    cases: list[tuple[dict[str, Any], bool, str]] = [
        ({}, True, "may read sends"),
        ({"key": "wrong"}, False, "not accepted"),
        ({"key": "sender"}, True, "read_sends"),
        ({"host": closed}, False, "cannot be reached"),
        ({"key": ""}, False, "no API key"),
        ({"host": "http://mail.example"}, False, "unencrypted"),
        ({"key": "capped"}, True, "may read sends"),
        ({"key": "capped"}, True, "rate limit is used up"),
    ]
    for connection, good, words in cases:
        sandbox.connect("probe", **connection)
        ok, text = FluxomailHook("probe").test_connection()
        assert ok is good, text
        assert words in text
    sandbox.fail_next(403, path="/api/v1/sends", body={"code": "tenant_paused"})
    ok, text = FluxomailHook().test_connection()
    assert not ok
    assert "paused" in text
    assert sandbox.messages() == [], "it sends nothing"


def test_test_connection_returns_within_its_timeout(sandbox: Sandbox, serve: Callable[[Handler], RawServer]) -> None:
    def silence(connection: socket.socket, request: bytes) -> None:
        connection.recv(1)

    server = serve(silence)
    # Long enough for a slow machine; the server is silent for longer.
    timeout = 30
    sandbox.connect("probe", host=server.url, timeout=timeout)
    started = time.monotonic()
    ok, text = FluxomailHook("probe").test_connection()
    assert time.monotonic() - started < timeout
    assert not ok
    assert "cannot be reached" in text


@pytest.mark.parametrize("header", ["both", "x-request-id", "fluxomail-request-id"])
@pytest.mark.parametrize("form", ["plain", "structured", "spec"])
def test_test_connection_knows_fluxomail_in_every_documented_form(sandbox: Sandbox, form: str, header: str) -> None:
    sandbox.settings(error_form=form, request_id_header=header)
    sandbox.key("sender", scopes=["send_email"])
    said = {}
    for key in ("fm_sandbox", "wrong", "sender"):
        sandbox.connect("probe", key=key)
        said[key] = FluxomailHook("probe").test_connection()
    assert said["fm_sandbox"] == (True, "The API key is accepted, and may read sends.")
    assert said["wrong"][1].startswith("The API key is not accepted")
    assert said["sender"][1].startswith("The API key is accepted, but may not read sends")
    assert [said[key][0] for key in ("wrong", "sender")] == [False, True]


NOT_FOUND, LIMITED = "404 Not Found", "429 Too Many Requests"
#: Stands for the request's own X-Request-Id: Fluxomail sends it back, and so do some gateways.
ECHO = "echo"
#: Responses by status, id header, its value and body, and whether they are Fluxomail's.
RESPONSES: list[tuple[str, str, str, str, bool]] = [
    (LIMITED, "X-Kong-Request-Id", "k", '{"message":"no","request_id":"k"}', False),
    (NOT_FOUND, "X-Kong-Request-Id", "k", '{"code":"not_found","message":"Not found","error":"Not found"}', False),
    ("200 OK", "X-Kong-Request-Id", "k", '{"events": []}', False),
    *((status, "X-Request-Id", "k", '{"error":"Not Found"}', False) for status in (NOT_FOUND, "401 Unauthorized")),
    (NOT_FOUND, "X-Request-Id", "k", '{"code":"route_not_found","message":"Not found","error":"Not found"}', False),
    ("403 Forbidden", "X-Request-Id", "k", "<html><title>Forbidden</title></html>", False),
    ("200 OK", "X-Request-Id", "k", '{"events": []}', False),
    (NOT_FOUND, "Fluxomail-Request-Id", "k", '{"code":"no_route","message":"Not found"}', False),
    (NOT_FOUND, "Fluxomail-Request-Id", "k", "\n<!doctype html><title>Not found</title>", False),
    ("200 OK", "Fluxomail-Request-Id", "k", '{"events": []}', True),
    (NOT_FOUND, "X-Request-Id", ECHO, '{"error": "Not found"}', True),
    (NOT_FOUND, "X-Request-Id", ECHO, '{"error": {"code": "not_found", "message": "Not found"}}', True),
    (NOT_FOUND, "X-Request-Id", ECHO, '{"status": 404, "error": "Not Found"}', False),
    (NOT_FOUND, "X-Request-Id", ECHO, '{"message": "no Route matched with those values"}', False),
    *((NOT_FOUND, "X-Request-Id", ECHO, body, False) for body in ('{"detail": "Not Found"}', "404 page not found", "")),
    (LIMITED, "X-Request-Id", ECHO, '{"message": "Rate limit exceeded"}', True),
    (LIMITED, "X-Request-Id", ECHO, '{"message": "API rate limit exceeded", "request_id": "k"}', False),
    ("200 OK", "X-Request-Id", ECHO, '{"events": []}', True),
]


@pytest.mark.parametrize(("status", "header", "value", "body", "good"), RESPONSES)
def test_test_connection_does_not_take_another_server_for_fluxomail(
    serve: Callable[[Handler], RawServer],
    sandbox: Sandbox,
    status: str,
    header: str,
    value: str,
    body: str,
    good: bool,
) -> None:
    def respond(connection: socket.socket, request: bytes) -> None:
        (sent,) = [line for line in request.decode().splitlines() if line.lower().startswith("x-request-id:")]
        headers = {header.replace("-", "_"): sent.partition(": ")[2] if value == ECHO else value}
        connection.sendall(head(status, Content_Length=len(body), **headers) + body.encode())

    sandbox.connect("probe", host=serve(respond).url)
    ok, text = FluxomailHook("probe").test_connection()
    assert ok is good, text
    assert good or text.startswith("Not a Fluxomail server: check the base URL")
    assert good or f"status {status[:3]}" in text


def test_a_gateways_404_says_nothing_of_the_send(
    serve: Callable[[Handler], RawServer], sandbox: Sandbox, call: Callable[..., Any]
) -> None:
    """A wait continues, and the next try repeats a replay check."""
    body = b'{"message":"no Route matched with those values"}'
    sandbox.connect("probe", host=serve(answers(head("404 Not Found", Content_Length=len(body)) + body)).url)
    with pytest.raises(FluxomailResponseError, match="does not come from Fluxomail") as caught:
        call(FluxomailHook("probe"), "get_timeline", "s1", max_attempts=1)
    assert not caught.value.permanent
    assert Wait("s1", started=0, deadline=1000).on_error(caught.value, now=500) is None
    with pytest.raises(FluxomailNotFoundError) as own:
        call(FluxomailHook(), "get_timeline", "s1")
    ending = Wait("s1", started=0, deadline=1000).on_error(own.value, now=500)
    assert ending
    assert ending.status == "error"
