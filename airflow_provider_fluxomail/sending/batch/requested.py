"""When a batch's messages were first requested: after the retention of their keys, another request might send again.

It is written before the requests: a block of positions at a time, so that a try that is killed leaves no request that
a later one does not know of.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.client.addresses import normalised
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.sending.batch.progress import MAX_RANGES
from airflow_provider_fluxomail.sending.retention import Retention

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailUnknownOutcomeError
    from airflow_provider_fluxomail.sending.batch.rows import Row

#: Positions that one write announces.
BLOCK: Final = 250
#: Times are kept with this precision, rounded down. Seconds.
_PRECISION: Final = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class _StoredRequests:
    """What is stored. The names of the fields never change.

    :param scope: changes when all keys do, as after a clear with ``resend_on_clear``.
    :param account: see :class:`.Retention`.
    :param since: time of the batch's first request. All times are epoch seconds.
    :param done: the position below which each request is in the progress, and in ``open`` without a known outcome.
    :param until: the position from which on nothing was requested, and ``at`` the time of the first request between.
    :param checked: number of rows that ``digest`` covers; ``until`` of them or more.
    :param open: first and last position, and time of the first request.
    """

    scope: str
    account: str
    since: float
    done: int
    until: int
    at: float
    checked: int
    digest: str
    open: list[list[float]]

    @classmethod
    def read(cls, state: Mapping[str, Any]) -> _StoredRequests | None:
        try:
            asked = cls(**state["asked"])
            numbers = [asked.since, asked.done, asked.until, asked.at, asked.checked]
            for first, last, time in asked.open:
                numbers += [first, last, time]
            return asked if all(isinstance(number, int | float) for number in numbers) else None
        except (KeyError, TypeError, ValueError):
            return None


class Requested:
    """Tracks when messages without a known outcome were first requested.

    :param state: of the batch, with an earlier result of :meth:`state`.
    :param scope: changes when all keys do. Then nothing earlier counts.
    :param retention: of the keys.
    """

    def __init__(self, state: Mapping[str, Any], *, scope: str = "", retention: Retention | None = None) -> None:
        self._scope = scope
        self._retention = retention or Retention()
        earlier = _StoredRequests.read(state)
        self._earlier = earlier if earlier and earlier.scope == scope else None
        self._since = self._earlier.since if self._earlier else None
        self._open: dict[int, float] = {}
        for first, last, asked in self._earlier.open if self._earlier else ():
            self._open |= dict.fromkeys(range(int(first), int(last) + 1), asked)
        # Assume that rows which may have been requested changed, until their digest shows the contrary.
        self._changed = self._earlier is not None
        self._hash = hashlib.sha256()
        self._digests: dict[int, str] = {}
        self._total = self._until = 0
        self._at = 0.0

    def add(self, row: Row) -> None:
        """Count a row, each once and in order, before the first is requested."""
        self._hash.update(f"{row.part}\n{normalised(row.message.to)}\n".encode("utf-8", "surrogatepass"))
        self._total += 1
        if self._earlier and self._total == self._earlier.checked:
            self._changed = self._hash.hexdigest() != self._earlier.digest
        if self._total % BLOCK == 0:
            self._digests[self._total] = self._hash.hexdigest()

    def begin(self) -> None:
        """End the count. If rows that may have been requested changed, positions no longer mean what they did."""
        self._digests[self._total] = self._hash.hexdigest()
        if self._changed:
            self._open = {}

    def refusal(self, position: int, key: str) -> FluxomailUnknownOutcomeError | None:
        """Return why a message must not be requested, ``None`` if it may."""
        first = self._first_request(position)
        if first is None or self._earlier is None:
            return None
        self._open[position] = first
        return self._retention.unknown_outcome(key, asked=first, account=self._earlier.account, now=wait.now())

    def start(self, position: int) -> bool:
        """Record that a message is about to be requested; return whether the state must be written before that."""
        now = wait.now()
        self._open.setdefault(position, now - now % _PRECISION)
        if self._since is None:
            self._since = now
        announcing = position >= self._until
        if announcing:
            self._until, self._at = min((position // BLOCK + 1) * BLOCK, self._total), now
        return announcing

    def finish(self, position: int, *, sent: bool, stored_nothing: bool) -> None:
        """Record an outcome.

        :param stored_nothing: whether the requests of this leg certainly had no effect.
        """
        if sent or (stored_nothing and self._first_request(position) is None):
            self._open.pop(position, None)

    def state(self, done: int, *, ended: bool) -> dict[str, Any]:
        """Return what a later object needs, as JSON of at most about 20 KB; empty before the first request.

        :param done: the position below which the progress knows of each request.
        :param ended: whether no other request follows.
        """
        if self._since is None:
            return {}
        until, at = done if ended else max(self._until, done), self._at or self._since
        if self._earlier and self._changed:
            until, at = self._total, self._earlier.since
        elif self._earlier and self._earlier.until > done:
            until, at = max(until, self._earlier.until), self._earlier.at
        checked = min((until + BLOCK - 1) // BLOCK * BLOCK, self._total)
        asked = _StoredRequests(
            scope=self._scope,
            account=self._earlier.account if self._earlier else self._retention.account,
            since=self._since,
            done=done,
            until=until,
            at=at,
            checked=checked,
            digest=self._digests[checked],
            open=self._spans(),
        )
        return {"asked": dataclasses.asdict(asked)}

    def _first_request(self, position: int) -> float | None:
        """Return when earlier legs and tries first requested a message that they do not know to be sent."""
        if self._earlier is None:
            return None
        if self._changed:
            return self._earlier.since
        if position >= self._earlier.done:
            return self._earlier.at if position < self._earlier.until else None
        return next((asked for first, last, asked in self._earlier.open if first <= position <= last), None)

    def _spans(self) -> list[list[float]]:
        spans: list[list[float]] = []
        for position, asked in sorted(self._open.items()):
            if spans and spans[-1][1:] == [position - 1, asked]:
                spans[-1][1] = position
            else:
                spans.append([position, position, asked])
        if len(spans) > MAX_RANGES:
            return [[spans[0][0], spans[-1][1], min(asked for *_, asked in spans)]]
        return spans
