"""The control API: what it shows, what it refuses, and the reset."""

from __future__ import annotations

import time
from typing import Any

import pytest

from airflow_provider_fluxomail.sandbox.clock import Stopwatch

from .helpers import KEY, Api


def test_health(api: Api) -> None:
    health = api.get("health")
    assert health["status"] == "ok"
    assert abs(health["now"] - time.time()) < 5


def test_clock(api: Api) -> None:
    before = api.get("health")["now"]
    now = api.advance(90.5)
    assert 90.5 <= now - before < 95.5
    assert api.get("health")["now"] >= now


def test_keys(api: Api) -> None:
    made = api.control("keys", key="k1", scopes=["send_email"], rate_limit_per_minute=5, organization="org_9")
    assert made == {"key": "k1", "scopes": ["send_email"], "rate_limit_per_minute": 5, "organization": "org_9"}
    replaced = api.control("keys", key="k1")
    assert replaced == {"key": "k1", "scopes": None, "rate_limit_per_minute": None, "organization": "org_sandbox"}
    assert "X-RateLimit-Limit" not in api.send(api_key="k1").headers


def test_messages_are_filtered_and_paged(api: Api) -> None:
    ids = [api.send_id(to=f"user{n % 2}@example.org", idempotency_key=f"k{n}") for n in range(5)]
    assert [message["send_id"] for message in api.get("messages")["messages"]] == ids
    page = api.get("messages", limit=2, offset=1)
    assert (page["count"], [message["send_id"] for message in page["messages"]]) == (5, ids[1:3])
    assert api.get("messages", limit=0) == {"count": 5, "messages": []}
    assert api.count(to="USER1@example.org") == 2
    assert api.count(to="user1@example.org", idempotency_key="k1") == 1
    assert api.count(to="user0@example.org", idempotency_key="k1") == 0
    assert api.count(to="user") == 0


def test_requests(api: Api) -> None:
    start = time.time()
    api.send(idempotency_key="k", headers={"User-Agent": "mine/1", "x-api-key": "secret-2"})
    api.advance(3600)
    api.http.get("/api/v1/sends/x?limit=5&a=%20", headers={"x-api-key": "secret-1"})
    api.get("health")
    answer = api.get("requests")
    assert answer["count"] == 2
    send, read = answer["requests"]
    assert set(send) == {
        "at",
        "method",
        "path",
        "query",
        "status",
        "idempotency_key",
        "fault",
        "user_agent",
        "headers",
    }
    assert (send["method"], send["path"], send["query"], send["status"]) == ("POST", "/api/v1/emails/send", "", 200)
    assert (send["idempotency_key"], send["fault"], send["user_agent"]) == ("k", None, "mine/1")
    assert (read["path"], read["query"], read["status"]) == ("/api/v1/sends/x", "limit=5&a=%20", 401)
    # Real time: the moved clock does not show in the gap between two requests.
    assert start - 1 < send["at"] < read["at"] < send["at"] + 10
    assert send["headers"]["content-type"] == "application/json"
    for row in (send, read):
        assert not {"authorization", "x-api-key"} & set(row["headers"])
    assert "secret" not in str(answer)
    assert KEY not in str(answer)


def test_the_log_does_not_follow_a_wall_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch()
    before = watch.now()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert before <= watch.now() < before + 5


def test_settings(api: Api) -> None:
    defaults = {"event_delay": 1.0, "idempotency_conflict": "replay", "timeline_form": "docs"}
    assert api.get("settings") == defaults
    assert api.control("settings", timeline_form="spec") == defaults | {"timeline_form": "spec"}
    assert api.post("settings", event_delay=5, timeline_form="other").status_code == 400
    assert api.get("settings") == defaults | {"timeline_form": "spec"}
    assert api.control("settings") == defaults | {"timeline_form": "spec"}


def test_reset(api: Api) -> None:
    api.control("keys", key="made")
    api.control("keys", key=KEY, scopes=["read_sends"], rate_limit_per_minute=1)
    api.control("settings", timeline_form="spec", event_delay=9, idempotency_conflict="conflict")
    api.control("pause", paused=True)
    api.control("faults", kind="status", status=503, match={"path": "/none"})
    api.send(api_key="made")
    api.advance(86_400)
    api.control("reset")
    assert api.get("messages") == {"count": 0, "messages": []}
    assert api.get("requests") == {"count": 0, "requests": []}
    assert api.get("faults") == {"count": 0, "faults": []}
    assert api.get("settings") == {"event_delay": 1.0, "idempotency_conflict": "replay", "timeline_form": "docs"}
    assert abs(api.get("health")["now"] - time.time()) < 5
    assert api.send(api_key="made").status_code == 401
    answer = api.send(idempotency_key="k")
    assert answer.status_code == 200
    assert "X-RateLimit-Limit" not in answer.headers
    api.control("reset")
    assert "reused" not in api.send(idempotency_key="k").json()


