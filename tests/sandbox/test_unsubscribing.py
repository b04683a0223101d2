"""One rule for all ways to unsubscribe: link, preferences, sync of contacts; and the token of a message's link."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer

from .helpers import Api, each_value
from .test_contacts import ADA, categories, contacts, counts, preferences, sync, update
from .test_tracking import leave_url, of_type

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

EMAIL = "Ada@example.org"
NOTHING = [{"categoryKey": key, "subscribed": False} for key in ("transactional", "marketing")]
MARKETING = [{"categoryKey": "marketing", "subscribed": True}]


def link_token(api: Api, send_id: str) -> str:
    return parse_qs(urlsplit(leave_url(api, send_id)).query)["token"][0]


def contact_token(api: Api) -> str:
    preferences(api, email=EMAIL)
    (contact,) = [one for one in contacts(api) if one["email"] == "ada@example.org"]
    return str(contact["token"])


def synced(api: Api, subscribed: bool) -> httpx.Response:
    row = {"email": EMAIL, "subscribed": subscribed, "eventId": f"e{api.advance(1)}"}
    return sync(api, row, idempotency_key=None)


OUT: dict[str, Callable[[Api, str], Any]] = {
    "one click": lambda api, send_id: api.http.post(
        leave_url(api, send_id), data={"List-Unsubscribe": "One-Click"}
    ).raise_for_status(),
    "preferences by the link's token": lambda api, send_id: update(
        api, {"token": link_token(api, send_id), "subscriptions": NOTHING}, None
    ).raise_for_status(),
    "preferences by the contact's token": lambda api, _: update(
        api, {"token": contact_token(api), "subscriptions": NOTHING}, None
    ).raise_for_status(),
    "preferences by address": lambda api, _: update(
        api, {"email": "ADA@example.org", "subscriptions": NOTHING}
    ).raise_for_status(),
    "sync": lambda api, _: synced(api, False).raise_for_status(),
    "event": lambda api, send_id: api.add_event(send_id, "unsubscribed"),
}
BACK: dict[str, Callable[[Api, str], Any]] = {
    "preferences by the link's token": lambda api, send_id: update(
        api, {"token": link_token(api, send_id), "subscriptions": MARKETING}, None
    ).raise_for_status(),
    "preferences by address": lambda api, _: update(
        api, {"email": EMAIL, "subscriptions": MARKETING}
    ).raise_for_status(),
    "sync": lambda api, _: synced(api, True).raise_for_status(),
    "control call": lambda api, _: api.http.delete("/_sandbox/suppressions/ADA@example.org").raise_for_status(),
}


def shown(api: Api) -> set[bool]:
    """Whether the address is subscribed, everywhere that it is shown."""
    suppressed = [row["reason"] for row in api.get("suppressions")["suppressions"]]
    assert set(suppressed) <= {"unsubscribed"}
    found = set(categories(preferences(api, email=EMAIL)).values())
    return {not suppressed, any(found), *(one["subscribed"] for one in contacts(api))}


@pytest.mark.parametrize("back", BACK)
@pytest.mark.parametrize("out", OUT)
def test_all_ways_out_and_back_are_one(api: Api, out: str, back: str) -> None:
    api.control("settings", event_delay=0)
    first = api.send_id(to="Ada <ADA@example.org>")
    assert shown(api) == {True}
    for _ in range(2):
        OUT[out](api, first)
        assert shown(api) == {False}
    dropped = api.send_id(to="ada@example.org")
    assert api.types(dropped) == ["sent", "dropped"]
    assert of_type(api, dropped, "dropped")[0]["reason"] == "recipient is on the suppression list: unsubscribed"
    # Nobody else is concerned.
    assert api.types(api.send_id()) == ["sent", "delivered"]
    api.control("keys", key="other", organization="org_other")
    other = api.send_id(to="ada@example.org", api_key="other")
    assert api.timeline(other, "other").json()["events"][-1]["type"] == "delivered"
    BACK[back](api, first)
    assert shown(api) == {True}
    assert api.types(api.send_id(to="ada@example.org")) == ["sent", "delivered"]


@each_value("suppression", {"drop": (200, "dropped"), "refuse": (400, None), "off": (200, "delivered")})
@pytest.mark.parametrize("out", OUT)
def test_the_next_send(api: Api, value: str, expected: tuple[int, str | None], out: str) -> None:
    api.control("settings", suppression=value, event_delay=0)
    OUT[out](api, api.send_id(to="ada@example.org"))
    response = api.send(to="Ada@example.org")
    assert response.status_code == expected[0]
    if expected[1] is None:
        assert response.json()["details"] == {"fields": ["to"], "reason": "unsubscribed"}
    else:
        assert api.types(response.json()["sendId"])[-1] == expected[1]


def test_the_token_of_a_link_is_one_of_preferences(api: Api) -> None:
    send_id = api.send_id(to="Ada <Ada@example.org>")
    token = link_token(api, send_id)
    first = preferences(api, None, token=token)
    assert first.json()["contact"]["email"] == "ada@example.org"
    assert categories(first) == {"transactional": True, "marketing": True}
    # It wins over an address, as the contact's own does; and it is the same contact.
    body = {
        "token": token,
        "email": "bob@example.org",
        "subscriptions": [{"categoryKey": "marketing", "subscribed": False}],
    }
    assert update(api, body, None).json() == {"ok": True}
    by_email = preferences(api, email="ada@example.org").json()
    assert (by_email["contact"], categories(preferences(api, None, token=token))) == (
        first.json()["contact"],
        {"transactional": True, "marketing": False},
    )
    # One category less is no unsubscribe from all email.
    assert api.get("suppressions")["count"] == 0
    assert of_type(api, send_id, "unsubscribed") == []
    assert "token=***" in api.get("requests", path="/api/v1/preferences")["requests"][0]["query"]


def test_an_unsubscribe_by_the_token_of_a_link_is_an_event_of_the_message(api: Api) -> None:
    send_id, other = (api.quiet(to="ada@example.org") for _ in range(2))
    for _ in range(2):
        OUT["preferences by the link's token"](api, send_id)
    (event,) = of_type(api, send_id, "unsubscribed")
    assert (event["method"], event["ip"]) == ("preferences", "127.0.0.1")
    # Already unsubscribed: the link of another message changes nothing.
    OUT["one click"](api, other)
    assert of_type(api, other, "unsubscribed") == []


@pytest.mark.parametrize("kind", ["open", "click", "forged", "other", "gone"])
def test_other_tokens_are_none_of_preferences(api: Api, kind: str) -> None:
    send_id = api.send_id(to="ada@example.org", htmlContent="<a href='https://example.org'>x</a>")
    (row,) = api.get("messages")["messages"]
    token = link_token(api, send_id)
    if kind in ("open", "click"):
        token = row["delivered_html"].partition(f"/api/track/{kind}?token=")[2].partition('"')[0]
        assert token.startswith(send_id)
    elif kind == "forged":
        token = f"{send_id}.0.{'0' * 32}"
    elif kind == "other":
        token = token.replace(send_id, api.send_id(to="bob@example.org"))
    else:
        api.control("reset")
    for response in (
        preferences(api, None, token=token),
        update(api, {"token": token, "subscriptions": NOTHING}, None),
    ):
        assert (response.status_code, response.json()["message"]) == (404, "Contact not found")
    assert api.get("suppressions")["count"] == 0


def test_a_key_of_another_organization_does_not_go_with_the_token(api: Api) -> None:
    api.control("keys", key="other", organization="org_other")
    token = link_token(api, api.send_id(to="ada@example.org"))
    assert preferences(api, "other", token=token).status_code == 404
    assert update(api, {"token": token, "subscriptions": NOTHING}, "other").status_code == 404
    assert preferences(api, token=token).status_code == 200


def test_a_contact_that_is_synced_after_its_address_unsubscribed(api: Api) -> None:
    OUT["one click"](api, api.send_id(to="ada@example.org"))
    row = {"email": EMAIL, "name": "Ada"}
    assert counts(sync(api, row)) == {"ok": True, "processed": 1, "created": 1}
    assert shown(api) == {False}
    assert counts(sync(api, row | {"subscribed": False}, idempotency_key="k2")).get("unsubscribed") is None
    assert counts(sync(api, row | {"subscribed": True}, idempotency_key="k3"))["resubscribed"] == 1
    assert shown(api) == {True}


def test_rows_that_are_not_processed_change_nothing(api: Api) -> None:
    sync(api, ADA | {"sourceUpdatedAt": "2026-02-20T12:00:00Z"})
    stale = ADA | {"subscribed": False, "sourceUpdatedAt": "2026-02-20T11:00:00Z"}
    large = ADA | {"subscribed": False, "metadata": {"x": "y" * 9_000}}
    result = counts(sync(api, stale, large, idempotency_key="k2"))
    assert (result["skippedStale"], result["failed"], result.get("unsubscribed")) == (1, 1, None)
    assert shown(api) == {True}


def test_bounces_are_no_matter_of_subscriptions(api: Api) -> None:
    send_id = api.send_id(to="ada@example.org")
    api.add_event(send_id, "bounced")
    assert set(categories(preferences(api, email=EMAIL)).values()) == {True}
    OUT["sync"](api, send_id)
    BACK["sync"](api, send_id)
    assert [row["reason"] for row in api.get("suppressions")["suppressions"]] == ["bounced"]


def test_an_unsubscribe_that_is_planned_does_not_count_yet(api: Api) -> None:
    send_id = api.quiet(to="ada@example.org")
    api.add_event(send_id, "unsubscribed", api.advance(0) + 600)
    assert shown(api) == {True}
    # A change of something else does not cancel it.
    sync(api, {"email": EMAIL, "name": "Ada"})
    api.advance(600)
    assert shown(api) == {False}


def test_one_who_unsubscribes_before_the_planned_time_has_unsubscribed(api: Api) -> None:
    send_id = api.quiet(to="ada@example.org")
    api.add_event(send_id, "unsubscribed", api.advance(0) + 600)
    OUT["one click"](api, send_id)
    assert shown(api) == {False}
    assert [event["method"] for event in of_type(api, send_id, "unsubscribed")] == ["one-click"]


def test_subscriptions_come_back_as_they_were(api: Api) -> None:
    api.send_id(to="ada@example.org")
    for key in ("marketing", "transactional"):
        update(api, {"email": EMAIL, "subscriptions": [{"categoryKey": key, "subscribed": False}]})
    assert shown(api) == {False}
    # No row, no change.
    update(api, {"email": EMAIL, "subscriptions": []})
    assert shown(api) == {False}
    synced(api, True)
    assert categories(preferences(api, email=EMAIL)) == {"transactional": True, "marketing": False}


def test_without_categories_nothing_is_unsubscribed(api: Api) -> None:
    api.control("settings", preference_categories=[])
    api.send_id(to="ada@example.org")
    update(api, {"email": EMAIL, "subscriptions": []})
    assert api.get("suppressions")["count"] == 0


def test_it_survives_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "data.sqlite"
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        token = link_token(api, api.send_id(to="ada@example.org"))
        synced(api, False)
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        assert shown(api) == {False}
        update(api, {"token": token, "subscriptions": MARKETING}, None).raise_for_status()
        assert shown(api) == {True}
