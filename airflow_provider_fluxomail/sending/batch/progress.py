"""What is known of a batch's messages: enough to go on after a retry or a deferral, and of a size that does not grow.

Positions instead of messages: all below one position have been asked for, but for a few that are listed. A digest of
the keys and recipients up to there tells whether the positions still mean the same messages.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from airflow_provider_fluxomail.client.errors import BatchCounts

Kind = Literal["sent", "replayed", "rejected", "unknown"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
#: Ranges of positions that one list of the state may hold. What does not fit is asked for again, which the same key
#: makes safe.
MAX_RANGES: Final = 400


class Ledger:
    """Keeps account of each message of one task.

    :param state: what :meth:`state` said earlier.
    :param same_try: whether that was in the same try of the task. A new try asks again for what was rejected: the cause
        may be mended.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, *, same_try: bool = False) -> None:
        read = _State.read(state or {})
        #: Whether what is known comes from the same try.
        self.same_try = same_try
        self._digest = RowDigest()
        self._known = self._visited = read.done
        self._known_digest = read.digest
        self._replayed = read.replayed
        self._pending = set(read.pending)
        self._rejected: set[int] = set()
        self._unknown: set[int] = set()
        if same_try:
            self._rejected, self._unknown = set(read.rejected), set(read.unknown)
        else:
            self._pending.update(read.rejected, read.unknown)
        self._again = frozenset(self._pending)

    @property
    def known(self) -> int:
        """The position below which messages were asked for earlier."""
        return self._known

    @property
    def known_digest(self) -> str:
        """The digest of the messages below it."""
        return self._known_digest

    def wanted(self, position: int, name: str) -> bool:
        """Take in the next message; return whether it must be asked for.

        :param position: counted from 0, each once and in order.
        :param name: tells the message from every other one.
        """
        self._digest.add(name)
        if position < self._known:
            return position in self._again
        self._visited = position + 1
        self._pending.add(position)
        return True

    def settle(self, position: int, kind: Kind) -> None:
        """Note what became of a message."""
        self._pending.discard(position)
        if kind == "replayed":
            self._replayed += 1
        elif kind == "rejected":
            self._rejected.add(position)
        elif kind == "unknown":
            self._unknown.add(position)

    def counts(self, total: int) -> BatchCounts:
        """Count what became of the messages."""
        rejected, unknown = len(self._rejected), len(self._unknown)
        good = self._visited - len(self._pending) - rejected - unknown
        # What did not fit into the state and was asked for again was counted as replayed before, perhaps.
        replayed = min(self._replayed, good)
        return BatchCounts(total=total, sent=good - replayed, replayed=replayed, rejected=rejected, unknown=unknown)

    def state(self) -> dict[str, Any]:
        """Return what a later :class:`Ledger` needs, as JSON of at most some 20 KB."""
        rejected, pending = _ranges(self._rejected), set(self._pending)
        unknown = _ranges(self._unknown)
        for kept in (rejected, unknown):
            for first, last in kept[MAX_RANGES:]:
                pending.update(range(first, last + 1))
            del kept[MAX_RANGES:]
        return {
            "done": self._visited,
            # Before the messages that are known have gone by again, their digest is still the one of then.
            "digest": self._digest.value if self._digest.count >= self._visited else self._known_digest,
            "replayed": self._replayed,
            "rejected": rejected,
            "unknown": unknown,
            "pending": _merged(_ranges(pending)),
        }


class RowDigest:
    """The digest of the names of messages in their order, taken in one by one."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, name: str) -> None:
        """Take in the next one."""
        self._hash.update(name.encode() + b"\n")
        self.count += 1

    @property
    def value(self) -> str:
        """The digest so far, in hex."""
        return self._hash.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _State:
    done: int = 0
    digest: str = ""
    replayed: int = 0
    rejected: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()
    pending: frozenset[int] = frozenset()

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> _State:
        """Read a state; one that is not ours is as good as none, as the same keys may be asked for again."""
        try:
            lists = {
                name: frozenset(
                    position for first, last in value[name] for position in range(int(first), int(last) + 1)
                )
                for name in ("rejected", "unknown", "pending")
            }
            return cls(done=int(value["done"]), digest=str(value["digest"]), replayed=int(value["replayed"]), **lists)
        except (KeyError, TypeError, ValueError):
            return cls()


def _ranges(positions: Iterable[int]) -> list[list[int]]:
    """Write positions as ranges, both ends included."""
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
