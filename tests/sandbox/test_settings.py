"""Each switch with each of its values, at the wire: responses, and what is accepted.

Those of idempotency and of timelines are in ``test_idempotency`` and ``test_timeline``, those of the events list and
of streams in ``test_events`` and ``test_stream``.
"""

from __future__ import annotations

import base64
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import pytest

from airflow_provider_fluxomail.sandbox.switches import Switches

# Imported for the switches that they name in each_value().
from . import test_contacts, test_idempotency, test_timeline, test_tracking, test_webhooks  # noqa: F401
from .helpers import KEY, SWITCHES, Api, each_value
from .test_openapi import SEND, TIMELINE, provoke

if TYPE_CHECKING:
    import httpx

ELSEWHERE = ("stream_", "list_", "events_", "streams_")
"""Switches of ``test_events`` and ``test_stream``."""


def test_every_switch_is_tested_with_every_value() -> None:
    assert all(field.description for field in Switches.model_fields.values())
    here = {name: field for name, field in Switches.model_fields.items() if not name.startswith(ELSEWHERE)}
    assert set(SWITCHES) == set(here)
    for name, field in here.items():
        choices = {True, False} if field.annotation is bool else set[Any]()
        if get_origin(field.annotation) is Literal:
            choices = set(get_args(field.annotation))
        if choices:
            assert SWITCHES[name] == choices, name
        else:
            assert len(SWITCHES[name]) > 1 or {field.default} != SWITCHES[name], name


# The form of errors

PREVIEW, SCOPE = {"plan": "pro", "feature": "attachments"}, {"scope": "send_email"}
CASES: dict[int | str, dict[str, Any]] = {
    400: {
        "code": "validation_error",
        "message": "Missing required fields",
        "details": {"fields": ["to", "subject", "content"]},
    },
    401: {"code": "invalid_key", "message": "Invalid API key"},
    402: {"code": "plan_required", "message": "Attachments not enabled", "preview": PREVIEW},
    403: {"code": "missing_scope", "message": f"Forbidden: missing scope {SCOPE['scope']}", "details": SCOPE},
    404: {"code": "not_found", "message": "Send not found"},
    405: {"code": "method_not_allowed", "message": "Method not allowed"},
    409: {"code": "idempotency_conflict", "message": "Idempotency key was used with a different request"},
    429: {"code": "rate_limited", "message": "Rate limit exceeded"},
    500: {"code": "internal_error", "message": "Internal server error"},
    "paused": {"code": "tenant_paused", "message": "Tenant paused for this organization"},
}


def refused(api: Api, status: int | str) -> httpx.Response:
    """A response with a status, as the API itself sends it."""
    if status == 405:
        return api.http.get("/api/v1/emails/send")
    if status == "paused":
        api.control("pause", paused=True)
        return api.send()
    assert isinstance(status, int)
    return provoke(api, TIMELINE if status == 404 else SEND, status)


@each_value(
    "error_form",
    {
        "structured": {"code", "message", "error", "details", "preview"},
        "plain": {"error", "preview"},
        "message": {"code", "message", "details", "preview"},
        "spec": {"code", "message", "preview"},
        "text": None,
    },
)
def test_error_form(api: Api, value: str, expected: set[str] | None) -> None:
    for status, fields in CASES.items():
        api.control("reset")
        api.control("settings", error_form=value)
        response = refused(api, status)
        assert response.status_code == (403 if status == "paused" else status)
        assert response.headers["X-Request-Id"]
        if expected is None:
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert response.text == fields["message"]
            continue
        case = fields | {"error": fields["message"]}
        if status == 429:
            wait = int(response.headers["Retry-After"])
            assert 40 <= wait <= 48
            case["details"] = {"limit": 1, "retryAfter": wait}
        assert response.headers["Content-Type"] == "application/json"
        assert response.json() == {name: text for name, text in case.items() if name in expected}


