"""API calls of more than one request, driven by hand; tests/wire/test_client.py has both clients drive them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_fluxomail.client import events, flows
from airflow_provider_fluxomail.client.errors import FluxomailResponseError
from airflow_provider_fluxomail.client.flows import Flow, T
from airflow_provider_fluxomail.client.models import Response, Timeline
from airflow_provider_fluxomail.client.settings import ClientSettings

SETTINGS = ClientSettings(api_key="fm_key")


def drive(flow: Flow[T], *payloads: Any) -> tuple[T, list[str]]:
    """Respond to a flow's requests with these payloads; return its result and the ends of the paths."""
    paths: list[str] = []
    responses = iter(payloads)
    try:
        call = next(flow)
        while True:
            paths.append(call.request.path.rpartition("/")[2])
            response = Response(status=200, headers={}, content=json.dumps(next(responses)).encode())
            call = flow.send(call.read(call.request, response, SETTINGS))
    except StopIteration as end:
        return end.value, paths


def test_all_pages_of_a_timeline_are_read_sorted_and_without_repeats() -> None:
    timeline, paths = drive(
        flows.timeline("s1"),
        {"events": [{"type": "opened", "ts": 3}], "nextCursor": "c/1"},
        {"events": [{"type": "delivered", "ts": 2}, {"type": "opened", "ts": 3}], "nextCursor": "c2"},
        {"events": [{"type": "sent", "ts": 1}], "nextCursor": ""},
    )
    assert paths == ["s1", "s1?cursor=c%2F1", "s1?cursor=c2"]
    assert [event.type for event in timeline.events] == ["sent", "delivered", "opened"]


def test_pages_in_a_circle_end() -> None:
    page = {"events": [], "nextCursor": "same"}
    assert drive(flows.timeline("s1"), page, page)[1] == ["s1", "s1?cursor=same"]
    endless = [{"events": [], "nextCursor": str(n)} for n in range(200)]
    assert len(drive(flows.timeline("s1"), *endless)[1]) == flows.MAX_TIMELINE_PAGES + 1


def test_the_events_of_all_pages_together_are_bounded() -> None:
    pages = [
        {"events": [{"type": "sent", "ts": n, "id": f"{page}.{n}"} for n in range(4000)], "nextCursor": str(page)}
        for page in range(20)
    ]
    timeline, paths = drive(flows.timeline("s1"), *pages)
    assert (len(timeline.events), len(paths)) == (12_000, 3)


def test_what_a_timeline_shows_is_bounded() -> None:
    page = {"events": [], "send": {"idempotencyKey": "k" * 10_000, "status": "s" * 10_000}}
    assert len(repr(drive(flows.timeline("s1"), page)[0])) < 200


def test_a_timeline_without_events_is_not_fluxomails() -> None:
    with pytest.raises(FluxomailResponseError, match="list of events"):
        drive(flows.timeline("s1"), {"send": {}})


@pytest.mark.parametrize("cursor", ["\ud800", "a\udc00b", "x" * 5000])
def test_a_cursor_that_no_request_can_hold_is_not_fluxomails(cursor: str) -> None:
    page = {"events": [], "nextCursor": cursor}
    with pytest.raises(FluxomailResponseError, match="nextCursor is too long, or not readable"):
        drive(flows.timeline("s1"), page)
    with pytest.raises(FluxomailResponseError, match="nextCursor is too long, or not readable"):
        drive(flows.call(events.list_request(events.EventFilter(), since_ms=0), events.read_list), page)


def test_text_that_was_cut_within_a_character_is_read() -> None:
    """As JavaScript cuts an emoji in two."""
    row = {"type": "bounced", "ts": 1, "reason": "550 \U0001f600 \ud83d"}
    (event,) = drive(flows.timeline("s1"), {"events": [row]})[0].events
    assert event.reason is not None
    assert event.reason.startswith("550 \U0001f600 \ufffd")
    assert event.reason.encode()


@pytest.mark.parametrize("error", [KeyError("ops@example.org"), MemoryError(), RecursionError()], ids=repr)
def test_what_fails_while_a_response_is_read_is_an_error_of_this_response(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Timeline, "parse", fail)
    with pytest.raises(FluxomailResponseError, match=f"could not be processed: {type(error).__name__}$") as caught:
        drive(flows.timeline("s1"), {"events": []})
    assert caught.value.ambiguous
