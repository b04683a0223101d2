"""Default values of clients and waits, each stated once. Every Airflow process imports this: constants only."""

from __future__ import annotations

from typing import Final

#: Seconds to connect, to wait for each part of a response, and to read one response whole.
TIMEOUT: Final = 15.0
#: Requests made at most for one call.
MAX_ATTEMPTS: Final = 4
#: Longest wait of one call between its attempts, all together, in seconds.
MAX_WAIT: Final = 60.0
#: Part of the key's rate limit that waiting may use.
POLL_SHARE: Final = 0.5
#: The ``Fluxomail-Version`` header.
API_VERSION: Final = "2025-09-01"
