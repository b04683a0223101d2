"""The frames of the event stream, cut anywhere."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from airflow_provider_fluxomail.client import sse
from airflow_provider_fluxomail.client.sse import FrameReader


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
    many = itertools.repeat(endless, 10 * (sse.MAX_FRAME // len(endless) + 2))
    with pytest.raises(ValueError, match="too large"):
        frames(*many)


def test_many_frames_are_not_one_large_one() -> None:
    frame = b"data: " + b"x" * 1000 + b"\n\n"
    assert len(frames(*[frame * 600])) == 600
