"""The contract of the three endpoints: answers, errors, headers."""

from __future__ import annotations

import base64
import json
import socket
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox.api.rate_limit import RateWindows

from .helpers import BASE, KEY

if TYPE_CHECKING:
    import httpx

    from .helpers import Api

AUTH = {"Authorization": f"Bearer {KEY}"}


def attachment(size: int = 3, **fields: Any) -> dict[str, Any]:
    return {"filename": "rows.csv", "contentBase64": base64.b64encode(b"x" * size).decode(), **fields}


def assert_error(answer: httpx.Response, status: int, code: str, text: str) -> None:
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert text in body["message"]
    assert body["error"] == body["message"]
    assert set(body) <= {"code", "message", "error", "details"}


def test_first_send(api: Api) -> None:
    answer = api.send()
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"sendId", "status", "messageId"}
    assert body["sendId"].startswith("sends_")
    assert body["status"] == "sent"
    assert body["messageId"]
    assert "Idempotency-Replayed" not in answer.headers
    assert "Idempotency-Key" not in answer.headers
    assert "X-RateLimit-Limit" not in answer.headers
    assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", ["send", "send-global"])
def test_everything_that_was_sent_is_kept(api: Api, path: str) -> None:
    before = time.time()
    fields: dict[str, Any] = {
        "to": "Ann Ö <ann@example.org>",
        "subject": "Grüße 🎉",
        "content": "text\nzwei",
        "htmlContent": "<p>hi</p>",
        "cc": "a@example.org",
        "bcc": ["b@example.org", "c@example.org"],
        "attachments": [attachment(5, contentType="text/csv"), attachment(0)],
        "policyKey": "bulk",
        "replyTo": "r@example.org",
        "nested": {"a": [1, 1.5, None]},
    }
    send_id = api.send_id(path=path, idempotency_key="k1", **fields)
    found = api.get("messages", to="ANN@example.org")
    assert found["count"] == 1
    message = found["messages"][0]
    assert message["send_id"] == send_id
    assert message["to"] == fields["to"]
    assert (message["subject"], message["content"], message["html_content"]) == ("Grüße 🎉", "text\nzwei", "<p>hi</p>")
    assert (message["cc"], message["bcc"]) == (["a@example.org"], ["b@example.org", "c@example.org"])
    assert (message["policy_key"], message["idempotency_key"]) == ("bulk", "k1")
    assert message["extra_fields"] == {"replyTo": "r@example.org", "nested": {"a": [1, 1.5, None]}}
    assert (message["endpoint"], message["organization"]) == (path, "org_sandbox")
    assert before - 1 <= message["created_at"] <= time.time() + 1
    assert [event["type"] for event in message["events"]] == ["sent"]
    first, second = message["attachments"]
    assert (first["filename"], first["content_type"], first["size"]) == ("rows.csv", "text/csv", 5)
    assert (second["content_type"], second["size"]) == (None, 0)
    content = api.http.get(f"/_sandbox/messages/{send_id}/attachments/0")
    assert content.content == b"xxxxx"
    assert api.http.get(f"/_sandbox/messages/{send_id}/attachments/2").status_code == 404


@pytest.mark.parametrize("field", ["to", "subject", "content"])
@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_missing_required_field(api: Api, field: str, value: str | None) -> None:
    changed: dict[str, Any] = {field: value}
    answer = api.send(**changed)
    assert_error(answer, 400, "validation_error", "Missing required fields")
    assert answer.json()["details"] == {"fields": [field]}
    assert api.count() == 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"to": ["a@example.org"]}, "exactly one email address"),
        ({"to": {"email": "a@example.org"}}, "exactly one email address"),
        ({"to": "nobody"}, "exactly one email address"),
        ({"to": "a@example.org, b@example.org"}, "exactly one email address"),
        ({"to": "a@example.org;b@example.org"}, "exactly one email address"),
        ({"to": "a@example.org <b@example.org>"}, "exactly one email address"),
        ({"to": "A <a@example.org>, B <b@example.org>"}, "exactly one email address"),
        ({"to": "a@example.org\r\nBcc: b@example.org"}, "to must be a single line"),
        ({"subject": "a\nb"}, "subject must be a single line"),
        ({"subject": 5}, "subject must be a string"),
        ({"content": {"a": 1}}, "content must be a string"),
        ({"htmlContent": 5}, "htmlContent must be a string"),
        ({"policyKey": []}, "policyKey must be a string"),
        ({"cc": 5}, "cc must be"),
        ({"bcc": ["a@example.org", 5]}, "bcc must be"),
        ({"idempotencyKey": 5}, "idempotencyKey must be"),
        ({"idempotencyKey": "k" * 257}, "idempotencyKey must be"),
        ({"attachments": {}}, "attachments must be a list"),
        ({"attachments": ["x"]}, "attachments must be a list"),
        ({"attachments": [{"contentBase64": ""}]}, "attachments[0].filename"),
        ({"attachments": [attachment(), {"filename": "a"}]}, "attachments[1].contentBase64"),
        ({"attachments": [attachment(contentType=5)]}, "attachments[0].contentType"),
    ],
)
def test_wrong_field(api: Api, fields: dict[str, Any], text: str) -> None:
    assert_error(api.send(**fields), 400, "validation_error", text)
    assert api.count() == 0


