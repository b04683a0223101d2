"""The frames of the event stream, cut anywhere, and events and filters as data."""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_fluxomail.client import errors, events
from airflow_provider_fluxomail.client.events import EventFilter, FeedEvent, FrameReader
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.client.wire import Response

SETTINGS = ClientSettings(api_key="key")


def frames(*chunks: bytes) -> list[str]:
    reader = FrameReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


def test_frames_and_the_id_to_go_on_from() -> None:
    reader = FrameReader()
    assert list(reader.feed(b"id: a:1\ndata: one\n\nid: b:2\ndata: two\n\n")) == ["one", "two"]
    assert reader.last_id == "b:2"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_cut_at_every_byte(end: bytes) -> None:
    wire = end.join([b": hello", b"id: 1", b"data: a", b"data: b", b"", b"data", b"", b"data:c", b"", b""])
    # The last line break may still become CRLF, which only the next byte tells.
    wire += b":" + end
    for size in range(1, len(wire) + 1):
        chunks = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert frames(*chunks) == ["a\nb", "", "c"], size


LINES = st.lists(
    st.one_of(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12),
        st.sampled_from(["", "", ":", "data", "data:", "data: x", "id: 7", "id", "event: y", "retry: 1", "data:  z"]),
    ),
    max_size=20,
)


def reference(lines: list[str]) -> tuple[list[str], str | None]:
    """The standard's own words, line by line."""
    data: list[str] = []
    found: list[str] = []
    last_id: str | None = None
    kept: str | None = None
    for number, raw in enumerate(lines):
        line = raw.removeprefix("\ufeff") if number == 0 else raw
        if not line:
            if data:
                found.append("\n".join(data))
                kept = last_id
            data = []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "id" and "\0" not in value:
            last_id = value or None
    return found, kept


@given(lines=LINES, ends=st.randoms(use_true_random=False), data=st.data())
def test_frames_do_not_depend_on_where_the_bytes_are_cut(lines: list[str], ends: Any, data: st.DataObject) -> None:
    wire = b"".join(line.encode() + ends.choice([b"\n", b"\r\n"]) for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    reader = FrameReader()
    found = [
        frame
        for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)
        for frame in reader.feed(wire[begin:end])
    ]
    assert (found, reader.last_id) == reference(lines)


@given(st.lists(st.binary(max_size=40), max_size=6))
@example([b"\xff\xfe\n\n", b"data: \xff\n\n"])
@example([b"\r", b"\n", b"\r"])
def test_no_bytes_break_it(chunks: list[bytes]) -> None:
    assert frames(*chunks) == frames(b"".join(chunks))


def test_a_line_that_ends_with_the_chunk_is_not_held_back() -> None:
    """A frame must not wait for the next one: with CR alone it could only be guessed."""
    assert frames(b"data: a\n\n") == ["a"]
    assert frames(b"data: a\r\n\r\n") == ["a"]


