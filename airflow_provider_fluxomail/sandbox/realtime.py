"""Real time, also while a test of this process has frozen it with freezegun or time-machine.

The sandbox stands for a service elsewhere: its events, timeouts and rate limits go on whatever time the code under
test sees. freezegun replaces the functions of the module ``time`` but for ``clock_gettime``; time-machine replaces
what reads the wall clock, ``clock_gettime`` included, and offers the true functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time


def monotonic() -> float:
    """Seconds that only grow."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def wall() -> float:
    """Seconds since the epoch."""
    time_machine = sys.modules.get("time_machine")
    # Checked first: while no time is frozen, releases before 3 crash the process, later ones raise a ValueError.
    if time_machine is not None and time_machine.escape_hatch.is_travelling():
        with contextlib.suppress(ValueError):  # ended by now
            return float(time_machine.escape_hatch.time.time())
    return time.clock_gettime(time.CLOCK_REALTIME)


class RealTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers do not stop with a frozen clock."""

    def time(self) -> float:
        return monotonic()
