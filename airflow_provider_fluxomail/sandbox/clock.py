"""The sandbox clock: real time plus an offset that only moves forward, until a reset; and how a time is written."""

from __future__ import annotations

from datetime import UTC, datetime

from airflow_provider_fluxomail.sandbox import realtime
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS


class Clock:
    """Real time plus an offset in seconds, so that a test need not wait a minute or a day."""

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        """Seconds since the epoch."""
        return min(realtime.wall() + self.offset, MAX_CLOCK_SECONDS)

    def now_ms(self) -> int:
        return int(self.now() * 1000)


class Stopwatch:
    """Real time that never jumps. The request log uses it, so that the gaps between requests are true.

    Moving the sandbox clock, or NTP setting the wall clock, would show up as a gap.
    """

    def __init__(self) -> None:
        self._epoch = realtime.wall() - realtime.monotonic()

    def now(self) -> float:
        """Seconds since the epoch: the time at the start plus what has passed since."""
        return self._epoch + realtime.monotonic()


def iso(at_ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC, with three decimals and ``Z``."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"
