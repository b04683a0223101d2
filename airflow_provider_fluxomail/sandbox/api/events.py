"""The Fluxomail API, v1: the list of events and the event stream.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api.access import Access
from airflow_provider_fluxomail.sandbox.api.models import Event, EventsResponse
from airflow_provider_fluxomail.sandbox.api.query_parameters import bad_query, cursor, moment, page_limit
from airflow_provider_fluxomail.sandbox.api.stream import StreamResponse
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import EXCHANGE, json_response
from airflow_provider_fluxomail.sandbox.store.event_log import LAST, Cursor, EventFilter
from airflow_provider_fluxomail.sandbox.store.records import Position

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

_EVENT_ID = re.compile(r"(.+):([0-9]{1,15})", re.DOTALL)
_MAX_TYPES: Final = 100
_RETRY_SECONDS: Final = 1
"""The ``Retry-After`` where too many streams are open: a place is free as soon as any of them closes."""


class EventsApi:
    """The handlers."""

    def __init__(self, sandbox: Sandbox, access: Access) -> None:
        self._sandbox = sandbox
        self._access = access

    async def list_events(self, request: Request) -> Response:
        """``GET /api/v1/events``: what has happened by the sandbox clock, newest first, in pages.

        An empty parameter counts as left out.

        :raises ApiError: 401, 402, 429, or 400 for a parameter.
        """
        key = self._access.admit(request, None)
        self._access.require_events_plan()
        sandbox, query = self._sandbox, request.query_params
        limit = page_limit(query, sandbox.switches.page_size)
        events, older = sandbox.store.event_log.page(
            _filter(query, key.organization),
            before=cursor(query),
            since_ms=self._since_ms(query.get("since")),
            now_ms=sandbox.clock.now_ms(),
            limit=limit,
        )
        response = EventsResponse(nextCursor=str(events[-1].position) if events and older else None)
        setattr(response, sandbox.switches.list_form, [Event.of(event) for event in events])
        return json_response(response)

    async def stream(self, request: Request) -> Response:
        """``GET /api/v1/events/stream``: server-sent events from now on, or from where the client says.

        ``since`` is an event id or a moment, ``Last-Event-ID`` the same in a header; ``since`` wins, because a
        client that has it in its URL repeats it on purpose. After an event id the stream continues after the *first*
        event with that id: another one of the same send and millisecond is repeated rather than lost. For an
        unknown id, its time is used. A moment in the future counts as now.

        :raises ApiError: 401, 402, 429, or 400 for a parameter.
        """
        sandbox, query = self._sandbox, request.query_params
        credential = self._access.admit_stream(request)
        wanted = _filter(query, credential.key.organization)
        name, since = "since", query.get("since")
        if not since:
            name, since = "Last-Event-ID", request.headers.get("last-event-id")
        start = self._start(name, since, credential.key.organization) if since else sandbox.event_bus.now()
        if sandbox.event_bus.full:
            raise _too_many(sandbox.bounds.streams)
        self._make_room(credential.key.key)
        renew = partial(self._access.renewed, credential)
        return StreamResponse(
            sandbox, request.scope[EXCHANGE], credential.key.key, renew, wanted, start, resumed=bool(since)
        )

    def _make_room(self, key: str) -> None:
        """Let a key open one stream more, as ``streams_per_key`` and ``streams_over_limit`` say.

        :raises ApiError: 429.
        """
        switches, streams = self._sandbox.switches, self._sandbox.event_bus.of_key(key)
        if switches.streams_per_key is None or len(streams) < switches.streams_per_key:
            return
        if switches.streams_over_limit == "refuse":
            raise _too_many(switches.streams_per_key, " with one key")
        streams[0].close()

    def _since_ms(self, since: str | None) -> int:
        """The first ms that belongs to the list."""
        if not since:
            return 0
        match = _EVENT_ID.fullmatch(since) if self._sandbox.switches.list_since_event_id else None
        try:
            since_ms = moment("since", since)
        except ApiError:
            if match is None:
                raise
            since_ms = int(match[2])
        return since_ms if self._sandbox.switches.list_since == "inclusive" else since_ms + 1

    def _start(self, name: str, since: str, organization: str) -> Cursor:
        """Where a resumed stream starts, by ``since`` or the header of that name.

        :raises ApiError: 400, it is neither an event id nor a moment.
        """
        event_bus = self._sandbox.event_bus
        inclusive = self._sandbox.switches.stream_since == "inclusive"
        match = _EVENT_ID.fullmatch(since)
        if match is not None:
            found = self._sandbox.store.event_log.find(organization, match[1], int(match[2]))
            if found is not None:
                return event_bus.after(found._replace(number=found.number - 1) if inclusive else found)
        try:
            at_ms = moment(name, since)
        except ApiError:
            if match is None:
                raise bad_query(name, "an event id, an ISO 8601 time or milliseconds since the epoch") from None
            at_ms = int(match[2])
        return event_bus.after(Position(at_ms - 1 if inclusive else at_ms, LAST))


def _too_many(streams: int, whose: str = "") -> ApiError:
    text = f"At most {streams} event streams can be open{whose}"
    return ApiError(429, text, headers={"Retry-After": str(_RETRY_SECONDS)})


def _filter(query: QueryParams, organization: str) -> EventFilter:
    """The filter of a list or a stream.

    :raises ApiError: 400, there are too many types.
    """
    types = tuple(dict.fromkeys(name for name in query.getlist("types") if name))
    if len(types) > _MAX_TYPES or any(len(name) > _MAX_TYPES for name in types):
        raise bad_query("types", f"at most {_MAX_TYPES} names of at most {_MAX_TYPES} characters")
    return EventFilter(
        organization,
        # Only * is special: the other signs of a glob are put into brackets.
        tuple(re.sub(r"[?\[]", r"[\g<0>]", re.sub(r"\*+", "*", name)) for name in types),
        query.get("domain") or None,
        query.get("smtpCode") or None,
        query.get("mtaHost") or None,
    )
