"""Each switch with each of its values, at the wire: answers, and what is taken.

Those of idempotency and of timelines are in ``test_idempotency`` and ``test_timeline``, those of the events list and
of streams in ``test_events`` and ``test_stream``.
"""

from __future__ import annotations

import base64
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, get_args

import pytest

from airflow_provider_fluxomail.sandbox.switches import Switches

# Imported for the switches that they name in each_value().
from . import test_idempotency, test_timeline  # noqa: F401
from .helpers import KEY, SWITCHES, Api, each_value

if TYPE_CHECKING:
    import httpx

ELSEWHERE = ("stream_", "list_", "events_")
"""Switches of ``test_events`` and ``test_stream``."""


def test_every_switch_is_tested_with_every_value() -> None:
    here = {name: field for name, field in Switches.model_fields.items() if not name.startswith(ELSEWHERE)}
    assert set(SWITCHES) == set(here)
    for name, field in here.items():
        choices = {True, False} if field.annotation is bool else set(get_args(field.annotation))
        if choices:
            assert SWITCHES[name] == choices, name
        else:
            assert len(SWITCHES[name] | {field.default}) > 1, name


@pytest.mark.parametrize("name", sorted(Switches.model_fields))
def test_switches_and_their_defaults_are_told(api: Api, name: str) -> None:
    assert Switches.model_fields[name].description
    assert api.get("settings")[name] == Switches.model_fields[name].default


# The form of errors

CASES: dict[int, dict[str, Any]] = {
    400: {"code": "validation_error", "message": "Missing required fields", "details": {"fields": ["to"]}},
    401: {"code": "invalid_key", "message": "Invalid API key"},
    402: {
        "code": "plan_required",
        "message": "Attachments not enabled",
        "preview": {"plan": "pro", "feature": "attachments"},
    },
    403: {
        "code": "missing_scope",
        "message": "Forbidden: missing scope send_email",
        "details": {"scope": "send_email"},
    },
    404: {"code": "not_found", "message": "Send not found"},
    405: {"code": "method_not_allowed", "message": "Method not allowed"},
    409: {"code": "idempotency_conflict", "message": "Idempotency key was used with a different request"},
    429: {"code": "rate_limited", "message": "Rate limit exceeded"},
    500: {"code": "internal_error", "message": "Internal server error"},
}


def refused(api: Api, status: int) -> httpx.Response:
    """An answer with a status, as the API itself gives it."""
    if status == 400:
        return api.send(to=None)
    if status == 401:
        return api.send(api_key="wrong")
    if status == 402:
        api.control("settings", attachments_in_plan=False)
        return api.send(attachments=[{"filename": "a", "contentBase64": "eA=="}])
    if status == 403:
        api.control("keys", key="reader", scopes=["read_sends"])
        return api.send(api_key="reader")
    if status == 404:
        return api.timeline("sends_unknown")
    if status == 405:
        return api.http.get("/api/v1/emails/send")
    if status == 409:
        api.control("settings", idempotency_conflict="conflict")
        api.send(idempotency_key="k")
        return api.send(idempotency_key="k", subject="Other")
    if status == 429:
        api.control("keys", key="capped", rate_limit_per_minute=1)
        api.enter_window()
        api.send(api_key="capped")
        return api.send(api_key="capped")
    api.control("faults", kind="error_before_store")
    return api.send()


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
@pytest.mark.parametrize("status", CASES)
def test_error_form(api: Api, value: str, expected: set[str] | None, status: int) -> None:
    api.control("settings", error_form=value)
    answer = refused(api, status)
    assert answer.status_code == status
    assert answer.headers["X-Request-Id"]
    if expected is None:
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.text == CASES[status]["message"]
        return
    case = CASES[status] | {"error": CASES[status]["message"]}
    if status == 429:
        wait = int(answer.headers["Retry-After"])
        assert 40 <= wait <= 48
        case["details"] = {"limit": 1, "retryAfter": wait}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {name: told for name, told in case.items() if name in expected}


