"""Messages, events, idempotency records, keys and pauses in SQLite: in memory, or in a file that survives ``kill -9``.

One connection, used by the server's event loop only, so the reads and writes of two requests cannot interleave.
Every change is one transaction that ends before the response is sent.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.sandbox.store.errors import StoreError, StoreFullError
from airflow_provider_fluxomail.sandbox.store.event_log import EventLog
from airflow_provider_fluxomail.sandbox.store.keys import Keys
from airflow_provider_fluxomail.sandbox.store.mailbox import Mailbox
from airflow_provider_fluxomail.sandbox.store.records import StoredAttachment, StoredSend

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike

    from airflow_provider_fluxomail.sandbox.limits import Bounds
    from airflow_provider_fluxomail.sandbox.message import Message
    from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
    from airflow_provider_fluxomail.sandbox.store.records import StoredEvent

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, organization TEXT NOT NULL, scopes TEXT, cap INTEGER, at_start INTEGER NOT NULL,
    expires_ms INTEGER
);
CREATE TABLE IF NOT EXISTS paused (organization TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS sends (
    number INTEGER PRIMARY KEY AUTOINCREMENT, send_id TEXT NOT NULL UNIQUE, message_id TEXT NOT NULL,
    organization TEXT NOT NULL, endpoint TEXT NOT NULL, recipient TEXT NOT NULL COLLATE NOCASE,
    address TEXT NOT NULL COLLATE NOCASE, subject TEXT NOT NULL, content TEXT NOT NULL, html TEXT, cc TEXT NOT NULL,
    bcc TEXT NOT NULL, policy_key TEXT, idempotency_key TEXT, fingerprint TEXT NOT NULL, extra TEXT NOT NULL,
    created_ms INTEGER NOT NULL, size INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS sends_by_address ON sends (address);
CREATE INDEX IF NOT EXISTS sends_by_idempotency_key ON sends (idempotency_key);
CREATE TABLE IF NOT EXISTS attachments (
    send INTEGER NOT NULL REFERENCES sends ON DELETE CASCADE, position INTEGER NOT NULL, filename TEXT NOT NULL,
    content_type TEXT, sha256 TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (send, position)
);
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, send INTEGER NOT NULL REFERENCES sends ON DELETE CASCADE,
    type TEXT NOT NULL, at_ms INTEGER NOT NULL, data TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_send ON events (send, at_ms);
CREATE INDEX IF NOT EXISTS events_by_time ON events (at_ms);
CREATE TABLE IF NOT EXISTS idempotency (
    organization TEXT NOT NULL, key TEXT NOT NULL, send INTEGER NOT NULL REFERENCES sends ON DELETE CASCADE,
    created_ms INTEGER NOT NULL, PRIMARY KEY (organization, key)
);
CREATE INDEX IF NOT EXISTS idempotency_by_send ON idempotency (send);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value REAL NOT NULL);
"""


_SEND_COLUMNS = (
    "number, send_id, message_id, organization, endpoint, recipient, subject, content, html, cc, bcc, policy_key, "
    "idempotency_key, fingerprint, extra, created_ms"
)


