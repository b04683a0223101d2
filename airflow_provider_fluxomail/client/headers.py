"""What the headers of a response say: wait times, the rate limit, the server's clock, request ids, replays.

Names are in lower case, as both transports provide them.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final, TypeAlias
from urllib.parse import urlsplit

Headers: TypeAlias = Mapping[str, str]

#: Rate limits count per minute. Seconds.
WINDOW: Final = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RateLimit:
    """The key's rate limit as a response stated it (``X-RateLimit-*``); ``None`` where a header was missing.

    :param limit: requests per minute.
    :param remaining: requests left in this window.
    :param reset: when the window ends, as the server wrote it; identifies the window.
    :param reset_after: the same in seconds from now, never negative.
    """

    limit: int | None
    remaining: int | None
    reset: float | None
    reset_after: float | None


def rate_limit(headers: Headers) -> RateLimit:
    """Read ``X-RateLimit-*``. https://docs.fluxomail.com/api-reference/fluxomail/rate-limits

    A reset in milliseconds is understood. One further away than its window is wrong, and counts as a whole window.
    """
    limit, remaining = (_number(headers.get(f"x-ratelimit-{name}")) for name in ("limit", "remaining"))
    reset = _number(headers.get("x-ratelimit-reset"))
    reset_after = None
    if reset is not None:
        clock = server_time(headers)
        # The server's clock has whole seconds.
        reset = min(reset / 1000 if reset >= 1e11 else reset, clock + WINDOW + 1)
        reset_after = max(0.0, reset - clock)
    return RateLimit(
        limit=int(limit) if limit is not None else None,
        remaining=int(remaining) if remaining is not None else None,
        reset=reset,
        reset_after=reset_after,
    )


def retry_after(status: int, headers: Headers) -> float | None:
    """Return how many seconds the server asks to wait, ``None`` without a usable value.

    ``Retry-After`` counts with any status, in seconds (fractions too) or as an HTTP date; on a 429 without it,
    ``X-RateLimit-Reset`` does. Dates are compared with the response's own ``Date``, so a wrong clock on this machine
    makes a wait neither shorter nor longer. A date in the past is a wait of 0.
    """
    value = headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return seconds
    if value and (moment := _http_date(value)) is not None:
        return max(0.0, moment - server_time(headers))
    return rate_limit(headers).reset_after if status == 429 else None


def server_time(headers: Headers) -> float:
    """Return the server's clock (``Date``) in epoch seconds; this machine's if the response has no ``Date``."""
    moment = _http_date(headers.get("date", ""))
    return time.time() if moment is None else moment


def request_id(headers: Headers) -> str | None:
    """Return the request id under either of its documented names, safe for a log line."""
    value = headers.get("x-request-id") or headers.get("fluxomail-request-id")
    return re.sub(r"[^\x21-\x7e]", "?", value)[:128] if value else None


def is_replay(headers: Headers) -> bool:
    """Return whether the response repeats that of an earlier request with the same idempotency key."""
    return headers.get("idempotency-replayed", "").strip().lower() == "true"


def is_event_stream(headers: Headers) -> bool:
    """Return whether the body is a stream of server-sent events."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


def is_encoded(headers: Headers) -> bool:
    """Return whether the body is compressed, or encoded in another way."""
    encodings = headers.get("content-encoding", "").split(",")
    return any(encoding.strip().lower() not in ("", "identity") for encoding in encodings)


def redirect_host(headers: Headers) -> str | None:
    """Return the host that a redirect points to, if it can be one. Not the URL: a signed one is a secret."""
    try:
        host = urlsplit(headers.get("location", "")).hostname or ""
    except ValueError:
        return None
    return host if re.fullmatch(r"[\x21-\x7e]{1,253}", host) else None


def _number(value: str | None) -> float | None:
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _http_date(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
