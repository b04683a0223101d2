"""How to send many requests without hitting the rate limit of an API key.

A key may have a limit of requests per minute, counted in fixed windows. All clients that use the key share it, and
every request counts. https://docs.fluxomail.com/api-reference/fluxomail/rate-limits
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.headers import WINDOW, rate_limit, retry_after
from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.retries import Backoff, hold_seconds

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError

#: The first part of the rate limit is used as fast as requests can be made; the rest is spread over the window, so that
#: several senders notice each other in time.
_FREE: Final = 0.5
#: The part of its share that a sender with a share uses even if others use all that is left: waits must not starve.
_TRICKLE: Final = 0.1
#: Without a recent response, assume that other clients kept sending at this part of their last observed rate. Lower
#: risks a 429; higher makes idle clients wait for each other.
_ASSUMED: Final = 0.4
#: Requests that may fail in a row before all of them pause, and for how long they do.
_FAILURES: Final = 3
_BACKOFF: Final = Backoff(first=1.0, longest=30.0, jitter=0.5)


class Pacer:
    """Decides when the next of many requests may start. One for each key; may be used from several threads.

    ::

        pacer = Pacer()
        client = FluxomailClient(settings, on_response=pacer.on_response)
        for message, key in messages:
            while delay := pacer.delay(in_flight=0):
                time.sleep(delay)
            pacer.started()
            client.send(message, idempotency_key=key)

    It uses the first half of the rate limit as fast as it can and spreads the second half over the rest of the window.
    Each response shows what other clients have used in the meantime, so that several senders slow each other down
    instead of hitting the limit together.

    With a ``share`` below 1, it spreads all of its share over the window, and leaves what others have not used yet to
    them, in proportion to the time that is left.

    :param share: the part of the rate limit that may be used.
    :param clock: seconds; never goes back.
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
        self._has_response = False
        self._held_until = 0.0
        #: After a hold, requests go one at a time until one succeeds.
        self._probing = False
        self._next_at = 0.0
        # The window: the limit, what is left of it, own requests in it, those of others and when they were last seen,
        # when it ends, and the server's own name for it.
        self._limit: int | None = None
        self._left = 0
        self._own = 0
        self._others = 0
        self._seen_at = 0.0
        self._ends_at = 0.0
        self._window: float | None = None

    def delay(self, in_flight: int) -> float | None:
        """Return the seconds to wait before the next request; ``None``: wait for the response to one in flight.

        :param in_flight: requests that were started and have no response yet.
        """
        with self._lock:
            now = self._clock()
            if now < self._held_until:
                return self._held_until - now
            if self._probing and in_flight:
                return None
            if self._has_response and self._limit is None:
                return 0.0
            if self._limit is None or now >= self._ends_at:
                # Only the next response shows what others have used of the new window.
                return None if in_flight else 0.0
            if self._left_now(now) <= self._spared():
                return self._ends_at - now
            if self._share < 1:
                if self._allowed(self._limit, now) < 1:
                    # What has to be left to others shrinks every second.
                    return min(1.0, self._ends_at - now)
            elif (free := self._left - _FREE * self._limit) > 0:
                # Others may have as many in flight, which shows only in the next response.
                return 0.0 if in_flight * self._senders() < free else None
            return max(0.0, self._next_at - now)

    def started(self) -> None:
        """Count a request that starts now."""
        with self._lock:
            now = self._clock()
            self._left -= 1
            self._own += 1
            left = self._left if self._share == 1 else self._allowed(self._limit or 0, now)
            if left > 0:
                gap = (self._ends_at - now) / (left + 1)
                if self._share < 1 and self._limit:
                    # Do not use the whole share in the last few seconds of a window.
                    gap = max(gap, WINDOW / (self._share * self._limit))
                # Better early than late: what is not used by the end of the window is lost.
                self._next_at = now + gap * (0.8 + 0.2 * self._draw())

    def hold(self, seconds: float) -> None:
        """Start no request for this many seconds, at most ten minutes; then let a single one probe."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + hold_seconds(seconds))
            self._probing = self._probing or seconds > 0

    def on_response(self, response: Response) -> None:
        """Learn from a response, whatever its status."""
        window = rate_limit(response.headers)
        if response.status == 429:
            self.hold(retry_after(429, response.headers) or 0.0)
        with self._lock:
            now = self._clock()
            self._has_response = True
            if response.status < 500 and response.status != 429:
                self._probing = False
            if window.limit is None or window.remaining is None or window.reset is None or window.reset_after is None:
                return
            # Once a window has ended, an earlier one is new too: it was named by a clock that was wrong.
            over = now >= self._ends_at and window.reset != self._window
            if self._window is None or window.reset > self._window or over:
                self._window, self._left = window.reset, window.remaining
                self._ends_at = now + window.reset_after
                self._next_at = 0.0
                self._own = 1
            elif window.reset == self._window:
                self._left = min(self._left, window.remaining)
            self._limit = window.limit
            self._others = max(0, window.limit - self._left - self._own)
            self._seen_at = now

    def _senders(self) -> float:
        """Estimate how many clients use the key, this one included, if each sends as much as this one."""
        return 1 + self._others / max(1, self._own)

    def _spared(self) -> int:
        """Return how many requests to leave unused: each sender takes the last ones for its own."""
        return min(self._own, max(1, round(self._senders() - 1))) if self._others > 1 else 0

    def _allowed(self, limit: int, now: float) -> float:
        """Return how many more requests of this window the share allows."""
        own = self._share * limit - self._own
        for_others = (1 - self._share) * limit * min(1.0, (self._ends_at - now) / WINDOW)
        return min(own, max(self._left_now(now) - for_others, _TRICKLE * self._share * limit - self._own))

    def _left_now(self, now: float) -> float:
        """Return what is left of the window, less what others have probably used since the last response."""
        if self._share == 1:
            return self._left
        # A window that has just begun does not show their rate.
        elapsed = max(WINDOW / 3, WINDOW - (self._ends_at - self._seen_at))
        return self._left - _ASSUMED * self._others / elapsed * (now - self._seen_at)


class Turns:
    """Lets the tasks of one event loop make requests, in the order in which they call.

    ::

        turns = Turns(Pacer(share=0.5))
        async with turns.turn():
            timeline = await client.get_timeline(send_id)

    :param pacer: decides when the next request may start.
    :param most: requests in flight at once, if there is no rate limit.
    """

    def __init__(self, pacer: Pacer, *, most: int = 8) -> None:
        self.pacer = pacer
        self._most = most
        self._in_flight = 0
        self._failures = 0
        self._order = asyncio.Lock()
        self._changed = asyncio.Event()

    def hold(self, seconds: float) -> None:
        """Start no request for this many seconds, see :meth:`Pacer.hold`."""
        self.pacer.hold(seconds)

    def on_success(self) -> None:
        """Note that a request has succeeded."""
        self._failures = 0

    def on_error(self, error: FluxomailError) -> None:
        """Hold all requests for as long as the server asks, and after several failures in a row."""
        pause = error.retry_after or 0.0
        if not error.permanent:
            self._failures += 1
            if self._failures > _FAILURES:
                pause = _BACKOFF.seconds(self._failures - _FAILURES, at_least=pause)
        self.hold(pause)

    async def acquire(self) -> None:
        """Wait for a turn and count the request as started. Call :meth:`release` when it has succeeded or failed."""
        async with self._order:
            while (delay := self._delay()) != 0:
                self._changed.clear()
                try:
                    # In steps: the pacer may learn of another window meanwhile.
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
    async def turn(self, *, at_most: float | None = None) -> AsyncIterator[None]:
        """Make one request within the block.

        :param at_most: seconds after which the others no longer wait for its response.
        """
        await self.acquire()
        released = contextlib.ExitStack()
        released.callback(self.release)
        timer = None if at_most is None else asyncio.get_running_loop().call_later(at_most, released.close)
        try:
            yield
        finally:
            released.close()
            if timer is not None:
                timer.cancel()

    def _delay(self) -> float | None:
        return None if self._in_flight >= self._most else self.pacer.delay(self._in_flight)
