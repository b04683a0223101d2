"""The query parameters of timelines, event lists and streams: moments, cursors, limits.

https://docs.fluxomail.com/api-reference/fluxomail/events
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.limits import MAX_EPOCH_SECONDS
from airflow_provider_fluxomail.sandbox.store.records import Position

_CURSOR = re.compile(r"([0-9]{1,15}):([0-9]{1,18})")
_MAX_MS = int(MAX_EPOCH_SECONDS * 1000)


def moment(name: str, text: str) -> int:
    """ISO 8601 or ms since the epoch, as ms.

    :raises ApiError: 400, it is neither.
    """
    if re.fullmatch(r"[0-9]{1,15}", text):
        return min(int(text), _MAX_MS)
    try:
        # An unescaped + has become a space.
        when = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text))
    except ValueError:
        raise bad_query(name, "an ISO 8601 time or milliseconds since the epoch") from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0, round(when.timestamp() * 1000))


def cursor(query: Mapping[str, str]) -> Position | None:
    """The position that a page ends before: an earlier ``nextCursor``, or any moment; None for the newest page.

    :raises ApiError: 400, it is neither.
    """
    text = query.get("cursor")
    if not text:
        return None
    match = _CURSOR.fullmatch(text)
    return Position(int(match[1]), int(match[2])) if match else Position(moment("cursor", text), 0)


def page_limit(query: Mapping[str, str], most: int) -> int:
    """How many rows the client wants, at most those of a page.

    :raises ApiError: 400, it is not a number.
    """
    text = query.get("limit")
    if not text:
        return most
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise bad_query("limit", "a whole number, not negative")
    return min(int(text), most)


def bad_query(name: str, expected: str) -> ApiError:
    return ApiError(400, f"Invalid request: {name} must be {expected}", details={"fields": [name]})
