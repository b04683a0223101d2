"""The messages as the inbox lists them: newest first, searched, in pages.

SQLite does all of it, on narrow columns: with 60,000 messages a page takes a few ms, a search some tens of ms.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_fluxomail.sandbox.store.records import StoredSend
from airflow_provider_fluxomail.sandbox.store.schema import scalar

MAX_SEARCH: Final = 256
"""Characters of a search; further ones are ignored."""

# A subject has no length limit of its own: a list shows only its beginning.
_COLUMNS: Final = (
    "send_id, substr(recipient, 1, 320), substr(subject, 1, 300), substr(content, 1, 200), endpoint, created_ms,"
    " (SELECT count(*) FROM attachments WHERE send = sends.number),"
    " (SELECT type FROM events WHERE send = sends.number AND at_ms <= ? ORDER BY at_ms DESC, number DESC LIMIT 1)"
)
# The key lies behind the bodies in a row, but in its index too: the inner query reads nothing else.
_FOUND: Final = (
    "recipient LIKE ? ESCAPE '\\' OR subject LIKE ? ESCAPE '\\' OR send_id LIKE ? ESCAPE '\\' OR message_id LIKE ?"
    " ESCAPE '\\' OR number IN (SELECT number FROM sends WHERE idempotency_key LIKE ? ESCAPE '\\')"
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
    created_ms: int
    attachments: int
    state: str | None


class Mailbox:
    """The queries of the inbox."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def count(self, search: str) -> int:
        condition, values = _condition(search)
        return int(scalar(self._db, f"SELECT count(*) FROM sends WHERE {condition}", *values))  # noqa: S608  fixed texts

    def page(self, search: str, *, now_ms: int, limit: int, offset: int) -> list[Listed]:
        """Messages that a search finds, newest first.

        :param search: a part of the recipient, the subject, the send or message id, or the idempotency key; the case
            of ASCII letters is ignored.
        :param now_ms: the state is that of this moment, ms since the epoch.
        """
        condition, values = _condition(search)
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM sends WHERE {condition} ORDER BY number DESC LIMIT ? OFFSET ?",  # noqa: S608
            (now_ms, *values, limit, offset),
        )
        return [Listed(*row) for row in rows]

    def neighbours(self, send: StoredSend) -> tuple[str | None, str | None]:
        newer = "SELECT send_id FROM sends WHERE number > ? ORDER BY number LIMIT 1"
        older = "SELECT send_id FROM sends WHERE number < ? ORDER BY number DESC LIMIT 1"
        return scalar(self._db, newer, send.number), scalar(self._db, older, send.number)

    def same_key(self, send: StoredSend) -> int:
        """The number of messages with the organization and idempotency key of a send, itself included."""
        query = "SELECT count(*) FROM sends WHERE idempotency_key = ? AND organization = ?"
        return int(scalar(self._db, query, send.idempotency_key, send.organization))


def _condition(search: str) -> tuple[str, list[Any]]:
    if not search:
        return "1", []
    escaped = search[:MAX_SEARCH].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"({_FOUND})", [f"%{escaped}%"] * _FOUND.count("?")
