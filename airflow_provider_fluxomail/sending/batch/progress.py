"""What is known about a batch's messages: enough to continue after a retry or a deferral, in a size that does not grow.

It holds positions, not messages: all below one position were requested, except for a few that are listed. A digest of
the keys and recipients up to there shows whether the positions still mean the same messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from airflow_provider_fluxomail.client.batch_counts import BatchCounts

Kind = Literal["sent", "replayed", "rejected", "unknown"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
#: Ranges of positions that one list of the state may hold. What does not fit is requested again, which is safe with the
#: same key.
MAX_RANGES: Final = 400


class Progress:
    """Tracks the outcome of each message of one task.

    :param state: an earlier result of :meth:`state`; anything else is ignored, which is safe with the same keys.
    :param same_try: whether it is from the same try of the task. A new try requests rejected messages again: the cause
        may have been fixed.
    :ivar known: the position below which messages were requested earlier.
    :ivar known_digest: the digest of the messages below it.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, *, same_try: bool = False) -> None:
        self.same_try = same_try
        try:
            self.known, self.known_digest, self._replayed, listed = _read_state(state or {})
        except (KeyError, TypeError, ValueError):
            self.known, self.known_digest, self._replayed, listed = 0, "", 0, (set(), set(), set())
        self._digest = RowDigest()
        self._visited = self.known
        self._rejected, self._unknown, self._pending = listed
        if not same_try:
            self._pending |= self._rejected | self._unknown
            self._rejected, self._unknown = set(), set()
        self._again = frozenset(self._pending)

    def wants(self, position: int, name: str) -> bool:
        """Count the next message, each once and in order; return whether it must be requested."""
        self._digest.add(name)
        if position < self.known:
            return position in self._again
        self._visited = position + 1
        self._pending.add(position)
        return True

    def settle(self, position: int, kind: Kind) -> None:
        """Record the outcome of a message."""
        self._pending.discard(position)
        if kind == "replayed":
            self._replayed += 1
        elif kind == "rejected":
            self._rejected.add(position)
        elif kind == "unknown":
            self._unknown.add(position)

    def counts(self, total: int) -> BatchCounts:
        """Count the messages by outcome."""
        rejected, unknown = len(self._rejected), len(self._unknown)
        good = self._visited - len(self._pending) - rejected - unknown
        # What did not fit into the state and was requested again may have been counted as replayed before.
        replayed = min(self._replayed, good)
        return BatchCounts(total=total, sent=good - replayed, replayed=replayed, rejected=rejected, unknown=unknown)

    def state(self) -> dict[str, Any]:
        """Return what a later :class:`Progress` needs, as JSON of at most about 20 KB."""
        rejected, pending = _ranges(self._rejected), set(self._pending)
        unknown = _ranges(self._unknown)
        for kept in (rejected, unknown):
            for first, last in kept[MAX_RANGES:]:
                pending.update(range(first, last + 1))
            del kept[MAX_RANGES:]
        return {
            "done": self._visited,
            # Until the known messages have been counted again, their digest is still the earlier one.
            "digest": self._digest.value if self._digest.count >= self._visited else self.known_digest,
            "replayed": self._replayed,
            "rejected": rejected,
            "unknown": unknown,
            "pending": _merged(_ranges(pending)),
        }


class RowDigest:
    """The digest of the names of messages in their order, added one by one."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, name: str) -> None:
        self._hash.update(name.encode() + b"\n")
        self.count += 1

    @property
    def value(self) -> str:
        return self._hash.hexdigest()


def _read_state(state: Mapping[str, Any]) -> tuple[int, str, int, tuple[set[int], set[int], set[int]]]:
    rejected, unknown, pending = (
        {position for first, last in state[name] for position in range(int(first), int(last) + 1)}
        for name in ("rejected", "unknown", "pending")
    )
    return int(state["done"]), str(state["digest"]), int(state["replayed"]), (rejected, unknown, pending)


def _ranges(positions: Iterable[int]) -> list[list[int]]:
    """Return positions as ranges, both ends included."""
    ranges: list[list[int]] = []
    for position in sorted(positions):
        if ranges and ranges[-1][1] == position - 1:
            ranges[-1][1] = position
        else:
            ranges.append([position, position])
    return ranges


def _merged(ranges: list[list[int]]) -> list[list[int]]:
    """Close the smallest gaps until the ranges are few enough."""
    if len(ranges) <= MAX_RANGES:
        return ranges
    gaps = sorted(range(1, len(ranges)), key=lambda index: ranges[index][0] - ranges[index - 1][1])
    closed = set(gaps[: len(ranges) - MAX_RANGES])
    merged = [ranges[0]]
    for index in range(1, len(ranges)):
        if index in closed:
            merged[-1] = [merged[-1][0], ranges[index][1]]
        else:
            merged.append(ranges[index])
    return merged
