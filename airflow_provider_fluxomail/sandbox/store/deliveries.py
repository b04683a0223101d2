"""What recipients got, by message, and the secret that signs the links in it."""

from __future__ import annotations

import json
import secrets
import sqlite3
from typing import Final

from airflow_provider_fluxomail.sandbox.store.records import Delivery, StoredSend
from airflow_provider_fluxomail.sandbox.store.schema import scalar

_SECRET_BYTES: Final = 32


class Deliveries:
    """The deliveries in the store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def insert(self, number: int, delivery: Delivery) -> None:
        """Add the delivery of a send, inside a transaction of the caller."""
        row = (number, delivery.html, json.dumps(delivery.links), delivery.unsubscribe_url)
        self._db.execute("INSERT INTO deliveries VALUES (?, ?, ?, ?)", row)

    def get(self, send: StoredSend) -> Delivery:
        """The delivery of a send. One from before the sandbox tracked anything was delivered as it is."""
        query = "SELECT html, links, unsubscribe_url FROM deliveries WHERE send = ?"
        row = self._db.execute(query, (send.number,)).fetchone()
        return Delivery(send.html) if row is None else Delivery(row[0], json.loads(row[1]), row[2])

    def link(self, send: StoredSend, number: int) -> str | None:
        """The URL of a tracked link, or None."""
        url: str | None = scalar(
            self._db, "SELECT json_extract(links, ?) FROM deliveries WHERE send = ?", f"$[{number}]", send.number
        )
        return url

    def secret(self) -> bytes:
        """The secret of the links. It is stored, so that they work after a restart."""
        query = "SELECT value FROM meta WHERE name = 'link_secret'"
        found: bytes | None = scalar(self._db, query)
        if found is None:
            found = secrets.token_bytes(_SECRET_BYTES)
            self._db.execute("INSERT INTO meta VALUES ('link_secret', ?)", (found,))
        return found
