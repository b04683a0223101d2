"""Idempotency keys: scope, life, replay and conflict."""

from __future__ import annotations

import pytest

from .helpers import BASE, KEY, Api

DAY = 24 * 3600


def test_replay(api: Api) -> None:
    first = api.send(idempotency_key="k")
    assert first.headers["Idempotency-Key"] == "k"
    assert "Idempotency-Replayed" not in first.headers
    assert "reused" not in first.json()
    again = api.send(idempotency_key="k")
    assert again.status_code == 200
    assert again.json() == first.json() | {"reused": True}
    assert (again.headers["Idempotency-Replayed"], again.headers["Idempotency-Key"]) == ("true", "k")
    assert api.count() == api.count(idempotency_key="k") == 1


def test_without_a_key_every_send_is_new(api: Api) -> None:
    assert api.send_id() != api.send_id()
    assert api.send_id(idempotency_key="") != api.send_id(idempotency_key="")
    assert api.count() == 4


def test_key_in_the_body(api: Api) -> None:
    first = api.send(idempotencyKey="k")
    assert first.headers["Idempotency-Key"] == "k"
    assert api.send(idempotency_key="k").json()["sendId"] == first.json()["sendId"]
    assert api.timeline(first.json()["sendId"]).json()["send"]["idempotencyKey"] == "k"
    # The header wins over the body.
    other = api.send(idempotency_key="h", idempotencyKey="k")
    assert other.headers["Idempotency-Key"] == "h"
    assert other.json()["sendId"] != first.json()["sendId"]
    assert [row["idempotency_key"] for row in api.get("requests")["requests"] if row["method"] == "POST"] == [
        "k",
        "k",
        "h",
    ]


@pytest.mark.parametrize("key", ["ключ", "a\r\nX-Evil: 1"])
def test_key_that_no_header_can_carry(api: Api, key: str) -> None:
    first = api.send(idempotencyKey=key)
    assert first.status_code == 200
    assert "Idempotency-Key" not in first.headers
    assert "X-Evil" not in first.headers
    assert api.send(idempotencyKey=key).json()["reused"] is True


def test_keys_belong_to_the_organization(api: Api) -> None:
    api.control("keys", key="colleague")
    api.control("keys", key="stranger", organization="org_2")
    first = api.send_id(idempotency_key="k")
    assert api.send_id(idempotency_key="k", api_key="colleague") == first
    assert api.send_id(idempotency_key="k", api_key="stranger") != first
    assert api.send_id(idempotency_key="k", path="send-global") == first
    assert api.count(idempotency_key="k") == 2


def test_a_key_lives_for_a_day(api: Api) -> None:
    first = api.send_id(idempotency_key="k")
    api.advance(DAY - 60)
    assert api.send_id(idempotency_key="k") == first
    api.advance(60)  # a replay does not prolong it
    second = api.send(idempotency_key="k")
    assert "reused" not in second.json()
    assert second.json()["sendId"] != first
    assert api.send(idempotency_key="k").json() == second.json() | {"reused": True}
    assert api.count(idempotency_key="k") == 2


def test_only_success_is_remembered(api: Api) -> None:
    assert api.send(idempotency_key="k", to=None).status_code == 400
    assert api.send(idempotency_key="k", to=None).headers["Idempotency-Key"] == "k"
    api.control("pause", paused=True)
    assert api.send(idempotency_key="k").status_code == 403
    api.control("pause", paused=False)
    api.control("faults", kind="status", status=429)
    assert api.send(idempotency_key="k").status_code == 429
    assert "reused" not in api.send(idempotency_key="k").json()


def test_other_body_is_replayed_by_default(api: Api) -> None:
    first = api.send_id(idempotency_key="k")
    assert api.send_id(idempotency_key="k", subject="Other") == first
    assert api.count() == 1


def test_conflict_policy(api: Api) -> None:
    api.control("settings", idempotency_conflict="conflict")
    first = api.send_id(idempotency_key="k")
    answer = api.send(idempotency_key="k", subject="Other")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert "Idempotency-Replayed" not in answer.headers
    # The same content is no conflict: neither the order of fields nor the place of the key is content.
    reordered = dict(reversed(BASE.items())) | {"idempotencyKey": "k"}
    same = api.http.post("/api/v1/emails/send", json=reordered, headers={"x-api-key": KEY})
    assert same.json()["sendId"] == first
    api.control("settings", idempotency_conflict="replay")
    assert api.send_id(idempotency_key="k", subject="Other") == first
    assert api.count() == 1