@pytest.mark.parametrize(
    ("call", "fields", "text"),
    [
        ("keys", {}, "key is missing"),
        ("keys", {"key": ""}, "key must be a text"),
        ("keys", {"key": 5}, "key must be a text"),
        ("keys", {"key": "k" * 300}, "key must be a text"),
        ("keys", {"key": "ключ"}, "printable ASCII"),
        ("keys", {"key": "a b"}, "printable ASCII"),
        ("keys", {"key": "k", "scope": "x"}, "unknown field scope: this call takes key, scopes"),
        ("keys", {"key": "k", "scopes": "send_email"}, "scopes must be a list"),
        ("keys", {"key": "k", "scopes": [5]}, "scopes must be a list"),
        ("keys", {"key": "k", "rate_limit_per_minute": 0}, "rate_limit_per_minute must be a whole number"),
        ("keys", {"key": "k", "rate_limit_per_minute": 1.5}, "rate_limit_per_minute must be a whole number"),
        ("keys", {"key": "k", "rate_limit_per_minute": True}, "rate_limit_per_minute must be a whole number"),
        ("keys", {"key": "k", "organization": 5}, "organization must be a text"),
        ("pause", {}, "paused must be true or false"),
        ("pause", {"paused": 1}, "paused must be true or false"),
        ("clock", {}, "advance_seconds must be a number"),
        ("clock", {"advance_seconds": True}, "advance_seconds must be a number"),
        ("clock", {"advance_seconds": -1}, "advance_seconds must be between 0 and"),
        ("clock", {"advance_seconds": 1e15}, "advance_seconds must be between 0 and"),
        ("settings", {"event_delay": -1}, "event_delay must be between 0 and"),
        ("settings", {"event_delay": "1"}, "event_delay must be a number"),
        ("settings", {"idempotency_conflict": "x"}, "idempotency_conflict must be one of replay, conflict"),
        ("settings", {"timeline_form": None}, "timeline_form must be one of docs, spec"),
        ("settings", {"delay": 1}, "unknown field delay"),
        (
            "faults",
            {"kind": "boom"},
            "kind must be one of status, error_before_store, error_after_store, response_lost_after_store, delay",
        ),
        ("faults", {}, "kind must be one of"),
        ("faults", {"kind": "status"}, "status must be a whole number"),
        ("faults", {"kind": "status", "status": 100}, "status must be a whole number between 200 and 599"),
        ("faults", {"kind": "status", "status": 600}, "status must be a whole number"),
        ("faults", {"kind": "status", "status": 429, "retry_after": -1}, "retry_after must be"),
        ("faults", {"kind": "status", "status": 429, "retry_after": True}, "retry_after must be"),
        ("faults", {"kind": "status", "status": 429, "retry_after": "a\nb"}, "retry_after must be"),
        ("faults", {"kind": "status", "status": 429, "headers": []}, "headers must be an object"),
        ("faults", {"kind": "status", "status": 429, "headers": {"a b": "c"}}, "headers: 'a b'"),
        ("faults", {"kind": "status", "status": 429, "headers": {"Content-Length": "5"}}, "headers: 'Content-Length'"),
        ("faults", {"kind": "status", "status": 429, "headers": {"a": 5}}, "headers.a must be"),
        ("faults", {"kind": "status", "status": 429, "headers": {"a": "b\r\nc: d"}}, "headers.a must be"),
        ("faults", {"kind": "status", "status": 429, "seconds": 5}, "unknown field seconds"),
        ("faults", {"kind": "delay"}, "seconds must be a number"),
        ("faults", {"kind": "delay", "seconds": -1}, "seconds must be between"),
        ("faults", {"kind": "error_before_store", "times": 0}, "times must be a whole number"),
        ("faults", {"kind": "error_before_store", "times": -1}, "times must be a whole number"),
        ("faults", {"kind": "error_before_store", "match": "x"}, "match must be an object"),
        ("faults", {"kind": "error_before_store", "match": {"key": "x"}}, "unknown field match.key"),
        ("faults", {"kind": "error_before_store", "match": {"path": 5}}, "path must be a text"),
        ("messages/none/events", {"type": "delivered"}, "no message has the send id 'none'"),
    ],
)
def test_bad_input_names_the_field_and_the_cure(api: Api, call: str, fields: dict[str, Any], text: str) -> None:
    answer = api.post(call, **fields)
    assert answer.status_code in (400, 404), answer.text
    assert set(answer.json()) == {"error"}
    assert text in answer.json()["error"]
    assert api.get("faults")["count"] == 0


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "exploded"}, "type must be one of sent, delivered, opened, clicked, bounced, complained"),
        ({}, "type must be one of"),
        ({"type": "delivered", "at": -1}, "at must be between 0 and"),
        ({"type": "delivered", "at": "now"}, "at must be a number"),
        ({"type": "delivered", "ts": 1}, "ts is filled in"),
    ],
)
def test_bad_event(api: Api, fields: dict[str, Any], text: str) -> None:
    send_id = api.send_id()
    answer = api.post(f"messages/{send_id}/events", **fields)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert api.types(send_id) == ["sent"]


@pytest.mark.parametrize("query", [{"limit": "x"}, {"limit": "-1"}, {"limit": "1001"}, {"offset": "-1"}, {"too": "a"}])
def test_bad_query(api: Api, query: dict[str, str]) -> None:
    answer = api.http.get("/_sandbox/messages", params=query)
    assert answer.status_code == 400
    assert next(iter(query)) in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "must be JSON"),
        (b"[]", 400, "must be a JSON object"),
        (b'{"advance_seconds": NaN}', 400, "must be JSON"),
        (b'{"advance_seconds": "\\ud800"}', 400, "must be JSON"),
        (b" " * (1024 * 1024 + 1), 413, "at most"),
    ],
)
def test_bad_body(api: Api, body: bytes, status: int, text: str) -> None:
    answer = api.http.post("/_sandbox/clock", content=body)
    assert answer.status_code == status
    assert text in answer.json()["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/_sandbox/none", 404), ("PUT", "/_sandbox/keys", 405)])
def test_unknown_call(api: Api, method: str, path: str, status: int) -> None:
    answer = api.http.request(method, path)
    assert answer.status_code == status
    assert path in answer.json()["error"]
    assert api.http.get("/").status_code == 404


def test_attachment_of_an_unknown_message(api: Api) -> None:
    assert api.http.get("/_sandbox/messages/none/attachments/0").status_code == 404
