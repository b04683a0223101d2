"""What is known about a batch's messages: enough to continue after a retry or a deferral, in a size that does not grow.

It holds positions, not messages: all below one position were requested, except for a few that are listed. A digest of
the keys and recipients up to there shows whether the positions still mean the same messages.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, get_args

from airflow_provider_fluxomail.client.errors import BatchCounts

Kind = Literal["sent", "replayed", "rejected", "unknown"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
#: Ranges of positions that one list of the state may hold. What does not fit is requested again, which is safe with the
#: same key.
MAX_RANGES: Final = 400


class Progress:
    """Tracks the outcome of each message of one task.

    :param state: an earlier result of :meth:`state`.
    :param same_try: whether it is from the same try of the task. A new try requests rejected messages again: the cause
        may have been fixed.
    """

    def __init__(self, state: Mapping[str, Any] | None = None, *, same_try: bool = False) -> None:
        read = _State.read(state or {})
        #: Whether the state is from the same try.
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
        """The position below which messages were requested earlier."""
        return self._known

    @property
    def known_digest(self) -> str:
        """The digest of the messages below it."""
        return self._known_digest

    def wants(self, position: int, name: str) -> bool:
        """Count the next message; return whether it must be requested.

        :param position: from 0, each once and in order.
        :param name: identifies the message.
        """
        self._digest.add(name)
        if position < self._known:
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
            "digest": self._digest.value if self._digest.count >= self._visited else self._known_digest,
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
        """Add the next name."""
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
        """Read a state; anything else counts as none, as requesting the same keys again is safe."""
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
