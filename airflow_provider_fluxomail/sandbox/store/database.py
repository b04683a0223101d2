"""Messages, events, idempotency records, keys and pauses in SQLite: in memory, or in a file that survives ``kill -9``.

One connection, used by the server's event loop only, so the reads and writes of two requests cannot interleave.
Every change is one transaction that ends before the response is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from os import PathLike
from typing import Final

from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.message import Message
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.store.contacts import Contacts
from airflow_provider_fluxomail.sandbox.store.deliveries import Deliveries
from airflow_provider_fluxomail.sandbox.store.event_log import EventLog
from airflow_provider_fluxomail.sandbox.store.keys import Keys
from airflow_provider_fluxomail.sandbox.store.mailbox import Mailbox
from airflow_provider_fluxomail.sandbox.store.records import (
    Delivery,
    StoredAttachment,
    StoredSend,
    StoreFullError,
)
from airflow_provider_fluxomail.sandbox.store.schema import open_database, scalar, transaction
from airflow_provider_fluxomail.sandbox.store.search import Search
from airflow_provider_fluxomail.sandbox.store.suppressions import Suppressions

_TABLES: Final = (
    *("contacts", "contact_events", "contact_syncs"),
    *("idempotency", "events", "attachments", "deliveries", "sends"),
    *("suppressions", "keys", "paused", "meta"),
)
_JSON_COLUMNS: Final = ("cc", "bcc", "extra")
_COLUMNS: Final = [field.name for field in fields(StoredSend)]
_SELECT_SEND: Final = f"SELECT {', '.join(_COLUMNS)} FROM sends WHERE "  # noqa: S608  constants
_WRITTEN: Final = [*_COLUMNS[1:], "size"]
_INSERT_SEND: Final = f"INSERT INTO sends ({', '.join(_WRITTEN)}) VALUES (:{', :'.join(_WRITTEN)})"  # noqa: S608  constants


class Store:
    """The sandbox's database.

    :param path: a file, or None for memory.
    :raises StoreError: the file cannot be opened or written, is not a SQLite file, or another sandbox uses it.
    """

    def __init__(self, path: str | PathLike[str] | None, bounds: Bounds) -> None:
        self._bounds = bounds
        self._db = open_database(path)
        self._count, self._bytes = self._totals()
        self.event_log = EventLog(self._db)
        self._search = Search(self._db)
        self.mailbox = Mailbox(self._db, self._search)
        self.keys = Keys(self._db, bounds)
        self.deliveries = Deliveries(self._db)
        self.suppressions = Suppressions(self._db, bounds)
        self.contacts = Contacts(self._db, bounds)

    def close(self) -> None:
        self._db.close()

    def clock_offset(self) -> float:
        """Seconds by which the clock was moved, so that a restart does not set it back."""
        return float(scalar(self._db, "SELECT value FROM meta WHERE name = 'clock_offset'") or 0.0)

    def put_clock_offset(self, offset: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('clock_offset', ?)", (offset,))

    def clear(self) -> None:
        with transaction(self._db):
            for table in _TABLES:
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608  constants
        self._count = self._bytes = 0

    def transaction(self) -> AbstractContextManager[None]:
        """Commit what the block changes, all or nothing."""
        return transaction(self._db)

    # Messages

    def add_send(
        self,
        message: Message,
        *,
        send_id: str,
        message_id: str,
        organization: str,
        endpoint: str,
        created_ms: int,
        events: Sequence[PlannedEvent],
        delivery: Delivery | None = None,
    ) -> None:
        """Store a message with its planned events and its idempotency record, all or nothing.

        The oldest messages are dropped if a bound is reached; this one always fits.

        :param delivery: what the recipient gets; default the message as it is.
        """
        row = vars(message) | {
            "send_id": send_id,
            "message_id": message_id,
            "organization": organization,
            "endpoint": endpoint,
            "created_ms": created_ms,
            "size": message.size + (0 if delivery is None else delivery.size),
        }
        row |= {name: json.dumps(row[name]) for name in _JSON_COLUMNS}
        with transaction(self._db):
            number = self._db.execute(_INSERT_SEND, row).lastrowid
            assert number is not None
            self._search.add(number, message.content, message.html)
            for event in events:
                self.event_log.insert(number, event.type, event.at_ms, json.dumps(event.data))
                self.suppressions.note(organization, message.address, event)
            if delivery is not None:
                self.deliveries.insert(number, delivery)
            for position, item in enumerate(message.attachments):
                self._db.execute(
                    "INSERT INTO attachments VALUES (?, ?, ?, ?, ?, ?)",
                    (number, position, item.filename, item.content_type, item.sha256, item.content),
                )
            if message.idempotency_key is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?)",
                    (organization, message.idempotency_key, number, created_ms),
                )
            count, size = self._make_room(self._count + 1, self._bytes + row["size"])
        self._count, self._bytes = count, size

    def _make_room(self, count: int, size: int) -> tuple[int, int]:
        """Drop the oldest messages until the bounds hold; the newest always stays."""
        while count > 1 and (count > self._bounds.messages or size > self._bounds.message_bytes):
            number, freed = self._db.execute("SELECT number, size FROM sends ORDER BY number LIMIT 1").fetchone()
            self._db.execute("DELETE FROM sends WHERE number = ?", (number,))
            count, size = count - 1, size - int(freed)
        return count, size

    def delete_send(self, send: StoredSend) -> None:
        """Delete a message, with its events and its idempotency record."""
        with transaction(self._db):
            self._db.execute("DELETE FROM sends WHERE number = ?", (send.number,))
            count, size = self._totals()
        self._count, self._bytes = count, size

    def delete_found(self, search: str, now_ms: int, up_to: int) -> int:
        """Delete the messages that a search of the inbox finds, up to the one with a number.

        :return: how many.
        """
        before = self._count
        with transaction(self._db):
            self.mailbox.delete(search, now_ms, up_to)
            count, size = self._totals()
        self._count, self._bytes = count, size
        return before - count

    def _totals(self) -> tuple[int, int]:
        row = self._db.execute("SELECT count(*), coalesce(sum(size), 0) FROM sends").fetchone()
        return int(row[0]), int(row[1])

    def get_send(self, send_id: str) -> StoredSend | None:
        return next(self._sends("send_id = ?", send_id), None)

    def find_idempotent(self, organization: str, key: str, since_ms: int) -> StoredSend | None:
        """The send of an idempotency key, unless it was sent at ``since_ms`` or before."""
        where = "number = (SELECT send FROM idempotency WHERE organization = ? AND key = ? AND created_ms > ?)"
        return next(self._sends(where, organization, key, since_ms), None)

    def find_sends(
        self, *, to: str | None, idempotency_key: str | None, limit: int, offset: int
    ) -> tuple[int, list[StoredSend]]:
        """Sends by recipient (the bare address or ``to`` as it was sent) and key, oldest first.

        :return: how many match, and those from ``offset`` on.
        """
        where, values = ["1"], []
        if to is not None:
            where.append("(address = ? OR recipient = ?)")
            values += [to, to]
        if idempotency_key is not None:
            where.append("idempotency_key = ?")
            values.append(idempotency_key)
        condition = " AND ".join(where)
        count = scalar(self._db, f"SELECT count(*) FROM sends WHERE {condition}", *values)  # noqa: S608  fixed texts
        return count, list(self._sends(f"{condition} ORDER BY number LIMIT ? OFFSET ?", *values, limit, offset))

    def attachments(self, send: StoredSend) -> list[StoredAttachment]:
        rows = self._db.execute(
            "SELECT filename, content_type, length(content), sha256 FROM attachments WHERE send = ? ORDER BY position",
            (send.number,),
        )
        return [StoredAttachment(filename=row[0], content_type=row[1], size=row[2], sha256=row[3]) for row in rows]

    def attachment_beginnings(self, send: StoredSend, length: int) -> list[bytes]:
        """The first bytes of each attachment."""
        query = "SELECT substr(content, 1, ?) FROM attachments WHERE send = ? ORDER BY position"
        # Of an empty blob, SQLite makes an empty text.
        return [row[0] or b"" for row in self._db.execute(query, (length, send.number))]

    def attachment_content(self, send: StoredSend, position: int) -> bytes | None:
        """The decoded bytes of an attachment, or None."""
        query = "SELECT content FROM attachments WHERE send = ? AND position = ?"
        content: bytes | None = scalar(self._db, query, send.number, position)
        return content

    def _sends(self, where: str, *values: object) -> Iterator[StoredSend]:
        """The sends of a condition; the caller has read them all before anything is changed."""
        for row in self._db.execute(_SELECT_SEND + where, values):
            columns = dict(zip(_COLUMNS, row, strict=True))
            yield StoredSend(**columns | {name: json.loads(columns[name]) for name in _JSON_COLUMNS})

    # Events

    def add_event(self, send: StoredSend, event: PlannedEvent) -> None:
        """Add an event to a send's timeline.

        :raises StoreFullError: the bound of events of one message is reached.
        """
        if self.event_log.count(send) >= self._bounds.events:
            raise StoreFullError(f"a message keeps at most {self._bounds.events} events")
        data = json.dumps(event.data)
        with transaction(self._db):
            self.event_log.insert(send.number, event.type, event.at_ms, data)
            self.suppressions.note(send.organization, send.address, event)
            self._db.execute("UPDATE sends SET size = size + ? WHERE number = ?", (len(data), send.number))
            count, size = self._make_room(self._count, self._bytes + len(data))
        self._count, self._bytes = count, size
