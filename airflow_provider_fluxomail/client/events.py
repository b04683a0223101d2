"""The events of the whole organization: the list, and the stream of server-sent events, as data. No I/O.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from airflow_provider_fluxomail.client.event_types import FAILURES, TARGETS
from airflow_provider_fluxomail.client.settings import API_PREFIX
from airflow_provider_fluxomail.client.timeline import Event
from airflow_provider_fluxomail.client.wire import Request, read_payload, response_error

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.client.wire import Response

#: Events of one page. The API's own most is not documented; an answer with fewer is fine.
PAGE_SIZE: Final = 100
#: A frame larger than this is not Fluxomail's. Characters.
MAX_FRAME: Final = 256 * 1024
#: The events that can decide a wait, as the API names them.
DECIDING: Final = tuple(f"email.{name}" for name in (*TARGETS, *FAILURES))


@dataclasses.dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event of the organization.

    :param send_id: whose it is.
    :param event: what happened, and when.
    """

    send_id: str
    event: Event

    @classmethod
    def parse(cls, row: object) -> FeedEvent | None:
        """Read an envelope; ``None`` if it is no event of a send."""
        if not isinstance(row, Mapping) or not isinstance(data := row.get("data"), Mapping):
            return None
        send_id, event = data.get("sendId"), Event.parse(row)
        if not isinstance(send_id, str) or not send_id or event is None:
            return None
        return cls(send_id, event)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are asked for; what is left empty lets all through.

    :param types: such as ``email.bounced``; ``email.*`` is all of them.
    :param domain: of the recipient.
    """

    types: tuple[str, ...] = ()
    domain: str | None = None

    def query(self) -> list[tuple[str, str]]:
        """The filter as query parameters. ``types`` is repeated: a comma list is not documented."""
        return [("types", name) for name in self.types] + ([("domain", self.domain)] if self.domain else [])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventPage:
    """A page of the list, newest first as far as the API promises any order.

    :param cursor: names the next, older page; ``None`` after the last.
    """

    events: tuple[FeedEvent, ...]
    cursor: str | None


def list_request(wanted: EventFilter, *, since_ms: int, cursor: str | None = None) -> Request:
    """``GET /events``: what has happened since a moment, in pages.

    :param since_ms: milliseconds since 1970, by Fluxomail's clock. The list takes no event id.
    """
    query = [*wanted.query(), ("since", str(since_ms)), ("limit", str(PAGE_SIZE))]
    return Request(
        method="GET", path=f"{API_PREFIX}/events?{urlencode(query + ([('cursor', cursor)] if cursor else []))}"
    )


def read_list(request: Request, response: Response, settings: ClientSettings) -> EventPage:
    """Read the answer to :func:`list_request`. Rows that are no events of a send are passed over."""
    payload = read_payload(request, response, settings)
    rows = payload.get("events", payload.get("items"))
    if not isinstance(rows, list):
        # A traceback may show local variables.
        del payload
        raise response_error(request, response, "the answer holds no list of events")
    cursor = payload.get("nextCursor")
    return EventPage(
        events=tuple(event for row in rows if (event := FeedEvent.parse(row))),
        cursor=str(cursor) if isinstance(cursor, str | int) and cursor else None,
    )


def stream_request(wanted: EventFilter, *, since: str | None = None) -> Request:
    """``GET /events/stream``: what happens from now on, or after an event.

    :param since: id of an event, or a moment. In the query and as ``Last-Event-ID``: sources differ on which counts.
    """
    query = urlencode(wanted.query() + ([("since", since)] if since else []))
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if since and since.isascii() and since.isprintable():
        headers["Last-Event-ID"] = since
    return Request(method="GET", path=f"{API_PREFIX}/events/stream{f'?{query}' if query else ''}", headers=headers)


class FrameReader:
    """Cuts a stream of server-sent events into frames.

    Own code, for no parser at hand bounds what it keeps of a frame that never ends.
    https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
    """

    def __init__(self) -> None:
        #: The id that a new stream goes on from.
        self.last_id: str | None = None
        self._id: str | None = None
        self._rest = b""
        self._data: list[str] = []
        self._size = 0
        self._fresh = True

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Take in bytes, return the data of the frames that are complete with them.

        :raises ValueError: a frame is too large.
        """
        text = self._rest + chunk
        # A line break of two characters may be cut in the middle.
        whole = len(text) - 1 if text.endswith(b"\r") else len(text)
        lines = text[:whole].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + text[whole:]
        if self._size + len(self._rest) > MAX_FRAME:
            raise ValueError("a frame of the event stream is too large")
        for raw in lines:
            line = raw.decode("utf-8", "replace")
            if self._fresh:
                self._fresh, line = False, line.removeprefix("\ufeff")
            if not line:
                if self._data:
                    # Not before: a stream that breaks within the frame must go on from the one before it.
                    self.last_id = self._id
                    yield "\n".join(self._data)
                self._data, self._size = [], 0
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
                # Empty lines count too: they are kept.
                self._size += len(value) + 1
                if self._size > MAX_FRAME:
                    raise ValueError("a frame of the event stream is too large")
            elif name == "id" and "\0" not in value:
                self._id = value or None