@pytest.mark.parametrize("to", ['"Doe, Ann" <ann@example.org>', "<ann@example.org>", " ann@example.org "])
def test_address_with_a_name(api: Api, to: str) -> None:
    assert api.send(to=to).status_code == 200
    assert api.count(to="ann@example.org") == 1


@pytest.mark.parametrize("content", ["not base64!", "abc", "Ä" * 4])
def test_bad_base64(api: Api, content: str) -> None:
    answer = api.send(attachments=[attachment() | {"contentBase64": content}])
    assert_error(answer, 400, "validation_error", "Invalid base64")
    assert answer.json()["details"]["reason"] == "invalid_base64"


def test_attachment_count(api: Api) -> None:
    assert api.send(attachments=[attachment()] * 5).status_code == 200
    answer = api.send(attachments=[attachment()] * 6)
    assert_error(answer, 400, "validation_error", "Too many attachments")
    assert answer.json()["details"]["reason"] == "too_many"


def test_attachment_size(api: Api) -> None:
    mebibyte = 1024 * 1024
    assert api.send(attachments=[attachment(4 * mebibyte), attachment(6 * mebibyte)]).status_code == 200
    answer = api.send(attachments=[attachment(4 * mebibyte), attachment(6 * mebibyte + 1)])
    assert_error(answer, 400, "validation_error", "too large")
    assert answer.json()["details"]["reason"] == "too_large"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b'{"to": NaN}',
        b'{"to": 1e999}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps(BASE | {"content": "\ud800"}).encode(),
        b'{"x": ' + b"1" * 5000 + b"}",
    ],
)
def test_body_that_is_no_json_object(api: Api, body: bytes) -> None:
    answer = api.http.post("/api/v1/emails/send", content=body, headers=AUTH)
    assert_error(answer, 400, "validation_error", "JSON")


def test_escaped_characters_are_fine(api: Api) -> None:
    body = json.dumps(BASE | {"content": "🎉 \x00 ok"}).encode()
    assert api.http.post("/api/v1/emails/send", content=body, headers=AUTH).status_code == 200
    assert api.get("messages")["messages"][0]["content"] == "🎉 \x00 ok"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"x-api-key": "wrong"},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
    ],
)
def test_bad_key(api: Api, headers: dict[str, str]) -> None:
    assert_error(
        api.http.post("/api/v1/emails/send", json=BASE, headers=headers), 401, "invalid_key", "Invalid API key"
    )
    assert_error(api.http.get("/api/v1/sends/x", headers=headers), 401, "invalid_key", "Invalid API key")
    assert api.count() == 0


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"Authorization": f"bearer {KEY}", "x-api-key": "wrong"}])
def test_both_forms_of_the_key(api: Api, headers: dict[str, str]) -> None:
    assert api.http.post("/api/v1/emails/send", json=BASE, headers=headers).status_code == 200


def test_scopes(api: Api) -> None:
    send_id = api.send_id()
    for key, scopes in (("all", None), ("send", ["send_email"]), ("read", ["read_sends"]), ("none", [])):
        assert api.control("keys", key=key, scopes=scopes)["scopes"] == scopes
    statuses = {
        key: (api.send(api_key=key).status_code, api.timeline(send_id, key).status_code)
        for key in ("all", "send", "read", "none")
    }
    assert statuses == {"all": (200, 200), "send": (200, 403), "read": (403, 200), "none": (200, 403)}
    assert_error(api.send(api_key="read"), 403, "missing_scope", "Forbidden: missing scope send_email")
    assert_error(api.timeline("x", "send"), 403, "missing_scope", "Forbidden: missing scope read_sends")


