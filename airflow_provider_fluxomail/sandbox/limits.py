"""Every number of the sandbox in one place: addresses and bounds. The switches are in ``settings``.

Nothing here is measured of the real service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8026
DEFAULT_API_KEY: Final = "fm_sandbox"
DEFAULT_ORGANIZATION: Final = "org_sandbox"

DEFAULT_EVENT_DELAY: Final = 1.0
"""Seconds from a send to its outcome event."""

RATE_WINDOW_SECONDS: Final = 60
"""A key's cap counts in fixed windows that start at whole minutes of the sandbox clock."""

MAX_IDEMPOTENCY_KEY_CHARS: Final = 256

MAX_EPOCH_SECONDS: Final = 253_402_300_799.0
"""9999-12-31: the last moment that an ISO timestamp can show; clock and events stay below it."""

MAX_CLOCK_SECONDS: Final = MAX_EPOCH_SECONDS - 366 * 24 * 3600.0
"""Where the clock stops, so that what lies ahead of it can be shown too."""

MAX_DELAY_SECONDS: Final = 366 * 24 * 3600.0

API_VERSION: Final = "2025-09-01"
"""The only value of ``Fluxomail-Version`` that the documentation knows."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the sandbox keeps at most, so that a long test run can't fill the memory.

    The oldest messages and log entries are dropped first; a dropped message takes its events and its
    idempotency record along. Keys, pauses, faults and events of one message are refused above their bound.

    :param messages: messages kept.
    :param message_bytes: request bytes of all kept messages together, attachments and added events included.
    :param requests: entries of the request log.
    :param request_bytes: approximate characters of the request log.
    :param keys: API keys, and also organizations that can be paused.
    :param faults: faults that wait at the same time.
    :param events: events of one message.
    :param streams: event streams that are open at the same time.
    :param body_bytes: one request body of the API; a longer one is answered with 413.
    :param control_body_bytes: one request body of the control API.
    """

    messages: int = 20_000
    message_bytes: int = 256 * 1024 * 1024
    requests: int = 20_000
    request_bytes: int = 32 * 1024 * 1024
    keys: int = 1_000
    faults: int = 100
    events: int = 200
    streams: int = 1_000
    body_bytes: int = 32 * 1024 * 1024
    control_body_bytes: int = 1024 * 1024