class Store:
    """The sandbox's database.

    :param path: a file, or None for memory.
    :param bounds: what is kept at most.
    :raises StoreError: the file cannot be opened or written, is not a SQLite file, or another sandbox uses it.
    """

    def __init__(self, path: str | PathLike[str] | None, bounds: Bounds) -> None:
        self._bounds = bounds
        # Opened by the thread that starts the server, then used by the server's thread alone.
        try:
            self._db = sqlite3.connect(
                ":memory:" if path is None else Path(path), isolation_level=None, check_same_thread=False, timeout=0.5
            )
        except sqlite3.Error as error:
            raise StoreError(f"cannot open the data file {path}: {error}") from error
        try:
            self._open(on_disk=path is not None)
            row = self._db.execute("SELECT count(*), coalesce(sum(size), 0) FROM sends").fetchone()
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise StoreError(f"the data file {path} is in use by another sandbox") from error
            raise StoreError(f"cannot use the data file {path}: {error}") from error
        except StoreError:
            self._db.close()
            raise
        self._count, self._bytes = int(row[0]), int(row[1])
        self.event_log = EventLog(self._db)
        """The queries over the events of all messages."""
        self.mailbox = Mailbox(self._db)
        """The queries of the inbox."""
        self.keys = Keys(self._db, bounds)
        """API keys and paused organizations."""

    def _open(self, *, on_disk: bool) -> None:
        if on_disk:
            # Held until the end: rate windows and faults live in one process, so two cannot share a file.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            # A killed process loses nothing that was committed; a machine that loses power may.
            self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version not in (0, _SCHEMA_VERSION):
            raise StoreError(
                f"the data file has format {version}, this sandbox uses {_SCHEMA_VERSION}: use another file"
            )
        if version == 0 and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError("the data file is a SQLite file of another program: use another file")
        with self._transaction():
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def close(self) -> None:
        """Close the file. The store can't be used afterwards."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def clock_offset(self) -> float:
        """Seconds by which the clock was moved, so that a restart does not set it back."""
        row = self._db.execute("SELECT value FROM meta WHERE name = 'clock_offset'").fetchone()
        return 0.0 if row is None else float(row[0])

    def put_clock_offset(self, offset: float) -> None:
        """Store the offset of the clock, in seconds."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('clock_offset', ?)", (offset,))

    def clear(self) -> None:
        """Delete everything."""
        with self._transaction():
            for table in ("idempotency", "events", "attachments", "sends", "keys", "paused", "meta"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608  names from the line above
        self._count = self._bytes = 0

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
    ) -> None:
        """Store a message with its planned events and its idempotency record, all or nothing.

        The oldest messages are dropped if a bound is reached; this one always fits.
        """
        with self._transaction():
            number = self._db.execute(
                "INSERT INTO sends (send_id, message_id, organization, endpoint, recipient, address, subject, content,"
                " html, cc, bcc, policy_key, idempotency_key, fingerprint, extra, created_ms, size)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    send_id,
                    message_id,
                    organization,
                    endpoint,
                    message.to,
                    message.address,
                    message.subject,
                    message.content,
                    message.html,
                    json.dumps(message.cc),
                    json.dumps(message.bcc),
                    message.policy_key,
                    message.idempotency_key,
                    message.fingerprint,
                    json.dumps(message.extra),
                    created_ms,
                    message.size,
                ),
            ).lastrowid
            assert number is not None
            for event in events:
                self.event_log.insert(number, event.type, event.at_ms, json.dumps(event.data))
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
            count, size = self._make_room(self._count + 1, self._bytes + message.size)
        self._count, self._bytes = count, size

    def _make_room(self, count: int, size: int) -> tuple[int, int]:
        """Drop the oldest messages until the bounds hold; the newest always stays."""
        while count > 1 and (count > self._bounds.messages or size > self._bounds.message_bytes):
            number, freed = self._db.execute("SELECT number, size FROM sends ORDER BY number LIMIT 1").fetchone()
            self._db.execute("DELETE FROM sends WHERE number = ?", (number,))
            count, size = count - 1, size - int(freed)
        return count, size

    def get_send(self, send_id: str) -> StoredSend | None:
        """The send, or None."""
        row = self._db.execute(
            f"SELECT {_SEND_COLUMNS} FROM sends WHERE send_id = ?",  # noqa: S608  a constant
            (send_id,),
        ).fetchone()
        return None if row is None else _send(row)

    def find_idempotent(self, organization: str, key: str, since_ms: int) -> StoredSend | None:
        """The send of an idempotency key, unless it was sent at ``since_ms`` or before."""
        row = self._db.execute(
            f"SELECT {_SEND_COLUMNS} FROM sends WHERE number ="  # noqa: S608  a constant
            " (SELECT send FROM idempotency WHERE organization = ? AND key = ? AND created_ms > ?)",
            (organization, key, since_ms),
        ).fetchone()
        return None if row is None else _send(row)

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
        count = self._scalar(f"SELECT count(*) FROM sends WHERE {condition}", *values)  # noqa: S608  fixed texts
        rows = self._db.execute(
            f"SELECT {_SEND_COLUMNS} FROM sends WHERE {condition} ORDER BY number LIMIT ? OFFSET ?",  # noqa: S608
            (*values, limit, offset),
        )
        return count, [_send(row) for row in rows]

    def attachments(self, send: StoredSend) -> list[StoredAttachment]:
        """The attachments of a send, in their order, without content."""
        rows = self._db.execute(
            "SELECT filename, content_type, length(content), sha256 FROM attachments WHERE send = ? ORDER BY position",
            (send.number,),
        )
        return [StoredAttachment(filename=row[0], content_type=row[1], size=row[2], sha256=row[3]) for row in rows]

    def attachment_content(self, send: StoredSend, position: int) -> bytes | None:
        """The decoded bytes of an attachment, or None."""
        row = self._db.execute(
            "SELECT content FROM attachments WHERE send = ? AND position = ?", (send.number, position)
        ).fetchone()
        return None if row is None else bytes(row[0])

    # Events

    def add_event(self, send: StoredSend, event: PlannedEvent) -> None:
        """Add an event to a send's timeline.

        :raises StoreFullError: the bound of events of one message is reached.
        """
        if self.event_log.count(send) >= self._bounds.events:
            raise StoreFullError(f"a message keeps at most {self._bounds.events} events")
        data = json.dumps(event.data)
        with self._transaction():
            self.event_log.insert(send.number, event.type, event.at_ms, data)
            self._db.execute("UPDATE sends SET size = size + ? WHERE number = ?", (len(data), send.number))
            count, size = self._make_room(self._count, self._bytes + len(data))
        self._count, self._bytes = count, size

    def events(self, send: StoredSend, now_ms: int) -> list[StoredEvent]:
        """The events of a send that have happened by now, in the order of their time."""
        return self.event_log.of_send(send, now_ms)

    def has_event(self, send: StoredSend, kind: str) -> bool:
        """Whether a send has an event of a type, planned or past."""
        return self.event_log.count(send, kind) > 0

    def _scalar(self, query: str, *values: object) -> int:
        return int(self._db.execute(query, values).fetchone()[0])


def _send(row: tuple[Any, ...]) -> StoredSend:
    columns = dict(zip(_SEND_COLUMNS.split(", "), row, strict=True))
    for name in ("cc", "bcc"):
        columns[name] = tuple(json.loads(columns[name]))
    columns["extra"] = json.loads(columns["extra"])
    return StoredSend(**columns)
