"""The events of the whole organization: the list, and the stream of server-sent events, as data. No I/O.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from airflow_provider_fluxomail.client.event_types import with_prefix
from airflow_provider_fluxomail.client.models import Event, Request, Response, event_lists, read_cursor
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.redaction import identifier
from airflow_provider_fluxomail.client.settings import API_PREFIX, ClientSettings
from airflow_provider_fluxomail.client.wire import read_payload, reads_response, response_error

#: Events per page. The API does not document its maximum; a response with fewer is fine.
PAGE_SIZE: Final = 100


@dataclasses.dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event of the organization.

    ::

        async for events in stream:
            print([(event.send_id, event.event.type) for event in events])

    :param send_id: the send that it is about.
    :param event: what happened, and when.
    """

    send_id: str
    event: Event

    @classmethod
    def parse(cls, row: object) -> FeedEvent | None:
        """Read an envelope; ``None`` if it is not an event of a send."""
        if not isinstance(row, Mapping) or not isinstance(data := row.get("data"), Mapping):
            return None
        send_id, event = identifier(data.get("sendId")), Event.parse(row)
        if send_id is None or event is None:
            return None
        return cls(send_id, event)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventFilter:
    """Which events are requested; an empty filter lets all through.

    ::

        EventFilter(types=("delivered", "bounced"), domain="example.org")

    :param types: names in :data:`.EVENT_TYPES`; the API's own form (``email.bounced``, ``email.*``) works too.
    :param domain: of the recipient.
    """

    types: tuple[str, ...] = ()
    domain: str | None = None

    def query(self) -> list[tuple[str, str]]:
        """The filter as query parameters. ``types`` is repeated: a comma-separated list is not documented."""
        domain = [("domain", self.domain)] if self.domain else []
        return [("types", with_prefix(name)) for name in self.types] + domain


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventPage:
    """A page of the list, newest first as far as the API promises any order.

    :param cursor: of the next, older page; ``None`` after the last.
    """

    events: tuple[FeedEvent, ...]
    cursor: str | None


def list_request(wanted: EventFilter, *, since_ms: int, cursor: str | None = None) -> Request:
    """``GET /events``: what happened since a moment, in pages. Unlike the stream, it takes no event id."""
    query = [*wanted.query(), ("since", str(since_ms)), ("limit", str(PAGE_SIZE))]
    query += [("cursor", cursor)] if cursor else []
    return Request(method="GET", path=f"{API_PREFIX}/events?{urlencode(query)}")


@private
@reads_response
def read_list(request: Request, response: Response, settings: ClientSettings) -> EventPage:
    """Read the response to :func:`list_request`. Rows that are not events of a send are ignored."""
    payload = read_payload(request, response, settings)
    try:
        rows, cursor = event_lists(payload, "events", "items")[0], read_cursor(payload)
    except ValueError as error:
        raise response_error(request, response, str(error)) from None
    return EventPage(events=tuple(event for row in rows if (event := FeedEvent.parse(row))), cursor=cursor)


def stream_request(wanted: EventFilter, *, since: str | None = None) -> Request:
    """``GET /events/stream``: what happens from now on, or after an event.

    :param since: id of an event, or a moment. Sent as query parameter and as ``Last-Event-ID``: sources differ on which
        counts.
    """
    query = urlencode(wanted.query() + ([("since", since)] if since else []))
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if since and since.isascii() and since.isprintable():
        headers["Last-Event-ID"] = since
    return Request(method="GET", path=f"{API_PREFIX}/events/stream{f'?{query}' if query else ''}", headers=headers)