def test_pause(api: Api) -> None:
    send_id = api.send_id()
    api.control("keys", key="other", organization="org_2")
    assert api.control("pause", paused=True) == {"paused": True, "organization": "org_sandbox"}
    assert_error(api.send(), 403, "tenant_paused", "Tenant paused for this organization")
    assert api.timeline(send_id).status_code == 200
    assert api.send(api_key="other").status_code == 200
    api.control("pause", paused=False)
    assert api.send().status_code == 200
    api.control("pause", paused=True, organization="org_2")
    assert api.send(api_key="other").status_code == 403


def test_order_of_the_checks(api: Api) -> None:
    """Key, scope, pause, rate, validation."""
    api.control("keys", key="reader", scopes=["read_sends"], rate_limit_per_minute=1)
    api.control("keys", key="sender", rate_limit_per_minute=1)
    api.enter_window()
    api.control("pause", paused=True)
    assert api.send(api_key="wrong", to=None).status_code == 401
    assert api.send(api_key="reader", to=None).json()["code"] == "missing_scope"
    assert api.send(api_key="reader", to=None).json()["code"] == "missing_scope"
    assert api.send(api_key="sender", to=None).json()["code"] == "tenant_paused"
    api.control("pause", paused=False)
    assert api.send(api_key="sender", to=None).json()["code"] == "rate_limited"
    api.advance(60)
    assert api.send(api_key="sender", to=None).json()["code"] == "validation_error"


def test_rate_limit(api: Api) -> None:
    api.control("keys", key="capped", rate_limit_per_minute=3)
    api.enter_window()
    first = api.send(api_key="capped")
    reset = int(first.headers["X-RateLimit-Reset"])
    assert reset % 60 == 0
    assert 40 <= reset - api.get("health")["now"] <= 48
    assert (first.headers["X-RateLimit-Limit"], first.headers["X-RateLimit-Remaining"]) == ("3", "2")
    # Requests of every endpoint count, also those that fail.
    assert api.timeline("unknown", "capped").headers["X-RateLimit-Remaining"] == "1"
    assert api.send(api_key="capped", to=None).headers["X-RateLimit-Remaining"] == "0"
    for _ in range(2):
        refused = api.send(api_key="capped")
        assert_error(refused, 429, "rate_limited", "Rate limit")
        assert 40 <= int(refused.headers["Retry-After"]) <= 48
        assert refused.headers["X-RateLimit-Remaining"] == "0"
        assert int(refused.headers["X-RateLimit-Reset"]) == reset
    assert api.send().status_code == 200  # another key has its own count
    api.advance(reset - api.get("health")["now"] - 10)
    near = api.send(api_key="capped")
    assert near.status_code == 429
    assert 5 <= int(near.headers["Retry-After"]) <= 10
    api.advance(10)
    fresh = api.send(api_key="capped")
    assert fresh.status_code == 200
    assert (fresh.headers["X-RateLimit-Remaining"], fresh.headers["X-RateLimit-Reset"]) == ("2", str(reset + 60))
    assert api.count() == 3


@pytest.mark.parametrize(
    ("now", "reset", "retry_after"),
    [(120.0, 180, 60), (120.001, 180, 60), (150.5, 180, 30), (179.0, 180, 1), (179.999, 180, 1), (180.0, 240, 60)],
)
def test_rate_limit_arithmetic(now: float, reset: int, retry_after: int) -> None:
    windows = RateWindows()
    first, second = windows.hit("k", 1, now), windows.hit("k", 1, now)
    assert (first.remaining, first.exceeded) == (0, False)
    assert (second.remaining, second.exceeded) == (0, True)
    assert (second.reset, second.retry_after) == (reset, retry_after)
    assert windows.hit("k", 1, reset - 0.001).exceeded
    assert not windows.hit("k", 1, reset).exceeded


