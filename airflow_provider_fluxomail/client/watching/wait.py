"""What a poll or an event means to a wait: whether the wait ends, how, and when to poll again. No I/O.

Worker and triggerer, poke, reschedule and deferrable all use this module, so all of them have the same outcomes.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from airflow_provider_fluxomail.client.errors import FluxomailDeliveryError, FluxomailError, FluxomailNotFoundError
from airflow_provider_fluxomail.client.event_types import FAILURES
from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.retries import hold_seconds, jittered
from airflow_provider_fluxomail.client.timeline import judge

#: Logged once for each new kind of error.
CANNOT_READ: Final = "Could not read the send's timeline; still waiting: %s"
READABLE_AGAIN: Final = "The send's timeline is readable again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaitTiming:
    """How long the steps of a wait take, in seconds. Tests replace it with :func:`set_timing`.

    :param not_found_grace: a send that was just accepted may not be readable yet: a 404 counts as an error only this
        long after the first poll.
    :param least_interval: the shortest interval between polls, whatever the task requests.
    :param least_poll: least time for reading all pages of a timeline: the last poll starts at the deadline.
    :param worker_polls: when a task polls before it defers, counted from the first poll. Most email is delivered by the
        last of them, and a deferral costs Airflow about 3 s and a second worker process.
    :param short_hold: only the polls until then, if a success after the deferral needs no second worker process.
    :param resume_after: least time from the deferral of a task to its resumption, with Airflow's default heartbeat
        interval. The end of the old process may be reported that late, and Airflow then fails a task that has resumed.
    :param rate_limit_wait: the wait after a 429 without a wait time. The API's rate limits are per minute.
    :param rate_limit_spread: tasks that were refused in the same second resume spread over at least this time.
    :param failed_lookup: for how long other waits reuse the error of a failed connection lookup.
    :param repeat_lookup: after this time a connection is looked up again for a new wait: its key may be another now.
    :param restart: longest pause before a wait continues after a failed lookup, or after its watcher crashed.
    """

    not_found_grace: float = 60.0
    least_interval: float = 1.0
    least_poll: float = 10.0
    worker_polls: tuple[float, ...] = (0.0, 1.0, 2.5, 4.5, 7.0, 10.0)
    short_hold: float = 2.5
    resume_after: float = 8.0
    rate_limit_wait: float = 60.0
    rate_limit_spread: float = 10.0
    failed_lookup: float = 5.0
    repeat_lookup: float = 60.0
    restart: float = 30.0


_timing = WaitTiming()


def timing() -> WaitTiming:
    """Return the timing of waits in this process."""
    return _timing


def set_timing(new: WaitTiming) -> WaitTiming:
    """Replace the timing of waits in this process; return the one before. For tests."""
    global _timing
    before, _timing = _timing, new
    return before


Status = Literal["reached", "failed", "timeout", "error"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaitOutcome:
    """How a wait ended. Passed from the triggerer to the worker as JSON; holds no recipient and no secret.

    :param status: ``reached`` (the target), ``failed`` (a failure event), ``timeout``, or ``error`` (the timeline
        cannot be read).
    :param event: the deciding event, for ``reached`` and ``failed``.
    :param time: when it happened, ISO 8601 in UTC.
    :param message: the reason, for ``failed``, ``timeout`` and ``error``.
    """

    status: Status
    send_id: str
    target: str
    event: str | None = None
    time: str | None = None
    message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as a trigger event's payload."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, payload: object) -> WaitOutcome:
        """Read a trigger event's payload.

        :raises ValueError: it is not from this package's trigger, so the task must not succeed.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(payload, Mapping) or payload.get("status") not in get_args(Status):
            raise ValueError(f"the trigger returned {payload!r}, which is not the outcome of a wait: clear the task")
        return cls(**{name: value for name, value in payload.items() if name in names})

    @property
    def result(self) -> dict[str, Any]:
        """The return value of a task that reached its target."""
        return {"send_id": self.send_id, "event": self.event, "time": self.time}


