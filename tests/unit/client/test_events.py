"""Events of the organization, and filters, as data."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from airflow_provider_fluxomail.client import errors, events
from airflow_provider_fluxomail.client.events import EventFilter, FeedEvent
from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.settings import ClientSettings

SETTINGS = ClientSettings(api_key="key")

ROW = {
    "id": "sends_1:1767225612345",
    "type": "email.bounced",
    "created": "2026-01-01T00:00:12.345Z",
    "data": {"sendId": "sends_1", "providerMessageId": "m1", "reason": "550 no such user <ada@example.org>"},
}


def test_an_event() -> None:
    found = FeedEvent.parse(ROW)
    assert found is not None
    assert (found.send_id, found.event.type, found.event.id) == ("sends_1", "bounced", "sends_1:1767225612345")
    assert found.event.provider_message_id == "m1"
    assert found.event.time == datetime(2026, 1, 1, 0, 0, 12, 345000, tzinfo=UTC)
    assert "ada@example.org" not in repr(found), "promise 5"
    assert len({found, FeedEvent.parse(ROW)}) == 1, "events can be compared and kept"
    unknown = FeedEvent.parse({**ROW, "type": "email.teleported", "created": "soon"})
    assert unknown is not None
    assert (unknown.event.type, unknown.event.time) == ("teleported", None)


@pytest.mark.parametrize(
    "row",
    [None, "text", {}, {**ROW, "data": None}, {**ROW, "data": []}, {**ROW, "data": {}}, {**ROW, "type": None},
     {**ROW, "data": {"sendId": ""}}, {**ROW, "data": {"sendId": 7}}, {**ROW, "type": ""}],
    ids=str,
)  # fmt: skip
def test_what_is_no_event_of_a_send(row: Any) -> None:
    assert FeedEvent.parse(row) is None


def query(path: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(path).query)


def test_a_filter_repeats_its_types() -> None:
    wanted = EventFilter(types=("email.bounced", "email.*"), domain="example.org")
    pairs = [("types", "email.bounced"), ("types", "email.*"), ("domain", "example.org")]
    assert wanted.query() == pairs
    assert EventFilter().query() == []
    assert query(events.list_request(wanted, since_ms=5).path) == [*pairs, ("since", "5"), ("limit", "100")]
    assert query(events.list_request(wanted, since_ms=5, cursor="a&b").path)[-1] == ("cursor", "a&b")
    request = events.stream_request(wanted, since="s:1&x")
    assert query(request.path) == [*pairs, ("since", "s:1&x")]
    assert request.headers["Last-Event-ID"] == "s:1&x"
    assert request.headers["Accept"] == "text/event-stream"
    assert events.stream_request(EventFilter()).path == "/api/v1/events/stream"


def test_an_id_that_is_no_header_goes_into_the_query_alone() -> None:
    for since in ("a\nb", "\u00fc", "a\0"):
        request = events.stream_request(EventFilter(), since=since)
        assert "Last-Event-ID" not in request.headers
        assert query(request.path) == [("since", since)]


def page(payload: Any) -> events.EventPage:
    response = Response(status=200, headers={}, content=json.dumps(payload).encode())
    return events.read_list(events.list_request(EventFilter(), since_ms=0), response, SETTINGS)


@pytest.mark.parametrize("name", ["events", "items"])
def test_a_page_in_either_form(name: str) -> None:
    found = page({name: [ROW, {"type": "email.sent"}, 4], "nextCursor": "c"})
    assert [one.send_id for one in found.events] == ["sends_1"]
    assert found.cursor == "c"
    for cursor, read in ((None, None), ("", None), (17, "17"), ([], None)):
        assert page({name: [], "nextCursor": cursor}).cursor == read


@pytest.mark.parametrize("payload", [{}, {"events": None}, {"items": "x"}])
def test_a_response_without_a_list(payload: Any) -> None:
    with pytest.raises(errors.FluxomailResponseError, match="no list of events"):
        page(payload)
