"""Sends the messages of a batch, several at a time, as fast as the rate limit allows.

Only the thread that runs the batch reads rows, waits, writes and decides; the others only send.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.batch_counts import BatchCounts
from airflow_provider_fluxomail.client.errors import (
    FluxomailBatchUnfinishedError,
    FluxomailError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.pacing import Pacer
from airflow_provider_fluxomail.sending.batch.rows import Row
from airflow_provider_fluxomail.sending.batch.sender import Flight, MessageOutcome, Sender

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.sending.batch.outcomes import Outcomes
    from airflow_provider_fluxomail.sending.batch.rows import Rows
    from airflow_provider_fluxomail.sending.send_once import Identity

#: How long to wait for outstanding responses once the task is being stopped. Airflow kills it 5 s after that. Seconds.
_GRACE: Final = 3.0
#: A wait for a whole minute of the rate limit takes slightly longer, by rounding and to avoid crowding. It must still
#: be within a ``max_wait`` of a minute, which is the default.
_ROUNDING: Final = 1.025


class Batch:
    """Sends a batch until it ends or pauses: from the start of a task, or its return from a deferral.

    :param outcomes: takes the outcome of each message.
    :param identify: returns the identity of a message, the same in every try but for what is known of earlier tries.
    :param concurrency: messages in flight at once, at most.
    """

    def __init__(
        self,
        rows: Rows,
        outcomes: Outcomes,
        *,
        identify: Callable[[Row], Identity],
        settings: ClientSettings,
        concurrency: int = 8,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.outcomes = outcomes
        self._rows = rows
        self._identify = identify
        self._observer = settings.observer
        self._max_wait = max(settings.max_wait * _ROUNDING, 1.0)
        self._concurrency = concurrency
        self._clock = clock
        self._sleep = sleep
        self._pacer = Pacer(clock=clock)
        self._sender = Sender(settings, self._pacer)
        # Not an executor: its futures would take as much time as everything else here.
        self._threads: list[threading.Thread] = []
        self._ready: queue.SimpleQueue[Flight | None] = queue.SimpleQueue()
        self._landed: queue.SimpleQueue[tuple[Flight, MessageOutcome | BaseException]] = queue.SimpleQueue()
        self._in_flight = 0

    def stop(self) -> None:
        """Make :meth:`run` end soon. May be called from anywhere, a signal handler too."""
        self._sender.ended.set()

    def run(self) -> BatchCounts:
        """Send every message that is not known to be sent, and return the counts if all were.

        :raises FluxomailValidationError: rows are invalid; nothing was sent.
        :raises FluxomailRateLimitError: the rate limit requires a longer wait than ``max_wait``; the progress knows
            where to continue.
        :raises FluxomailError: messages failed, or an error concerns all of them, such as a wrong API key.
        """
        outcomes = self.outcomes
        outcomes.begin(self._rows.check(), self._identify)
        with outcomes.report:
            try:
                self._send_all()
                self._collect()
            except FluxomailError as error:
                outcomes.fail(error)
                self._collect()
            except BaseException:
                # The task is being stopped: wait for the outstanding responses, and start nothing more.
                self._sender.ended.set()
                with contextlib.suppress(FluxomailError):
                    self._abandon()
                    outcomes.save(ended=True)
                raise
            finally:
                for _ in self._threads:
                    self._ready.put(None)
                self._sender.close()
            outcomes.save(ended=True)
        if self._sender.redirected:
            self._observer.redirected(self._sender.redirected)
        return outcomes.conclude()

    def _send_all(self) -> None:
        for position, row in enumerate(self._rows_again()):
            flight = Flight(position, row, self._identify(row))
            if not self.outcomes.wants(flight):
                continue
            if not self._wait_for_turn():
                return
            self.outcomes.start(flight)
            self._pacer.started()
            self._in_flight += 1
            if self._in_flight > len(self._threads):
                thread = threading.Thread(target=self._work, name=f"fluxomail-batch-{len(self._threads)}")
                self._threads.append(thread)
                thread.start()
            self._ready.put(flight)

    def _work(self) -> None:
        """Send what is ready, in a thread of its own."""
        while (flight := self._ready.get()) is not None:
            outcome: MessageOutcome | BaseException
            try:
                outcome = self._sender.send(flight)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread of the batch
                outcome = error
            self._landed.put((flight, outcome))

    def _rows_again(self) -> Iterator[Row]:
        """Read the rows, which were valid, once more. Some may be sent already, so no error is permanent here."""
        try:
            for row in self._rows:
                if not isinstance(row, Row):
                    raise FluxomailValidationError(f"{row.where}: {row.why}")
                yield row
        except FluxomailError as error:
            what = "changed" if error.permanent else "could not be read"
            raise FluxomailBatchUnfinishedError(
                f"the messages {what} while they were being sent: {error.message}", counts=self.outcomes.counts
            ) from error

    def _wait_for_turn(self) -> bool:
        """Wait until one more message may start; return ``False`` if the batch ends instead."""
        held = 0.0
        while True:
            self._take_landed(0.0)
            if self._sender.ended.is_set():
                self.outcomes.fail_unfinished()
            if self.outcomes.ended:
                return False
            delay = self._pacer.delay(self._in_flight)
            if delay is None or self._in_flight >= self._concurrency:
                self._take_landed(1.0)
            elif delay == 0:
                if held:
                    self._observer.held(held)
                return True
            elif delay > self._max_wait:
                raise FluxomailRateLimitError(
                    f"the rate limit requires a wait of {delay:.0f} s, longer than the connection's max_wait",
                    retry_after=delay,
                )
            else:
                began = self._clock()
                self._pause(delay)
                held += self._clock() - began

    def _pause(self, seconds: float) -> None:
        # In pieces: a signal does not interrupt a sleep.
        if self._in_flight:
            self._take_landed(min(seconds, 1.0))
        else:
            self._sleep(min(seconds, 1.0))
            self.outcomes.tick()

    def _collect(self) -> None:
        while self._in_flight:
            self._take_landed(1.0)

    def _take_landed(self, seconds: float) -> None:
        """Take the outcomes that are available; if there are none yet, wait up to ``seconds`` for the first."""
        if self._in_flight and self._sender.ended.is_set():
            self._abandon()
            return
        while self._in_flight and self._settle_next(seconds):
            seconds = 0.0
        self.outcomes.tick()

    def _settle_next(self, seconds: float) -> bool:
        """Settle the next message that has an outcome; return ``False`` if there is none within ``seconds``."""
        try:
            flight, outcome = self._landed.get(timeout=seconds) if seconds > 0 else self._landed.get_nowait()
        except queue.Empty:
            return False
        self._in_flight -= 1
        if isinstance(outcome, BaseException):
            raise outcome
        self.outcomes.settle(flight, outcome)
        return True

    def _abandon(self) -> None:
        """Wait briefly for outstanding responses. The rest stays pending, so that a later try requests it again."""
        until = time.monotonic() + _GRACE
        while self._in_flight and self._settle_next(max(0.0, until - time.monotonic())):
            pass
        if self._in_flight:
            self._in_flight = 0
            self.outcomes.fail_unfinished()
