"""Addresses that get no more email, by organization: after a bounce, a complaint or an unsubscribe.

An address is unsubscribed if it is in this list for that reason, however it came there: by the link of a message, its
preferences or a sync of contacts.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.outcomes import UNSUBSCRIBED, PlannedEvent, suppresses
from airflow_provider_fluxomail.sandbox.store.schema import scalar


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that gets no more email."""

    organization: str
    address: Annotated[str, Field(description="Bare, in lower case: the case of its letters is ignored.")]
    reason: Annotated[str, Field(description="`bounced`, `complained` or `unsubscribed`.")]
    since_ms: Annotated[int, Field(description="Milliseconds since the epoch.")]


class Suppressions:
    """All queries and changes of the suppression list."""

    def __init__(self, db: sqlite3.Connection, bounds: Bounds) -> None:
        self._db = db
        self._bounds = bounds

    def note(self, organization: str, address: str, event: PlannedEvent) -> None:
        """Suppress the recipient of an event from its time on, if it is one that suppresses."""
        if suppresses(event, address):
            self.add(organization, address, event.type, event.at_ms)

    def add(self, organization: str, address: str, reason: str, at_ms: int) -> None:
        """Suppress an address from a time on."""
        self._db.execute(
            "INSERT INTO suppressions VALUES (?, ?, ?, ?) "
            "ON CONFLICT (organization, address, reason) DO UPDATE SET since_ms = min(since_ms, excluded.since_ms)",
            (organization, address.lower(), reason, at_ms),
        )
        newest = "(SELECT max(rowid) FROM suppressions)"
        most = self._bounds.messages + self._bounds.contacts
        self._db.execute(f"DELETE FROM suppressions WHERE rowid <= {newest} - ?", (most,))  # noqa: S608

    def reason(self, organization: str, address: str, now_ms: int) -> str | None:
        """Why an address gets no more email: the first reason; None if it gets email."""
        query = (
            "SELECT reason FROM suppressions WHERE organization = ? AND address = ? AND since_ms <= ? "
            "ORDER BY since_ms LIMIT 1"
        )
        found: str | None = scalar(self._db, query, organization, address.lower(), now_ms)
        return found

    def is_unsubscribed(self, organization: str, address: str, now_ms: int) -> bool:
        """Whether an address has unsubscribed from all email."""
        query = "SELECT 1 FROM suppressions WHERE organization = ? AND address = ? AND reason = ? AND since_ms <= ?"
        return scalar(self._db, query, organization, address.lower(), UNSUBSCRIBED, now_ms) is not None

    def set_unsubscribed(self, organization: str, address: str, unsubscribed: bool, now_ms: int) -> None:
        """Unsubscribe an address from all email, or subscribe it again."""
        if unsubscribed:
            self.add(organization, address, UNSUBSCRIBED, now_ms)
        else:
            self.lift(organization, address, UNSUBSCRIBED)

    def all(self, now_ms: int) -> list[Suppression]:
        rows = self._db.execute("SELECT * FROM suppressions WHERE since_ms <= ? ORDER BY since_ms, rowid", (now_ms,))
        return [Suppression(*row) for row in rows]

    def lift(self, organization: str, address: str, reason: str | None = None) -> int:
        """Let an address get email again.

        :param reason: lift this one only.
        :return: the number of reasons that were lifted.
        """
        query = "DELETE FROM suppressions WHERE organization = ? AND address = ? AND reason = coalesce(?, reason)"
        return self._db.execute(query, (organization, address.lower(), reason)).rowcount
