"""Reads server-sent events.

Not a library, because the available parsers do not limit the size of a frame that never ends.
https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from airflow_provider_fluxomail.client.redaction import identifier

#: A larger frame is not Fluxomail's. Characters.
MAX_FRAME: Final = 256 * 1024


class FrameReader:
    r"""Splits a stream of bytes into frames.

    ::

        reader = FrameReader()
        list(reader.feed(b"id: 1\ndata: one\n\ndata: tw"))  # ["one"]
        list(reader.feed(b"o\n\n"))  # ["two"]
    """

    def __init__(self) -> None:
        #: The id from which a new stream continues.
        self.last_id: str | None = None
        self._id: str | None = None
        # Grows in place: a line may come byte by byte.
        self._rest = bytearray()
        self._data: list[str] = []
        self._size = 0
        self._fresh = True

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Add bytes; yield the data of each frame that they complete. A frame that is too large is a ValueError."""
        lines: list[bytearray] = []
        breaks = b"\n" in chunk or b"\r" in chunk or self._rest.endswith(b"\r")
        self._rest += chunk
        if breaks:
            # A line break of two characters may be cut in the middle.
            whole = len(self._rest) - 1 if self._rest.endswith(b"\r") else len(self._rest)
            lines = self._rest[:whole].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
            self._rest = lines.pop() + self._rest[whole:]
        if self._size + len(self._rest) > MAX_FRAME:
            raise ValueError("a frame of the event stream is too large")
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            if self._fresh:
                self._fresh, line = False, line.removeprefix("\ufeff")
            if not line:
                if self._data:
                    # Not before: after a break within the frame, a new stream must continue from the one before it.
                    self.last_id = self._id
                    yield "\n".join(self._data)
                self._data, self._size = [], 0
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
                # Empty lines are kept, so they count too.
                self._size += len(value) + 1
                if self._size > MAX_FRAME:
                    raise ValueError("a frame of the event stream is too large")
            elif name == "id" and (not value or identifier(value)):
                self._id = value or None