@dataclasses.dataclass(slots=True, eq=False, repr=False)
class Wait:
    """One wait for one send: takes timelines and errors, and returns a :class:`WaitOutcome` once one of them decides.

    :param target: the event to wait for, see :data:`~.event_types.TARGETS`.
    :param fail_on: events that end the wait as a failure.
    :param started: time of the first poll, epoch seconds.
    :param deadline: time after which the wait times out, epoch seconds.
    :param seen: time of the last poll that returned the timeline, epoch seconds; ``None`` if there was none.
    """

    send_id: str
    _: dataclasses.KW_ONLY
    target: str = "delivered"
    fail_on: Collection[str] = FAILURES
    started: float
    deadline: float
    seen: float | None = None
    #: The error of the last poll, ``None`` if it succeeded.
    last_error: FluxomailError | None = dataclasses.field(default=None, init=False)
    #: Whether the last poll failed in another way than the one before. Only then is the error logged.
    error_is_new: bool = dataclasses.field(default=False, init=False)
    _last_event: str = dataclasses.field(default="nothing on its timeline", init=False)

    def on_timeline(self, timeline: Timeline) -> WaitOutcome | None:
        """Judge a timeline, or the new events of one; return ``None`` if the wait continues."""
        self.last_error, self.error_is_new = None, False
        if timeline.events:
            last = timeline.events[-1]
            self._last_event = f"last event: {last.type}{f' at {_iso(last.time)}' if last.time else ''}"
        outcome = judge(timeline, self.target, self.fail_on)
        if outcome is None:
            return None
        event = outcome.event
        when = _iso(event.time) if event.time else None
        if outcome.reached:
            return self._end("reached", event=event.type, time=when)
        error = FluxomailDeliveryError(
            f"the message {_PHRASES.get(event.type, event.type)}"
            + (f" at {when}" if when else "")
            + (f": {event.reason}" if event.reason else ""),
            event=event.type,
            send_id=self.send_id,
        )
        return self._end("failed", event=event.type, time=when, message=str(error))

    def on_error(self, error: FluxomailError, now: float) -> WaitOutcome | None:
        """Judge the error of a poll; return ``None`` if the wait continues.

        Past the deadline a 404 counts like a timeline without events: the wait times out, in every mode.
        """
        self.error_is_new = type(error) is not type(self.last_error)
        self.last_error = error
        if isinstance(error, FluxomailNotFoundError):
            grace = timing().not_found_grace
            if now - self.started < grace or now >= self.deadline:
                return None
            why = "check the send id, and that the connection belongs to the organization that sent it"
            return self._end("error", message=f"{error}. It was not found for {grace:.0f} s: {why}")
        if not error.permanent:
            return None
        return self._end("error", message=f"cannot read the timeline: {error}")

    def timed_out(self) -> WaitOutcome:
        """End the wait at its deadline."""
        why = f"; the last poll failed: {self.last_error}" if self.last_error else ""
        waited = f"not {self.target} within {self.deadline - self.started:.0f} s"
        return self._end("timeout", message=f"{waited}; {self._last_event}{why} (send id {self.send_id})")

    def delay(self, interval: float, now: float, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds until the next poll: ``interval`` with jitter, but never before the server allows it.

        The last poll is at the deadline, so that an event just before it still counts.
        """
        spread = jittered(max(interval, timing().least_interval), draw=draw)
        return max(0.0, min(max(spread, self.requested_wait), self.deadline - now))

    @property
    def requested_wait(self) -> float:
        """Seconds that the server asked to wait in its last response, as far as that is obeyed; 0 if it did not."""
        return hold_seconds(self.last_error.retry_after if self.last_error else None)

    def poll_seconds(self, now: float) -> float:
        """Return how long a poll may take, all pages of the timeline together."""
        return max(self.deadline - now, timing().least_poll)

    def _end(self, status: Status, **facts: Any) -> WaitOutcome:
        return WaitOutcome(status=status, send_id=self.send_id, target=self.target, **facts)


#: How an error names a failure event whose type does not fit into the sentence.
_PHRASES: Final = {"complained": "was reported as spam", "dropped": "was dropped"}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_time(moment: float) -> str:
    """Return epoch seconds as logs show them: ISO 8601 in UTC."""
    return _iso(datetime.fromtimestamp(moment, UTC))


def now() -> float:
    """Return epoch seconds. Not a monotonic clock, because deadlines are passed between processes and machines."""
    return time.time()
