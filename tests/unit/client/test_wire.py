"""Requests and responses as data: paths, headers, bodies, keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_fluxomail.client import wire
from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailResponseError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.models import Response, SendResult
from airflow_provider_fluxomail.client.settings import ClientSettings

SETTINGS = ClientSettings(api_key="fm_key")
MESSAGE = EmailMessage(to="a@b.example", subject="S", content="C\U0001f600 is the text")


def response(payload: object, status: int = 200, **headers: str) -> Response:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status=status, headers=named, content=content)


def read(found: Response) -> SendResult:
    return wire.read_send(wire.send_request(MESSAGE, "k"), found, SETTINGS)


def test_the_send_request() -> None:
    request = wire.send_request(MESSAGE, "key-1")
    assert (request.method, request.path, request.repeatable) == ("POST", "/api/v1/emails/send", True)
    assert json.loads(request.content or b"") == MESSAGE.to_json()
    headers = wire.request_headers(SETTINGS, request)
    assert (headers["Idempotency-Key"], headers["Fluxomail-Version"]) == ("key-1", "2025-09-01")
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == f"Bearer {SETTINGS.api_key}"
    assert "a@b.example" not in repr(request), "promise 5"
    bare = wire.send_request(MESSAGE, None)
    headers = wire.request_headers(ClientSettings(api_key="k", api_version=""), bare)
    assert not {"Idempotency-Key", "Fluxomail-Version"} & set(headers)
    assert not bare.repeatable


def test_keys_are_header_values() -> None:
    bad: list[Any] = ["", "a b", "a\r\nX: y", "ä", "k" * 129, "\x00", 5]
    for key in bad:
        with pytest.raises(FluxomailValidationError, match="1 to 128 visible ASCII"):
            wire.send_request(MESSAGE, key)
    for good in ("k" * 128, "user-sync:<id>", "manual__2026-01-01T00:00:00+00:00"):
        assert wire.send_request(MESSAGE, good).idempotency_key == good


def test_a_send_id_cannot_leave_its_path() -> None:
    assert wire.timeline_request("sends_1").path == "/api/v1/sends/sends_1"
    assert wire.timeline_request("a/../b?c#d").path == "/api/v1/sends/a%2F..%2Fb%3Fc%23d"
    assert wire.timeline_request("ü\r\n").path == "/api/v1/sends/%C3%BC%0D%0A"
    assert wire.timeline_request("\ud800").path == "/api/v1/sends/%3F"
    bad: list[Any] = ["", "  ", None, ".", "..", "s" * 513]
    for send_id in bad:
        with pytest.raises(FluxomailValidationError, match="send_id"):
            wire.timeline_request(send_id)


def test_a_first_response_and_a_replay() -> None:
    first = read(response({"sendId": "s1", "status": "sent", "messageId": "m1"}, x_request_id="r1"))
    assert first == SendResult(
        send_id="s1", message_id="m1", status="sent", reused=False, idempotency_key="k", request_id="r1"
    )
    assert read(response({"sendId": "s1", "reused": True})).reused
    assert read(response({"sendId": "s1"}, idempotency_replayed="true")).reused
    assert not read(response({"sendId": "s1", "reused": "yes"}, idempotency_replayed="false")).reused
    bare = read(response({"sendId": "s1", "messageId": 5, "status": None}, status=202))
    assert (bare.send_id, bare.message_id, bare.status, bare.request_id) == ("s1", None, None, None)


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (b"  ", "is empty"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "not a JSON object"),
        ({"sendId": 5}, "no sendId"),
    ],
)
def test_a_2xx_that_is_not_fluxomails(payload: object, shown: str) -> None:
    with pytest.raises(FluxomailResponseError, match=shown) as caught:
        read(response(payload))
    assert caught.value.idempotency_key == "k"
    assert not caught.value.permanent, "Airflow may retry: the key makes it safe"


def test_a_redirect_is_not_followed_and_its_target_named_by_host_only() -> None:
    with pytest.raises(FluxomailResponseError, match=r"redirects to evil\.example") as caught:
        read(response(b"", status=302, location="https://evil.example/login?token=secret"))
    assert "secret" not in str(caught.value)
    for bare in (response(b"", status=304), response(b"", status=302, location="http://[broken")):
        with pytest.raises(FluxomailResponseError, match="the server redirects;"):
            read(bare)


def test_either_request_id_header_made_fit_for_a_log() -> None:
    assert response({}, fluxomail_request_id="r2").request_id == "r2"
    assert response({}, x_request_id="a\x1b[31m" + "b" * 500).request_id == ("a?[31m" + "b" * 500)[:128]


def test_errors_hide_what_the_request_held() -> None:
    with pytest.raises(FluxomailError) as caught:
        read(response({"error": "fm_key may not send 'C\U0001f600 is the text' to a@b.example", "x": 1}, status=400))
    for private in ("fm_key", "a@b.example", "is the text"):
        assert private not in str(caught.value)


def test_a_lost_connection_is_described() -> None:
    refused = OSError("wrapped")
    refused.__cause__ = ConnectionRefusedError(111, "Connection refused")
    sandbox = ClientSettings(api_key="k", base_url="http://127.0.0.1:8026")
    for settings, error, shown in [
        (SETTINGS, refused, "no response from api.fluxomail.com: Connection refused (idempotency key k)"),
        (sandbox, refused, "no response from 127.0.0.1:8026: "),
        (SETTINGS, TimeoutError(), "timed out after 15 s"),
        (SETTINGS, RuntimeError("x"), "closed before"),
    ]:
        assert shown in str(wire.no_response(wire.send_request(MESSAGE, "k"), settings, error, ambiguous=True))
