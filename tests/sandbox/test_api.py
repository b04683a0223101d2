"""The contract of the endpoints: responses, errors, headers."""

from __future__ import annotations

import base64
import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox.api.rate_limit import RateWindows
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS

from .helpers import BASE, KEY, wait_until

if TYPE_CHECKING:
    import httpx

    from .helpers import Api

AUTH = {"Authorization": f"Bearer {KEY}"}
HALF_PAIR = b"\xed\xa0\x80"


def attachment(size: int = 3, **fields: Any) -> dict[str, Any]:
    return {"filename": "rows.csv", "contentBase64": base64.b64encode(b"x" * size).decode(), **fields}


def assert_error(response: httpx.Response, status: int, code: str, text: str) -> None:
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code), response.text
    assert text in body["message"]
    assert body["error"] == body["message"]
    assert set(body) <= {"code", "message", "error", "details"}


@pytest.mark.parametrize("path", ["send", "send-global"])
def test_everything_that_was_sent_is_kept(api: Api, path: str) -> None:
    api.control("settings", event_delay=60)
    before = time.time()
    fields: dict[str, Any] = {
        "to": "Ann Ö <ann@example.org>",
        "subject": "Grüße 🎉",
        "content": "text\x00\nzwei",
        "htmlContent": "<p>hi</p>",
        "cc": "a@example.org",
        "bcc": ["b@example.org", "c@example.org"],
        "attachments": [attachment(5, contentType="text/csv"), attachment(0)],
        "policyKey": "bulk",
        "replyTo": "r@example.org",
        "nested": {"a": [1, 1.5, None]},
    }
    send_id = api.send_id(path=path, idempotency_key="k1", **fields)
    (message,) = api.get("messages", to="ANN@example.org")["messages"]
    attachments = message.pop("attachments")
    assert before - 1 <= message.pop("created_at") <= time.time() + 1
    assert message.pop("message_id")
    assert [event["type"] for event in message.pop("events")] == ["sent"]
    assert message.pop("delivered_html").startswith("<p>hi</p>")
    assert message == {
        "send_id": send_id,
        "to": fields["to"],
        "subject": fields["subject"],
        "content": fields["content"],
        "html_content": "<p>hi</p>",
        "cc": ["a@example.org"],
        "bcc": fields["bcc"],
        "policy_key": "bulk",
        "idempotency_key": "k1",
        "extra_fields": {"replyTo": "r@example.org", "nested": {"a": [1, 1.5, None]}},
        "endpoint": path,
        "organization": "org_sandbox",
    }
    found = [(each["filename"], each["content_type"], each["size"]) for each in attachments]
    assert found == [("rows.csv", "text/csv", 5), ("rows.csv", None, 0)]
    contents = [api.http.get(f"/_sandbox/messages/{send_id}/attachments/{position}") for position in (0, 2)]
    assert [(each.status_code, each.content[:5]) for each in contents] == [(200, b"xxxxx"), (404, b'{"err')]


