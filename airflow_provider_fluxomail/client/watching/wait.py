"""One wait for one send, whoever does the waiting: what each look means, when to look again, how it ends.

Worker and triggerer, poke and deferrable: all of them ask this, so all of them end alike. No I/O.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailDeliveryError,
    FluxomailError,
    FluxomailNotFoundError,
    FluxomailRateLimitError,
    FluxomailResponseError,
    FluxomailServerError,
)
from airflow_provider_fluxomail.client.event_types import FAILURES
from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.timeline import judge

#: A send that was just accepted may not be readable yet: a 404 counts only this long after the first look, seconds.
NOT_FOUND_GRACE: Final = 60.0
#: Looks are spread over this part of the interval, so that a thousand waits do not look in the same instant.
JITTER: Final = 0.2

#: Nobody looks more often than this, whatever the interval: an interval of 0 would hammer the API. Seconds.
LEAST_INTERVAL: Final = 1.0
#: Logged once for each new trouble.
TROUBLE: Final = "Could not read the send's timeline; still waiting: %s"
SEEN_AGAIN: Final = "The send's timeline can be read again."

Status = Literal["reached", "failed", "timeout", "error"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ending:
    """How a wait ended. Travels from the triggerer to the worker as JSON; holds no recipient and no secret.

    :param status: ``reached`` (the target), ``failed`` (a failure event), ``timeout``, or ``error`` (nobody can look).
    :param event: the deciding event, for ``reached`` and ``failed``.
    :param time: when that was, ISO 8601 in UTC.
    :param message: for ``failed``, ``timeout`` and ``error``: what to tell the reader.
    """

    status: Status
    send_id: str
    target: str
    event: str | None = None
    time: str | None = None
    message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The ending as a trigger event's payload."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, payload: object) -> Ending:
        """Read a trigger event's payload.

        :raises ValueError: when it is none of ours: a task must not go green on it.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(payload, Mapping) or payload.get("status") not in get_args(Status):
            raise ValueError(f"the trigger came back with {payload!r}, which says nothing of the delivery")
        return cls(**{name: value for name, value in payload.items() if name in names})

    @property
    def result(self) -> dict[str, Any]:
        """What a task that reached its target returns."""
        return {"send_id": self.send_id, "event": self.event, "time": self.time}


class Wait:
    """The state of one wait.

    :param send_id: which send.
    :param target: the event hoped for, see :data:`~.targets.TARGETS`.
    :param fail_on: events that end the wait as a failure.
    :param started: epoch seconds of the first look.
    :param deadline: epoch seconds after which the wait times out.
    :param seen: epoch seconds of the last look that showed the timeline; ``None`` if none did.
    """

    __slots__ = (
        "_last_event",
        "deadline",
        "fail_on",
        "seen",
        "send_id",
        "started",
        "target",
        "trouble",
        "trouble_is_new",
    )

    def __init__(
        self,
        send_id: str,
        *,
        target: str = "delivered",
        fail_on: Collection[str] = FAILURES,
        started: float,
        deadline: float,
        seen: float | None = None,
    ) -> None:
        self.send_id = send_id
        self.target = target
        self.fail_on = tuple(fail_on)
        self.started = started
        self.deadline = deadline
        self.seen = seen
        #: The trouble the last look met, ``None`` if it went well.
        self.trouble: FluxomailError | None = None
        #: True when the last look met trouble of another kind than the one before: it is worth a line in the log.
        self.trouble_is_new = False
        self._last_event = "nothing on its timeline"

    def saw(self, timeline: Timeline) -> Ending | None:
        """Take in what a look showed; ``None`` means: go on."""
        self.trouble, self.trouble_is_new = None, False
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
            f"the message {_SAID.get(event.type, event.type)}"
            + (f" at {when}" if when else "")
            + (f": {event.reason}" if event.reason else ""),
            event=event.type,
            send_id=self.send_id,
        )
        return self._end("failed", event=event.type, time=when, message=str(error))

    def met(self, error: FluxomailError, now: float) -> Ending | None:
        """Take in that a look failed; ``None`` means: go on, it may pass.

        Past the deadline a 404 is no longer told from a send without events: the wait has timed out, in every mode.
        """
        self.trouble_is_new = type(error) is not type(self.trouble)
        self.trouble = error
        if isinstance(error, FluxomailNotFoundError):
            if now - self.started < NOT_FOUND_GRACE or now >= self.deadline:
                return None
            return self._end(
                "error",
                message=f"{error}. It was not found for {NOT_FOUND_GRACE:.0f} s: check the send id, and that the "
                "connection belongs to the organization that sent it",
            )
        if isinstance(error, _PASSING):
            return None
        return self._end("error", message=f"cannot look at the timeline: {error}")

    def timed_out(self) -> Ending:
        """End the wait at its deadline."""
        trouble = f"; the last look failed: {self.trouble}" if self.trouble else ""
        return self._end(
            "timeout",
            message=f"not {self.target} within {self.deadline - self.started:.0f} s; {self._last_event}{trouble} "
            f"(send id {self.send_id})",
        )

    def delay(self, interval: float, now: float, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds until the next look: ``interval`` with jitter, never before the server allows it.

        The last look falls on the deadline, so that an event just before it still counts.
        """
        spread = max(interval, LEAST_INTERVAL) * (1 - JITTER + 2 * JITTER * draw())
        return max(0.0, min(max(spread, self.asked), self.deadline - now))

    @property
    def asked(self) -> float:
        """Seconds that the server asked to wait at the last look, 0 if it did not."""
        return (self.trouble.retry_after if self.trouble else None) or 0.0

    def _end(self, status: Status, **facts: Any) -> Ending:
        return Ending(status=status, send_id=self.send_id, target=self.target, **facts)


_PASSING = (
    FluxomailConnectionError,
    FluxomailRateLimitError,
    FluxomailResponseError,
    FluxomailServerError,
)
_SAID = {
    "bounced": "bounced",
    "complained": "was complained of as spam",
    "dropped": "was dropped",
    "failed": "failed",
}


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def told_time(moment: float) -> str:
    """Return epoch seconds as a log shows them."""
    return _iso(datetime.fromtimestamp(moment, UTC))


def now() -> float:
    """Epoch seconds: deadlines cross processes and machines, where a monotonic clock means nothing."""
    return time.time()
