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
from tests.wire.conftest import Handler, RawServer

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


@pytest.mark.parametrize("spelling", ["REDIRECT_TO", "Redirect-To", "redirect to", "redirectTo"])
def test_a_guard_in_any_spelling_keeps_mail_at_home(sandbox: Sandbox, call: Callable[..., Any], spelling: str) -> None:
    sandbox.connect("staging", **{spelling: "qa@example.com"})
    call(FluxomailHook("staging"), "send", FIELDS, idempotency_key="k1")
    assert [mail.to for mail in sandbox.messages()] == ["qa@example.com"]


@pytest.mark.parametrize("extra", [{"REDIRECT": "qa@example.com"}, {"extra": {"redirect_to": "qa@example.com"}}])
def test_a_guard_that_is_misspelt_lets_nothing_out(
    sandbox: Sandbox, call: Callable[..., Any], extra: dict[str, Any]
) -> None:
    sandbox.connect("staging", **extra)
    with pytest.raises(FluxomailValidationError, match="redirect_to"):
        call(FluxomailHook("staging"), "send", FIELDS, idempotency_key="k1")
    assert sandbox.requests() == []


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
        "a 404 page": "Not a Fluxomail server",
        "another API": "Not a Fluxomail server",
        "a page": "Not a Fluxomail server",
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
    assert "rate limit is used up" in text
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
    data = head(Content_Length=len(body), Fluxomail_Request_Id="r1") + body
    sandbox.connect("probe", host=serve(answers(data)).url)
    assert FluxomailHook("probe").test_connection() == (True, "The API key is accepted, and may read sends.")


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


#: What stands in Fluxomail's place: headers and body, of any status.
OTHERS: dict[str, tuple[dict[str, str], str]] = {
    "Kong": ({"X-Kong-Request-Id": "k"}, '{"message":"no Route matched with those values","request_id":"k"}'),
    "Kong with an id": ({"X-Request-Id": "k"}, '{"message":"no Route matched with those values"}'),
    "FastAPI": ({}, '{"detail":"Not Found"}'),
    "FastAPI with an id": ({"X-Request-Id": "f"}, '{"detail":"Not Found"}'),
    "AWS": ({"x-amzn-RequestId": "a", "x-amzn-ErrorType": "NotFoundException"}, '{"message":"Not Found"}'),
    "nginx": ({}, "<html><head><title>404 Not Found</title></head></html>"),
    "nginx with an id": ({"X-Request-Id": "n"}, "<html><head><title>404 Not Found</title></head></html>"),
    "plain": ({}, '{"error":"Not Found"}'),
    "plain with an id": ({"X-Request-Id": "p"}, '{"error":"Not Found"}'),
    "Rails": ({"X-Request-Id": "r"}, '{"status":404,"error":"Not Found"}'),
    "S3": ({"x-amz-request-id": "s"}, "<Error><Code>NoSuchKey</Code></Error>"),
    "Fluxomail's words, and no id": ({}, '{"code":"not_found","message":"Not found","error":"Not found"}'),
    "another code": ({"X-Request-Id": "c"}, '{"code":"route_not_found","message":"Not found","error":"Not found"}'),
    "another code of its own": ({"Fluxomail-Request-Id": "c"}, '{"code":"no_route","message":"Not found"}'),
    "a page with Fluxomail's id": ({"Fluxomail-Request-Id": "h"}, "\n<!doctype html><title>Not found</title>"),
    "nothing": ({"X-Request-Id": "e"}, ""),
    "a timeline": ({}, '{"events": []}'),
}


#: These do carry Fluxomail's own header.
ONLY_404 = ("another code of its own", "a page with Fluxomail's id")
STATUSES = ["404 Not Found", "403 Forbidden", "401 Unauthorized", "429 Too Many", "200 OK"]


@pytest.mark.parametrize(
    ("other", "status"), [(name, status) for name in OTHERS for status in (STATUSES[: 1 if name in ONLY_404 else None])]
)
def test_test_connection_does_not_take_another_server_for_fluxomail(
    serve: Callable[[Handler], RawServer], sandbox: Sandbox, other: str, status: str
) -> None:
    headers, body = OTHERS[other]
    data = head(status, Content_Length=len(body), **{name.replace("-", "_"): value for name, value in headers.items()})
    sandbox.connect("probe", host=serve(answers(data + body.encode())).url)
    ok, text = FluxomailHook("probe").test_connection()
    assert not ok
    assert text.startswith("Not a Fluxomail server: check the base URL"), text
    assert f"status {status[:3]}" in text


@pytest.mark.parametrize(
    ("status", "body", "good"),
    [
        ("404 Not Found", b'{"error": "Not found"}', True),
        ("404 Not Found", b'{"error": {"code": "not_found", "message": "Not found"}}', True),
        ("404 Not Found", b'{"status": 404, "error": "Not Found"}', False),
        ("404 Not Found", b'{"message": "no Route matched with those values"}', False),
        ("404 Not Found", b'{"detail": "Not Found"}', False),
        ("404 Not Found", b"404 page not found", False),
        ("404 Not Found", b"", False),
        ("429 Too Many Requests", b'{"message": "Rate limit exceeded"}', True),
        ("429 Too Many Requests", b'{"message": "API rate limit exceeded", "request_id": "k"}', False),
        ("200 OK", b'{"events": []}', True),
    ],
)
def test_test_connection_with_a_server_that_sends_the_request_id_back(
    serve: Callable[[Handler], RawServer], sandbox: Sandbox, status: str, body: bytes, good: bool
) -> None:
    """Fluxomail does, and so do some gateways: then the body has to be one that is documented."""

    def echo(connection: socket.socket, request: bytes) -> None:
        (sent,) = [line for line in request.decode().splitlines() if line.lower().startswith("x-request-id:")]
        connection.sendall(head(status, Content_Length=len(body), X_Request_Id=sent.partition(": ")[2]) + body)

    sandbox.connect("probe", host=serve(echo).url)
    ok, text = FluxomailHook("probe").test_connection()
    assert ok is good, text
    assert good or text.startswith("Not a Fluxomail server")


def test_a_gateways_404_says_nothing_of_the_send(
    serve: Callable[[Handler], RawServer], sandbox: Sandbox, call: Callable[..., Any]
) -> None:
    """A wait goes on, and a replay check is made again by the next try."""
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
