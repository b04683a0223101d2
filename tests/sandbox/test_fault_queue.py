"""Which requests meet a fault: matching, order and schedules."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds
from airflow_provider_fluxomail.sandbox.faults.models import ErrorBeforeStore
from airflow_provider_fluxomail.sandbox.faults.queue import FaultQueue, Subject

from .helpers import BASE, KEY, Api


def met(answers: dict[str, httpx.Response]) -> list[str]:
    return [name for name, answer in answers.items() if answer.status_code == 503]


def pattern(api: Api, count: int) -> str:
    """Which of some requests meet a fault, as x and dots."""
    return "".join("x" if api.timeline("none").status_code == 503 else "." for _ in range(count))


def waiting(api: Api) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = api.get("faults")["faults"]
    return faults


# What matches


@pytest.mark.parametrize(
    ("match", "meets"),
    [
        ({}, ["send", "send-global", "timeline"]),
        ({"method": "POST"}, ["send", "send-global"]),
        ({"method": "get"}, ["timeline"]),
        ({"method": "P*"}, ["send", "send-global"]),
        ({"method": "*"}, ["send", "send-global", "timeline"]),
        ({"method": "DELETE"}, []),
        ({"path": "/api/v1/emails/send"}, ["send"]),
        ({"path": "/api/v1/emails"}, ["send", "send-global"]),
        ({"path": "/api/v1/emails/"}, ["send", "send-global"]),
        ({"path": "/api/v1"}, ["send", "send-global", "timeline"]),
        ({"path": "/api/v1/sends/*"}, ["timeline"]),
        ({"path": "*/send?global"}, ["send-global"]),
        ({"path": "*/send[-]global"}, ["send-global"]),
        ({"path": "*/SEND"}, []),
        ({"path": "/api/v1/sends", "method": "POST"}, []),
        ({"path": None, "method": None}, ["send", "send-global", "timeline"]),
        ({"path": "/api/v1/em"}, []),
        ({"path": "send"}, []),
    ],
)
def test_method_and_path(api: Api, match: dict[str, Any], meets: list[str]) -> None:
    api.control("faults", kind="status", status=503, times=9, match=match)
    answers = {"send": api.send(), "send-global": api.send(path="send-global"), "timeline": api.timeline("unknown")}
    assert met(answers) == meets


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ("ann@example.org", ["send", "named", "listed", "read"]),
        ("ANN@Example.ORG", ["send", "named", "listed", "read"]),
        ("*@example.org", ["send", "other", "named", "listed", "read", "refused"]),
        ("ann*", ["send", "named", "listed", "read", "refused"]),
        ("Ann Ö <*", ["named"]),
        ("*@other.example", []),
        ("ann?bounced@example.org", ["refused"]),
        ("", None),
    ],
)
def test_recipient(api: Api, wanted: str, meets: list[str] | None) -> None:
    api.control("settings", to_list=True)
    send_id = api.send_id(to="Ann@example.org")
    if meets is None:
        assert api.post("faults", kind="status", status=503, match={"recipient": wanted}).status_code == 400
        return
    api.control("faults", kind="status", status=503, times=99, match={"recipient": wanted})
    answers = {
        "send": api.send(to="ann@EXAMPLE.org"),
        "other": api.send(),
        "named": api.send(to="Ann Ö <ann@example.org>"),
        "listed": api.send(to=["ann@example.org"]),
        "two": api.send(to=["ann@example.org", "ann@example.org"]),
        "read": api.timeline(send_id),
        "unknown": api.timeline("none"),
        "refused": api.send(to="ann+bounced@example.org", api_key="wrong"),
        "no recipient": api.send(to=None),
        "number": api.send(to=5),
    }
    assert met(answers) == meets


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ("k1", ["header", "body", "read"]),
        ("k?", ["header", "body", "other", "read"]),
        ("K1", []),
        ("*", ["header", "body", "other", "read"]),
        ("none", []),
    ],
)
def test_idempotency_key(api: Api, wanted: str, meets: list[str]) -> None:
    send_id, unkeyed = api.send_id(idempotency_key="k1"), api.send_id()
    api.control("faults", kind="status", status=503, times=99, match={"idempotency_key": wanted})
    answers = {
        "header": api.send(idempotency_key="k1"),
        "body": api.send(idempotencyKey="k1"),
        # The header counts, as for the API.
        "other": api.send(idempotency_key="k2", idempotencyKey="k1"),
        "none": api.send(),
        "number": api.send(idempotencyKey=1),
        "read": api.timeline(send_id),
        "read without": api.timeline(unkeyed),
        "read unknown": api.timeline("none"),
    }
    assert met(answers) == meets


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        (KEY, ["bearer", "x-api-key", "both", "get"]),
        ("fm_*", ["bearer", "x-api-key", "both", "get"]),
        ("other", ["other"]),
        ("FM_SANDBOX", []),
        ("*", ["bearer", "x-api-key", "both", "other", "unknown", "get"]),
    ],
)
def test_api_key(api: Api, wanted: str, meets: list[str]) -> None:
    api.control("keys", key="other")
    api.control("faults", kind="status", status=503, times=99, match={"api_key": wanted})

    def post(**headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return api.http.post("/api/v1/emails/send", json=BASE, headers=named)

    answers = {
        "bearer": post(authorization=f"bearer {KEY}"),
        "x-api-key": post(x_api_key=KEY),
        "both": post(authorization=f"Bearer {KEY}", x_api_key="unused"),
        "other": post(x_api_key="other"),
        "unknown": post(x_api_key="unknown"),
        "basic": post(authorization="Basic eDp5"),
        "none": post(),
        "get": api.timeline("none"),
    }
    assert met(answers) == meets


def test_everything_that_is_given_must_match(api: Api) -> None:
    api.control("keys", key="other")
    match = {
        "method": "POST",
        "path": "*/send",
        "api_key": KEY,
        "idempotency_key": "k",
        "recipient": "ops@example.org",
    }
    api.control("faults", kind="status", status=503, times=99, match=match)
    answers = {
        "all": api.send(idempotency_key="k"),
        "path": api.send(idempotency_key="k", path="send-global"),
        "api_key": api.send(idempotency_key="k", api_key="other"),
        "idempotency_key": api.send(idempotency_key="l"),
        "recipient": api.send(idempotency_key="k", to="x@example.org"),
    }
    assert met(answers) == ["all"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"to": NaN}', b'{"to": ' + b"[" * 100_000])
def test_a_body_that_tells_nothing_matches_nothing(api: Api, body: bytes) -> None:
    api.control("faults", kind="status", status=503, match={"recipient": "*"})
    answer = api.http.post("/api/v1/emails/send", content=body, headers={"x-api-key": KEY})
    assert answer.status_code == 400
    assert answer.headers["X-Request-Id"]
    assert api.send().status_code == 503


def test_control_calls_meet_no_fault(api: Api) -> None:
    api.control("faults", kind="status", status=503, times=None)
    assert api.get("health")["status"] == "ok"
    assert api.send().status_code == 503


# Order


def test_faults_are_met_in_order(api: Api) -> None:
    api.control("faults", kind="status", status=501, times=2)
    api.control("faults", kind="status", status=502, match={"method": "GET"})
    made = api.control("faults", kind="status", status=503)
    assert (made["id"], made["remaining"], made["met"]) == (3, 1, 0)
    assert [api.send().status_code for _ in range(4)] == [501, 501, 503, 200]
    assert api.get("faults") == {
        "count": 1,
        "faults": [
            {
                "id": 2,
                "met": 0,
                "remaining": 1,
                "kind": "status",
                "times": 1,
                "skip": 0,
                "every": 1,
                "chance": None,
                "seed": None,
                "match": {"method": "GET", "path": None, "api_key": None, "idempotency_key": None, "recipient": None},
                "status": 502,
                "body": None,
                "headers": {},
                "retry_after": None,
                "after_store": False,
            }
        ],
    }
    assert api.http.delete("/_sandbox/faults").json() == {"count": 0, "faults": []}
    assert api.timeline("x").status_code == 404
    assert api.control("faults", kind="cut_in_body")["id"] == 1


def test_a_delay_combines_with_the_next_fault(api: Api) -> None:
    api.control("faults", kind="delay", seconds=0.1, times=2)
    api.control("faults", kind="delay", seconds=0)
    api.control("faults", kind="status", status=503)
    first = api.send()
    assert first.status_code == 503
    assert first.elapsed.total_seconds() >= 0.1
    assert [api.send().status_code for _ in range(3)] == [200, 200, 200]
    faults = [row["fault"] for row in api.get("requests")["requests"]]
    assert faults == ["delay+status", "delay", "delay", None]


@pytest.mark.parametrize("kind", ["cut_before_store", "error_before_store", "error_after_store", "malformed_json"])
def test_a_delay_combines_with_each_kind(api: Api, kind: str) -> None:
    api.control("faults", kind="delay", seconds=0)
    api.control("faults", kind=kind)
    try:
        api.send()
    except httpx.RemoteProtocolError:
        assert kind == "cut_before_store"
    assert [row["fault"] for row in api.get("requests")["requests"]] == [f"delay+{kind}"]
    assert waiting(api) == []


# Schedules


@pytest.mark.parametrize(
    ("fields", "pattern_met"),
    [
        ({}, "x..........."),
        ({"times": 3}, "xxx........."),
        ({"times": None}, "xxxxxxxxxxxx"),
        ({"skip": 4}, "....x......."),
        ({"skip": 4, "times": 2}, "....xx......"),
        ({"skip": 10, "times": None}, "..........xx"),
        ({"every": 3}, "..x..x..x..x"),
        ({"every": 3, "times": 2}, "..x..x......"),
        ({"every": 3, "times": None}, "..x..x..x..x"),
        ({"every": 2, "skip": 5}, "......x.x.x."),
        ({"every": 2, "skip": 5, "times": 1}, "......x....."),
        ({"every": 1}, "x..........."),
        ({"chance": 1}, "xxxxxxxxxxxx"),
        ({"chance": 1, "times": 2}, "xx.........."),
        ({"chance": 1, "skip": 2, "every": 4, "times": 2}, ".....x...x.."),
    ],
)
def test_schedule(api: Api, fields: dict[str, Any], pattern_met: str) -> None:
    api.control("faults", kind="status", status=503, **fields)
    assert pattern(api, 12) == pattern_met
    left = waiting(api)
    if left:
        assert left[0]["met"] == pattern_met.count("x")
        times = left[0]["times"]
        assert left[0]["remaining"] == (None if times is None else times - left[0]["met"])
    else:
        assert pattern_met.count("x") == fields.get("times", 1)


def test_what_is_shown_of_the_times(api: Api) -> None:
    """No end is the default where a fault is spread over many requests."""
    for fields, times in (({}, 1), ({"every": 2}, None), ({"chance": 0.5}, None), ({"chance": 0.5, "times": 4}, 4)):
        made = api.control("faults", kind="status", status=503, **fields)
        assert (made["times"], made["remaining"], made["met"]) == (times, times, 0)


def test_only_matching_requests_are_counted(api: Api) -> None:
    api.control("faults", kind="status", status=503, every=2, match={"method": "GET"})
    seen = []
    for _ in range(4):
        assert api.send().status_code == 200
        seen.append(api.timeline("none").status_code)
    assert seen == [404, 503, 404, 503]


def test_requests_that_an_earlier_fault_takes_are_not_counted(api: Api) -> None:
    api.control("faults", kind="status", status=501, times=3)
    api.control("faults", kind="status", status=503, skip=1)
    assert [api.timeline("none").status_code for _ in range(6)] == [501, 501, 501, 404, 503, 404]


def test_chance_with_a_seed(api: Api) -> None:
    patterns = []
    for seed in (7, 7, 8):
        made = api.control("faults", kind="status", status=503, chance=0.5, seed=seed)
        assert made["seed"] == seed
        patterns.append(pattern(api, 60))
        api.http.delete("/_sandbox/faults")
    assert patterns[0] == patterns[1] != patterns[2]
    assert 10 <= patterns[0].count("x") <= 50


def test_a_drawn_seed_is_shown_and_can_be_given_again(api: Api) -> None:
    made = api.control("faults", kind="status", status=503, chance=0.5)
    assert isinstance(made["seed"], int)
    assert waiting(api)[0]["seed"] == made["seed"]
    first = pattern(api, 40)
    api.http.delete("/_sandbox/faults")
    api.control("faults", kind="status", status=503, chance=0.5, seed=made["seed"])
    assert pattern(api, 40) == first
    seeds = {api.control("faults", kind="status", status=503, chance=0.5)["seed"] for _ in range(5)}
    assert len(seeds) == 5


@pytest.mark.parametrize("chance", [0.05, 0.5, 0.95])
def test_chance_is_what_it_says(chance: float) -> None:
    queue = FaultQueue(Bounds())
    fault = queue.add(ErrorBeforeStore(kind="error_before_store", chance=chance, seed=1))
    for _ in range(4_000):
        queue.acquire(Subject("GET", "/api/v1/sends/x"))
    assert fault.met / 4_000 == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize("spread", [{"chance": 0.5, "seed": 3}, {"every": 3, "skip": 1}])
def test_a_refused_send_does_not_change_the_pattern(api: Api, spread: dict[str, Any]) -> None:
    """What is given back is drawn alike, and counted alike, for the next send."""
    api.control("faults", kind="error_after_store", **spread)
    plain = [api.send().status_code for _ in range(20)]
    assert 4 < plain.count(500) < 16
    api.http.delete("/_sandbox/faults")
    api.control("faults", kind="error_after_store", **spread)
    for status in plain:
        if status == 500:
            assert [api.send(to=None).status_code for _ in range(2)] == [400, 400]
        assert api.send().status_code == status
    assert waiting(api)[0]["met"] == plain.count(500)
