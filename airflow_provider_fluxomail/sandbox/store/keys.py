"""The API keys and the paused organizations in the store."""

from __future__ import annotations

import json
import sqlite3

from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoreFullError
from airflow_provider_fluxomail.sandbox.store.schema import scalar


class Keys:
    """All queries and changes of keys and pauses."""

    def __init__(self, db: sqlite3.Connection, bounds: Bounds) -> None:
        self._db = db
        self._bounds = bounds

    def put(self, key: ApiKey, *, at_start: bool = False) -> None:
        """Create or replace a key.

        :raises StoreFullError: the bound of keys is reached.
        """
        if not at_start and self.get(key.key) is None and self._full("keys"):
            raise StoreFullError(f"the sandbox keeps at most {self._bounds.keys} keys: reset it")
        scopes = None if key.scopes is None else json.dumps(key.scopes)
        self._db.execute(
            "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?)",
            (key.key, key.organization, scopes, key.cap, int(at_start), key.expires_ms),
        )

    def put_start_key(self, key: ApiKey) -> None:
        """Make a key the start key, in place of the one of an earlier start.

        A key that was replaced over the control API stays as it is.
        """
        self._db.execute("DELETE FROM keys WHERE at_start")
        if self.get(key.key) is None:
            self.put(key, at_start=True)

    def get(self, key: str) -> ApiKey | None:
        row = self._db.execute(
            "SELECT organization, scopes, cap, expires_ms FROM keys WHERE key = ?", (key,)
        ).fetchone()
        if row is None:
            return None
        return ApiKey(key, row[0], None if row[1] is None else tuple(json.loads(row[1])), row[2], row[3])

    def drop_expired(self, now_ms: int) -> None:
        self._db.execute("DELETE FROM keys WHERE expires_ms <= ?", (now_ms,))

    def delete(self, key: str) -> bool:
        """Revoke a key; return whether it existed."""
        return self._db.execute("DELETE FROM keys WHERE key = ?", (key,)).rowcount > 0

    def pause(self, organization: str, *, paused: bool) -> None:
        """Pause or resume an organization.

        :raises StoreFullError: the bound of paused organizations is reached.
        """
        if not paused:
            self._db.execute("DELETE FROM paused WHERE organization = ?", (organization,))
        elif self._full("paused"):
            raise StoreFullError(f"the sandbox keeps at most {self._bounds.keys} paused organizations: reset it")
        else:
            self._db.execute("INSERT OR IGNORE INTO paused VALUES (?)", (organization,))

    def is_paused(self, organization: str) -> bool:
        return self._db.execute("SELECT 1 FROM paused WHERE organization = ?", (organization,)).fetchone() is not None

    def _full(self, table: str) -> bool:
        return int(scalar(self._db, f"SELECT count(*) FROM {table}")) >= self._bounds.keys  # noqa: S608  two names
