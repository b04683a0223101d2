"""The messages as the inbox lists them: newest first, searched, in pages.

SQLite does all of it, on narrow columns and an index of the bodies: with 60,000 messages a page takes a few ms, a
search some tens of ms.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from airflow_provider_fluxomail.sandbox.store.records import StoredSend
from airflow_provider_fluxomail.sandbox.store.schema import scalar
from airflow_provider_fluxomail.sandbox.store.search import Search

# A subject has no length limit of its own: a list shows only its beginning.
_COLUMNS: Final = (
    "send_id, substr(recipient, 1, 320), substr(subject, 1, 300), substr(content, 1, 200), endpoint, idempotency_key,"
    " created_ms,"
    " (SELECT count(*) FROM attachments WHERE send = sends.number),"
    " (SELECT type FROM events WHERE send = sends.number AND at_ms <= ? ORDER BY at_ms DESC, number DESC LIMIT 1)"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """A message in the list; its texts are cut.

    :param preview: the beginning of its plain text.
    :param attachments: their number.
    :param state: type of the last event that has happened; None if none has.
    """

    send_id: str
    recipient: str
    subject: str
    preview: str
    endpoint: str
    idempotency_key: str | None
    created_ms: int
    attachments: int
    state: str | None


class Mailbox:
    """The queries of the inbox.

    A search is a text as in :meth:`Search.condition`, empty for all messages; ``now_ms`` is the moment of the states.
    """

    def __init__(self, db: sqlite3.Connection, search: Search) -> None:
        self._db = db
        self._search = search

    def count(self, search: str, now_ms: int) -> int:
        condition, values = self._search.condition(search, now_ms)
        return int(scalar(self._db, f"SELECT count(*) FROM sends WHERE {condition}", *values))  # noqa: S608  fixed texts

    def newest(self) -> int:
        """The number of the newest message, 0 without one."""
        return int(scalar(self._db, "SELECT max(number) FROM sends") or 0)

    def page(self, search: str, *, now_ms: int, limit: int, offset: int) -> list[Listed]:
        """Messages that a search finds, newest first."""
        condition, values = self._search.condition(search, now_ms)
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM sends WHERE {condition} ORDER BY number DESC LIMIT ? OFFSET ?",  # noqa: S608
            (now_ms, *values, limit, offset),
        )
        return [Listed(*row) for row in rows]

    def neighbours(self, send: StoredSend, search: str, now_ms: int) -> tuple[str | None, str | None]:
        """The send ids of the next newer and the next older message that a search finds."""
        condition, values = self._search.condition(search, now_ms)
        newer = f"SELECT send_id FROM sends WHERE {condition} AND number > ? ORDER BY number LIMIT 1"  # noqa: S608
        older = f"SELECT send_id FROM sends WHERE {condition} AND number < ? ORDER BY number DESC LIMIT 1"  # noqa: S608
        return scalar(self._db, newer, *values, send.number), scalar(self._db, older, *values, send.number)

    def newer(self, send: StoredSend, search: str, now_ms: int) -> int:
        """How many of the messages that a search finds are newer than a message."""
        condition, values = self._search.condition(search, now_ms)
        query = f"SELECT count(*) FROM sends WHERE {condition} AND number > ?"  # noqa: S608  fixed texts
        return int(scalar(self._db, query, *values, send.number))

    def delete(self, search: str, now_ms: int, up_to: int) -> None:
        """Delete what a search finds, up to the message with a number. :meth:`Store.delete_found` calls it."""
        condition, values = self._search.condition(search, now_ms)
        self._db.execute(f"DELETE FROM sends WHERE {condition} AND number <= ?", (*values, up_to))  # noqa: S608

    def same_key(self, send: StoredSend) -> int:
        """The number of messages with the organization and idempotency key of a send, itself included."""
        query = "SELECT count(*) FROM sends WHERE idempotency_key = ? AND organization = ?"
        return int(scalar(self._db, query, send.idempotency_key, send.organization))
