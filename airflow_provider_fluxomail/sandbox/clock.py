"""The sandbox clock: real time plus an offset that only moves forward, until a reset."""

from __future__ import annotations

import time

from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS


class Clock:
    """Real time plus an offset, so that a test need not wait for a minute or a day to pass.

    :param offset: seconds ahead of real time.
    """

    def __init__(self, offset: float = 0.0) -> None:
        self.offset = offset

    def now(self) -> float:
        """Seconds since the epoch."""
        return min(time.time() + self.offset, MAX_CLOCK_SECONDS)

    def now_ms(self) -> int:
        """Whole milliseconds since the epoch, the unit of the API's timelines."""
        return int(self.now() * 1000)


class Stopwatch:
    """Real time that never jumps: what the request log is stamped with, so that gaps between tries are true.

    The sandbox clock would show a gap that a test made by moving it, and the wall clock one that NTP made.
    """

    def __init__(self) -> None:
        self._epoch = time.time() - time.monotonic()

    def now(self) -> float:
        """Seconds since the epoch, as of the start plus what has passed since."""
        return self._epoch + time.monotonic()