def test_a_replaced_key_begins_a_new_count(api: Api) -> None:
    api.enter_window()
    api.control("keys", key="capped", rate_limit_per_minute=1)
    assert [api.send(api_key="capped").status_code for _ in range(2)] == [200, 429]
    api.control("keys", key="capped", rate_limit_per_minute=1)
    assert api.send(api_key="capped").status_code == 200


@pytest.mark.parametrize("send_id", ["sends_unknown", "a%2Fb", "%F0%9F%8E%89"])
def test_unknown_send(api: Api, send_id: str) -> None:
    assert_error(api.timeline(send_id), 404, "not_found", "ot found")


def test_a_send_of_another_organization_is_unknown(api: Api) -> None:
    api.control("keys", key="other", organization="org_2")
    assert_error(api.timeline(api.send_id(), "other"), 404, "not_found", "Send not found")
    assert api.timeline(api.send_id(api_key="other"), "other").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/v1/me", 404, "not_found"),
        ("GET", "/api/v1", 404, "not_found"),
        ("POST", "/api/v1/emails/send/", 404, "not_found"),
        ("GET", "/api/v1/emails/send", 405, "method_not_allowed"),
        ("POST", "/api/v1/sends/x", 405, "method_not_allowed"),
        ("DELETE", "/api/v1/sends/x", 405, "method_not_allowed"),
    ],
)
def test_unknown_path_or_method(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = api.http.request(method, path, headers=AUTH)
    assert_error(answer, status, code, "ot ")
    assert answer.headers["X-Request-Id"]
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize("path", ["/api/v1/emails/send", "/api/v1/none", "/api/v1/sends/x"])
def test_request_id(api: Api, path: str) -> None:
    given = api.http.get(path, headers={"X-Request-Id": "mine-1"})
    assert given.headers["X-Request-Id"] == given.headers["Fluxomail-Request-Id"] == "mine-1"
    made = {api.http.get(path).headers["X-Request-Id"] for _ in range(3)}
    assert len(made) == 3
    unsafe = api.http.get(path, headers={"X-Request-Id": "x" * 300})
    assert unsafe.headers["X-Request-Id"].startswith("req_")


def test_date_is_the_sandbox_clock(api: Api) -> None:
    now = api.advance(86_400 * 3)
    for path in ("/api/v1/sends/x", "/_sandbox/health"):
        dates = api.http.get(path, headers=AUTH).headers.get_list("Date")
        assert len(dates) == 1
        assert abs(parsedate_to_datetime(dates[0]).timestamp() - now) < 5


def test_body_above_the_limit(api: Api) -> None:
    body = b" " * (34 * 1024 * 1024)
    assert_error(api.http.post("/api/v1/emails/send", content=body, headers=AUTH), 413, "validation_error", "larger")
    assert api.send().status_code == 200


def test_a_client_that_leaves_in_mid_body(api: Api) -> None:
    url = api.http.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=5) as raw:
        raw.sendall(
            b"POST /api/v1/emails/send HTTP/1.1\r\nHost: x\r\nx-api-key: fm_sandbox\r\nContent-Length: 99\r\n\r\n{"
        )
        deadline = time.monotonic() + 10
        while not api.get("requests")["count"]:
            assert time.monotonic() < deadline
    assert api.send().status_code == 200
    assert [row["status"] for row in api.get("requests")["requests"]] == [None, 200]
    assert api.count() == 1


@pytest.mark.parametrize("levels", [99, 100, 200])
def test_what_is_accepted_can_be_shown(api: Api, levels: int) -> None:
    value: Any = 10**30
    for level in range(levels - 1):
        value = {"a": value} if level % 2 else [value]
    if levels > 100:
        assert_error(api.send(custom=value), 400, "validation_error", "Invalid JSON body")
        return
    send_id = api.send_id(custom=value)
    (message,) = api.get("messages")["messages"]
    assert message["extra_fields"] == {"custom": value}
    event = api.control(f"messages/{send_id}/events", type="delayed", custom=value)
    assert event["custom"] == value
    assert api.events().json()["events"][0]["data"]["custom"] == value
    assert api.timeline(send_id).json()["events"][-1]["custom"] == value


def test_an_unexpected_error_is_an_answer_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_fluxomail.sandbox.api.sends.parse_message", fail)
        assert_error(api.send(), 500, "internal_error", "Internal server error")
    # The same connection goes on; by its next answer the log has been written.
    assert api.send().status_code == 200
    assert "ZeroDivisionError" in caplog.text