def test_a_byte_order_mark_only_counts_at_the_start() -> None:
    assert frames("\ufeffdata: a\n\n".encode()) == ["a"]
    assert frames(b"data: a\n\n", "\ufeffdata: b\n\n".encode()) == ["a"]
    assert frames(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == ["a"]


def test_comments_and_unknown_fields_are_no_frames() -> None:
    assert frames(b": heartbeat\n\nretry: 10\nevent: x\nid: 4\n\n") == []


def test_a_stream_that_breaks_within_a_frame_goes_on_before_it() -> None:
    reader = FrameReader()
    assert list(reader.feed(b"id: 1\ndata: one\n\nid: 2\ndata: tw")) == ["one"]
    assert reader.last_id == "1", "frame 2 never was complete"


def test_an_id_counts_for_the_frames_after_it_and_an_empty_one_forgets() -> None:
    reader = FrameReader()
    assert len(list(reader.feed(b"id: 1\ndata: one\n\ndata: two\n\n"))) == 2
    assert reader.last_id == "1"
    assert len(list(reader.feed(b"id: bad\0\ndata: three\n\n"))) == 1
    assert reader.last_id == "1"
    assert len(list(reader.feed(b"id\ndata: four\n\n"))) == 1
    assert reader.last_id is None


@pytest.mark.parametrize(
    "endless",
    [b"data: " + b"x" * 1000, b"data: x\n" * 100, b": " + b"x" * 1000, b"data:\n" * 100],
    ids=["one line", "many lines", "a comment", "many empty lines"],
)
def test_a_frame_that_never_ends_is_bounded(endless: bytes) -> None:
    many = itertools.repeat(endless, 10 * (events.MAX_FRAME // len(endless) + 2))
    with pytest.raises(ValueError, match="too large"):
        frames(*many)


def test_many_frames_are_not_one_large_one() -> None:
    frame = b"data: " + b"x" * 1000 + b"\n\n"
    assert len(frames(*[frame * 600])) == 600


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


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        "text",
        {},
        {**ROW, "data": None},
        {**ROW, "data": []},
        {**ROW, "data": {}},
        {**ROW, "data": {"sendId": ""}},
        {**ROW, "data": {"sendId": 7}},
        {**ROW, "type": None},
        {**ROW, "type": ""},
    ],
    ids=str,
)
def test_what_is_no_event_of_a_send(row: Any) -> None:
    assert FeedEvent.parse(row) is None


def test_an_event_of_an_unknown_type_or_time_is_one() -> None:
    found = FeedEvent.parse({**ROW, "type": "email.teleported", "created": "soon"})
    assert found is not None
    assert (found.event.type, found.event.time) == ("teleported", None)


def query(path: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(path).query)


def test_a_filter_repeats_its_types() -> None:
    wanted = EventFilter(types=("email.bounced", "email.*"), domain="example.org")
    asked = [("types", "email.bounced"), ("types", "email.*"), ("domain", "example.org")]
    assert wanted.query() == asked
    assert EventFilter().query() == []
    assert query(events.list_request(wanted, since_ms=5).path) == [*asked, ("since", "5"), ("limit", "100")]
    assert query(events.list_request(wanted, since_ms=5, cursor="a&b").path)[-1] == ("cursor", "a&b")
    request = events.stream_request(wanted, since="s:1&x")
    assert query(request.path) == [*asked, ("since", "s:1&x")]
    assert request.headers["Last-Event-ID"] == "s:1&x"
    assert request.headers["Accept"] == "text/event-stream"
    assert events.stream_request(EventFilter()).path == "/api/v1/events/stream"


@pytest.mark.parametrize("since", ["a\nb", "\u00fc", "a\0"])
def test_an_id_that_is_no_header_goes_into_the_query_alone(since: str) -> None:
    request = events.stream_request(EventFilter(), since=since)
    assert "Last-Event-ID" not in request.headers
    assert query(request.path) == [("since", since)]


def page(payload: Any, status: int = 200) -> events.EventPage:
    request = events.list_request(EventFilter(), since_ms=0)
    response = Response(status=status, headers={}, content=json.dumps(payload).encode())
    return events.read_list(request, response, SETTINGS)


@pytest.mark.parametrize("name", ["events", "items"])
def test_a_page_in_either_form(name: str) -> None:
    found = page({name: [ROW, {"type": "email.sent"}, 4], "nextCursor": "c"})
    assert [one.send_id for one in found.events] == ["sends_1"]
    assert found.cursor == "c"


@pytest.mark.parametrize(("cursor", "read"), [(None, None), ("", None), (17, "17"), ("x", "x"), ([], None)])
def test_the_cursor_of_a_page(cursor: Any, read: str | None) -> None:
    assert page({"events": [], "nextCursor": cursor}).cursor == read
    assert page({"events": []}).cursor is None


@pytest.mark.parametrize("payload", [{}, {"events": None}, {"events": {}}, {"items": "x"}])
def test_an_answer_without_a_list(payload: Any) -> None:
    with pytest.raises(errors.FluxomailResponseError, match="no list of events"):
        page(payload)


def test_events_can_be_compared_and_kept() -> None:
    found = FeedEvent.parse(ROW)
    assert found == FeedEvent.parse(ROW)
    assert len({found, FeedEvent.parse(ROW)}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.send_id = "x"  # type: ignore[union-attr, misc]