@pytest.mark.parametrize("form", ["structured", "plain", "message", "spec"])
def test_error_form_of_a_pause(api: Api, form: str) -> None:
    api.control("settings", error_form=form)
    api.control("pause", paused=True)
    body = api.send().json()
    assert body.get("code") == (None if form == "plain" else "tenant_paused")
    assert body.get("error", body.get("message")) == "Tenant paused for this organization"


@each_value("validation_status", {400: 400, 422: 422})
def test_validation_status(api: Api, value: int, expected: int) -> None:
    api.control("settings", validation_status=value, timeline_form="spec", version_header="known")
    auth = {"x-api-key": KEY}
    answers = [
        api.send(subject=""),
        api.send(attachments=5),
        api.http.post("/api/v1/emails/send", content=b"{", headers=auth),
        api.read(api.send_id(), limit="x"),
        api.send(headers={"Fluxomail-Version": "1999-01-01"}),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(expected, "validation_error")] * 5
    # A fault's own status stays what it is.
    api.control("faults", kind="status", status=400)
    assert api.send().status_code == 400
    assert api.send(api_key="wrong").status_code == 401


@each_value("error_send_id", {True: True, False: False})
@pytest.mark.parametrize("form", ["structured", "message"])
def test_error_send_id(api: Api, value: bool, expected: bool, form: str) -> None:
    api.control("settings", error_send_id=value, error_form=form)
    api.control("faults", kind="error_after_store")
    body = api.send(idempotency_key="k").json()
    send_id = api.send_id(idempotency_key="k")
    assert body.get("details") == ({"sendId": send_id} if expected else None)
    # Nothing was stored, so there is nothing to name.
    for kind in ("error_before_store", "error_after_store"):
        api.control("faults", kind=kind)
        answer = api.send() if kind == "error_before_store" else api.timeline(send_id)
        assert (answer.status_code, "details" in answer.json()) == (500, False)


# Headers


@each_value(
    "request_id_header",
    {
        "both": {"x-request-id", "fluxomail-request-id"},
        "x-request-id": {"x-request-id"},
        "fluxomail-request-id": {"fluxomail-request-id"},
    },
)
@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ({}, None),
        ({"X-Request-Id": "mine-1"}, "mine-1"),
        ({"Fluxomail-Request-Id": "mine-2"}, "mine-2"),
        ({"Fluxomail-Request-Id": "mine-2", "X-Request-Id": "mine 1"}, "mine 1"),
        ({"X-Request-Id": ""}, None),
        ({"X-Request-Id": "x" * 257}, None),
        ({"X-Request-Id": "ü"}, None),
    ],
)
def test_request_id_header(api: Api, value: str, expected: set[str], sent: dict[str, str], echoed: str | None) -> None:
    api.control("settings", request_id_header=value)
    headers = {name: text.encode() for name, text in sent.items()}
    for path in ("/api/v1/sends/x", "/api/v1/none"):
        answer = api.http.get(path, headers=headers)  # type: ignore[arg-type]
        ids = {name: text for name, text in answer.headers.items() if name.endswith("request-id")}
        assert set(ids) == expected
        assert len(set(ids.values())) == 1
        made = next(iter(ids.values()))
        assert made == echoed or (echoed is None and made.startswith("req_"))


