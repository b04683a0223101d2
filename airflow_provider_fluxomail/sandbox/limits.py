"""The defaults and limits of the sandbox. Its switches are in :mod:`..switches`.

Nothing here is measured of the real service.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8026
DEFAULT_API_KEY: Final = "fm_sandbox"
DEFAULT_ORGANIZATION: Final = "org_sandbox"

FROM_EMAIL: Final = "no-reply@sandbox.example"
"""The sender: in the service it is the organization's active From identity."""

DEFAULT_EVENT_DELAY: Final = 1.0
"""Seconds from a send to its outcome event."""

RATE_WINDOW_SECONDS: Final = 60
"""Rate limits count in fixed windows that start at whole minutes of the sandbox clock."""

MAX_IDEMPOTENCY_KEY_CHARS: Final = 256

MAX_EPOCH_SECONDS: Final = 253_402_300_799.0
"""9999-12-31, the last moment that an ISO timestamp can show; clock and events stay below it."""

MAX_CLOCK_SECONDS: Final = MAX_EPOCH_SECONDS - 366 * 24 * 3600.0
"""Where the clock stops, so that planned events after it can be shown too."""

MAX_DELAY_SECONDS: Final = 366 * 24 * 3600.0

MAX_CONTACT_CHARS: Final = 8 * 1024
"""Characters of one contact as JSON."""

API_VERSION: Final = "2025-09-01"
"""The only value of ``Fluxomail-Version`` that the documentation knows."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the sandbox keeps at most, so that a long test run cannot fill the memory.

    ::

        with SandboxServer(bounds=Bounds(messages=1_000)) as sandbox:
            ...

    The oldest messages and log entries are dropped first; a dropped message takes its events and its idempotency
    record along. More keys, pauses, faults, streams and events of one message than these are refused.

    :param messages: messages kept.
    :param message_bytes: request bytes of all kept messages together, attachments and added events included.
    :param requests: entries of the request log.
    :param request_bytes: approximate characters of the request log.
    :param keys: API keys; also paused organizations.
    :param contacts: contacts, and values of ``eventId`` that were seen.
    :param deliveries: webhooks, sent or pending; further events wait in the store.
    :param faults: pending faults.
    :param events: events of one message.
    :param streams: event streams that are open at the same time.
    :param body_bytes: one request body of the API; a longer one gets a 413. Without a valid key, the bound is that of
        ``keyless_body_bytes``.
    :param keyless_body_bytes: one request body of the API without a valid key; a longer one gets a 401.
    :param control_body_bytes: one request body of the control API.
    :param in_flight_bytes: requests without a response yet, together; further ones get a 503. At least ``body_bytes``.
    :param header_bytes: request line and headers of one request; longer ones get a 431.
    :param read_seconds: for the headers of a request to arrive, and again for its body; a slower one gets a 408.
    :raises ValueError: one of them is less than 1.
    """

    messages: int = 20_000
    message_bytes: int = 256 * 1024 * 1024
    requests: int = 20_000
    request_bytes: int = 32 * 1024 * 1024
    keys: int = 1_000
    contacts: int = 10_000
    deliveries: int = 1_000
    faults: int = 100
    events: int = 200
    streams: int = 1_000
    body_bytes: int = 32 * 1024 * 1024
    keyless_body_bytes: int = 64 * 1024
    control_body_bytes: int = 1024 * 1024
    in_flight_bytes: int = 128 * 1024 * 1024
    header_bytes: int = 64 * 1024
    read_seconds: int = 60

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
