"""Records the outcome of each message of a batch: in the progress, the report and the log, and as the task's error."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.batch_counts import BatchCounts
from airflow_provider_fluxomail.client.errors import (
    FluxomailBatchError,
    FluxomailBatchUnfinishedError,
    FluxomailError,
    FluxomailUnknownOutcomeError,
)
from airflow_provider_fluxomail.sending.batch.progress import Progress, RowDigest
from airflow_provider_fluxomail.sending.batch.requested import Requested
from airflow_provider_fluxomail.sending.batch.sender import MessageOutcome
from airflow_provider_fluxomail.sending.send_record import recipient_digest

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import SendResult
    from airflow_provider_fluxomail.sending.batch.report import Report
    from airflow_provider_fluxomail.sending.batch.rows import Row
    from airflow_provider_fluxomail.sending.batch.sender import Flight
    from airflow_provider_fluxomail.sending.send_once import Identity

log = logging.getLogger(__name__)

#: Failed messages that the log names; the report contains all of them.
MAX_LOGGED: Final = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchTiming:
    """Seconds between two writes of the progress (``save``), and between two lines of it in the log (``log``)."""

    save: float = 5.0
    log: float = 10.0


#: What batches use. Tests replace it.
_timing = BatchTiming()


def batch_timing() -> BatchTiming:
    """Return the timing of batches in this process."""
    return _timing


class Outcomes:
    """Records what happened to each message, and decides how the batch ends. Used from one thread.

    :param progress: what is known from earlier legs.
    :param report: takes a line for each message.
    :param requested: what earlier legs and tries requested without a known outcome.
    :param save: stores the state, every few seconds and at the end; without it, nothing is kept.
    :param announce: stores the state before requests that later tries must know of, or raises an error.
    :param on_accepted: called with the position and the result of each message that was sent now or before.
    :param stop_on_error: end at the first message that fails.
    :param cleared: whether a person cleared the task, and it does not send again.
    """

    def __init__(
        self,
        progress: Progress,
        report: Report,
        *,
        requested: Requested | None = None,
        save: Callable[[dict[str, Any]], None] | None = None,
        announce: Callable[[dict[str, Any]], None] | None = None,
        on_accepted: Callable[[int, SendResult], None] | None = None,
        stop_on_error: bool = False,
        cleared: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = progress
        self.report = report
        self._requested = requested or Requested({})
        self._save = save or (lambda _: None)
        self._announce = announce or self._save
        self._timing = batch_timing()
        self._on_accepted = on_accepted
        self._stop_on_error = stop_on_error
        self._cleared = cleared
        self._clock = clock
        self._error: FluxomailError | None = None
        self._stopped = False
        self._total = 0
        self._failures = 0
        self._sent_before = 0
        self._in_doubt = 0
        self._in_report: dict[str, str] = {}
        self._began = self._logged_at = self._saved_at = clock()
        self._settled_at_start = 0

    @property
    def counts(self) -> BatchCounts:
        """Messages by outcome so far."""
        return self.progress.counts(self._total)

    @property
    def progressed(self) -> bool:
        """Whether this leg settled a message."""
        return self.counts.settled > self._settled_at_start

    @property
    def ended(self) -> bool:
        """Whether no further message may start."""
        return self._error is not None or self._stopped

    def begin(self, rows: Iterable[Row], identify: Callable[[Row], Identity]) -> None:
        """Go through all rows before the first send, and check that the progress is about the same rows."""
        known, digest = self.progress.known, RowDigest()
        for row in rows:
            if digest.count < known:
                digest.add(recipient_digest(identify(row).key, row.message.to))
            self._requested.add(row)
            self._total += 1
        self._requested.begin()
        if known and (digest.count, digest.value) != (known, self.progress.known_digest):
            log.info(
                "The messages or their order changed since the last try; requesting all of them again with the same "
                "keys."
            )
            self.progress = Progress()
        self._in_report = self.report.sent()
        self._settled_at_start = self.counts.settled

    def wants(self, flight: Flight) -> bool:
        """Return whether a message must be requested. Call it once for each message, in order."""
        # Includes the recipient: a row's own key may belong to another recipient than in an earlier try.
        digest = recipient_digest(flight.identity.key, flight.row.message.to)
        if not self.progress.wants(flight.position, digest):
            self._sent_before += not self.progress.same_try
            return False
        if self._in_report.get(flight.identity.key) == digest:
            self.progress.settle(flight.position, "sent")
            self._requested.finish(flight.position, sent=True, stored_nothing=False)
            self._sent_before += 1
            return False
        if error := self._requested.refusal(flight.position, flight.identity.key):
            self._in_doubt += 1
            self.settle(flight, MessageOutcome("rejected", error=error))
            return False
        return True

    def start(self, flight: Flight) -> None:
        """Record that a message is about to be requested."""
        if self._requested.start(flight.position):
            self._announce(self.state(ended=False))

    def settle(self, flight: Flight, outcome: MessageOutcome) -> None:
        error, sent, row = outcome.error, outcome.sent, flight.row
        nothing = error is not None and not error.ambiguous and not isinstance(error, FluxomailUnknownOutcomeError)
        self._requested.finish(flight.position, sent=sent is not None, stored_nothing=nothing)
        if outcome.kind is None:
            assert error is not None, "only an error concerns all messages"
            self.fail(error)
            return
        self.progress.settle(flight.position, outcome.kind)
        self.report.write(
            {
                "row": row.where,
                "key": row.key,
                "outcome": outcome.kind,
                "send_id": sent.send_id if sent else None,
                "message_id": sent.message_id if sent else None,
                "idempotency_key": flight.identity.key,
                "recipient_digest": recipient_digest(flight.identity.key, row.message.to),
                "error": type(error).__name__ if error else None,
                "why": str(error) if error else None,
            }
        )
        if sent is not None:
            self._sent_before += outcome.kind == "replayed"
            if self._on_accepted:
                self._on_accepted(flight.position, sent)
            return
        self._failures += 1
        if self._failures <= MAX_LOGGED:
            log.warning("%s: %s (%s): %s", row.where, outcome.kind, type(error).__name__, error)
        self._stopped = self._stop_on_error

    def fail(self, error: FluxomailError) -> None:
        """End the batch with an error that concerns all messages; the first one counts."""
        self._error = self._error or error

    def fail_unfinished(self) -> None:
        """End the batch because its task is being stopped."""
        counts = self.counts
        self.fail(
            FluxomailBatchUnfinishedError(
                f"the task was stopped when {counts.settled} of {counts.total} messages were done", counts=counts
            )
        )

    def tick(self) -> None:
        """Save the progress and log a line of it, if it is time to."""
        now = self._clock()
        if now - self._saved_at >= self._timing.save:
            self._saved_at = now
            self.save()
        if now - self._logged_at >= self._timing.log:
            self._logged_at = now
            log.info("%s", self._describe_progress(now))

    def save(self, *, ended: bool = False) -> None:
        """Store the state."""
        self._save(self.state(ended=ended))

    def state(self, *, ended: bool = True) -> dict[str, Any]:
        """Return what a later leg or try needs.

        :param ended: whether no other request follows.
        """
        state = self.progress.state()
        return {**state, **self._requested.state(state["done"], ended=ended)}

    def conclude(self) -> BatchCounts:
        """Log the counts and return them; raise the error of a batch that failed."""
        counts = self.counts
        text = "%d messages: %d sent, %d sent before, %d rejected, %d with unknown outcome."
        log.info(text, *dataclasses.astuple(counts))
        if self._cleared and self._sent_before:
            log.warning(
                "This task was cleared, but %d of its messages were sent before and are not sent again. To send again "
                "when a task is cleared, set resend_on_clear=True.",
                self._sent_before,
            )
        if self._failures > MAX_LOGGED:
            where = f"see {self.report.path}" if self.report.path else "set report_path to see them all"
            log.warning("%d more messages failed: %s.", self._failures - MAX_LOGGED, where)
        if self._error:
            raise self._error
        if failed := counts.rejected + counts.unknown:
            untried = counts.total - counts.settled
            doubt = (
                f". {self._in_doubt} of them may have been sent, too long ago to request them again "
                "(FluxomailUnknownOutcomeError): search for their keys in Fluxomail"
            )
            kind = FluxomailBatchUnfinishedError if counts.unknown else FluxomailBatchError
            raise kind(
                f"{failed} of {counts.total} messages failed ({counts.rejected} rejected, {counts.unknown} with "
                f"unknown outcome){f', and {untried} were not tried' if untried else ''}. The log names the first of "
                f"them{f', {self.report.path} all' if self.report.path else ''}{doubt if self._in_doubt else ''}",
                counts=counts,
            )
        return counts

    def _describe_progress(self, now: float) -> str:
        counts = self.counts
        settled = counts.settled - self._settled_at_start
        rate = settled / (now - self._began) if now > self._began else 0.0
        left = (counts.total - counts.settled) / rate if rate else 0.0
        failed = counts.rejected + counts.unknown
        return (
            f"{counts.settled} of {counts.total} messages done"
            + (f", {failed} of them failed" if failed else "")
            + (f"; {rate * 60:.0f} a minute, about {_duration(left)} left" if rate else "")
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
