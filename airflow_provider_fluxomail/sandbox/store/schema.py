"""The tables of the store, and how its file is opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from airflow_provider_fluxomail.sandbox.store.records import StoreError

_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    key TEXT PRIMARY KEY, organization TEXT NOT NULL, scopes TEXT, cap INTEGER, at_start INTEGER NOT NULL,
    expires_ms INTEGER
);
CREATE TABLE IF NOT EXISTS paused (organization TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS contacts (
    contact_id TEXT PRIMARY KEY, organization TEXT NOT NULL, email TEXT NOT NULL, token TEXT NOT NULL UNIQUE,
    deleted INTEGER NOT NULL, source_ms INTEGER, subscriptions TEXT NOT NULL,
    fields TEXT NOT NULL, UNIQUE (organization, email)
);
CREATE TABLE IF NOT EXISTS contact_events (
    organization TEXT NOT NULL, event_id TEXT NOT NULL, PRIMARY KEY (organization, event_id)
);
CREATE TABLE IF NOT EXISTS contact_syncs (
    organization TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL, result TEXT NOT NULL,
    created_ms INTEGER NOT NULL, PRIMARY KEY (organization, key)
);
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
CREATE TABLE IF NOT EXISTS deliveries (
    send INTEGER PRIMARY KEY REFERENCES sends ON DELETE CASCADE, html TEXT, links TEXT NOT NULL, unsubscribe_url TEXT
);
CREATE TABLE IF NOT EXISTS suppressions (
    organization TEXT NOT NULL, address TEXT NOT NULL COLLATE NOCASE, reason TEXT NOT NULL, since_ms INTEGER NOT NULL,
    PRIMARY KEY (organization, address, reason)
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value REAL NOT NULL);
"""


def open_database(path: str | PathLike[str] | None) -> sqlite3.Connection:
    """Open a file, or memory, with all tables.

    The thread that starts the server opens it, then only the server's thread uses it.

    :raises StoreError: the file cannot be opened or written, is not a SQLite file, or another sandbox uses it.
    """
    name = ":memory:" if path is None else Path(path)
    db = None
    try:
        db = sqlite3.connect(name, isolation_level=None, check_same_thread=False, timeout=0.5)
        _prepare(db, on_disk=path is not None)
    except (sqlite3.Error, StoreError) as error:
        if db is not None:
            db.close()
        if isinstance(error, StoreError):
            raise
        if "locked" in str(error):
            raise StoreError(f"the data file {path} is in use by another sandbox") from error
        raise StoreError(f"cannot use the data file {path}: {error}") from error
    return db


def _prepare(db: sqlite3.Connection, *, on_disk: bool) -> None:
    if on_disk:
        # Held until the end: rate windows and faults live in one process, so two cannot share a file.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing that was committed; a machine that loses power may.
        db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA foreign_keys = ON")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, _SCHEMA_VERSION):
        raise StoreError(f"the data file has format {version}, this sandbox uses {_SCHEMA_VERSION}: use another file")
    if version == 0 and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise StoreError("the data file is a SQLite file of another program: use another file")
    with transaction(db):
        for statement in _SCHEMA.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
    # Fails here, and not in the first request, if a table of the file has other columns.
    db.execute("SELECT count(*), sum(size) FROM sends")


def scalar(db: sqlite3.Connection, query: str, *values: object) -> Any:
    """The first column of the first row; None if there is no row."""
    row = db.execute(query, values).fetchone()
    return None if row is None else row[0]


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block changes; after an exception, roll it back."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
