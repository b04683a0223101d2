"""Idempotency keys: scope, life, replay and conflict."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds
from airflow_provider_fluxomail.sandbox.api.remembered_errors import RememberedErrors
from airflow_provider_fluxomail.sandbox.errors import ApiError

from .helpers import BASE, KEY, Api, each_value

DAY = 24 * 3600


def test_replay(api: Api) -> None:
    first = api.send(idempotency_key="k")
    assert first.headers["Idempotency-Key"] == "k"
    assert "Idempotency-Replayed" not in first.headers
    again = api.send(idempotency_key="k")
    assert (again.status_code, again.json()) == (200, first.json() | {"reused": True})
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
    assert [row["idempotency_key"] for row in api.get("requests")["requests"]] == ["k", "k", None, "h"]


@pytest.mark.parametrize("key", ["ключ", "a\r\nX-Evil: 1"])
def test_key_that_no_header_can_carry(api: Api, key: str) -> None:
    first = api.send(idempotencyKey=key)
    assert first.status_code == 200
    assert not {"idempotency-key", "x-evil"} & set(first.headers)
    assert api.send(idempotencyKey=key).json()["reused"] is True


def test_keys_belong_to_the_organization(api: Api) -> None:
    api.control("keys", key="colleague")
    api.control("keys", key="stranger", organization="org_2")
    first = api.send_id(idempotency_key="k")
    assert api.send_id(idempotency_key="k", api_key="colleague") == first
    assert api.send_id(idempotency_key="k", api_key="stranger") != first
    assert api.send_id(idempotency_key="k", path="send-global") == first
    assert api.count(idempotency_key="k") == 2


@each_value("idempotency_conflict", {"replay": 200, "conflict": 409})
def test_conflict_policy(api: Api, value: str, expected: int) -> None:
    api.control("settings", idempotency_conflict=value)
    first = api.send_id(idempotency_key="k")
    response = api.send(idempotency_key="k", subject="Other")
    assert response.status_code == expected
    assert response.headers["Idempotency-Key"] == "k"
    assert ("Idempotency-Replayed" in response.headers) == (expected == 200)
    if expected == 409:
        assert response.json()["code"] == "idempotency_conflict"
    # The same content is no conflict: neither the order of fields nor the place of the key is content.
    reordered = dict(reversed(BASE.items())) | {"idempotencyKey": "k"}
    same = api.http.post("/api/v1/emails/send", json=reordered, headers={"x-api-key": KEY})
    assert same.json()["sendId"] == first
    api.control("settings", idempotency_conflict="replay")
    assert api.send_id(idempotency_key="k", subject="Other") == first
    assert api.count() == 1


@each_value("idempotency_life", {0: 0, 60: 60, DAY: DAY})
def test_life_of_a_key(api: Api, value: int, expected: int) -> None:
    if value != DAY:  # the default
        api.control("settings", idempotency_life=value)
    first = api.send_id(idempotency_key="k")
    if expected:
        api.advance(expected - 30)
        assert api.send_id(idempotency_key="k") == first
        api.advance(30)  # a replay does not prolong it
    second = api.send(idempotency_key="k")
    assert second.json()["sendId"] != first
    assert "Idempotency-Replayed" not in second.headers
    assert api.send(idempotency_key="k", subject="Other").json().get("reused", False) is (expected > 0)
    # A switch for all keys, also those that were used before it was set.
    api.control("settings", idempotency_life=30 * DAY)
    assert api.send(idempotency_key="k").json()["reused"] is True


# Refusals

REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"to": None},
    402: {"attachments": [{"filename": "a", "contentBase64": "eA=="}]},
    403: {"api_key": "mine"},
    "paused": {},
    "version": {"headers": {"Fluxomail-Version": "1999-01-01"}},
}


def refuse(api: Api, why: int | str, **fields: Any) -> httpx.Response:
    """A send that is refused; the cause does not last."""
    if why == 402:
        api.control("settings", attachments_in_plan=False)
    if why == "paused":
        api.control("pause", paused=True)
    if why == "version":
        api.control("settings", version_header="known")
    if why == 403:
        api.control("keys", key="mine", scopes=["read_sends"])
    refused = api.send(**REFUSALS[why], **fields)
    api.control("pause", paused=False)
    api.control("settings", attachments_in_plan=True, version_header="optional")
    assert 400 <= refused.status_code < 429
    return refused


@each_value("idempotency_errors", {True: True, False: False})
@pytest.mark.parametrize("where", ["idempotency_key", "idempotencyKey"])
@pytest.mark.parametrize("why", REFUSALS)
def test_a_refusal_under_a_key(api: Api, value: bool, expected: bool, why: int | str, where: str) -> None:
    api.control("settings", idempotency_errors=value, error_form="message")
    key: dict[str, Any] = {where: "k"}
    refused = refuse(api, why, **key)
    assert where == "idempotencyKey" or refused.headers["Idempotency-Key"] == "k"
    # The first refusal is remembered, not a later one.
    refuse(api, "paused", **key)
    responses = [api.send(**key), api.send(idempotency_key="k", path="send-global")]
    if expected:
        for response in responses:
            assert (response.status_code, response.json()) == (refused.status_code, refused.json())
            assert response.headers["Idempotency-Key"] == "k"
            assert "Idempotency-Replayed" not in response.headers
    else:
        assert [response.json().get("reused", False) for response in responses] == [False, True]
    assert api.count() == (0 if value else 1)
    # Another key, or another organization, has nothing to do with it.
    api.control("keys", key="stranger", organization="org_2")
    assert api.send(idempotency_key="k2").status_code == 200
    assert api.send(idempotency_key="k", api_key="stranger").status_code == 200


def test_a_refusal_lives_as_long_as_a_result(api: Api) -> None:
    api.control("settings", idempotency_errors=True, idempotency_life=3600)
    for _ in range(2):
        assert api.send(idempotency_key="k", to=None).status_code == 400
        api.advance(3500)
        assert api.send(idempotency_key="k").status_code == 400
        api.advance(100)  # a replay does not prolong it
        assert api.send(idempotency_key="k", subject=None).json()["details"] == {"fields": ["subject"]}
        assert api.send(idempotency_key="k").json()["details"] == {"fields": ["subject"]}
        api.advance(3600)
    assert api.send(idempotency_key="k").status_code == 200


def test_a_key_that_has_a_result_keeps_it(api: Api) -> None:
    api.control("settings", idempotency_errors=True)
    first = api.send_id(idempotency_key="k")
    for why in REFUSALS:
        refuse(api, why, idempotency_key="k")
        again = api.send(idempotency_key="k").json()
        assert (again["sendId"], again["reused"]) == (first, True)


def test_refusals_before_the_switch_or_a_reset_are_not_remembered(api: Api) -> None:
    assert api.send(idempotency_key="k", to=None).status_code == 400
    api.control("settings", idempotency_errors=True)
    assert api.send(idempotency_key="k").status_code == 200
    headers = {"x-api-key": KEY, "Idempotency-Key": "k2"}
    assert api.http.post("/api/v1/emails/send", content=b"{", headers=headers).status_code == 400
    assert api.send(idempotency_key="k2").status_code == 400
    api.control("reset")
    api.control("settings", idempotency_errors=True)
    assert api.send(idempotency_key="k2").status_code == 200


@pytest.mark.parametrize("kind", [{"kind": "status", "status": 429}, {"kind": "error_before_store"}, "cap", 401])
def test_what_is_never_remembered(api: Api, kind: Any) -> None:
    api.control("settings", idempotency_errors=True)
    if kind == "cap":
        api.control("keys", key=KEY, rate_limit_per_minute=1)
        api.enter_window()
        api.timeline("x")
        assert api.send(idempotency_key="k").status_code == 429
        api.advance(60)
    elif kind == 401:
        assert api.send(idempotency_key="k", api_key="wrong").status_code == 401
    else:
        api.control("faults", **kind)
        assert api.send(idempotency_key="k").status_code in (429, 500)
    assert api.send(idempotency_key="k").status_code == 200


def test_a_remembered_refusal_keeps_nothing_of_its_request() -> None:
    refusals = RememberedErrors(Bounds())
    try:
        try:
            raise ValueError("cause")
        except ValueError as cause:
            raise ApiError(400, "reason", details={"fields": ["to"]}) from cause
    except ApiError as error:
        refusals.keep("org", "k", 5, error)
    first, second = refusals.find("org", "k", 4), refusals.find("org", "k", 4)
    assert first is not None
    assert first is not second
    assert (first.__cause__, first.__context__, first.__traceback__) == (None, None, None)
    assert (first.status, first.message, first.details) == (400, "reason", {"fields": ["to"]})


def test_concurrent_sends_with_one_key_are_stored_once(api: Api) -> None:
    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=api.url, timeout=10, verify=False, trust_env=False) as client:
            headers = {"x-api-key": KEY, "Idempotency-Key": "k"}
            return await asyncio.gather(
                *(client.post("/api/v1/emails/send", json=BASE, headers=headers) for _ in range(20))
            )

    bodies = [response.json() for response in asyncio.run(all_at_once())]
    assert len({body["sendId"] for body in bodies}) == 1
    assert [body.get("reused", False) for body in bodies].count(False) == 1
    assert api.count() == 1
