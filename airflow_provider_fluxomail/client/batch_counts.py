"""How many messages of a batch had which outcome."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """Number of messages in a batch, by outcome.

    :param total: all of them.
    :param replayed: sent before with the same key.
    :param unknown: may or may not have been sent.
    """

    total: int = 0
    sent: int = 0
    replayed: int = 0
    rejected: int = 0
    unknown: int = 0

    @property
    def settled(self) -> int:
        """Messages that have an outcome."""
        return self.sent + self.replayed + self.rejected + self.unknown
