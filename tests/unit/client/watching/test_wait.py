"""One wait: what each poll means, when the next is due, how it ends."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.watching.wait import WaitOutcome
from tests.support.single_waits import MS, timeline, wait


def test_a_wait_continues_until_something_decides() -> None:
    one = wait()
    assert one.on_timeline(timeline()) is None
    assert one.on_timeline(timeline("sent")) is None
    ending = one.on_timeline(timeline("sent", "delivered"))
    assert ending == WaitOutcome(
        status="reached", send_id="s1", target="delivered", event="delivered", time="2026-01-01T00:00:12.346Z"
    )
    assert ending.result == {"send_id": "s1", "event": "delivered", "time": "2026-01-01T00:00:12.346Z"}


@pytest.mark.parametrize(
    ("event", "said"),
    [("bounced", "bounced"), ("complained", "reported as spam"), ("dropped", "was dropped"), ("failed", "failed")],
)
def test_a_failure_names_event_time_reason_and_send_id(event: str, said: str) -> None:
    row = {"type": event, "ts": MS, "reason": "550 no such user"}
    ending = wait().on_timeline(Timeline.parse("s1", {"events": [row]}))
    assert ending is not None
    assert (ending.status, ending.event) == ("failed", event)
    for text in (said, "2026-01-01T00:00:12.345Z", "550 no such user", "s1"):
        assert text in (ending.message or "")


def test_a_permanent_error_ends_it() -> None:
    for error in (errors.FluxomailAuthError("no key", status=401), errors.FluxomailValidationError("bad", status=400)):
        ending = wait().on_error(error, now=1000.0)
        assert ending is not None
        assert ending.status == "error"
        assert error.message in (ending.message or "")


def test_not_found_is_tolerated_for_a_minute_from_the_first_poll() -> None:
    error = errors.FluxomailNotFoundError("gone", status=404)
    assert wait().on_error(error, now=1059.9) is None
    assert wait(deadline=1060.0).on_error(error, now=1060.0) is None, "past the deadline it is a timeout"
    ending = wait().on_error(error, now=1060.0)
    assert ending is not None
    assert ending.status == "error"
    assert "60 s" in (ending.message or "")


def test_a_timeout_names_the_last_event_and_the_last_error() -> None:
    one = wait()
    assert "nothing on its timeline" in (one.timed_out().message or "")
    one.on_timeline(timeline("sent"))
    assert "last event: sent at 2026" in (one.timed_out().message or "")
    one.on_error(errors.FluxomailServerError("broken", status=500), now=1.0)
    assert "the last poll failed: broken" in (one.timed_out().message or "")
    assert "not delivered within 100 s" in (one.timed_out().message or "")


def test_polls_are_spread_and_end_at_the_deadline() -> None:
    one = wait()
    assert [one.delay(30, 1000.0, lambda draw=draw: draw) for draw in (0.0, 0.5, 1.0)] == pytest.approx([24, 30, 36])  # type: ignore[misc]
    assert one.delay(30, 1090.0, lambda: 0.5) == 10
    assert one.delay(30, 2000.0) == 0
    assert one.delay(0, 1000.0, lambda: 0.5) == 1, "an interval of 0 would hammer"


def test_an_ending_survives_the_way_through_airflow() -> None:
    ending = WaitOutcome(status="failed", send_id="s1", target="delivered", event="bounced", message="m")
    assert WaitOutcome.from_json({**ending.to_json(), "result": {"more": 1}}) == ending
    other: list[object] = [None, {}, "reached", {"status": "success"}, {"status": None}, []]
    for event in other:
        with pytest.raises(ValueError, match="is not the outcome of a wait"):
            WaitOutcome.from_json(event)