@each_value("rate_headers", {"capped": (True, False), "always": (True, True), "never": (False, False)})
def test_rate_headers(api: Api, value: str, expected: tuple[bool, bool]) -> None:
    api.control("settings", rate_headers=value)
    api.control("keys", key="capped", rate_limit_per_minute=2)
    api.enter_window()
    with_cap = [api.send(api_key="capped"), api.timeline("x", "capped"), api.send(api_key="capped")]
    without = [api.send(), api.send(to=None), api.timeline("x")]
    assert [answer.status_code for answer in with_cap + without] == [200, 404, 429, 200, 400, 404]
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    for answers, sent in zip((with_cap, without), expected, strict=True):
        assert {name in answer.headers for answer in answers for name in names} == {sent}
    # Without a key there is nothing to tell of, and a 429 has its Retry-After in any case.
    assert "X-RateLimit-Limit" not in api.send(api_key="wrong").headers
    assert "Retry-After" in with_cap[2].headers
    if value == "always":
        reset = int(without[0].headers["X-RateLimit-Reset"])
        assert reset % 60 == 0
        assert 0 < reset - api.get("health")["now"] <= 60
        assert {answer.headers["X-RateLimit-Remaining"] for answer in without} == {"1000000"}
    if value != "never":
        assert [answer.headers["X-RateLimit-Remaining"] for answer in with_cap] == ["1", "0", "0"]


@each_value("retry_after", {"seconds": "seconds", "http-date": "date", "none": None})
def test_retry_after(api: Api, value: str, expected: str | None) -> None:
    api.control("settings", retry_after=value)
    api.advance(400 * 86_400)
    answer = refused(api, 429)
    sent = answer.headers.get("Retry-After")
    now = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    reset = int(answer.headers["X-RateLimit-Reset"])
    assert 40 <= reset - now <= 49
    if expected is None:
        assert sent is None
        return
    assert sent is not None
    if expected == "seconds":
        # Date is cut to whole seconds, and may be read one second later.
        assert int(sent) - (reset - now) in (0, 1)
        wait = float(sent)
    else:
        assert sent.endswith(" GMT")
        assert parsedate_to_datetime(sent).timestamp() == reset
        wait = reset - now
    # Whoever waits that long may go on.
    api.advance(wait)
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


VERSIONS: list[dict[str, str]] = [
    {},
    {"Fluxomail-Version": "2025-09-01"},
    {"Fluxomail-Version": "2024-01-01"},
    {"Fluxomail-Version": ""},
]


@each_value(
    "version_header",
    {"optional": [200, 200, 200, 200], "known": [200, 200, 400, 400], "required": [400, 200, 400, 400]},
)
def test_version_header(api: Api, value: str, expected: list[int]) -> None:
    send_id = api.send_id()
    api.control("settings", version_header=value)
    sent = [api.send(headers=version) for version in VERSIONS]
    read = [api.read(send_id, version) for version in VERSIONS]
    assert [answer.status_code for answer in sent] == [answer.status_code for answer in read] == expected
    for answer in sent + read:
        if answer.status_code == 400:
            assert answer.json()["code"] == "validation_error"
            assert "send 2025-09-01" in answer.json()["message"]
    assert api.count() == 1 + expected.count(200)


@each_value("content_required", {True: 400, False: 200})
@pytest.mark.parametrize("content", [None, "", " "])
def test_content_required(api: Api, value: bool, expected: int, content: str | None) -> None:
    api.control("settings", content_required=value)
    assert api.send(content=content, htmlContent="<p>hi</p>").status_code == expected
    # One of both is needed in any case, and the others are as before.
    for html in (None, "", " \n"):
        answer = api.send(content=content, htmlContent=html)
        assert (answer.status_code, answer.json()["details"]) == (400, {"fields": ["content"]})
    assert api.send(content=content, htmlContent=5).status_code == 400
    assert api.send(subject=None, htmlContent="<p>hi</p>").json()["details"] == {"fields": ["subject"]}
    stored = api.get("messages")["messages"]
    assert [(message["content"], message["html_content"]) for message in stored] == (
        [] if value else [((content or ""), "<p>hi</p>")]
    )