@each_value("validation_status", {400: 400, 422: 422})
def test_validation_status(api: Api, value: int, expected: int) -> None:
    api.control("settings", validation_status=value, timeline_form="spec", version_header="known")
    responses = [
        api.send(subject=""),
        api.send(attachments=5),
        api.http.post("/api/v1/emails/send", content=b"{", headers={"x-api-key": KEY}),
        api.read(api.send_id(), limit="x"),
        api.send(headers={"Fluxomail-Version": "1999-01-01"}),
    ]
    seen = [(response.status_code, response.json()["code"]) for response in responses]
    assert seen == [(expected, "validation_error")] * 5
    # A fault's own status stays what it is.
    api.control("faults", kind="status", status=400)
    assert [api.send().status_code, api.send(api_key="wrong").status_code] == [400, 401]


@each_value("error_send_id", {True: True, False: False})
def test_error_send_id(api: Api, value: bool, expected: bool) -> None:
    api.control("settings", error_send_id=value)
    api.control("faults", kind="error_after_store")
    body = api.send(idempotency_key="k").json()
    send_id = api.send_id(idempotency_key="k")
    assert body.get("details") == ({"sendId": send_id} if expected else None)
    # Nothing was stored, so there is nothing to name.
    for kind in ("error_before_store", "error_after_store"):
        api.control("faults", kind=kind)
        response = api.send() if kind == "error_before_store" else api.timeline(send_id)
        assert (response.status_code, "details" in response.json()) == (500, False)


# Headers


@each_value(
    "request_id_header",
    {
        "both": {"x-request-id", "fluxomail-request-id"},
        "x-request-id": {"x-request-id"},
        "fluxomail-request-id": {"fluxomail-request-id"},
    },
)
def test_request_id_header(api: Api, value: str, expected: set[str]) -> None:
    api.control("settings", request_id_header=value)
    made = set()
    for sent, echoed in (
        ({}, None),
        ({"X-Request-Id": "mine-1"}, "mine-1"),
        ({"Fluxomail-Request-Id": "mine-2"}, "mine-2"),
        ({"Fluxomail-Request-Id": "mine-2", "X-Request-Id": "mine 1"}, "mine 1"),
        ({"X-Request-Id": ""}, None),
        ({"X-Request-Id": "x" * 257}, None),
        ({"X-Request-Id": "ü"}, None),
    ):
        headers = {name: text.encode() for name, text in sent.items()}
        for path in ("/api/v1/sends/x", "/api/v1/none"):
            response = api.http.get(path, headers=headers)  # type: ignore[arg-type]
            ids = {name: text for name, text in response.headers.items() if name.endswith("request-id")}
            assert set(ids) == expected
            (request_id,) = set(ids.values())
            if echoed is None:
                assert request_id.startswith("req_")
                assert request_id not in made
                made.add(request_id)
            else:
                assert request_id == echoed


@each_value("rate_headers", {"capped": (True, False), "always": (True, True), "never": (False, False)})
def test_rate_headers(api: Api, value: str, expected: tuple[bool, bool]) -> None:
    api.control("settings", rate_headers=value)
    api.control("keys", key="capped", rate_limit_per_minute=2)
    api.enter_window()
    with_cap = [api.send(api_key="capped"), api.timeline("x", "capped"), api.send(api_key="capped")]
    without = [api.send(), api.send(to=None), api.timeline("x")]
    assert [response.status_code for response in with_cap + without] == [200, 404, 429, 200, 400, 404]
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    for responses, sent in zip((with_cap, without), expected, strict=True):
        assert {name in response.headers for response in responses for name in names} == {sent}
    # Without a key there is nothing to report, and a 429 has its Retry-After in any case.
    assert "X-RateLimit-Limit" not in api.send(api_key="wrong").headers
    assert "Retry-After" in with_cap[2].headers
    if value == "always":
        reset = int(without[0].headers["X-RateLimit-Reset"])
        assert reset % 60 == 0
        assert 0 < reset - api.get("health")["now"] <= 60
        assert {response.headers["X-RateLimit-Remaining"] for response in without} == {"1000000"}


