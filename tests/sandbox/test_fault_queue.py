"""Which requests meet a fault: matching, order and schedules."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds
from airflow_provider_fluxomail.sandbox.faults.models import ErrorBeforeStore
from airflow_provider_fluxomail.sandbox.faults.queue import FaultQueue, Subject

from .helpers import BASE, KEY, Api


def met(responses: dict[str, httpx.Response]) -> list[str]:
    return [name for name, response in responses.items() if response.status_code == 503]


def add_fault(api: Api, **fields: Any) -> dict[str, Any]:
    added: dict[str, Any] = api.control("faults", **{"kind": "status", "status": 503, **fields})
    return added


def pattern(api: Api, count: int) -> str:
    """Which of some requests meet a fault, as x and dots."""
    return "".join("x" if api.timeline("none").status_code == 503 else "." for _ in range(count))


def pending(api: Api) -> list[dict[str, Any]]:
    faults: list[dict[str, Any]] = api.get("faults")["faults"]
    return faults


# What matches


@pytest.mark.parametrize(
    ("match", "meets"),
    [
        ({}, ["send", "send-global", "timeline"]),
        ({"method": "get"}, ["timeline"]),
        ({"method": "P*"}, ["send", "send-global"]),
        ({"path": "/api/v1/emails"}, ["send", "send-global"]),
        ({"path": "/api/v1/emails/"}, ["send", "send-global"]),
        ({"path": "/api/v1/sends/*"}, ["timeline"]),
        ({"path": "*/send?global"}, ["send-global"]),
        ({"path": "*/send[-]global"}, ["send-global"]),
        ({"path": "/api/v1/sends", "method": "POST"}, []),
        ({"path": "/api/v1/em"}, []),
    ],
)
def test_method_and_path(api: Api, match: dict[str, Any], meets: list[str]) -> None:
    add_fault(api, times=9, match=match)
    sends = {path: api.send(path=path) for path in ("send", "send-global")}
    assert met({**sends, "timeline": api.timeline("unknown")}) == meets


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ("ANN@Example.ORG", ["send", "named", "listed", "read"]),
        ("ann*", ["send", "named", "listed", "read", "refused"]),
        ("Ann Ö <*", ["named"]),
        ("*@other.example", []),
    ],
)
def test_recipient(api: Api, wanted: str, meets: list[str]) -> None:
    api.control("settings", to_list=True)
    send_id = api.send_id(to="Ann@example.org")
    add_fault(api, times=99, match={"recipient": wanted})
    responses = {
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
    assert met(responses) == meets


@pytest.mark.parametrize(
    ("wanted", "meets"), [("k1", ["header", "body", "read"]), ("k?", ["header", "body", "other", "read"]), ("K1", [])]
)
def test_idempotency_key(api: Api, wanted: str, meets: list[str]) -> None:
    send_id, unkeyed = api.send_id(idempotency_key="k1"), api.send_id()
    add_fault(api, times=99, match={"idempotency_key": wanted})
    responses = {
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
    assert met(responses) == meets


@pytest.mark.parametrize(
    ("wanted", "meets"),
    [
        ("fm_*", ["bearer", "x-api-key", "both", "get"]),
        ("other", ["other"]),
        ("FM_SANDBOX", []),
        ("*", ["bearer", "x-api-key", "both", "other", "unknown", "get"]),
    ],
)
def test_api_key(api: Api, wanted: str, meets: list[str]) -> None:
    api.control("keys", key="other")
    add_fault(api, times=99, match={"api_key": wanted})
    sent: dict[str, dict[str, str]] = {
        "bearer": {"Authorization": f"bearer {KEY}"},
        "x-api-key": {"x-api-key": KEY},
        "both": {"Authorization": f"Bearer {KEY}", "x-api-key": "unused"},
        "other": {"x-api-key": "other"},
        "unknown": {"x-api-key": "unknown"},
        "basic": {"Authorization": "Basic eDp5"},
        "none": {},
    }
    responses = {name: api.http.post("/api/v1/emails/send", json=BASE, headers=sent[name]) for name in sent}
    assert met(responses | {"get": api.timeline("none")}) == meets


def test_everything_that_is_given_must_match(api: Api) -> None:
    api.control("keys", key="other")
    match = {"method": "POST", "path": "*/send", "api_key": KEY, "idempotency_key": "k", "recipient": "ops@example.org"}
    add_fault(api, times=99, match=match)
    others: dict[str, Any] = {"path": "send-global", "api_key": "other", "idempotency_key": "l", "to": "x@example.org"}
    responses = {name: api.send(**{"idempotency_key": "k", name: value}) for name, value in others.items()}
    assert met(responses | {"all": api.send(idempotency_key="k")}) == ["all"]


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"to": ' + b"[" * 100_000])
def test_an_unreadable_body_matches_nothing(api: Api, body: bytes) -> None:
    add_fault(api, match={"recipient": "*"})
    response = api.http.post("/api/v1/emails/send", content=body, headers={"x-api-key": KEY})
    assert response.status_code == 400
    assert response.headers["X-Request-Id"]
    assert api.send().status_code == 503


def test_a_fault_comes_before_the_key_is_checked_and_meets_no_control_call(api: Api) -> None:
    add_fault(api)
    assert api.get("health")["status"] == "ok"
    assert api.send(api_key="wrong").status_code == 503


# Order


def test_faults_are_met_in_order(api: Api) -> None:
    add_fault(api, status=501, times=2)
    add_fault(api, status=502, match={"method": "GET"})
    made = add_fault(api)
    assert (made["id"], made["remaining"], made["met"]) == (3, 1, 0)
    assert [api.send().status_code for _ in range(4)] == [501, 501, 503, 200]
    (left,) = pending(api)
    assert left.pop("match") == {
        **dict.fromkeys(("path", "api_key", "idempotency_key", "recipient")),
        "method": "GET",
    }
    schedule = {"times": 1, "skip": 0, "every": 1, "chance": None, "seed": None}
    fields: dict[str, Any] = {"status": 502, "body": None, "headers": {}, "retry_after": None, "after_store": False}
    assert left == {"id": 2, "kind": "status", "met": 0, "remaining": 1, **schedule, **fields}
    assert api.http.delete("/_sandbox/faults").json() == {"count": 0, "faults": []}
    assert api.timeline("x").status_code == 404
    assert api.control("faults", kind="cut_in_body")["id"] == 1


def test_a_delay_combines_with_the_next_fault(api: Api) -> None:
    api.control("faults", kind="delay", seconds=0.1, times=2)
    api.control("faults", kind="delay", seconds=0)
    add_fault(api)
    first = api.send()
    assert first.status_code == 503
    assert first.elapsed.total_seconds() >= 0.1
    assert [api.send().status_code for _ in range(3)] == [200, 200, 200]
    assert [fault for *_, fault in api.log()] == ["delay+status", "delay", "delay", None]


# Schedules


@pytest.mark.parametrize(
    ("fields", "pattern_met"),
    [
        ({}, "x..........."),
        ({"times": None}, "xxxxxxxxxxxx"),
        ({"skip": 4, "times": 2}, "....xx......"),
        ({"every": 3}, "..x..x..x..x"),
        ({"every": 2, "skip": 5}, "......x.x.x."),
        ({"every": 2, "skip": 5, "times": 1}, "......x....."),
        ({"chance": 1}, "xxxxxxxxxxxx"),
        ({"chance": 1, "skip": 2, "every": 4, "times": 2}, ".....x...x.."),
    ],
)
def test_schedule(api: Api, fields: dict[str, Any], pattern_met: str) -> None:
    made = add_fault(api, **fields)
    # No end is the default where a fault is spread over many requests.
    times = fields.get("times", None if {"every", "chance"} & set(fields) and fields.get("every") != 1 else 1)
    assert (made["times"], made["remaining"], made["met"]) == (times, times, 0)
    assert pattern(api, 12) == pattern_met
    met = pattern_met.count("x")
    left = [(fault["met"], fault["remaining"]) for fault in pending(api)]
    assert left == ([] if met == times else [(met, None if times is None else times - met)])


def test_only_matching_requests_are_counted(api: Api) -> None:
    add_fault(api, every=2, match={"method": "GET"})
    seen = []
    for _ in range(4):
        assert api.send().status_code == 200
        seen.append(api.timeline("none").status_code)
    assert seen == [404, 503, 404, 503]


def test_requests_that_meet_an_earlier_fault_are_not_counted(api: Api) -> None:
    add_fault(api, status=501, times=3)
    add_fault(api, skip=1)
    assert [api.timeline("none").status_code for _ in range(6)] == [501, 501, 501, 404, 503, 404]


def test_a_seed_repeats_a_pattern(api: Api) -> None:
    patterns: dict[int, str] = {}
    drawn = add_fault(api, chance=0.5)["seed"]
    assert pending(api)[0]["seed"] == drawn
    for seed in (None, drawn, 7, 7):
        if seed is not None:
            assert add_fault(api, chance=0.5, seed=seed)["seed"] == seed
        seen = pattern(api, 60)
        assert patterns.setdefault(seed or drawn, seen) == seen
        assert 10 <= seen.count("x") <= 50
        api.http.delete("/_sandbox/faults")
    assert patterns[drawn] != patterns[7]
    assert len({add_fault(api, chance=0.5)["seed"] for _ in range(5)}) == 5


def test_chance_meets_that_part_of_requests() -> None:
    queue = FaultQueue(Bounds())
    fault = queue.add(ErrorBeforeStore(kind="error_before_store", chance=0.05, seed=1))
    for _ in range(4_000):
        queue.acquire(Subject("GET", "/api/v1/sends/x"))
    assert fault.met / 4_000 == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("spread", [{"chance": 0.5, "seed": 3}, {"every": 3, "skip": 1}])
def test_a_refused_send_does_not_change_the_pattern(api: Api, spread: dict[str, Any]) -> None:
    """What is released is drawn alike, and counted alike, for the next send."""
    api.control("faults", kind="error_after_store", **spread)
    plain = [api.send().status_code for _ in range(20)]
    assert 4 < plain.count(500) < 16
    api.http.delete("/_sandbox/faults")
    api.control("faults", kind="error_after_store", **spread)
    for status in plain:
        if status == 500:
            assert [api.send(to=None).status_code for _ in range(2)] == [400, 400]
        assert api.send().status_code == status
    assert pending(api)[0]["met"] == plain.count(500)