@pytest.mark.parametrize("field", ["to", "subject", "content"])
@pytest.mark.parametrize("value", [None, "", "  \n"])
def test_missing_required_field(api: Api, field: str, value: str | None) -> None:
    changed: dict[str, Any] = {field: value}
    response = api.send(**changed)
    assert_error(response, 400, "validation_error", "Missing required fields")
    assert response.json()["details"] == {"fields": [field]}
    assert api.count() == 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"to": "nobody"}, "exactly one email address"),
        ({"to": "a@example.org;b@example.org"}, "exactly one email address"),
        ({"to": "A <a@example.org>, B <b@example.org>"}, "exactly one email address"),
        # Read back and forth, these would take hours.
        ({"to": "a" + " " * 200_000}, "exactly one email address"),
        ({"to": " " * 200_000 + "<a@b"}, "exactly one email address"),
        ({"to": "a@example.org\r\nBcc: b@example.org"}, "to must be a single line"),
        ({"subject": "a\nb"}, "subject must be a single line"),
        ({"htmlContent": 5}, "htmlContent must be a string"),
        ({"cc": 5}, "cc must be"),
        ({"bcc": ["a@example.org", 5]}, "bcc must be"),
        ({"idempotencyKey": "k" * 257}, "idempotencyKey must be"),
        ({"attachments": ["x"]}, "attachments must be a list"),
        ({"attachments": [{"contentBase64": ""}]}, "attachments[0].filename"),
        ({"attachments": [attachment(), {"filename": "a"}]}, "attachments[1].contentBase64"),
        ({"attachments": [attachment(contentType=5)]}, "attachments[0].contentType"),
        ({"attachments": [attachment(contentBase64="not base64!")]}, "Invalid base64"),
        ({"attachments": [attachment(contentBase64="abc")]}, "Invalid base64"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_field(api: Api, fields: dict[str, Any], text: str) -> None:
    assert_error(api.send(**fields), 400, "validation_error", text)
    assert api.count() == 0


@pytest.mark.parametrize(
    "to",
    ['"Doe, Ann" <ann@example.org>', r'"Ann \"A\" Doe" <ann@example.org>', "<ann@example.org>", " ann@example.org "],
)
def test_address_with_a_name(api: Api, to: str) -> None:
    assert api.send(to=to).status_code == 200
    assert api.count(to="ann@example.org") == 1


@pytest.mark.parametrize("address", ['"ann doe"@example.org', r'"a\"b@c"@example.org'])
def test_address_with_a_quoted_local_part(api: Api, address: str) -> None:
    assert api.send(to=f"Ann <{address}>").status_code == 200
    assert api.count(to=address) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"to": NaN}',
        b'{"to": 1e999}',
        b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        json.dumps(BASE | {"content": "\ud800"}).encode(),
        json.dumps(BASE).encode().replace(b"Nightly load", HALF_PAIR),
        json.dumps(BASE | {"subject": "\ud800"}, ensure_ascii=False).encode("utf-16-le", "surrogatepass"),
        b'{"to": "a@example.org\xff"}',
    ],
    ids=lambda body: str(body[:20]),
)
def test_body_that_is_no_json_object(api: Api, body: bytes) -> None:
    response = api.http.post("/api/v1/emails/send", content=body, headers=AUTH)
    assert_error(response, 400, "validation_error", "JSON")


def test_a_byte_order_mark_is_passed_over(api: Api) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(BASE).encode()
    assert api.http.post("/api/v1/emails/send", content=body, headers=AUTH).status_code == 200


@pytest.mark.parametrize("levels", [99, 100, 200])
def test_what_is_accepted_can_be_shown(api: Api, levels: int) -> None:
    value: Any = 10**30
    for level in range(levels - 1):
        value = {"a": value} if level % 2 else [value]
    if levels > 100:
        assert_error(api.send(custom=value), 400, "validation_error", "Invalid JSON body")
        return
    send_id = api.quiet(custom=value)
    (message,) = api.get("messages")["messages"]
    assert message["extra_fields"] == {"custom": value}
    assert api.add_event(send_id, "delayed", custom=value)["custom"] == value
    assert api.events().json()["events"][0]["data"]["custom"] == value
    assert api.timeline(send_id).json()["events"][-1]["custom"] == value


# Who may do what


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer"}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
        ({"Authorization": KEY}, 401),
        ({"Authorization": "Bearer wrong", "x-api-key": KEY}, 401),
        ({"x-api-key": KEY}, 200),
        ({"Authorization": f"bearer {KEY}", "x-api-key": "wrong"}, 200),
    ],
)
def test_key(api: Api, headers: dict[str, str], status: int) -> None:
    send = api.http.post("/api/v1/emails/send", json=BASE, headers=headers)
    read = api.http.get("/api/v1/sends/x", headers=headers)
    if status == 200:
        assert (send.status_code, read.status_code) == (200, 404)
    else:
        assert_error(send, 401, "invalid_key", "Invalid API key")
        assert_error(read, 401, "invalid_key", "Invalid API key")
    assert api.count() == (status == 200)


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
    codes = [api.send(api_key=key, to=None).json()["code"] for key in ("wrong", "reader", "reader", "sender")]
    assert codes == ["invalid_key", "missing_scope", "missing_scope", "tenant_paused"]
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
    api.advance(reset - api.get("health")["now"])
    fresh = api.send(api_key="capped")
    assert fresh.status_code == 200
    assert (fresh.headers["X-RateLimit-Remaining"], fresh.headers["X-RateLimit-Reset"]) == ("2", str(reset + 60))
    assert api.count() == 3
    # A replaced key begins a new count.
    api.control("keys", key="capped", rate_limit_per_minute=1)
    assert [api.send(api_key="capped").status_code for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(
    ("now", "reset", "retry_after"),
    [(120.0, 180, 60), (120.001, 180, 60), (150.5, 180, 30), (179.999, 180, 1), (180.0, 240, 60)],
)
def test_rate_limit_arithmetic(now: float, reset: int, retry_after: int) -> None:
    windows = RateWindows()
    first, second = windows.hit("k", 1, now), windows.hit("k", 1, now)
    assert (first.remaining, first.exceeded) == (0, False)
    assert (second.remaining, second.exceeded) == (0, True)
    assert (second.reset, second.retry_after) == (reset, retry_after)
    assert windows.hit("k", 1, reset - 0.001).exceeded
    assert not windows.hit("k", 1, reset).exceeded


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
        ("DELETE", "/api/v1/sends/x", 405, "method_not_allowed"),
    ],
)
def test_unknown_path_or_method(api: Api, method: str, path: str, status: int, code: str) -> None:
    response = api.http.request(method, path, headers=AUTH)
    assert_error(response, status, code, "ot ")
    assert response.headers["X-Request-Id"]
    assert ("Allow" in response.headers) == (status == 405)


