"""What happens to a message, when it shows and to whom; the forms and pages of the response."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from .helpers import BASE, Api, each_value

HTML = '<p><a href="https://example.net/report?x=1">Report</a></p>'


OUTCOMES: list[tuple[str, str | None, list[str]]] = [
    ("ann@example.org", None, ["delivered"]),
    ("bounced@example.org", None, ["bounced"]),
    ("ann+x+Bounced@example.org", None, ["bounced"]),
    ("Bounced+7@example.org", None, ["bounced"]),
    ("Ann <ann+bounced@example.org>", None, ["bounced"]),
    ("notbounced@example.org", None, ["delivered"]),
    ("ann@bounced.example.org", None, ["delivered"]),
    ("complained@example.org", None, ["delivered", "complained"]),
    ("dropped@example.org", None, ["dropped"]),
    ("failed@example.org", None, ["failed"]),
    ("never@example.org", None, []),
    ("delivered@example.org", None, ["delivered"]),
    ("opened@example.org", HTML, ["delivered", "opened"]),
    ("opened@example.org", None, ["delivered"]),
    ("ann+clicked@example.org", HTML, ["delivered", "opened", "clicked"]),
    ("ann+clicked@example.org", None, ["delivered"]),
]


def test_outcome_by_recipient(api: Api) -> None:
    api.control("settings", event_delay=1000)
    sends = [api.send_id(to=to, htmlContent=html) for to, html, _ in OUTCOMES]
    for shown in range(5):
        expected = [["sent", *types[:shown]] for *_, types in OUTCOMES]
        assert [api.types(send_id) for send_id in sends] == expected
        messages = api.get("messages")["messages"]
        assert [[event["type"] for event in message["events"]] for message in messages] == expected
        api.advance(1000)


def test_documented_form(api: Api) -> None:
    api.control("settings", event_delay=30)
    send_id = api.send_id(to="ann+bounced@example.org", idempotency_key="k")
    before = api.timeline(send_id).json()
    api.advance(60)
    response = api.timeline(send_id).json()
    message_id = response["messages"][0]["providerMessageId"]
    created = response["send"]["createdAt"]
    assert set(response) == {"send", "messages", "events"}
    assert response["send"] == {
        "_id": send_id,
        "toEmail": "ann+bounced@example.org",
        "subject": "Nightly load",
        "status": "sent",
        "idempotencyKey": "k",
        "createdAt": created,
        "updatedAt": created + 30_000,
    }
    assert before["send"]["updatedAt"] == created
    assert isinstance(created, int)
    assert created > 10**12
    assert response["messages"][0] == {
        "sendId": send_id,
        "provider": "aws_ses",
        "fromEmail": "no-reply@sandbox.example",
        "toEmail": "ann+bounced@example.org",
        "feedbackId": f"send-{send_id}",
        "providerMessageId": message_id,
        "createdAt": created,
    }
    assert api.send(idempotency_key="k").json()["messageId"] == message_id
    sent, bounced = response["events"]
    assert sent == {"type": "sent", "ts": created, "providerMessageId": message_id}
    assert bounced == {
        "type": "bounced",
        "ts": created + 30_000,
        "providerMessageId": message_id,
        "reason": "550 5.1.1 no such user",
        "subtype": "General",
        "bounceType": "Permanent",
        "smtpCode": "550",
        "mtaHost": "mx.example.org",
    }


def check_pair(row: dict[str, Any], envelope: dict[str, Any], send_id: str, message_id: str) -> None:
    """A short row and an envelope of the same event."""
    assert set(envelope) == {"id", "type", "created", "data"}
    assert (envelope["id"], envelope["type"]) == (f"{send_id}:{row['ts']}", f"email.{row['type']}")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", envelope["created"])
    assert round(datetime.fromisoformat(envelope["created"]).timestamp() * 1000) == row["ts"]
    further = {name: value for name, value in row.items() if name not in ("type", "ts", "providerMessageId")}
    assert envelope["data"] == further | {"sendId": send_id, "providerMessageId": message_id}


@each_value("timeline_form", {name: [name] * 2 for name in ("docs", "spec", "raw")} | {"by_version": ["docs", "spec"]})
def test_form(api: Api, value: str, expected: list[str]) -> None:
    send_id = api.send_id(to="clicked+bounced@example.org", htmlContent=HTML)
    api.add_event(send_id, "bounced", api.get("health")["now"] + 60, reason="full")
    api.advance(60)
    rows = api.timeline(send_id).json()["events"]
    assert [row["type"] for row in rows] == ["sent", "delivered", "opened", "clicked", "bounced"]
    api.control("settings", timeline_form=value)
    for form, headers in zip(expected, ({}, {"Fluxomail-Version": "2025-09-01"}), strict=True):
        response = api.read(send_id, headers).json()
        assert response["send"]["_id"] == response["messages"][0]["sendId"] == send_id
        if form == "docs":
            assert set(response) == {"send", "messages", "events"}
            assert response["events"] == rows
            continue
        # Pages go backward, so the newest comes first.
        assert set(response) == {"send", "messages", "events", "rawEvents", "nextCursor"}
        assert response["rawEvents"] == rows[::-1]
        assert response["nextCursor"] is None
        if form == "raw":
            assert response["events"] == []
            continue
        message_id = response["messages"][0]["providerMessageId"]
        for row, envelope in zip(rows[::-1], response["events"], strict=True):
            check_pair(row, envelope, send_id, message_id)


def long_timeline(api: Api, count: int = 20) -> tuple[str, list[dict[str, Any]]]:
    """A send with events, some in the same millisecond, stored in another order than that of their times."""
    send_id = api.quiet()
    start = int(api.get("health")["now"]) - 1000
    for number in range(count - 1):
        api.add_event(send_id, "opened", start + (number * 7 % 10) / 8, number=number)
    rows = api.timeline(send_id).json()["events"]
    assert len(rows) == count
    assert [row["ts"] for row in rows] == sorted(row["ts"] for row in rows)
    assert len({row["ts"] for row in rows}) == 11
    return send_id, rows


@pytest.mark.parametrize("form", ["spec", "raw"])
def test_every_event_is_on_one_page(api: Api, form: str) -> None:
    send_id, rows = long_timeline(api)
    api.control("settings", timeline_form=form)
    expected = {None: [20], 1000: [20], 20: [20], 19: [19, 1], 7: [7, 7, 6], 1: [1] * 20}
    for limit, sizes in expected.items():
        pages = api.pages(send_id, limit)
        assert [len(page["rawEvents"]) for page in pages] == sizes
        assert [row for page in pages for row in page["rawEvents"]] == rows[::-1]
        envelopes = [envelope for page in pages for envelope in page["events"]]
        assert len(envelopes) == (20 if form == "spec" else 0)


@each_value("page_size", {1: 1, 7: 7, 1000: 1000})
def test_page_size(api: Api, value: int, expected: int) -> None:
    send_id, rows = long_timeline(api)
    api.control("settings", timeline_form="spec", page_size=value)
    pages = api.pages(send_id)
    assert [len(page["events"]) for page in pages[:-1]] == [expected] * ((len(rows) - 1) // expected)
    assert [row for page in pages for row in page["rawEvents"]] == rows[::-1]
    # A larger limit gets no more than that, a smaller one is kept.
    assert len(api.read(send_id, limit=100_000).json()["events"]) == min(expected, 20)
    assert len(api.read(send_id, limit=5).json()["events"]) == min(expected, 5)
    nothing = api.read(send_id, limit=0).json()
    assert (nothing["events"], nothing["rawEvents"], nothing["nextCursor"]) == ([], [], None)
    # The documented form has no pages.
    api.control("settings", timeline_form="docs")
    assert api.read(send_id, limit=1, cursor="1").json()["events"] == rows


def test_a_cursor(api: Api) -> None:
    send_id, rows = long_timeline(api)
    api.control("settings", timeline_form="spec")
    newest_first = rows[::-1]
    ts = rows[10]["ts"]
    older = [row for row in newest_first if row["ts"] < ts]
    moment = datetime.fromtimestamp(ts / 1000, UTC)
    east = moment.astimezone(timezone(timedelta(hours=2)))
    for cursor, expected in (
        (str(ts), older),
        (moment.isoformat(), older),
        (moment.isoformat().replace("+00:00", "Z"), older),
        (east.isoformat(), older),
        ("", newest_first),
        ("0", []),
        ("9" * 15, newest_first),
    ):
        assert api.read(send_id, cursor=cursor).json()["rawEvents"] == expected, cursor
    # Events may come between two pages.
    first = api.read(send_id, limit=8).json()
    api.add_event(send_id, "delivered")
    second = api.read(send_id, limit=1000, cursor=first["nextCursor"]).json()
    assert [*first["rawEvents"], *second["rawEvents"]] == newest_first


def test_bad_page(api: Api) -> None:
    send_id = api.send_id()
    texts = {
        "limit": "limit must be a whole number, not negative",
        "cursor": "cursor must be an ISO 8601 time or milliseconds since the epoch",
    }
    wrong = {"limit": ("x", "-1", "1.5", "1" * 13, "٣"), "cursor": ("x", "1:", "1:2:3", "-5", "9" * 40)}
    for form in ("spec", "raw"):
        api.control("settings", timeline_form=form)
        for name, values in wrong.items():
            for value in values:
                query: dict[str, Any] = {name: value}
                response = api.read(send_id, **query)
                assert (response.status_code, response.json()["code"]) == (400, "validation_error"), value
                assert response.json()["message"] == f"Invalid request: {texts[name]}"
                assert response.json()["details"] == {"fields": [name]}


# Who may read, and when


@each_value("timeline_auth", {"required": 401, "optional": 200})
def test_timeline_auth(api: Api, value: str, expected: int) -> None:
    api.control("settings", timeline_auth=value)
    api.control("keys", key="other", organization="org_2")
    api.control("keys", key="sender", scopes=["send_email"])
    send_id = api.send_id()
    path = f"/api/v1/sends/{send_id}"
    assert api.http.get(path).status_code == expected
    assert api.http.get(path, headers={"Authorization": "Basic x"}).status_code == expected
    assert api.http.get("/api/v1/sends/none").status_code == (401 if expected == 401 else 404)
    # A key that is given must be valid in any case.
    for headers in ({"Authorization": "Bearer wrong"}, {"x-api-key": "wrong"}, {"Authorization": "Bearer"}):
        assert api.http.get(path, headers=headers).status_code == 401
    assert api.timeline(send_id).status_code == 200
    assert api.timeline(send_id, "sender").status_code == 403
    assert api.timeline(send_id, "other").status_code == 404
    assert api.http.post("/api/v1/emails/send", json=BASE).status_code == 401


@each_value("not_found_seconds", {0: 0, 30: 30, 120: 120})
def test_not_found_seconds(api: Api, value: float, expected: float) -> None:
    api.control("settings", not_found_seconds=value)
    send_id = api.send_id(idempotency_key="k")
    if expected:
        for seconds in (0, expected - 20):
            api.advance(seconds)
            response = api.timeline(send_id)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
        # It was sent all the same.
        assert api.count() == 1
        assert api.send(idempotency_key="k").json()["reused"] is True
        api.advance(20)
    else:
        api.advance(0.01)
    assert api.types(send_id)[0] == "sent"


@each_value(
    "default_outcome",
    {
        "delivered": ["delivered"],
        "bounced": ["bounced"],
        "complained": ["delivered", "complained"],
        "dropped": ["dropped"],
        "failed": ["failed"],
        "never": [],
        "opened": ["delivered", "opened"],
        "clicked": ["delivered", "opened", "clicked"],
    },
)
def test_default_outcome(api: Api, value: str, expected: list[str]) -> None:
    before = api.send_id(htmlContent=HTML)
    api.control("settings", default_outcome=value)
    send_id, named = api.send_id(htmlContent=HTML), api.send_id(to="ann+dropped@example.org")
    plain = api.send_id()
    api.advance(60)
    assert api.types(send_id) == ["sent", *expected]
    assert api.types(plain) == ["sent", *(kind for kind in expected if kind not in ("opened", "clicked"))]
    assert api.types(named) == ["sent", "dropped"]
    assert api.types(before) == ["sent", "delivered"]


@each_value("repeated_events", {"keep": True, "drop": False})
def test_repeated_events(api: Api, value: str, expected: bool) -> None:
    api.control("settings", repeated_events=value, event_delay=0)
    send_id = api.send_id()
    for kind, first in (("delivered", False), ("opened", True), ("opened", False), ("bounced", True)):
        added = api.add_event(send_id, kind)
        assert added["dropped"] is not (first or expected)
    kept = ["delivered", "opened"] if expected else []
    assert sorted(api.types(send_id)) == sorted(["sent", "delivered", "opened", "bounced", *kept])
    # Each message for itself.
    assert api.add_event(api.quiet(), "opened")["dropped"] is False


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
    api.control("settings", event_delay=0)
    event = api.timeline(api.send_id(to=to, htmlContent=HTML)).json()["events"][-1]
    assert set(event) - {"type", "ts", "providerMessageId"} == extras
    if "url" in extras:
        assert event["url"] == "https://example.net/report?x=1"
        # The documented rows of opens and clicks name no provider message.
        assert "providerMessageId" not in event
        unlinked = api.send_id(to=to, htmlContent="<p>none</p>")
        assert api.timeline(unlinked).json()["events"][-1]["url"] == "https://example.com/"


@each_value("event_delay", {0: 0, 600.5: 600.5, 86_400: 86_400})
def test_event_delay(api: Api, value: float, expected: float) -> None:
    api.control("settings", event_delay=value)
    send_id = api.send_id(to="complained@example.org")
    if expected:
        api.advance(expected - 30)
        assert api.types(send_id) == ["sent"]
        api.advance(30)
        assert api.types(send_id) == ["sent", "delivered"]
        api.advance(expected)
    assert api.types(send_id) == ["sent", "delivered", "complained"]
    rows = api.timeline(send_id).json()["events"]
    assert [row["ts"] - rows[0]["ts"] for row in rows] == [0, expected * 1000, expected * 2000]
    # The change is for later sends.
    earlier = api.send_id()
    api.control("settings", event_delay=0)
    assert api.types(api.send_id()) == ["sent", "delivered"]
    assert api.types(earlier) == (["sent"] if expected else ["sent", "delivered"])


def test_added_events(api: Api) -> None:
    send_id = api.quiet()
    added = api.add_event(send_id, "delivered", smtpCode="251")
    assert (added["type"], added["smtpCode"]) == ("delivered", "251")
    assert api.types(send_id) == ["sent", "delivered"]
    assert api.timeline(send_id).json()["events"][1]["smtpCode"] == "251"
    # A late bounce, and one that is dated back.
    now = api.get("health")["now"]
    api.add_event(send_id, "bounced", now + 60)
    api.add_event(send_id, "opened", 1000.5)
    events: list[dict[str, Any]] = api.timeline(send_id).json()["events"]
    assert [event["type"] for event in events] == ["opened", "sent", "delivered"]
    assert events[0]["ts"] == 1_000_500
    api.advance(60)
    assert api.types(send_id) == ["opened", "sent", "delivered", "bounced"]
