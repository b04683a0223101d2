"""What happens to a message, and when it shows; both forms of the answer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from .helpers import Api

HTML = '<p><a href="https://example.net/report?x=1">Report</a></p>'


@pytest.mark.parametrize(
    ("to", "html", "types"),
    [
        ("ann@example.org", None, ["sent", "delivered"]),
        ("bounced@example.org", None, ["sent", "bounced"]),
        ("ann+bounced@example.org", None, ["sent", "bounced"]),
        ("ann+x+Bounced@example.org", None, ["sent", "bounced"]),
        ("Bounced+7@example.org", None, ["sent", "bounced"]),
        ("Ann <ann+bounced@example.org>", None, ["sent", "bounced"]),
        ("notbounced@example.org", None, ["sent", "delivered"]),
        ("ann@bounced.example.org", None, ["sent", "delivered"]),
        ("complained@example.org", None, ["sent", "delivered", "complained"]),
        ("dropped@example.org", None, ["sent", "dropped"]),
        ("failed@example.org", None, ["sent", "failed"]),
        ("never@example.org", None, ["sent"]),
        ("delivered@example.org", None, ["sent", "delivered"]),
        ("opened@example.org", HTML, ["sent", "delivered", "opened"]),
        ("opened@example.org", None, ["sent", "delivered"]),
        ("ann+clicked@example.org", HTML, ["sent", "delivered", "opened", "clicked"]),
        ("ann+clicked@example.org", None, ["sent", "delivered"]),
    ],
)
def test_outcome_by_recipient(api: Api, to: str, html: str | None, types: list[str]) -> None:
    send_id = api.send_id(to=to, htmlContent=html)
    assert api.types(send_id) == ["sent"]
    for shown in range(1, len(types)):
        api.advance(1)
        assert api.types(send_id) == types[: shown + 1]
    api.advance(3600)
    assert api.types(send_id) == types
    assert [event["type"] for event in api.get("messages")["messages"][0]["events"]] == types


def test_documented_form(api: Api) -> None:
    send_id = api.send_id(to="ann+bounced@example.org", idempotency_key="k")
    before = api.timeline(send_id).json()
    api.advance(5)
    answer = api.timeline(send_id).json()
    message_id = answer["messages"][0]["providerMessageId"]
    created = answer["send"]["createdAt"]
    assert set(answer) == {"send", "messages", "events"}
    assert answer["send"] == {
        "_id": send_id,
        "toEmail": "ann+bounced@example.org",
        "subject": "Nightly load",
        "status": "sent",
        "idempotencyKey": "k",
        "createdAt": created,
        "updatedAt": created + 1000,
    }
    assert before["send"]["updatedAt"] == created
    assert isinstance(created, int)
    assert created > 10**12
    assert answer["messages"][0] == {
        "sendId": send_id,
        "provider": "aws_ses",
        "fromEmail": "no-reply@sandbox.example",
        "toEmail": "ann+bounced@example.org",
        "feedbackId": f"send-{send_id}",
        "providerMessageId": message_id,
        "createdAt": created,
    }
    assert api.send(idempotency_key="k").json()["messageId"] == message_id
    sent, bounced = answer["events"]
    assert sent == {"type": "sent", "ts": created, "providerMessageId": message_id}
    assert bounced == {
        "type": "bounced",
        "ts": created + 1000,
        "providerMessageId": message_id,
        "reason": "550 5.1.1 no such user",
        "subtype": "General",
        "bounceType": "Permanent",
        "smtpCode": "550",
    }


def test_spec_form(api: Api) -> None:
    api.control("settings", timeline_form="spec")
    send_id = api.send_id(to="bounced@example.org")
    api.advance(1)
    answer = api.timeline(send_id).json()
    assert set(answer) == {"send", "messages", "events", "rawEvents", "nextCursor"}
    assert answer["nextCursor"] is None
    assert [row["type"] for row in answer["rawEvents"]] == ["sent", "bounced"]
    envelope = answer["events"][1]
    ts = answer["rawEvents"][1]["ts"]
    assert set(envelope) == {"id", "type", "created", "data"}
    assert (envelope["id"], envelope["type"]) == (f"{send_id}:{ts}", "email.bounced")
    assert envelope["created"].endswith("Z")
    assert round(datetime.fromisoformat(envelope["created"]).timestamp() * 1000) == ts
    assert envelope["data"]["sendId"] == send_id
    assert envelope["data"]["providerMessageId"] == answer["messages"][0]["providerMessageId"]
    assert envelope["data"]["reason"] == "550 5.1.1 no such user"


@pytest.mark.parametrize(
    ("to", "extras"),
    [
        ("dropped@example.org", {"reason"}),
        ("failed@example.org", {"reason"}),
        ("complained@example.org", {"providerReason"}),
        ("clicked@example.org", {"url", "ip", "userAgent"}),
    ],
)
def test_extra_fields(api: Api, to: str, extras: set[str]) -> None:
    send_id = api.send_id(to=to, htmlContent=HTML)
    api.advance(10)
    event = api.timeline(send_id).json()["events"][-1]
    assert set(event) - {"type", "ts", "providerMessageId"} == extras
    if "url" in extras:
        assert event["url"] == "https://example.net/report?x=1"
        # The documented rows of opens and clicks name no provider message.
        assert "providerMessageId" not in event


def test_click_without_a_link(api: Api) -> None:
    send_id = api.send_id(to="clicked@example.org", htmlContent="<p>none</p>")
    api.advance(10)
    assert api.timeline(send_id).json()["events"][-1]["url"] == "https://example.com/"


def test_event_delay(api: Api) -> None:
    api.control("settings", event_delay=0)
    assert api.types(api.send_id(to="complained@example.org")) == ["sent", "delivered", "complained"]
    api.control("settings", event_delay=600.5)
    send_id = api.send_id()
    api.advance(590)
    assert api.types(send_id) == ["sent"]
    api.advance(10.5)
    assert api.types(send_id) == ["sent", "delivered"]


def test_added_events(api: Api) -> None:
    send_id = api.send_id(to="never@example.org")
    added = api.control(f"messages/{send_id}/events", type="delivered", smtpCode="250")
    assert (added["type"], added["smtpCode"]) == ("delivered", "250")
    assert api.types(send_id) == ["sent", "delivered"]
    assert api.timeline(send_id).json()["events"][1]["smtpCode"] == "250"
    # A late bounce, and one that is dated back.
    now = api.get("health")["now"]
    api.control(f"messages/{send_id}/events", type="bounced", at=now + 60)
    api.control(f"messages/{send_id}/events", type="opened", at=1000.5)
    events: list[dict[str, Any]] = api.timeline(send_id).json()["events"]
    assert [event["type"] for event in events] == ["opened", "sent", "delivered"]
    assert events[0]["ts"] == 1_000_500
    api.advance(60)
    assert api.types(send_id) == ["opened", "sent", "delivered", "bounced"]