# The connection and the clock


def test_date_is_the_sandbox_clock(api: Api) -> None:
    now = api.advance(86_400 * 3)
    for path in ("/api/v1/sends/x", "/_sandbox/health"):
        dates = api.http.get(path, headers=AUTH).headers.get_list("Date")
        assert len(dates) == 1
        assert abs(parsedate_to_datetime(dates[0]).timestamp() - now) < 5


def test_the_end_of_time(api: Api) -> None:
    api.control("settings", retry_after="http-date", event_delay=366 * 24 * 3600)
    api.control("keys", key="capped", rate_limit_per_minute=1)
    response = api.post("clock", advance_seconds=MAX_CLOCK_SECONDS)
    assert response.status_code == 409
    assert "where the clock ends" in response.json()["error"]
    api.advance(MAX_CLOCK_SECONDS - api.advance(0) - 3)
    send_id = api.send_id(api_key="capped")
    assert api.send(api_key="capped").status_code == 429
    wait_until(lambda: api.get("health")["now"] == MAX_CLOCK_SECONDS)
    assert api.post("clock", advance_seconds=60).status_code == 409
    assert api.timeline(send_id).status_code == api.events().status_code == 200


def test_a_client_that_leaves_in_mid_body(api: Api) -> None:
    with api.raw("POST /api/v1/emails/send", "Content-Length: 99", body="{"):
        wait_until(lambda: bool(api.get("requests")["count"]))
    assert api.send().status_code == 200
    assert [row["status"] for row in api.get("requests")["requests"]] == [None, 200]
    assert api.count() == 1


def test_an_unexpected_error_has_a_response_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_fluxomail.sandbox.api.sends.parse_message", fail)
        assert_error(api.send(), 500, "internal_error", "Internal server error")
    # The same connection goes on; by its next response the log has been written.
    assert api.send().status_code == 200
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("to", ['  "Ops"<ops@example.org>  ', "  Ops <ops@example.org>", " ops@example.org "])
def test_spaces_around_a_recipient(api: Api, to: str) -> None:
    assert api.send(to=to).status_code == 200


@pytest.mark.parametrize("key", ["x" * 257, 5, ["k"]])
def test_a_bad_key_in_the_body_is_refused_with_a_good_one_in_the_header(api: Api, key: object) -> None:
    response = api.send(idempotency_key="good", idempotencyKey=key)
    assert (response.status_code, response.json()["details"]) == (400, {"fields": ["idempotencyKey"]})
    assert api.count() == 0


@pytest.mark.parametrize("query", [{"limit": "x"}, {"limit": "-1"}, {"cursor": "x"}])
@pytest.mark.parametrize("version", [{}, {"Fluxomail-Version": "2025-09-01"}])
def test_bad_parameters_of_a_timeline(api: Api, query: dict[str, str], version: dict[str, str]) -> None:
    response = api.read(api.send_id(), version, **query)
    assert (response.status_code, response.json()["details"]) == (400, {"fields": list(query)})
