"""The frames of the event stream, cut anywhere."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from airflow_provider_fluxomail.client import sse
from airflow_provider_fluxomail.client.sse import FrameReader


def frames(*chunks: bytes) -> list[str]:
    reader = FrameReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_cut_at_every_byte(end: bytes) -> None:
    wire = end.join([b": hello", b"id: 1", b"data: a", b"data: b", b"", b"data", b"", b"data:c", b"", b""])
    # The last line break may still become CRLF, which only the next byte shows.
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
    """The frames and the last id by the standard, line by line."""
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


def test_a_byte_order_mark_only_counts_at_the_start() -> None:
    assert frames("\ufeffdata: a\n\n".encode()) == ["a"]
    assert frames(b"data: a\n\n", "\ufeffdata: b\n\n".encode()) == ["a"]
    assert frames(b"\xef", b"\xbb", b"\xbfdata: a\n\n") == ["a"]


def test_the_id_from_which_a_new_stream_continues() -> None:
    reader = FrameReader()
    for chunk, found, last_id in [
        (b"id: a:1\ndata: one\n\nid: b:2\ndata: two\n\n", ["one", "two"], "b:2"),
        (b"id: 3\nda", [], "b:2"),  # the frame is not complete
        (b"ta: 3\r\n\r\ndata: 4\n\n", ["3", "4"], "3"),  # the id counts until the next
        (b"id: bad\0\ndata: 5\n\n", ["5"], "3"),
        (b": heartbeat\n\nretry: 10\nevent: x\nid: 6\n\n", [], "3"),
        (b"id\ndata: 7\n\n", ["7"], None),
    ]:
        assert (list(reader.feed(chunk)), reader.last_id) == (found, last_id)


@pytest.mark.parametrize(
    "endless",
    [b"data: " + b"x" * 1000, b": " + b"x" * 1000, b"data:\n" * 1000],
    ids=["one line", "a comment", "many empty lines"],
)
def test_a_frame_that_never_ends_is_bounded(endless: bytes) -> None:
    many = itertools.repeat(endless, 10 * (sse.MAX_FRAME // len(endless) + 2))
    with pytest.raises(ValueError, match="too large"):
        frames(*many)


def test_a_long_line_that_comes_byte_by_byte_takes_linear_time() -> None:
    began = time.process_time()
    assert len(frames(b"data: ", *[b"x"] * 150_000, b"\n", b"\n")[0]) == 150_000
    assert time.process_time() - began < 2


def test_many_frames_are_not_one_large_one() -> None:
    frame = b"data: " + b"x" * 1000 + b"\n\n"
    assert len(frames(*[frame * 600])) == 600
