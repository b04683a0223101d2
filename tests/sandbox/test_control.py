"""The control API: what it shows, what it refuses, and the reset."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox.clock import Stopwatch
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.switches import Switches

from .helpers import KEY, Api


def test_health_and_clock(api: Api) -> None:
    before = api.get("health")
    assert before["status"] == "ok"
    assert abs(before["now"] - time.time()) < 5
    now = api.advance(90.5)
    assert 90.5 <= now - before["now"] < 95.5
    assert api.get("health")["now"] >= now


# Keys


def test_keys(api: Api) -> None:
    limits = {"scopes": ["send_email"], "rate_limit_per_minute": 5, "organization": "org_9", "expires_in": 60.5}
    fields = {"key": "k1", **limits}
    assert api.control("keys", **fields) == fields
    assert api.send(api_key="k1").headers["X-RateLimit-Limit"] == "5"
    assert api.control("keys", key="k1") == {**dict.fromkeys(fields), "key": "k1", "organization": "org_sandbox"}
    assert "X-RateLimit-Limit" not in api.send(api_key="k1").headers


def test_a_key_that_expires(api: Api) -> None:
    api.control("keys", key="token", expires_in=60)
    send_id = api.send_id(api_key="token")
    api.advance(50)
    assert api.timeline(send_id, "token").status_code == 200
    # A token of the query is for streams alone.
    assert api.http.get(f"/api/v1/sends/{send_id}?token=token").status_code == 401
    api.advance(10)
    assert api.send(api_key="token").json()["code"] == "invalid_key"
    assert api.timeline(send_id, "token").status_code == 401
    for expires_in, status in ((None, 200), (0, 401)):
        api.control("keys", key="token", expires_in=expires_in)
        assert api.timeline(send_id, "token").status_code == status


def test_a_key_that_is_revoked(api: Api) -> None:
    key = "a/b?c#d%2F"
    api.control("keys", key=key)
    assert api.send(api_key=key).status_code == 200
    assert api.http.delete("/_sandbox/keys/a%2Fb%3Fc%23d%252F").json() == {"deleted": key}
    assert api.send(api_key=key).status_code == 401
    again = api.http.delete("/_sandbox/keys/made")
    assert (again.status_code, again.json()["error"]) == (404, "there is no key 'made'")
    assert api.send().status_code == 200


# Messages


def test_messages_are_filtered_and_paged(api: Api) -> None:
    ids = [api.send_id(to=f"user{n % 2}@example.org", idempotency_key=f"k{n}") for n in range(5)]
    assert api.messages() == ids
    page = api.get("messages", limit=2, offset=1)
    assert (page["count"], [message["send_id"] for message in page["messages"]]) == (5, ids[1:3])
    assert api.get("messages", limit=0) == {"count": 5, "messages": []}
    assert api.count(to="USER1@example.org") == 2
    assert api.count(to="user1@example.org", idempotency_key="k1") == 1
    assert api.count(to="user0@example.org", idempotency_key="k1") == 0
    assert api.count(to="user") == 0


@pytest.mark.parametrize("position", [10**25, -1, "x"])
def test_a_position_that_no_attachment_has(api: Api, position: Any) -> None:
    response = api.http.get(f"/_sandbox/messages/{api.send_id()}/attachments/{position}")
    assert response.status_code == 400
    assert "position must" in response.json()["error"]


def test_an_unknown_message(api: Api) -> None:
    expected = (404, {"error": "no message has the send id 'none'"})
    for response in (
        api.post("messages/none/events", type="delivered"),
        api.http.get("/_sandbox/messages/none/attachments/0"),
    ):
        assert (response.status_code, response.json()) == expected


# The request log


def test_requests(api: Api) -> None:
    start = time.time()
    secrets = {"Referer": "http://x/?token=secret", "Cookie": "a=secret", "Proxy-Authorization": "Basic secret"}
    api.send(idempotency_key="k", headers={"User-Agent": "mine/1", "x-api-key": "secret-2", **secrets})
    api.advance(3600)
    api.http.get("/api/v1/sends/x?limit=5&a=%20", headers={"x-api-key": "secret-1"})
    api.get("health")
    log = api.get("requests")
    assert log["count"] == 2
    send, read = log["requests"]
    sent, read_at = send.pop("at"), read.pop("at")
    assert send.pop("headers")["content-type"] == "application/json"
    assert send == {
        "method": "POST",
        "path": "/api/v1/emails/send",
        "query": "",
        "status": 200,
        "idempotency_key": "k",
        "fault": None,
        "user_agent": "mine/1",
        "gap": None,
    }
    assert (read["path"], read["query"], read["status"]) == ("/api/v1/sends/x", "limit=5&a=%20", 401)
    # Real time: the moved clock does not show in the gap between two requests.
    assert start - 1 < sent < read_at < sent + 10
    assert read["gap"] == read_at - sent
    assert "secret" not in json.dumps(log)
    assert KEY not in json.dumps(log)


@pytest.fixture
def logged(api: Api) -> Api:
    """Six requests: 200, 400, 404, 503 by a fault, one that was delayed, and one whose connection was cut."""
    api.control("faults", kind="delay", seconds=0, match={"idempotency_key": "k[45]"}, times=2)
    api.control("faults", kind="status", status=503, match={"idempotency_key": "k3"})
    api.control("faults", kind="response_lost_after_store", match={"idempotency_key": "k5"})
    api.send(idempotency_key="k0")
    api.send(idempotencyKey="k1", to=None)
    api.timeline("sends_x")
    api.send(idempotency_key="k3", path="send-global")
    api.send(idempotency_key="k4")
    with pytest.raises(httpx.RemoteProtocolError):
        api.send(idempotency_key="k5")
    return api


def test_requests_are_filtered(logged: Api) -> None:
    rows = logged.get("requests")["requests"]
    assert [row["idempotency_key"] for row in rows] == ["k0", "k1", None, "k3", "k4", "k5"]
    assert [row["status"] for row in rows] == [200, 400, 404, 503, 200, None]
    assert [row["fault"] for row in rows] == [None, None, None, "status", "delay", "delay+response_lost_after_store"]
    queries: list[tuple[dict[str, Any], list[int]]] = [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"method": "post"}, [0, 1, 3, 4, 5]),
        ({"path": "/api/v1/emails"}, [0, 1, 3, 4, 5]),
        ({"path": "/api/v1/emails/sen"}, []),
        ({"path": "*global"}, [3]),
        ({"idempotency_key": "k[034]"}, [0, 3, 4]),
        ({"idempotency_key": "*"}, [0, 1, 2, 3, 4, 5]),
        ({"status": 200}, [0, 4]),
        ({"status": 0}, [5]),
        ({"fault": "delay"}, [4, 5]),
        ({"fault": "response_lost_after_store"}, [5]),
        ({"fault": "stat"}, []),
        ({"fault": "delay", "status": 200, "method": "POST", "path": "/api/*", "idempotency_key": "k?"}, [4]),
    ]
    for query, found in queries:
        seen = logged.get("requests", **query)
        assert seen["count"] == len(found), query
        assert [row | {"gap": 0} for row in seen["requests"]] == [rows[number] | {"gap": 0} for number in found], query
        # Each gap is the one to the row before it in this response.
        gaps = [later["at"] - earlier["at"] for earlier, later in pairwise(seen["requests"])]
        assert [row["gap"] for row in seen["requests"]] == [None, *gaps][: len(found)]
        assert all(gap > 0 for gap in gaps)


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("token=secret%26more&token=secret", "token=***&token=***"),
        ("%74oken=secret", "%74oken=***"),
        ("token", "token=***"),
        ("tokens=1&mytoken=2", "tokens=1&mytoken=2"),
    ],
)
def test_a_token_in_a_query_is_not_shown(api: Api, query: str, shown: str) -> None:
    api.http.get(f"/api/v1/sends/x?{query}")
    assert [row["query"] for row in api.get("requests")["requests"]] == [shown]


def test_the_log_does_not_follow_a_wall_clock_that_jumps(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Stopwatch()
    before = watch.now()
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert before <= watch.now() < before + 5


# Settings and reset


def test_settings(api: Api) -> None:
    defaults = Switches().model_dump()
    assert api.get("settings") == defaults
    assert api.control("settings", timeline_form="spec") == defaults | {"timeline_form": "spec"}
    assert api.post("settings", event_delay=5, timeline_form="other").status_code == 400
    assert api.control("settings") == defaults | {"timeline_form": "spec"}
    assert api.control("settings", timeline_form="docs", page_size=7) == defaults | {
        "timeline_form": "docs",
        "page_size": 7,
    }


def test_reset(api: Api) -> None:
    api.control("keys", key="made")
    api.control("keys", key=KEY, scopes=["read_sends"], rate_limit_per_minute=1)
    api.control("settings", timeline_form="spec", event_delay=9, idempotency_conflict="conflict")
    api.control("pause", paused=True)
    api.control("faults", kind="status", status=503, match={"path": "/none"})
    api.send(api_key="made")
    api.advance(86_400)
    api.control("reset")
    for call in ("messages", "requests", "faults"):
        assert api.get(call) == {"count": 0, call: []}
    assert api.get("settings") == Switches().model_dump()
    assert abs(api.get("health")["now"] - time.time()) < 5
    assert api.send(api_key="made").status_code == 401
    response = api.send(idempotency_key="k")
    assert response.status_code == 200
    assert "X-RateLimit-Limit" not in response.headers
    api.control("reset")
    assert "reused" not in api.send(idempotency_key="k").json()


# Bad input


def fault(kind: str = "status", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, **({"status": 429} if kind == "status" else {}), **fields}


NOT_A_NAME = "must be the name of a header: letters, digits and -"
NO_KEY = "key must be printable ASCII without spaces, or no header could carry it"
PRINTABLE = "headers.a must be printable ASCII on one line, without a space at either end"
RETRY_AFTER = (
    "retry_after must be a number that is not negative, printable ASCII on one line without a space at either end, "
    '{"http_date_in": seconds}, or null'
)
KNOWN_KINDS = ", ".join(f"'{kind}'" for kind in KINDS)
LAST_MOMENT = "must be less than or equal to 253402300799"


@pytest.mark.parametrize(
    ("call", "fields", "text"),
    [
        ("keys", {}, "key is missing"),
        ("keys", {"key": "k" * 257}, "key must have at most 256 characters"),
        ("keys", {"key": "a\n"}, NO_KEY),
        (
            "keys",
            {"key": "k", "scope": "x", "cap": 1},
            "unknown field cap, scope: the fields are key, scopes, rate_limit_per_minute, organization, expires_in",
        ),
        ("keys", {"key": "k", "scopes": ["send_email", 5]}, "scopes.1 must be a valid string"),
        ("keys", {"key": "k", "rate_limit_per_minute": True}, "rate_limit_per_minute must be a valid integer"),
        ("clock", {"advance_seconds": -1}, "advance_seconds must be greater than or equal to 0"),
        ("settings", {"page_size": 0, "to_list": 1}, "to_list must be a valid boolean; page_size must be greater than"),
        ("settings", {"delay": 1}, "unknown field delay: the fields are event_delay, default_outcome, "),
        ("faults", {}, f"kind is missing: it is one of {', '.join(KINDS)}"),
        ("faults", {"kind": "boom"}, f"kind 'boom' is none of: {KNOWN_KINDS}"),
        ("faults", {"kind": None}, f"kind 'None' is none of: {KNOWN_KINDS}"),
        *(
            ("faults", fault(retry_after=value), RETRY_AFTER)
            for value in (-0.5, " 5", "5" * 2_001, {"http_date": 5}, {"http_date_in": 1e10})
        ),
        ("faults", fault(headers=[]), "headers must be an object"),
        ("faults", fault(headers={"a b": "c"}), f"headers.a b {NOT_A_NAME}"),
        ("faults", fault(headers={"a\n": "c"}), NOT_A_NAME),
        ("faults", fault(headers={"Content-Length": "5"}), "headers.Content-Length: frames the response"),
        ("faults", fault(headers={"a": 5, "b": None}), "headers.a must be a valid string; headers.b must be a valid"),
        ("faults", fault(headers={"a": "b\r\nc: d"}), PRINTABLE),
        ("faults", fault(headers={"a": "b "}), PRINTABLE),
        ("faults", fault(seconds=5), "unknown field seconds: the fields are kind, times, skip, every, chance, seed, "),
        ("faults", fault("proxy_error_page", status=200), "status must be greater than or equal to 400"),
        ("faults", fault(seed=5), "seed belongs to chance: give chance too"),
        ("faults", fault(match=None), "match must be an object"),
        (
            "faults",
            fault(match={"key": "x"}),
            "match: unknown field key: the fields are method, path, api_key, idempotency_key, recipient",
        ),
        ("faults", fault(match={"path": 5, "method": ""}), "match.method must have at least 1 character; match.path"),
        ("event", {"type": "exploded"}, "type must be 'sent', 'delivered', 'delayed', 'opened', 'clicked', 'bounced'"),
        ("event", {"type": "delivered", "at": 1e15}, f"at {LAST_MOMENT}"),
        ("event", {"type": "delivered", "ts": 1}, "ts is filled in by the sandbox: leave it out (at sets the time)"),
        ("event", {"type": "delivered", "providerMessageId": "x"}, "providerMessageId is filled in"),
        ("event", {"type": "delivered", "dropped": 1}, "dropped is filled in"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_input_names_the_field_and_the_cure(api: Api, call: str, fields: dict[str, Any], text: str) -> None:
    send_id = api.quiet()
    response = api.post(f"messages/{send_id}/events" if call == "event" else call, **fields)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error"}
    assert text in response.json()["error"]
    assert api.get("faults")["count"] == 0
    assert api.get("settings") == Switches().model_dump()
    assert api.types(send_id) == ["sent"]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("messages?limit=1001", "limit must be less than or equal to 1000"),
        ("messages?too=a", "unknown field too: the fields are to, idempotency_key, limit, offset"),
        ("requests?key=a", "unknown field key: the fields are method, path, idempotency_key, status, fault"),
    ],
)
def test_bad_query(api: Api, query: str, text: str) -> None:
    response = api.http.get(f"/_sandbox/{query}")
    assert response.status_code == 400
    assert text in response.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"advance_seconds=5", 400, "the body must be JSON: "),
        (b"[]", 400, "the body must be a JSON object"),
        (b'{"advance_seconds": NaN}', 400, "the body must be JSON: NaN is not JSON"),
        (b'{"advance_seconds": 1e999}', 400, "the body must be JSON: a number is too large"),
        (b'{"advance_seconds": "\\ud800"}', 400, "the body must be JSON: "),
        (b'{"advance_seconds": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deeply"),
        (b" " * (1024 * 1024 + 1), 413, "the body must be at most 1048576 bytes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_body(api: Api, body: bytes, status: int, text: str) -> None:
    before = api.get("health")["now"]
    response = api.http.post("/_sandbox/clock", content=body)
    assert response.status_code == status
    assert text in response.json()["error"]
    assert api.get("health")["now"] - before < 5


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded", "application/json; charset=utf-8"])
def test_a_body_is_json_whatever_its_content_type(api: Api, content_type: str | None) -> None:
    """``curl -d`` names a form."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = api.http.post("/_sandbox/keys", content=b'{"key": "k"}', headers=headers)
    assert (response.status_code, response.json()["key"]) == (200, "k")


def test_no_body_is_an_empty_object(api: Api) -> None:
    assert api.http.post("/_sandbox/reset").json() == {"reset": True}
    assert api.http.post("/_sandbox/settings").json() == Switches().model_dump()
    assert api.http.post("/_sandbox/keys").json() == {"error": "key is missing"}


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/_sandbox/none", 404), ("PUT", "/_sandbox/keys", 405)])
def test_unknown_call(api: Api, method: str, path: str, status: int) -> None:
    response = api.http.request(method, path)
    assert response.status_code == status
    assert path in response.json()["error"]
