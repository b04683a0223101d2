"""Every wire form of a timeline becomes one; one rule decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.event_types import check_fail_on, check_target
from airflow_provider_fluxomail.client.models import Event, Timeline, parse_time
from tests.support.timelines import MS, at

AT = datetime(2026, 1, 1, 0, 0, 12, 345000, tzinfo=UTC)
ISO = "2026-01-01T00:00:12.345Z"
DOCS = {
    "send": {"_id": "s1", "toEmail": "a@b.c", "subject": "S", "status": "sent", "idempotencyKey": "k", "createdAt": MS},
    "messages": [{"provider": "aws_ses"}],
    "events": [{"type": "delivered", "ts": MS, "providerMessageId": "m1"}],
}
ROW = {
    "id": f"s1:{MS}", "type": "email.delivered", "created": ISO, "data": {"sendId": "s1", "providerMessageId": "m1"},
}  # fmt: skip
SPEC: dict[str, Any] = {"send": {}, "events": [ROW], "rawEvents": [{"type": "delivered", "ts": MS}], "nextCursor": None}


@pytest.mark.parametrize("payload", [DOCS, SPEC])
def test_both_forms_say_the_same(payload: dict[str, Any]) -> None:
    (event,) = Timeline.parse("s1", payload).events
    assert (event.type, event.time, event.provider_message_id) == ("delivered", AT, "m1")


@pytest.mark.parametrize(
    "payload",
    [
        {"events": [], "rawEvents": [{"type": "delivered", "ts": MS}]},
        {"events": [{"type": "delivered", "created": MS}]},
        {"events": [{"type": "email.delivered", "ts": str(MS), "unknown": {"x": 1}}], "more": 1},
        {"events": [None, 5, {"type": 7}, {"ts": 1}, {"type": "delivered", "ts": MS / 1000}]},
    ],
)
def test_tolerated_forms(payload: dict[str, Any]) -> None:
    assert [(event.type, event.time) for event in Timeline.parse("s1", payload).events] == [("delivered", AT)]


@pytest.mark.parametrize("payload", [{}, {"events": "none"}, {"events": None}])
def test_no_list_of_events_is_not_a_timeline(payload: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="list of events"):
        Timeline.parse("s1", payload)


def test_head_and_privacy() -> None:
    timeline = Timeline.parse("s1", DOCS)
    assert (timeline.recipient, timeline.subject, timeline.status) == ("a@b.c", "S", "sent")
    assert (timeline.idempotency_key, timeline.created) == ("k", AT)
    assert "a@b.c" not in repr(timeline), "promise 5: timelines end up in logs"


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (MS, AT),
        (ISO, AT),
        ("2026-01-01T01:00:12.345+01:00", AT),
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (None, None),
        (True, None),
        ("soon", None),
        (1e300, None),
        ("inf", None),
        ([], None),
    ],
)
def test_times(value: object, moment: datetime | None) -> None:
    assert parse_time(value) == moment


def test_reasons_are_kept_and_hold_no_address() -> None:
    reason = "550 5.1.1 <ada@example.com> unknown"
    row = {"type": "bounced", "ts": MS, "reason": reason, "subtype": "hard", "smtpCode": 550}
    for form in (row, {"type": "email.bounced", "created": ISO, "data": {**row, "type": "Permanent"}}):
        event = Event.parse(form)
        assert event is not None
        assert event.reason == "550 5.1.1 <<address>> unknown, hard"


def test_events_of_one_moment_come_in_the_order_of_a_message() -> None:
    kinds = ["sent", "delayed", "delivered", "opened", "clicked", "complained"]
    timeline = at(*((kind, MS) for kind in reversed(kinds)), ("exploded", MS - 1))
    assert [event.type for event in timeline.events] == ["exploded", *kinds]


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    assert check_target("opened") == "opened"
    with pytest.raises(FluxomailValidationError, match="delivered, opened, clicked"):
        check_target("arrived")
    assert check_fail_on("bounced") == ("bounced",)
    assert check_fail_on([]) == ()
    with pytest.raises(FluxomailValidationError, match="bounced, complained, dropped, failed"):
        check_fail_on(["bounced", "exploded"])