@each_value("to_list", {True: 200, False: 400})
def test_to_list(api: Api, value: bool, expected: int) -> None:
    api.control("settings", to_list=value, idempotency_conflict="conflict")
    assert api.send(to=["ann+bounced@example.org"], idempotency_key="k").status_code == expected
    for to in ([], ["a@example.org", "b@example.org"], [5], [["a@example.org"]], [None], [""]):
        answer = api.send(to=to)
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error"), to
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
    answer = api.send(path=path, replyTo="r@example.org", fromName="x")
    assert answer.status_code == expected
    if expected == 400:
        assert answer.json()["message"] == "Invalid request: unknown field fromName, replyTo"
        assert answer.json()["details"] == {"fields": ["fromName", "replyTo"]}
        assert api.count() == 0
    else:
        assert api.get("messages")["messages"][0]["extra_fields"] == {"replyTo": "r@example.org", "fromName": "x"}
    known: dict[str, Any] = {
        "htmlContent": "<p>",
        "cc": "a@example.org",
        "bcc": [],
        "attachments": [],
        "policyKey": "bulk",
        "idempotencyKey": "k",
    }
    assert api.send(path=path, **known).status_code == 200


@each_value("send_global", {"full": 200, "short": 400})
def test_send_global(api: Api, value: str, expected: int) -> None:
    api.control("settings", send_global=value, event_delay=0)
    attachments = [{"filename": "a", "contentBase64": ""}]
    fields: list[dict[str, Any]] = [{"cc": "c@example.org"}, {"bcc": ["c@example.org"]}, {"attachments": attachments}]
    for each in fields:
        answer = api.send(path="send-global", **each)
        assert answer.status_code == expected
        if expected == 400:
            assert answer.json()["message"] == f"Invalid request: send-global takes no {next(iter(each))}"
            assert answer.json()["details"] == {"fields": list(each)}
        assert api.send(**each).status_code == 200
    answer = api.send(path="send-global", cc="c@example.org", attachments=attachments)
    if expected == 400:
        assert answer.json()["details"] == {"fields": ["cc", "attachments"]}
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


@each_value("attachments_max_count", {0: 0, 1: 1, 7: 7})
@pytest.mark.parametrize("path", ["send", "send-global"])
def test_attachments_max_count(api: Api, value: int, expected: int, path: str) -> None:
    api.control("settings", attachments_max_count=value)
    assert api.send(path=path, attachments=attachments_of(*[1] * expected)).status_code == 200
    answer = api.send(path=path, attachments=attachments_of(*[1] * (expected + 1)))
    assert answer.status_code == 400
    assert answer.json()["message"] == f"Too many attachments: {expected + 1}, at most {expected}"
    assert answer.json()["details"] == {"fields": ["attachments"], "reason": "too_many"}
    assert api.count() == 1


@each_value("attachments_max_bytes", {0: 0, 10: 10, 1000: 1000})
def test_attachments_max_bytes(api: Api, value: int, expected: int) -> None:
    api.control("settings", attachments_max_bytes=value)
    for sizes in ([expected], [expected // 2, expected - expected // 2], [0, 0, expected]):
        assert api.send(attachments=attachments_of(*sizes)).status_code == 200
    for sizes in ([expected + 1], [expected, 1], [1, expected]):
        answer = api.send(attachments=attachments_of(*sizes))
        assert answer.status_code == 400
        assert answer.json()["message"] == f"Attachments too large: more than {expected} bytes in total"
        assert answer.json()["details"] == {"fields": ["attachments"], "reason": "too_large"}
    assert api.count() == 3


@each_value("attachments_in_plan", {True: 200, False: 402})
def test_attachments_in_plan(api: Api, value: bool, expected: int) -> None:
    api.control("settings", attachments_in_plan=value)
    for path in ("send", "send-global"):
        assert api.send(path=path, attachments=attachments_of(1)).status_code == expected
        assert api.send(path=path, attachments=[]).status_code == 200
    # Wrong attachments are told of first.
    assert api.send(attachments=attachments_of(*[1] * 6)).status_code == 400
    assert api.count() == (4 if value else 2)
