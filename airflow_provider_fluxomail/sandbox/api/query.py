"""Events as the API shows them: short rows, envelopes, and the positions that pages and streams go on from.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.limits import MAX_EPOCH_SECONDS
from airflow_provider_fluxomail.sandbox.outcomes import CLICKED, OPENED
from airflow_provider_fluxomail.sandbox.store.records import Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_provider_fluxomail.sandbox.store.records import StoredEvent

_CURSOR = re.compile(r"([0-9]{1,15}):([0-9]{1,18})")
_MAX_MS = int(MAX_EPOCH_SECONDS * 1000)


def row(event: StoredEvent) -> dict[str, Any]:
    """The short form, with the time in ms."""
    short = event.data | {"type": event.type, "ts": event.at_ms}
    # The tracking routes know no provider message: the documented rows of these two carry none.
    return short if event.type in (OPENED, CLICKED) else short | {"providerMessageId": event.message_id}


def envelope(event: StoredEvent) -> dict[str, Any]:
    """The long form, with the time in ISO 8601."""
    return {
        "id": event_id(event),
        "type": f"email.{event.type}",
        "created": iso(event.at_ms),
        "data": event.data | {"sendId": event.send_id, "providerMessageId": event.message_id},
    }


def event_id(event: StoredEvent) -> str:
    """``<sendId>:<ms>``, as documented: two events of a send in the same ms share it."""
    return f"{event.send_id}:{event.at_ms}"


def iso(at_ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC, with three decimals and ``Z``."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def moment(name: str, text: str) -> int:
    """ISO 8601 or ms since the epoch, as ms.

    :raises ApiError: 400, it is neither.
    """
    if re.fullmatch(r"[0-9]{1,15}", text):
        return min(int(text), _MAX_MS)
    try:
        # A + that was not escaped has become a space.
        when = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
    except ValueError:
        raise bad_query(name, "an ISO 8601 time or milliseconds since the epoch") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0, round(when.timestamp() * 1000))


def cursor(query: Mapping[str, str]) -> Position | None:
    """The place that a page ends before: of an earlier ``nextCursor``, or any moment; None for the newest page.

    :raises ApiError: 400, it is neither.
    """
    text = query.get("cursor")
    if not text:
        return None
    match = _CURSOR.fullmatch(text)
    if match:
        return Position(int(match[1]), int(match[2]))
    return Position(moment("cursor", text), 0)


def page_limit(query: Mapping[str, str], most: int) -> int:
    """How many rows are asked for; fewer are given when it is more than a page has.

    :raises ApiError: 400, it is no number.
    """
    text = query.get("limit")
    if not text:
        return most
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise bad_query("limit", "a whole number, not negative")
    return min(int(text), most)


def bad_query(name: str, expected: str) -> ApiError:
    """400 for a query parameter."""
    return ApiError(400, f"Invalid request: {name} must be {expected}", details={"fields": [name]})
