"""Addresses that get no more email, by organization: after a bounce, a complaint or an unsubscribe."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent, suppresses
from airflow_provider_fluxomail.sandbox.store.schema import scalar


@dataclass(frozen=True, slots=True)
class Suppression:
    """An address that gets no more email."""

    organization: str
    address: Annotated[str, Field(description="Bare; the case of its letters is ignored.")]
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
            "ON CONFLICT DO UPDATE SET since_ms = min(since_ms, excluded.since_ms)",
            (organization, address, reason, at_ms),
        )
        newest = "(SELECT max(rowid) FROM suppressions)"
        self._db.execute(f"DELETE FROM suppressions WHERE rowid <= {newest} - ?", (self._bounds.messages,))  # noqa: S608

    def reason(self, organization: str, address: str, now_ms: int) -> str | None:
        """Why an address gets no more email: the first reason; None if it gets email."""
        query = (
            "SELECT reason FROM suppressions WHERE organization = ? AND address = ? AND since_ms <= ? "
            "ORDER BY since_ms LIMIT 1"
        )
        found: str | None = scalar(self._db, query, organization, address, now_ms)
        return found

    def has(self, organization: str, address: str, reason: str) -> bool:
        query = "SELECT 1 FROM suppressions WHERE organization = ? AND address = ? AND reason = ?"
        return scalar(self._db, query, organization, address, reason) is not None

    def all(self, now_ms: int) -> list[Suppression]:
        rows = self._db.execute("SELECT * FROM suppressions WHERE since_ms <= ? ORDER BY since_ms, rowid", (now_ms,))
        return [Suppression(*row) for row in rows]

    def lift(self, organization: str, address: str, reason: str | None = None) -> int:
        """Let an address get email again.

        :param reason: lift this one only.
        :return: the number of reasons that were lifted.
        """
        query = "DELETE FROM suppressions WHERE organization = ? AND address = ? AND reason = coalesce(?, reason)"
        return self._db.execute(query, (organization, address, reason)).rowcount
