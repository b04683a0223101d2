"""contacts/sync, preferences and metrics, by what their documentation and the official client's types say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer

from .helpers import KEY, Api, each_value

if TYPE_CHECKING:
    from pathlib import Path

    import httpx

ADA = {"email": "Ada@example.org", "externalId": "cus_1", "subscribed": True, "metadata": {"mrr": 79}}


def sync(
    api: Api, *contacts: Any, idempotency_key: str | None = "k", api_key: str = KEY, **body: Any
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {api_key}"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = idempotency_key
    return api.http.post("/api/v1/contacts/sync", json={"contacts": contacts, **body}, headers=headers)


def counts(response: httpx.Response) -> dict[str, int]:
    """The counts that are not 0, without ``processed``."""
    assert response.status_code == 200, response.text
    shown = response.json()
    return {name: shown[name] for name in shown if isinstance(shown[name], int) and 0 < shown[name] < 1000} | {
        "processed": shown["processed"]
    }


def preferences(api: Api, api_key: str | None = KEY, **query: str) -> httpx.Response:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return api.http.get("/api/v1/preferences", params=query, headers=headers)


def update(api: Api, body: Any, api_key: str | None = KEY) -> httpx.Response:
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    return api.http.post("/api/v1/preferences", json=body, headers=headers)


def contacts(api: Api) -> list[dict[str, Any]]:
    return list(api.get("contacts")["contacts"])


def categories(response: httpx.Response) -> dict[str, bool]:
    return {row["categoryKey"]: row["subscribed"] for row in response.json()["subscriptions"]}


# Syncing


def test_a_new_contact(api: Api) -> None:
    response = sync(api, ADA, source="stripe")
    shown = response.json()
    assert shown.pop("syncedAt") == pytest.approx(api.advance(0) * 1000, abs=5_000)
    zeros = ("updated", "failed", "skippedStale", "skippedDuplicate", "unsubscribed", "resubscribed")
    assert shown == {"ok": True, "source": "stripe", "processed": 1, "created": 1} | dict.fromkeys(zeros, 0)
    assert response.headers["Idempotency-Key"] == "k"
    assert "Idempotency-Replayed" not in response.headers
    (contact,) = contacts(api)
    assert contact["email"] == "ada@example.org"
    assert contact["fields"] == {"externalId": "cus_1", "metadata": {"mrr": 79}, "source": "stripe"}


def test_a_change_keeps_what_it_does_not_name(api: Api) -> None:
    sync(api, ADA)
    assert counts(sync(api, {"email": "ada@EXAMPLE.org", "name": "Ada"}, idempotency_key="k2"))["updated"] == 1
    (contact,) = contacts(api)
    assert contact["fields"] == {"externalId": "cus_1", "metadata": {"mrr": 79}, "name": "Ada"}


def test_the_same_key_again(api: Api) -> None:
    first = sync(api, ADA)
    again = sync(api, ADA)
    assert again.json() == first.json() | {"replayed": True}
    assert again.headers["Idempotency-Replayed"] == "true"
    conflict = sync(api, ADA | {"name": "Ada"})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    assert "name" not in contacts(api)[0]["fields"]
    api.control("settings", idempotency_life=60)
    api.advance(61)
    assert counts(sync(api, ADA | {"name": "Ada"}))["updated"] == 1


def test_the_keys_of_sends_and_syncs_are_apart(api: Api) -> None:
    send_id = api.send_id(idempotency_key="k")
    assert counts(sync(api, ADA))["created"] == 1
    assert api.send(idempotency_key="k").json()["sendId"] == send_id


def test_event_ids_in_place_of_a_key(api: Api) -> None:
    rows = [ADA | {"eventId": "e1"}, {"email": "bob@example.org", "eventId": "e2"}]
    assert counts(sync(api, *rows, idempotency_key=None))["created"] == 2
    again = sync(api, *rows, {"email": "eve@example.org", "eventId": "e2"}, idempotency_key=None)
    assert counts(again) == {"processed": 3, "skippedDuplicate": 3, "ok": True}
    refused = sync(api, ADA | {"eventId": "e3"}, ADA | {"eventId": " "}, idempotency_key=None)
    assert refused.status_code == 400
    assert "Idempotency-Key" in refused.json()["message"]


def test_a_failed_row_can_be_synced_again_with_its_event_id(api: Api) -> None:
    sync(api, {"email": "nobody", "eventId": "e1"}, idempotency_key=None)
    assert counts(sync(api, ADA | {"eventId": "e1"}, idempotency_key=None))["created"] == 1


def test_an_older_row_is_skipped(api: Api) -> None:
    sync(api, ADA | {"sourceUpdatedAt": "2026-02-20T12:00:00Z"})
    older = sync(api, ADA | {"name": "Old", "sourceUpdatedAt": 1771588799999}, idempotency_key="k2")
    assert counts(older) == {"processed": 1, "skippedStale": 1, "ok": True}
    same = sync(api, ADA | {"name": "New", "sourceUpdatedAt": 1771588800000}, idempotency_key="k3")
    assert counts(same)["updated"] == 1
    assert contacts(api)[0]["fields"]["name"] == "New"


def test_subscriptions_are_counted(api: Api) -> None:
    out, back = ADA | {"subscribed": False}, ADA | {"subscribed": True}
    bob = {"email": "bob@example.org", "subscribed": False}
    assert counts(sync(api, ADA)).get("unsubscribed") is None
    assert counts(sync(api, out, bob, idempotency_key="k2"))["unsubscribed"] == 2
    assert counts(sync(api, out, idempotency_key="k3")).get("unsubscribed") is None
    assert counts(sync(api, back, idempotency_key="k4"))["resubscribed"] == 1


def test_a_deleted_contact_is_not_found(api: Api) -> None:
    sync(api, ADA)
    assert counts(sync(api, {"email": ADA["email"], "deleted": True}, idempotency_key="k2"))["updated"] == 1
    assert preferences(api, email="ada@example.org").status_code == 404
    assert counts(sync(api, ADA, idempotency_key="k3"))["created"] == 1
    assert preferences(api, email="ada@example.org").status_code == 200


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"email": "nobody"}, "email must be"),
        ({"email": "Ada <ada@example.org>"}, "email must be"),
        ({"email": "ada@example.org", "sourceUpdatedAt": "soon"}, "sourceUpdatedAt must be"),
        ({"email": "ada@example.org", "planEndsAt": "soon"}, "planEndsAt must be"),
        ({"email": "ada@example.org", "metadata": {"x": "y" * 9_000}}, "at most 8192"),
    ],
)
def test_a_row_that_fails_alone(api: Api, row: dict[str, Any], text: str) -> None:
    response = sync(api, row, {"email": "bob@example.org"})
    assert counts(response) == {"processed": 2, "created": 1, "failed": 1}
    ((error),) = response.json()["errors"]
    assert error["email"] == row["email"]
    assert text in error["message"]
    assert [contact["email"] for contact in contacts(api)] == ["bob@example.org"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "contacts"),
        ({"contacts": []}, "contacts"),
        ({"contacts": "ada@example.org"}, "contacts"),
        ({"contacts": [{}]}, "contacts.0.email"),
        ({"contacts": [{"email": 1}]}, "contacts.0.email"),
        ({"contacts": [ADA, {"email": "a@b.org", "plan": "gold"}]}, "contacts.1.plan"),
        ({"contacts": [{"email": "a@b.org", "subscribed": "yes"}]}, "contacts.0.subscribed"),
        ({"contacts": [ADA], "source": 5}, "source"),
    ],
)
def test_a_malformed_sync_changes_nothing(api: Api, body: Any, field: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "k"}
    response = api.http.post("/api/v1/contacts/sync", json=body, headers=headers)
    assert response.status_code == 400
    assert field in response.json()["details"]["fields"]
    assert field in response.json()["message"]
    assert contacts(api) == []


@each_value("contacts_max_rows", {500: 200, 1: 400})
def test_rows_of_a_sync(api: Api, value: int, expected: int) -> None:
    api.control("settings", contacts_max_rows=value)
    assert sync(api, ADA, {"email": "bob@example.org"}).status_code == expected


def test_who_may_sync(api: Api) -> None:
    api.control("keys", key="sender", scopes=["send_email"])
    refused = sync(api, ADA, api_key="sender")
    assert (refused.status_code, refused.json()["details"]) == (403, {"scope": "contacts_write"})
    api.control("keys", key="writer", scopes=["contacts_write"])
    assert counts(sync(api, ADA, api_key="writer"))["created"] == 1
    assert sync(api, ADA, api_key="wrong").status_code == 401


def test_organizations_have_their_own_contacts(api: Api) -> None:
    api.control("keys", key="other", organization="org_other")
    sync(api, ADA | {"eventId": "e1"})
    assert counts(sync(api, ADA | {"eventId": "e1"}, api_key="other"))["created"] == 1
    assert api.get("contacts", organization="org_other")["count"] == 1
    assert api.get("contacts", limit=1)["count"] == 2


def test_contacts_are_bounded_and_survive_a_restart(tmp_path: Path) -> None:
    def serve() -> SandboxServer:
        return SandboxServer(data=tmp_path / "data.sqlite", bounds=Bounds(contacts=2))

    with serve() as server, Api(server.url) as api:
        for number in range(3):
            sync(api, {"email": f"c{number}@example.org", "eventId": f"e{number}"}, idempotency_key=f"k{number}")
        sync(api, {"email": "c1@example.org", "subscribed": False}, idempotency_key="k3")
    with serve() as server, Api(server.url) as api:
        assert [contact["email"] for contact in contacts(api)] == ["c1@example.org", "c2@example.org"]
        assert sync(api, {"email": "c2@example.org", "eventId": "e2"}, idempotency_key="k2").json()["replayed"]
        row = {"email": "c1@example.org", "subscribed": True, "eventId": "e1"}
        assert counts(sync(api, row, idempotency_key=None)) == {"processed": 1, "skippedDuplicate": 1, "ok": True}
        api.control("reset")
        assert contacts(api) == []
        assert counts(sync(api, row, idempotency_key=None))["created"] == 1


# Preferences


def test_preferences_of_a_contact(api: Api) -> None:
    sync(api, ADA | {"categories": ["weekly_digest"]})
    response = preferences(api, email="ADA@example.org")
    contact = contacts(api)[0]
    names = {"transactional": "Transactional", "marketing": "Marketing", "weekly_digest": "Weekly digest"}
    assert response.json() == {
        "contact": {"id": contact["contact_id"], "email": "ada@example.org"},
        "categories": [{"key": key, "name": name} for key, name in names.items()],
        "subscriptions": [{"categoryKey": key, "subscribed": True} for key in names],
    }
    assert preferences(api, None, token=contact["token"]).json() == response.json()


def test_a_subscription_is_changed(api: Api) -> None:
    sync(api, ADA)
    body = {"email": "ada@example.org", "subscriptions": [{"categoryKey": "marketing", "subscribed": False}]}
    assert update(api, body).json() == {"ok": True}
    assert categories(preferences(api, email="ada@example.org")) == {"transactional": True, "marketing": False}


def test_a_token_needs_no_key(api: Api) -> None:
    sync(api, ADA)
    token = contacts(api)[0]["token"]
    body = {"token": token, "subscriptions": [{"categoryKey": "marketing", "subscribed": False}]}
    assert update(api, body, None).json() == {"ok": True}
    assert categories(preferences(api, None, token=token))["marketing"] is False
    assert preferences(api, None, token="wrong").status_code == 404


def test_a_global_unsubscribe_covers_all_categories(api: Api) -> None:
    sync(api, ADA | {"subscribed": False})
    assert set(categories(preferences(api, email="ada@example.org")).values()) == {False}
    update(api, {"email": "ada@example.org", "subscriptions": [{"categoryKey": "marketing", "subscribed": True}]})
    assert categories(preferences(api, email="ada@example.org")) == {"transactional": False, "marketing": True}
    assert contacts(api)[0]["subscribed"] is True


def test_a_recipient_is_a_contact(api: Api) -> None:
    assert preferences(api, email="ops@example.org").status_code == 404
    api.send_id()
    assert preferences(api, email="ops@example.org").json()["contact"]["email"] == "ops@example.org"
    api.control("keys", key="other", organization="org_other")
    missing = preferences(api, "other", email="ops@example.org")
    assert (missing.status_code, missing.json()["message"]) == (404, "Contact not found")


@each_value("preferences_auth", {"required": 401, "optional": 200})
def test_preferences_by_email_without_a_key(api: Api, value: str, expected: int) -> None:
    api.control("settings", preferences_auth=value)
    api.send_id()
    assert preferences(api, None, email="ops@example.org").status_code == expected
    body = {"email": "ops@example.org", "subscriptions": []}
    assert update(api, body, None).status_code == expected
    assert preferences(api, "wrong", email="ops@example.org").status_code == 401


def test_who_may_read_and_change_preferences(api: Api) -> None:
    sync(api, ADA)
    api.control("keys", key="reader", scopes=["preferences_read"])
    api.control("keys", key="manager", scopes=["preferences_manage"])
    body = {"email": "ada@example.org", "subscriptions": []}
    assert preferences(api, "reader", email="ada@example.org").status_code == 200
    assert preferences(api, "manager", email="ada@example.org").json()["details"] == {"scope": "preferences_read"}
    assert update(api, body, "manager").status_code == 200
    assert update(api, body, "reader").json()["details"] == {"scope": "preferences_manage"}
    # The key comes first, whatever the body is.
    assert update(api, {}, "wrong").status_code == 401


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"subscriptions": []}, "token"),
        ({"email": "ada@example.org"}, "subscriptions"),
        ({"email": "ada@example.org", "subscriptions": [{"categoryKey": "x"}]}, "subscriptions.0.subscribed"),
        ({"email": "ada@example.org", "subscriptions": [{"categoryKey": "x", "subscribed": 1}]}, "subscriptions.0"),
        ({"email": "ada@example.org", "subscriptions": [{"categoryKey": "x", "subscribed": True}]}, "category x"),
    ],
)
def test_a_malformed_update_changes_nothing(api: Api, body: Any, field: str) -> None:
    sync(api, ADA)
    response = update(api, body)
    assert response.status_code == 400
    assert field in response.json()["message"]
    assert set(categories(preferences(api, email="ada@example.org")).values()) == {True}


def test_neither_token_nor_email(api: Api) -> None:
    assert preferences(api).json()["details"] == {"fields": ["token", "email"]}


@each_value("preference_categories", {(): [], ("news",): ["news"]})
def test_categories(api: Api, value: tuple[str, ...], expected: list[str]) -> None:
    api.control("settings", preference_categories=list(value))
    sync(api, ADA)
    assert list(categories(preferences(api, email="ada@example.org"))) == expected


# Metrics


def metrics(api: Api, api_key: str = KEY, **query: Any) -> httpx.Response:
    return api.http.get("/api/v1/metrics", params=query, headers={"Authorization": f"Bearer {api_key}"})


def test_metrics_of_all_outcomes(api: Api) -> None:
    api.control("settings", event_delay=0)
    for outcome in ("delivered", "bounced", "complained", "opened", "clicked", "dropped", "failed", "never"):
        api.send_id(to=f"{outcome}@example.org", htmlContent='<a href="https://example.org/">Look</a>')
    opened = api.get("messages", to="opened@example.org")["messages"][0]["send_id"]
    for kind in ("opened", "delayed"):
        api.add_event(opened, kind)
    shown = metrics(api).json()
    assert shown["metrics"] == {
        "totalSent": 8,
        "totalDelivered": 4,
        "deliveryRate": 50.0,
        "totalOpened": 3,
        "uniqueOpens": 2,
        "avgOpenRate": 50.0,
        "totalClicked": 1,
        "uniqueClicks": 1,
        "avgClickRate": 25.0,
        "avgClickToOpenRate": 50.0,
        "totalBounced": 1,
        "bounceRate": 12.5,
        "totalComplained": 1,
        "complaintRate": 25.0,
        "totalDelayed": 1,
        "delayedRate": 12.5,
        "totalDropped": 1,
        "totalFailed": 1,
    }
    assert shown["scanned"] == {"sends": 8, "sendScanLimit": 1000}
    assert shown["window"]["preset"] == "7d"


def test_only_what_has_happened_counts(api: Api) -> None:
    api.control("settings", event_delay=60)
    api.send_id()
    assert metrics(api).json()["metrics"]["totalDelivered"] == 0
    api.advance(60)
    assert metrics(api).json()["metrics"]["totalDelivered"] == 1


def test_windows(api: Api) -> None:
    began = api.advance(0)
    for _ in range(2):
        api.send_id()
        api.advance(2 * 24 * 3600)
    sent = {
        window: metrics(api, window=window).json()["metrics"]["totalSent"] for window in ("24h", "7d", "30d", "all")
    }
    assert sent == {"24h": 0, "7d": 2, "30d": 2, "all": 2}
    later = metrics(api, window="24h", since=int((began + 3600) * 1000)).json()
    assert (later["metrics"]["totalSent"], later["window"]["preset"]) == (1, "24h")
    again = metrics(api, since=later["window"]["since"], window="").json()
    assert (again["window"]["since"], again["metrics"]["totalSent"]) == (later["window"]["since"], 1)
    assert metrics(api, window="all").json()["window"]["since"] == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("query", [{"window": "1y"}, {"since": "soon"}])
def test_bad_parameters(api: Api, query: dict[str, str]) -> None:
    response = metrics(api, **query)
    assert (response.status_code, response.json()["details"]["fields"]) == (400, list(query))


@each_value("metrics_scan_limit", {1000: (3, 1), 2: (2, 0)})
def test_the_newest_sends_are_scanned(api: Api, value: int, expected: tuple[int, int]) -> None:
    api.control("settings", metrics_scan_limit=value, event_delay=0)
    for outcome in ("bounced", "delivered", "delivered"):
        api.send_id(to=f"{outcome}@example.org")
    shown = metrics(api).json()
    assert (shown["scanned"]["sends"], shown["metrics"]["totalBounced"]) == expected


def test_who_may_read_metrics(api: Api) -> None:
    api.send_id()
    api.control("keys", key="sender", scopes=["send_email"])
    api.control("keys", key="other", organization="org_other", scopes=["read_sends"])
    assert metrics(api, "sender").status_code == 403
    assert metrics(api, "other").json()["metrics"]["totalSent"] == 0
    assert metrics(api, "wrong").status_code == 401
