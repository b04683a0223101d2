"""The control API: what it shows, what it refuses, and the reset."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox.clock import Stopwatch
from airflow_provider_fluxomail.sandbox.faults.models import KINDS
from airflow_provider_fluxomail.sandbox.switches import Switches

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
    fields = {
        "key": "k1",
        "scopes": ["send_email"],
        "rate_limit_per_minute": 5,
        "organization": "org_9",
        "expires_in": 60.5,
    }
    assert api.control("keys", **fields) == fields
    assert api.send(api_key="k1").headers["X-RateLimit-Limit"] == "5"
    replaced = api.control("keys", key="k1")
    assert replaced == {
        "key": "k1",
        "scopes": None,
        "rate_limit_per_minute": None,
        "organization": "org_sandbox",
        "expires_in": None,
    }
    assert "X-RateLimit-Limit" not in api.send(api_key="k1").headers


def test_a_key_that_expires(api: Api) -> None:
    api.control("keys", key="token", expires_in=60)
    send_id = api.send_id(api_key="token")
    api.advance(50)
    assert api.timeline(send_id, "token").status_code == 200
    api.advance(10)
    assert api.send(api_key="token").json()["code"] == "invalid_key"
    assert api.timeline(send_id, "token").status_code == 401
    # Made anew, it lives on.
    api.control("keys", key="token")
    assert api.timeline(send_id, "token").status_code == 200
    api.control("keys", key="token", expires_in=0)
    assert api.timeline(send_id, "token").status_code == 401


def test_a_key_that_is_revoked(api: Api) -> None:
    api.control("keys", key="made")
    assert api.send(api_key="made").status_code == 200
    assert api.http.delete("/_sandbox/keys/made").json() == {"deleted": "made"}
    assert api.send(api_key="made").status_code == 401
    again = api.http.delete("/_sandbox/keys/made")
    assert (again.status_code, again.json()["error"]) == (404, "there is no key 'made'")
    assert api.send().status_code == 200


def test_a_key_with_signs_of_an_url_can_be_revoked(api: Api) -> None:
    api.control("keys", key="a/b?c#d%2F")
    assert api.http.delete("/_sandbox/keys/a%2Fb%3Fc%23d%252F").json() == {"deleted": "a/b?c#d%2F"}
    assert api.send(api_key="a/b?c#d%2F").status_code == 401


@pytest.mark.parametrize("expires_in", [None, 60])
def test_a_token_in_the_query_is_for_streams_alone(api: Api, expires_in: float | None) -> None:
    api.control("keys", key="token", expires_in=expires_in)
    assert api.http.get("/api/v1/sends/x?token=token").status_code == 401


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
        "gap",
    }
    assert (send["method"], send["path"], send["query"], send["status"]) == ("POST", "/api/v1/emails/send", "", 200)
    assert (send["idempotency_key"], send["fault"], send["user_agent"]) == ("k", None, "mine/1")
    assert (read["path"], read["query"], read["status"]) == ("/api/v1/sends/x", "limit=5&a=%20", 401)
    # Real time: the moved clock does not show in the gap between two requests.
    assert start - 1 < send["at"] < read["at"] < send["at"] + 10
    assert (send["gap"], read["gap"]) == (None, read["at"] - send["at"])
    assert send["headers"]["content-type"] == "application/json"
    for row in (send, read):
        assert not {"authorization", "x-api-key"} & set(row["headers"])
    assert "secret" not in str(answer)
    assert KEY not in str(answer)


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


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"method": "GET"}, [2]),
        ({"method": "post"}, [0, 1, 3, 4, 5]),
        ({"method": "P*"}, [0, 1, 3, 4, 5]),
        ({"path": "/api/v1/emails"}, [0, 1, 3, 4, 5]),
        ({"path": "/api/v1/emails/send"}, [0, 1, 4, 5]),
        ({"path": "/api/v1/emails/sen"}, []),
        ({"path": "*global"}, [3]),
        ({"path": "/api/v1/sends/"}, [2]),
        ({"idempotency_key": "k0"}, [0]),
        ({"idempotency_key": "k1"}, [1]),
        ({"idempotency_key": "k[034]"}, [0, 3, 4]),
        ({"idempotency_key": "*"}, [0, 1, 2, 3, 4, 5]),
        ({"status": 200}, [0, 4]),
        ({"status": 400}, [1]),
        ({"status": 404}, [2]),
        ({"status": 503}, [3]),
        ({"status": 0}, [5]),
        ({"status": 418}, []),
        ({"fault": "status"}, [3]),
        ({"fault": "delay"}, [4, 5]),
        ({"fault": "response_lost_after_store"}, [5]),
        ({"fault": "stat"}, []),
        ({"fault": "delay", "status": 200, "method": "POST", "path": "/api/*", "idempotency_key": "k?"}, [4]),
    ],
)
def test_requests_are_filtered(logged: Api, query: dict[str, Any], found: list[int]) -> None:
    rows = logged.get("requests")["requests"]
    answer = logged.get("requests", **query)
    assert answer["count"] == len(answer["requests"]) == len(found)
    assert [{**row, "gap": None} for row in answer["requests"]] == [{**rows[number], "gap": None} for number in found]
    # Each gap is the one to the row before it in this answer.
    times = [row["at"] for row in answer["requests"]]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert [row["gap"] for row in answer["requests"]] == [None, *gaps][: len(found)]
    assert all(gap > 0 for gap in gaps)


def test_what_the_log_tells_of_each_request(logged: Api) -> None:
    rows = logged.get("requests")["requests"]
    assert [row["idempotency_key"] for row in rows] == ["k0", "k1", None, "k3", "k4", "k5"]
    assert [row["status"] for row in rows] == [200, 400, 404, 503, 200, None]
    assert [row["fault"] for row in rows] == [None, None, None, "status", "delay", "delay+response_lost_after_store"]


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("token=secret", "token=***"),
        ("a=1&token=secret&b=2", "a=1&token=***&b=2"),
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


def test_settings(api: Api) -> None:
    defaults = Switches().model_dump()
    assert api.get("settings") == defaults
    assert api.control("settings", timeline_form="spec") == defaults | {"timeline_form": "spec"}
    assert api.post("settings", event_delay=5, timeline_form="other").status_code == 400
    assert api.get("settings") == defaults | {"timeline_form": "spec"}
    assert api.control("settings") == defaults | {"timeline_form": "spec"}
    assert api.control("settings", timeline_form="docs", page_size=7) == defaults | {"page_size": 7}


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
    assert api.get("settings") == Switches().model_dump()
    assert abs(api.get("health")["now"] - time.time()) < 5
    assert api.send(api_key="made").status_code == 401
    answer = api.send(idempotency_key="k")
    assert answer.status_code == 200
    assert "X-RateLimit-Limit" not in answer.headers
    api.control("reset")
    assert "reused" not in api.send(idempotency_key="k").json()


def fault(kind: str = "status", **fields: Any) -> dict[str, Any]:
    return {"kind": kind, **({"status": 429} if kind == "status" else {}), **fields}


NOT_A_NAME = "must be the name of a header: letters, digits and -"
PRINTABLE = "must be printable ASCII on one line, without a space at either end"
RETRY_AFTER = (
    "retry_after must be a number that is not negative, printable ASCII on one line without a space at either end, "
    '{"http_date_in": seconds}, or null'
)
KNOWN_KINDS = ", ".join(f"'{kind}'" for kind in KINDS)
LAST_MOMENT = "must be less than or equal to 253402300799"
YEAR = "must be less than or equal to 31622400"


@pytest.mark.parametrize(
    ("call", "fields", "text"),
    [
        ("keys", {}, "key is missing"),
        ("keys", {"key": ""}, "key must have at least 1 character"),
        ("keys", {"key": 5}, "key must be a valid string"),
        ("keys", {"key": None}, "key must be a valid string"),
        ("keys", {"key": "k" * 257}, "key must have at most 256 characters"),
        ("keys", {"key": "ключ"}, "key must be printable ASCII without spaces, or no header could carry it"),
        ("keys", {"key": "a b"}, "key must be printable ASCII without spaces, or no header could carry it"),
        ("keys", {"key": "a\n"}, "key must be printable ASCII without spaces, or no header could carry it"),
        (
            "keys",
            {"key": "k", "scope": "x", "cap": 1},
            "unknown field cap, scope: the fields are key, scopes, rate_limit_per_minute, organization, expires_in",
        ),
        ("keys", {"key": "k", "scopes": "send_email"}, "scopes must be a valid list"),
        ("keys", {"key": "k", "scopes": ["send_email", 5]}, "scopes.1 must be a valid string"),
        ("keys", {"key": "k", "scopes": [""]}, "scopes.0 must have at least 1 character"),
        ("keys", {"key": "k", "rate_limit_per_minute": 0}, "rate_limit_per_minute must be greater than or equal to 1"),
        ("keys", {"key": "k", "rate_limit_per_minute": 1.5}, "rate_limit_per_minute must be a valid integer"),
        ("keys", {"key": "k", "rate_limit_per_minute": True}, "rate_limit_per_minute must be a valid integer"),
        ("keys", {"key": "k", "rate_limit_per_minute": "5"}, "rate_limit_per_minute must be a valid integer"),
        ("keys", {"key": "k", "organization": 5}, "organization must be a valid string"),
        ("keys", {"key": "k", "organization": ""}, "organization must have at least 1 character"),
        ("keys", {"key": "k", "expires_in": -1}, "expires_in must be greater than or equal to 0"),
        ("keys", {"key": "k", "expires_in": 1e9}, f"expires_in {YEAR}"),
        ("pause", {}, "paused is missing"),
        ("pause", {"paused": 1}, "paused must be a valid boolean"),
        ("pause", {"paused": "true"}, "paused must be a valid boolean"),
        ("pause", {"paused": True, "organization": None}, "organization must be a valid string"),
        ("clock", {}, "advance_seconds is missing"),
        ("clock", {"advance_seconds": True}, "advance_seconds must be a valid number"),
        ("clock", {"advance_seconds": "5"}, "advance_seconds must be a valid number"),
        ("clock", {"advance_seconds": None}, "advance_seconds must be a valid number"),
        ("clock", {"advance_seconds": -1}, "advance_seconds must be greater than or equal to 0"),
        ("clock", {"advance_seconds": 1e15}, f"advance_seconds {LAST_MOMENT}"),
        ("settings", {"event_delay": -1}, "event_delay must be greater than or equal to 0"),
        ("settings", {"event_delay": 1e9}, f"event_delay {YEAR}"),
        ("settings", {"event_delay": "1"}, "event_delay must be a valid number"),
        ("settings", {"idempotency_conflict": "x"}, "idempotency_conflict must be 'replay' or 'conflict'"),
        ("settings", {"timeline_form": None}, "timeline_form must be 'docs', 'spec', 'raw' or 'by_version'"),
        ("settings", {"validation_status": 401}, "validation_status must be 400 or 422"),
        ("settings", {"page_size": 0, "to_list": 1}, "to_list must be a valid boolean; page_size must be greater than"),
        ("settings", {"delay": 1}, "unknown field delay: the fields are event_delay, default_outcome, "),
        ("faults", {}, f"kind is missing: it is one of {', '.join(KINDS)}"),
        ("faults", {"kind": "boom"}, f"kind 'boom' is none of: {KNOWN_KINDS}"),
        ("faults", {"kind": None}, f"kind 'None' is none of: {KNOWN_KINDS}"),
        ("faults", {"kind": "status"}, "status is missing"),
        ("faults", fault(status=199), "status must be greater than or equal to 200"),
        ("faults", fault(status=600), "status must be less than or equal to 599"),
        ("faults", fault(status="429"), "status must be a valid integer"),
        ("faults", fault(retry_after=-1), RETRY_AFTER),
        ("faults", fault(retry_after=-0.5), RETRY_AFTER),
        ("faults", fault(retry_after=True), RETRY_AFTER),
        ("faults", fault(retry_after=[]), RETRY_AFTER),
        ("faults", fault(retry_after="a\nb"), RETRY_AFTER),
        ("faults", fault(retry_after=" 5"), RETRY_AFTER),
        ("faults", fault(retry_after="5" * 2_001), RETRY_AFTER),
        ("faults", fault(retry_after={"http_date": 5}), RETRY_AFTER),
        ("faults", fault(retry_after={"http_date_in": "5"}), RETRY_AFTER),
        ("faults", fault(retry_after={"http_date_in": 1e10}), RETRY_AFTER),
        ("faults", fault(headers=[]), "headers must be an object"),
        ("faults", fault(headers={"a b": "c"}), f"headers.a b {NOT_A_NAME}"),
        ("faults", fault(headers={"": "c"}), f"headers. {NOT_A_NAME}"),
        ("faults", fault(headers={"a\n": "c"}), NOT_A_NAME),
        ("faults", fault(headers={"Content-Length": "5"}), "headers.Content-Length: frames the response"),
        ("faults", fault(headers={"transfer-encoding": "x"}), "headers.transfer-encoding: frames the response"),
        ("faults", fault(headers={"a": 5, "b": None}), "headers.a must be a valid string; headers.b must be a valid"),
        ("faults", fault(headers={"a": "b\r\nc: d"}), f"headers.a {PRINTABLE}"),
        ("faults", fault(headers={"a": "b\n"}), f"headers.a {PRINTABLE}"),
        ("faults", fault(headers={"a": "ü"}), f"headers.a {PRINTABLE}"),
        ("faults", fault(headers={"a": "b "}), f"headers.a {PRINTABLE}"),
        ("faults", fault(after_store="yes"), "after_store must be a valid boolean"),
        ("faults", fault(seconds=5), "unknown field seconds: the fields are kind, times, skip, every, chance, seed, "),
        ("faults", fault("proxy_error_page", status=200), "status must be greater than or equal to 400"),
        ("faults", fault("delay"), "seconds is missing"),
        ("faults", fault("delay", seconds=-1), "seconds must be greater than or equal to 0"),
        ("faults", fault("slow_body", seconds=1e9), f"seconds {YEAR}"),
        ("faults", fault("slow_first_byte", seconds=None), "seconds must be a valid number"),
        ("faults", fault(times=0), "times must be greater than or equal to 1"),
        ("faults", fault(times=1.5), "times must be a valid integer"),
        ("faults", fault(times=True), "times must be a valid integer"),
        ("faults", fault(skip=-1), "skip must be greater than or equal to 0"),
        ("faults", fault(every=0), "every must be greater than or equal to 1"),
        ("faults", fault(chance=0), "chance must be greater than 0"),
        ("faults", fault(chance=1.01), "chance must be less than or equal to 1"),
        ("faults", fault(chance=True), "chance must be a valid number"),
        ("faults", fault(seed=5), "seed belongs to chance: give chance too"),
        ("faults", fault(chance=0.5, seed=1.5), "seed must be a valid integer"),
        ("faults", fault(match="x"), "match must be an object"),
        ("faults", fault(match=None), "match must be an object"),
        (
            "faults",
            fault(match={"key": "x"}),
            "match: unknown field key: the fields are method, path, api_key, idempotency_key, recipient",
        ),
        ("faults", fault(match={"path": 5, "method": ""}), "match.method must have at least 1 character; match.path"),
        ("faults", fault(match={"recipient": "x" * 257}), "match.recipient must have at most 256 characters"),
    ],
)
def test_bad_input_names_the_field_and_the_cure(api: Api, call: str, fields: dict[str, Any], text: str) -> None:
    answer = api.post(call, **fields)
    assert answer.status_code == 400, answer.text
    assert set(answer.json()) == {"error"}
    assert text in answer.json()["error"]
    assert api.get("faults")["count"] == 0
    assert api.get("settings") == Switches().model_dump()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "exploded"}, "type must be 'sent', 'delivered', 'delayed', 'opened', 'clicked', 'bounced', "),
        ({}, "type is missing"),
        ({"type": "delivered", "at": -1}, "at must be greater than or equal to 0"),
        ({"type": "delivered", "at": 1e15}, f"at {LAST_MOMENT}"),
        ({"type": "delivered", "at": "now"}, "at must be a valid number"),
        ({"type": "delivered", "at": True}, "at must be a valid number"),
        ({"type": "delivered", "ts": 1}, "ts is filled in by the sandbox: leave it out (at sets the time)"),
        ({"type": "delivered", "sendId": "x"}, "sendId is filled in"),
        ({"type": "delivered", "providerMessageId": "x"}, "providerMessageId is filled in"),
    ],
)
def test_bad_event(api: Api, fields: dict[str, Any], text: str) -> None:
    send_id = api.send_id()
    answer = api.post(f"messages/{send_id}/events", **fields)
    assert answer.status_code == 400
    assert text in answer.json()["error"]
    assert api.types(send_id) == ["sent"]


def test_event_of_an_unknown_message(api: Api) -> None:
    answer = api.post("messages/none/events", type="delivered")
    assert (answer.status_code, answer.json()["error"]) == (404, "no message has the send id 'none'")


@pytest.mark.parametrize(
    ("call", "query", "text"),
    [
        ("messages", {"limit": "x"}, "limit must be a valid integer"),
        ("messages", {"limit": "-1"}, "limit must be greater than or equal to 0"),
        ("messages", {"limit": "1001"}, "limit must be less than or equal to 1000"),
        ("messages", {"offset": "-1"}, "offset must be greater than or equal to 0"),
        ("messages", {"too": "a"}, "unknown field too: the fields are to, idempotency_key, limit, offset"),
        ("requests", {"status": "ok"}, "status must be a valid integer"),
        ("requests", {"method": ""}, "method must have at least 1 character"),
        ("requests", {"path": "x" * 257}, "path must have at most 256 characters"),
        ("requests", {"key": "a"}, "unknown field key: the fields are method, path, idempotency_key, status, fault"),
    ],
)
def test_bad_query(api: Api, call: str, query: dict[str, str], text: str) -> None:
    answer = api.http.get(f"/_sandbox/{call}", params=query)
    assert answer.status_code == 400
    assert text in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "the body must be JSON: "),
        (b"advance_seconds=5", 400, "the body must be JSON: "),
        (b"\xff", 400, "the body must be JSON: "),
        (b"[]", 400, "the body must be a JSON object"),
        (b"5", 400, "the body must be a JSON object"),
        (b"null", 400, "the body must be a JSON object"),
        (b'{"advance_seconds": NaN}', 400, "the body must be JSON: NaN is not JSON"),
        (b'{"advance_seconds": -Infinity}', 400, "the body must be JSON: -Infinity is not JSON"),
        (b'{"advance_seconds": 1e999}', 400, "the body must be JSON: a number is too large"),
        (b'{"advance_seconds": "\\ud800"}', 400, "the body must be JSON: "),
        (b'{"advance_seconds": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested too deeply"),
        (b" " * (1024 * 1024 + 1), 413, "the body must be at most 1048576 bytes"),
    ],
)
def test_bad_body(api: Api, body: bytes, status: int, text: str) -> None:
    before = api.get("health")["now"]
    answer = api.http.post("/_sandbox/clock", content=body)
    assert answer.status_code == status
    assert text in answer.json()["error"]
    assert api.get("health")["now"] - before < 5


@pytest.mark.parametrize(
    "content_type", [None, "application/x-www-form-urlencoded", "text/plain", "application/json; charset=utf-8"]
)
def test_a_body_is_json_whatever_its_content_type(api: Api, content_type: str | None) -> None:
    """``curl -d`` names a form."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = api.http.post("/_sandbox/keys", content=b'{"key": "k"}', headers=headers)
    assert (answer.status_code, answer.json()["key"]) == (200, "k")
    assert api.send(api_key="k").status_code == 200


def test_no_body_is_an_empty_object(api: Api) -> None:
    api.send_id()
    assert api.http.post("/_sandbox/reset").json() == {"reset": True}
    assert api.count() == 0
    assert api.http.post("/_sandbox/settings").json() == Switches().model_dump()
    assert api.http.post("/_sandbox/keys").json() == {"error": "key is missing"}


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/_sandbox/none", 404), ("PUT", "/_sandbox/keys", 405)])
def test_unknown_call(api: Api, method: str, path: str, status: int) -> None:
    answer = api.http.request(method, path)
    assert answer.status_code == status
    assert path in answer.json()["error"]
    assert api.http.get("/").status_code == 404


def test_attachment_of_an_unknown_message(api: Api) -> None:
    assert api.http.get("/_sandbox/messages/none/attachments/0").status_code == 404
