"""The requests of the vendor's JavaScript client and command line, as they send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .helpers import BASE, KEY

if TYPE_CHECKING:
    from .helpers import Api

HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "Fluxomail-Version": "2025-09-01",
    "User-Agent": "fluxomail-sdk-js/0.5.2 (node/v20.20.2)",
}


def test_its_timeline_has_envelopes_and_curls_has_rows(api: Api) -> None:
    api.control("settings", event_delay=60)
    send_id = api.http.post("/api/v1/emails/send", json=BASE, headers=HEADERS).json()["sendId"]
    (envelope,) = api.http.get(f"/api/v1/sends/{send_id}", headers=HEADERS).json()["events"]
    assert (envelope["type"], envelope["data"]["sendId"]) == ("email.sent", send_id)
    (row,) = api.timeline(send_id).json()["events"]
    assert (row["type"], set(row)) == ("sent", {"type", "ts", "providerMessageId"})


def test_whoami(api: Api) -> None:
    assert api.http.get("/api/v1/events", params={"limit": 0}, headers=HEADERS).json()["events"] == []


def test_the_other_calls(api: Api) -> None:
    rows = [{"email": "ada@example.org", "subscribed": True}]
    sent = HEADERS | {"Idempotency-Key": "c1"}
    assert api.http.post("/api/v1/contacts/sync", json={"contacts": rows}, headers=sent).json()["created"] == 1
    query = {"email": "ada@example.org"}
    shown = api.http.get("/api/v1/preferences", params=query, headers=HEADERS).json()
    assert shown["contact"]["email"] == "ada@example.org"
    body = query | {"subscriptions": [{"categoryKey": "marketing", "subscribed": False}]}
    assert api.http.post("/api/v1/preferences", json=body, headers=HEADERS).json() == {"ok": True}
    metrics = api.http.get("/api/v1/metrics", params={"window": "24h"}, headers=HEADERS).json()
    assert metrics["window"]["preset"] == "24h"
