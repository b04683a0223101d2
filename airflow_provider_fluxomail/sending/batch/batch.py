"""Sends the messages of a batch, some at a time, as fast as the key's cap allows, and keeps account of each.

Only the thread that runs the batch reads rows, waits, writes and decides; the others do nothing but send.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.errors import (
    BatchCounts,
    FluxomailBatchError,
    FluxomailBatchUnfinishedError,
    FluxomailError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.pacing import Pacer
from airflow_provider_fluxomail.sending import send_record
from airflow_provider_fluxomail.sending.batch.progress import Ledger, RowDigest
from airflow_provider_fluxomail.sending.batch.rows import Row
from airflow_provider_fluxomail.sending.batch.sender import Outcome, Sender

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.sending.batch.report import Report
    from airflow_provider_fluxomail.sending.batch.rows import BadRow, Rows

log = logging.getLogger(__name__)

#: Seconds between two lines of progress in the log, and between two writes of the state.
PROGRESS_SECONDS: Final = 10.0
SAVE_SECONDS: Final = 5.0
#: Failed messages that the log names; the report has all of them.
MAX_LOGGED: Final = 20
#: How long messages that are on their way may take once the task is told to end. Airflow kills it 5 s after that.
#: Seconds.
_GRACE: Final = 3.0
#: A wait for a whole minute of the cap comes to a little more, by rounding and against crowding. It must still be
#: within a ``max_wait`` of a minute, which is the default.
_ROUNDING: Final = 1.025


@dataclasses.dataclass(frozen=True)
class _Flight:
    position: int
    row: Row
    key: str


class Batch:
    """One leg of a batch: from the start of a task, or its return from a deferral, to its end or next pause.

    :param rows: the messages.
    :param settings: of the client.
    :param key_of: makes a message's idempotency key, the same in every try.
    :param ledger: what is known of earlier legs.
    :param report: takes a line for each message.
    :param save: takes the ledger's state now and then, and at the end.
    :param concurrency: messages on their way at once, at most.
    :param stop_on_error: end at the first message that fails.
    :param first_try: of a task that was never cleared: a replay then is somebody else's.
    :param cleared: whether a person has cleared the task, which is not to send again.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        settings: ClientSettings,
        key_of: Callable[[Row], str],
        ledger: Ledger,
        report: Report,
        save: Callable[[dict[str, Any]], None],
        concurrency: int = 8,
        stop_on_error: bool = False,
        first_try: bool = True,
        cleared: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rows = rows
        self._observer = settings.observer
        self._longest = max(settings.max_wait * _ROUNDING, 1.0)
        self._key_of = key_of
        self.ledger = ledger
        self._report = report
        self._save = save
        self._concurrency = concurrency
        self._stop_on_error = stop_on_error
        self._clock = clock
        self._sleep = sleep
        self._pacer = Pacer(clock=clock)
        self._sender = Sender(settings, self._pacer, first_try=first_try)
        self._flying: dict[concurrent.futures.Future[Outcome], _Flight] = {}
        # Those of them that are done: to ask each whether it is would take as long as all the rest here.
        self._landed: queue.SimpleQueue[concurrent.futures.Future[Outcome]] = queue.SimpleQueue()
        self._error: FluxomailError | None = None
        self._stopped = False
        self._total = 0
        self._logged = 0
        self._cleared = cleared
        self._not_again = 0
        self._began = self._shown = self._saved = clock()
        self._began_with = 0

    @property
    def counts(self) -> BatchCounts:
        """What became of the messages so far."""
        return self.ledger.counts(self._total)

    @property
    def progressed(self) -> bool:
        """Whether something became of a message in this leg."""
        return self.counts.settled > self._began_with

    @property
    def report_path(self) -> str | None:
        """Where the report is."""
        return self._report.path

    def stop(self) -> None:
        """Tell :meth:`run` to end soon, from wherever: a signal handler too."""
        self._sender.end()

    def run(self) -> BatchCounts:
        """Send what is not known to be sent.

        :return: the counts, when all went out.
        :raises FluxomailValidationError: rows are bad; nothing was sent.
        :raises FluxomailRateLimitError: the cap asks for a longer wait than ``max_wait``; the ledger knows where to go
            on.
        :raises FluxomailBatchError: messages failed.
        :raises FluxomailError: what holds for all messages, such as a wrong API key.
        """
        self._check()
        known = self._report.sent()
        self._began_with = self.counts.settled
        pool = concurrent.futures.ThreadPoolExecutor(self._concurrency, "fluxomail-batch")
        with self._report:
            try:
                for position, row in enumerate(self._rows):
                    if not isinstance(row, Row):
                        raise _changed(row)  # noqa: TRY301 - it ends the batch as any other error does
                    key = self._key_of(row)
                    # With the recipient: a row's own key may stand for somebody else than in an earlier try.
                    recipient = send_record.recipient_digest(key, row.message.to)
                    if not self.ledger.wanted(position, recipient):
                        self._not_again += not self.ledger.same_try
                        continue
                    if known.get(key) == recipient:
                        self.ledger.settle(position, "sent")
                        self._not_again += 1
                        continue
                    if not self._clear_to_send():
                        break
                    self._pacer.started()
                    future = pool.submit(self._sender.send, row, key)
                    self._flying[future] = _Flight(position, row, key)
                    future.add_done_callback(self._landed.put)
                self._collect()
            except FluxomailError as error:
                self._error = self._error or error
                self._collect()
            except BaseException:
                # Told to end: what is answered soon counts, and nothing more is begun.
                self._sender.end()
                with contextlib.suppress(FluxomailError):
                    self._abandon()
                    self._save(self.ledger.state())
                raise
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                self._sender.close()
            self._save(self.ledger.state())
        return self._conclude()

    def _check(self) -> None:
        """Look at all rows before the first send, and whether they are those that the ledger knows."""
        known, digest = self.ledger.known, RowDigest()
        for row in self._rows.check():
            if digest.count < known:
                digest.add(send_record.recipient_digest(self._key_of(row), row.message.to))
            self._total += 1
        if known and (digest.count, digest.value) != (known, self.ledger.known_digest):
            log.info("The messages are not those of the earlier try, or come in another order: asking for each again.")
            self.ledger = Ledger()

    def _clear_to_send(self) -> bool:
        """Wait until one more message may start; ``False``: the batch ends."""
        held = 0.0
        while True:
            self._take_in(0.0)
            if self._sender.ended:
                self._error = self._error or self._unfinished("the task was told to end")
            if self._error or self._stopped:
                return False
            delay = self._pacer.delay(len(self._flying))
            if delay is None or len(self._flying) >= self._concurrency:
                self._take_in(1.0)
            elif delay == 0:
                if held:
                    self._observer.held(held)
                return True
            elif delay > self._longest:
                raise FluxomailRateLimitError(
                    f"the key's cap asks to wait {delay:.0f} s, longer than the connection's max_wait",
                    retry_after=delay,
                )
            else:
                began = self._clock()
                self._pause(delay)
                held += self._clock() - began

    def _pause(self, seconds: float) -> None:
        # In pieces: a signal does not end a sleep.
        if self._flying:
            self._take_in(min(seconds, 1.0))
        else:
            self._sleep(min(seconds, 1.0))
            self._tick()

    def _collect(self) -> None:
        """Wait for all answers."""
        while self._flying:
            self._take_in(1.0)

    def _take_in(self, seconds: float) -> None:
        """Take in what was answered; if nothing was yet, wait so long for the first answer."""
        if self._flying and self._sender.ended:
            self._abandon()
            return
        with contextlib.suppress(queue.Empty):
            while self._flying:
                future = self._landed.get(timeout=seconds) if seconds else self._landed.get_nowait()
                seconds = 0.0
                flight = self._flying.pop(future)
                if not future.cancelled():
                    self._settle(flight, future.result())
        self._tick()

    def _abandon(self) -> None:
        """Take in what is answered soon. Of the rest it stays unknown, so that a later try asks again."""
        concurrent.futures.wait(self._flying, timeout=_GRACE)
        flying, self._flying = self._flying, {}
        for future, flight in flying.items():
            if future.done() and not future.cancelled():
                self._settle(flight, future.result())
            else:
                self._error = self._error or self._unfinished("the task was told to end")

    def _settle(self, flight: _Flight, outcome: Outcome) -> None:
        error = outcome.error
        if outcome.kind is None:
            self._error = self._error or error
            return
        self.ledger.settle(flight.position, outcome.kind)
        self._report.write(
            {
                "row": flight.row.where,
                "key": flight.row.key,
                "outcome": outcome.kind,
                "send_id": outcome.send_id,
                "message_id": outcome.message_id,
                "idempotency_key": flight.key,
                "recipient_digest": send_record.recipient_digest(flight.key, flight.row.message.to),
                "error": type(error).__name__ if error else None,
                "why": str(error) if error else None,
            }
        )
        if error is None:
            self._not_again += outcome.kind == "replayed"
            return
        self._logged += 1
        if self._logged <= MAX_LOGGED:
            log.warning("%s: %s (%s): %s", flight.row.where, outcome.kind, type(error).__name__, error)
        self._stopped = self._stop_on_error

    def _tick(self) -> None:
        now = self._clock()
        if now - self._saved >= SAVE_SECONDS:
            self._saved = now
            self._save(self.ledger.state())
        if now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            log.info("%s", self._progress(now))

    def _progress(self, now: float) -> str:
        counts = self.counts
        here = counts.settled - self._began_with
        rate = here / (now - self._began) if now > self._began else 0.0
        left = (counts.total - counts.settled) / rate if rate else 0.0
        failed = counts.rejected + counts.unknown
        return (
            f"{counts.settled} of {counts.total} messages done"
            + (f", {failed} of them failed" if failed else "")
            + (f"; {rate * 60:.0f} a minute, about {_duration(left)} left" if rate else "")
        )

    def _conclude(self) -> BatchCounts:
        counts = self.counts
        log.info(
            "%d messages: %d sent, %d sent before, %d rejected, %d with unknown outcome.",
            *dataclasses.astuple(counts),
        )
        if self._sender.redirected:
            self._observer.redirected(self._sender.redirected)
        if self._cleared and self._not_again:
            log.warning(
                "This task was cleared, but %d of its messages were sent before and are not sent again. To send again "
                "when a task is cleared, set resend_on_clear=True.",
                self._not_again,
            )
        if self._logged > MAX_LOGGED:
            where = f"see {self._report.path}" if self._report.path else "set report_path to see them all"
            log.warning("%d more messages failed: %s.", self._logged - MAX_LOGGED, where)
        if self._error:
            raise self._error
        if counts.rejected or counts.unknown:
            raise self._failed()
        return counts

    def _failed(self) -> FluxomailBatchError:
        counts = self.counts
        kind = FluxomailBatchUnfinishedError if counts.unknown else FluxomailBatchError
        untried = counts.total - counts.settled
        return kind(
            f"{counts.rejected + counts.unknown} of {counts.total} messages failed ({counts.rejected} rejected, "
            f"{counts.unknown} with unknown outcome)"
            + (f", and {untried} were not tried" if untried else "")
            + ". The log names the first of them"
            + (f", {self._report.path} all" if self._report.path else ""),
            counts=counts,
        )

    def _unfinished(self, why: str) -> FluxomailBatchUnfinishedError:
        counts = self.counts
        return FluxomailBatchUnfinishedError(
            f"{why} when {counts.settled} of {counts.total} messages were done", counts=counts
        )


def _changed(row: BadRow) -> FluxomailValidationError:
    return FluxomailValidationError(f"the messages changed while they were being sent: {row.where}: {row.why}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
