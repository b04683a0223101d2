"""The cap of an API key: what answers say of it, and how to send many requests without meeting it.

A key may have a cap of requests per minute, counted in fixed windows; whoever uses the key shares it, and every request
counts. https://docs.fluxomail.com/api-reference/fluxomail/rate-limits
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from airflow_provider_fluxomail.client.headers import rate_limit, retry_after
from airflow_provider_fluxomail.client.models import Response

#: So much of what is left in a window, as a part, may be on its way at once: others use the key too, and what they have
#: sent shows only in the next answer.
_AT_ONCE: Final = 0.25
#: Above this part of the cap requests go as fast as they can; below, they are spread over the rest of the window.
_FREE: Final = 0.5
#: Requests of a window that are not made when others use the key too, at most.
_MOST_SPARED: Final = 3
#: Of its share, whoever uses a part of the cap takes so much even while others use all that is left.
_TRICKLE: Final = 0.1
#: Who asks seldom takes so much of the others' pace for granted since the last answer: less, and a share runs into what
#: they have used up meanwhile; all of it, and several shares wait for each other's requests that are never made.
_GUESS: Final = 0.4
#: The API counts per minute. Seconds.
_WINDOW: Final = 60.0
#: A new window is begun up to so many seconds late, so that not all who wait for it begin together.
_LATE: Final = 0.5


class Pacer:
    """Decides when the next of many requests may start. One for each key; may be used from several threads.

    The upper half of the cap is used as fast as requests can be made, the lower half is spread over the rest of the
    window. Each answer shows what others have used in the meantime, so that several senders slow each other down
    instead of running into the cap together.

    With a ``share`` below 1 all of it is spread over the window, and what others have not used yet is left to them in
    proportion to the time that is left.

    :param share: the part of the cap that may be used.
    :param clock: seconds, only ever forward.
    :param draw: a random number from 0 to 1.
    """

    def __init__(
        self,
        *,
        share: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._share = share
        self._clock = clock
        self._draw = draw
        self._lock = threading.Lock()
        self._answered = False
        self._held_until = 0.0
        self._next_at = 0.0
        # The window: the cap, what is left of it, own requests in it, what is not used for others' sake, the others'
        # requests and when they were told, when it ends, and the server's own name for it.
        self._limit: int | None = None
        self._left = 0
        self._own = 0
        self._spared = 0
        self._others = 0
        self._seen_at = 0.0
        self._ends_at = 0.0
        self._window: float | None = None

    def delay(self, in_flight: int) -> float | None:
        """Return how many seconds to wait before the next request, ``None``: until one in flight was answered.

        :param in_flight: requests that were started and not answered yet.
        """
        with self._lock:
            now = self._clock()
            if now < self._held_until:
                return self._held_until - now
            if not self._answered:
                return None if in_flight else 0.0
            if self._limit is None:
                return 0.0
            if now >= self._ends_at:
                # Only the next answer tells what others have used of the new window.
                return None if in_flight else 0.0
            if self._left_now(now) <= self._spared:
                return self._ends_at - now + _LATE * self._draw()
            if self._share < 1 and self._allowed(self._limit, now) < 1:
                # What is left to the others becomes less by the second.
                return min(1.0, self._ends_at - now) + _LATE * self._draw()
            if self._share == 1 and self._left > _FREE * self._limit:
                return 0.0 if in_flight < max(1, int(_AT_ONCE * self._left)) else None
            return max(0.0, self._next_at - now)

    def started(self) -> None:
        """Count a request that is made now."""
        with self._lock:
            now = self._clock()
            self._left -= 1
            self._own += 1
            left = self._left if self._share == 1 else self._allowed(self._limit or 0, now)
            if left > 0:
                gap = (self._ends_at - now) / (left + 1)
                if self._share < 1 and self._limit:
                    # Not all of the share in the few seconds that are left of a window.
                    gap = max(gap, _WINDOW / (self._share * self._limit))
                # Rather early than late: what is not used by the end of the window is lost.
                self._next_at = now + gap * (0.8 + 0.2 * self._draw())

    def on_response(self, response: Response) -> None:
        """Take in an answer, whatever its status."""
        told = rate_limit(response.headers)
        asked = retry_after(response.status, response.headers)
        with self._lock:
            now = self._clock()
            self._answered = True
            if response.status == 429 and asked:
                self._held_until = max(self._held_until, now + asked + _LATE * self._draw())
            if told.limit is None or told.remaining is None or told.reset is None or told.reset_after is None:
                return
            if self._window is None or told.reset > self._window:
                self._window, self._left = told.reset, told.remaining
                self._ends_at = now + told.reset_after
                self._next_at = 0.0
                self._own = 1
            elif told.reset == self._window:
                self._left = min(self._left, told.remaining)
            self._limit = told.limit
            others = self._others = max(0, told.limit - self._left - self._own)
            self._seen_at = now
            # Of the last requests of a window each sender believes that they are its own: one for each other sender.
            self._spared = min(_MOST_SPARED, max(1, round(others / max(1, self._own)))) if others > 1 else 0

    def _allowed(self, limit: int, now: float) -> float:
        """How many requests of this window may still be made within the share."""
        own = self._share * limit - self._own
        for_others = (1 - self._share) * limit * min(1.0, (self._ends_at - now) / _WINDOW)
        return min(own, max(self._left_now(now) - for_others, _TRICKLE * self._share * limit - self._own))

    def _left_now(self, now: float) -> float:
        """What is left of the window. Who asks seldom has to guess what others have used since the last answer."""
        if self._share == 1:
            return self._left
        # A window that has just begun says nothing of their pace.
        elapsed = max(_WINDOW / 3, _WINDOW - (self._ends_at - self._seen_at))
        return self._left - _GUESS * self._others / elapsed * (now - self._seen_at)


class Turns:
    """Gives the tasks of one event loop their turns, in the order in which they ask.

    :param pacer: decides when the next may start.
    :param most: requests on their way at once, where there is no cap.
    """

    def __init__(self, pacer: Pacer, *, most: int = 8) -> None:
        self.pacer = pacer
        self._most = most
        self._in_flight = 0
        self._held_until = 0.0
        self._order = asyncio.Lock()
        self._changed = asyncio.Event()

    def hold(self, seconds: float) -> None:
        """Let nobody start for so long."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    async def acquire(self) -> None:
        """Wait for a turn and count the request as started. Call :meth:`release` when it has succeeded or failed."""
        async with self._order:
            while (delay := self._delay()) != 0:
                self._changed.clear()
                try:
                    # In pieces: the pacer may learn of another window meanwhile.
                    async with asyncio.timeout(None if delay is None else min(delay, 5.0)):
                        await self._changed.wait()
                except TimeoutError:
                    pass
            self.pacer.started()
            self._in_flight += 1

    def release(self) -> None:
        """End a turn."""
        self._in_flight -= 1
        self._changed.set()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Make one request within the turn."""
        await self.acquire()
        try:
            yield
        finally:
            self.release()

    def _delay(self) -> float | None:
        if (held := self._held_until - time.monotonic()) > 0:
            return held
        return None if self._in_flight >= self._most else self.pacer.delay(self._in_flight)