@each_value("retry_after", {"seconds": "seconds", "http-date": "date", "none": None})
def test_retry_after(api: Api, value: str, expected: str | None) -> None:
    api.control("settings", retry_after=value)
    api.advance(400 * 86_400)
    response = refused(api, 429)
    sent = response.headers.get("Retry-After")
    now = parsedate_to_datetime(response.headers["Date"]).timestamp()
    reset = int(response.headers["X-RateLimit-Reset"])
    assert 40 <= reset - now <= 49
    if expected is None:
        assert sent is None
        return
    assert sent is not None
    if expected == "seconds":
        # Date is cut to whole seconds, and may be read one second later.
        assert int(sent) - (reset - now) in (0, 1)
    else:
        assert sent.endswith(" GMT")
        assert parsedate_to_datetime(sent).timestamp() == reset
    # A client that waits that long may go on.
    api.advance(float(sent) if expected == "seconds" else reset - now)
    assert api.send(api_key="capped").status_code == 200


# Sends


@each_value("send_result", {"docs": {"sendId", "status", "messageId"}, "sdk": {"sendId", "status", "accepted"}})
@pytest.mark.parametrize("path", ["send", "send-global"])
def test_send_result(api: Api, value: str, expected: set[str], path: str) -> None:
    api.control("settings", send_result=value)
    first = api.send(idempotency_key="k", path=path).json()
    assert set(first) == expected
    assert (first["status"], first.get("accepted", True)) == ("sent", True)
    assert api.send(idempotency_key="k", path=path).json() == first | {"reused": True}


@each_value("version_header", {"optional": [200, 200, 200], "known": [200, 200, 400], "required": [400, 200, 400]})
def test_version_header(api: Api, value: str, expected: list[int]) -> None:
    send_id = api.send_id()
    api.control("settings", version_header=value)
    versions = [{}, {"Fluxomail-Version": "2025-09-01"}, {"Fluxomail-Version": ""}]
    sent = [api.send(headers=version) for version in versions]
    read = [api.read(send_id, version) for version in versions]
    assert [response.status_code for response in sent] == [response.status_code for response in read] == expected
    for response in sent + read:
        if response.status_code == 400:
            assert response.json()["code"] == "validation_error"
            assert "send 2025-09-01" in response.json()["message"]
    assert api.count() == 1 + expected.count(200)


@each_value("content_required", {True: 400, False: 200})
@pytest.mark.parametrize("content", [None, "", " "])
def test_content_required(api: Api, value: bool, expected: int, content: str | None) -> None:
    api.control("settings", content_required=value)
    assert api.send(content=content, htmlContent="<p>hi</p>").status_code == expected
    # One of both is needed in any case, and the others are as before.
    for html in (None, "", " \n"):
        response = api.send(content=content, htmlContent=html)
        assert (response.status_code, response.json()["details"]) == (400, {"fields": ["content"]})
    assert api.send(content=content, htmlContent=5).status_code == 400
    assert api.send(subject=None, htmlContent="<p>hi</p>").json()["details"] == {"fields": ["subject"]}
    stored = api.get("messages")["messages"]
    expected_bodies = [] if value else [((content or ""), "<p>hi</p>")]
    assert [(message["content"], message["html_content"]) for message in stored] == expected_bodies


@each_value("to_list", {True: 200, False: 400})
def test_to_list(api: Api, value: bool, expected: int) -> None:
    api.control("settings", to_list=value, idempotency_conflict="conflict")
    assert api.send(to=["ann+bounced@example.org"], idempotency_key="k").status_code == expected
    for to in ([], ["a@example.org", "b@example.org"], [5], [["a@example.org"]], [None], [""]):
        response = api.send(to=to)
        assert (response.status_code, response.json()["code"]) == (400, "validation_error"), to
    assert api.count() == (1 if value else 0)
    if value:
        message = api.get("messages", to="ann+bounced@example.org")["messages"][0]
        assert message["to"] == "ann+bounced@example.org"
        # The same message, with or without the list.
        assert api.send(to="ann+bounced@example.org", idempotency_key="k").json()["reused"] is True


@each_value("unknown_fields", {"keep": 200, "refuse": 400})
@pytest.mark.parametrize("path", ["send", "send-global"])
def test_unknown_fields(api: Api, value: str, expected: int, path: str) -> None:
    api.control("settings", unknown_fields=value)
    response = api.send(path=path, replyTo="r@example.org", fromName="x")
    assert response.status_code == expected
    if expected == 400:
        assert response.json()["message"] == "Invalid request: unknown field fromName, replyTo"
        assert response.json()["details"] == {"fields": ["fromName", "replyTo"]}
        assert api.count() == 0
    else:
        assert api.get("messages")["messages"][0]["extra_fields"] == {"replyTo": "r@example.org", "fromName": "x"}
    lists: dict[str, Any] = {"cc": "a@example.org", "bcc": [], "attachments": []}
    assert api.send(path=path, htmlContent="<p>", policyKey="bulk", idempotencyKey="k", **lists).status_code == 200


@each_value("send_global", {"full": 200, "short": 400})
def test_send_global(api: Api, value: str, expected: int) -> None:
    api.control("settings", send_global=value, event_delay=0)
    fields: dict[str, Any] = {"cc": "c@example.org", "bcc": ["c@example.org"], "attachments": attachments_of(0)}
    for names in (["cc"], ["bcc"], ["attachments"], ["cc", "attachments"]):
        message = {name: fields[name] for name in names}
        response = api.send(path="send-global", **message)
        assert response.status_code == expected
        if expected == 400:
            assert response.json()["message"] == f"Invalid request: send-global takes no {', '.join(names)}"
            assert response.json()["details"] == {"fields": names}
        assert api.send(**message).status_code == 200
    # What is named and empty is as good as left out.
    assert api.send(path="send-global", cc=[], bcc=[], attachments=[]).status_code == 200
    clicked: dict[str, Any] = {"to": "clicked@example.org", "htmlContent": '<a href="https://example.net">x</a>'}
    tracked = ["sent", "delivered", "opened", "clicked"]
    assert api.types(api.send_id(**clicked)) == tracked
    lighter = api.types(api.send_id(path="send-global", **clicked))
    assert lighter == (tracked if value == "full" else ["sent", "delivered"])


# Attachments


def attachments_of(*sizes: int) -> list[dict[str, str]]:
    return [{"filename": "a", "contentBase64": base64.b64encode(b"x" * size).decode()} for size in sizes]


@each_value("attachments_max_count", {0: 0, 5: 5, 7: 7})
@pytest.mark.parametrize("path", ["send", "send-global"])
def test_attachments_max_count(api: Api, value: int, expected: int, path: str) -> None:
    if value != 5:  # the default
        api.control("settings", attachments_max_count=value)
    assert api.send(path=path, attachments=attachments_of(*[1] * expected)).status_code == 200
    response = api.send(path=path, attachments=attachments_of(*[1] * (expected + 1)))
    assert response.status_code == 400
    assert response.json()["message"] == f"Too many attachments: {expected + 1}, at most {expected}"
    assert response.json()["details"] == {"fields": ["attachments"], "reason": "too_many"}
    assert api.count() == 1


@each_value("attachments_max_bytes", {0: 0, 10: 10})
def test_attachments_max_bytes(api: Api, value: int, expected: int) -> None:
    api.control("settings", attachments_max_bytes=value)
    for sizes in ([expected], [expected // 2, expected - expected // 2]):
        assert api.send(attachments=attachments_of(*sizes)).status_code == 200
    for sizes in ([expected + 1], [expected, 1], [1, expected]):
        response = api.send(attachments=attachments_of(*sizes))
        assert response.status_code == 400
        assert response.json()["message"] == f"Attachments too large: more than {expected} bytes in total"
        assert response.json()["details"] == {"fields": ["attachments"], "reason": "too_large"}
    assert api.count() == 2


def test_attachments_have_at_most_10_mib_by_default(api: Api) -> None:
    mebibyte = 1024 * 1024
    assert api.send(attachments=attachments_of(4 * mebibyte, 6 * mebibyte)).status_code == 200
    assert api.send(attachments=attachments_of(4 * mebibyte, 6 * mebibyte + 1)).status_code == 400


@each_value("attachments_in_plan", {True: 200, False: 402})
def test_attachments_in_plan(api: Api, value: bool, expected: int) -> None:
    api.control("settings", attachments_in_plan=value)
    for path in ("send", "send-global"):
        assert api.send(path=path, attachments=attachments_of(1)).status_code == expected
        assert api.send(path=path, attachments=[]).status_code == 200
    # Wrong attachments are reported first.
    assert api.send(attachments=attachments_of(*[1] * 6)).status_code == 400
    assert api.count() == (4 if value else 2)
