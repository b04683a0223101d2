"""What a search of the inbox finds: words, and fields such as ``to:ada`` or ``state:bounced``.

Bodies are searched by an index (SQLite's FTS5): by whole words and their beginnings. A SQLite without FTS5 reads all
bodies instead, and finds parts of words in them too.
"""

from __future__ import annotations

import re
import sqlite3
from html import unescape
from typing import Any, Final

from airflow_provider_fluxomail.sandbox.store.schema import transaction

MAX_SEARCH: Final = 256
"""Characters of a search; further ones are ignored."""

_MAX_INDEXED: Final = 200_000
"""Characters of the text and of the HTML of a message that are indexed."""

_TERM: Final = re.compile(r'(?:(?P<field>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)(?:"|$)|(?P<word>\S+))')
_PART: Final = "{} LIKE ? ESCAPE '\\'"
# Key and files are not in the first page of a row: the inner queries read their own index or table alone.
_KEY: Final = "number IN (SELECT number FROM sends WHERE idempotency_key LIKE ? ESCAPE '\\')"
_FILE: Final = "number IN (SELECT send FROM attachments WHERE filename LIKE ? ESCAPE '\\')"
_STATE: Final = (
    "(SELECT type FROM events WHERE send = sends.number AND at_ms <= ? ORDER BY at_ms DESC, number DESC LIMIT 1) = ?"
)
_BODY: Final = "body"
_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "to": (_PART.format("recipient"), _PART.format("cc"), _PART.format("bcc")),
    "subject": (_PART.format("subject"),),
    "id": (_PART.format("send_id"), _PART.format("message_id")),
    "key": (_KEY,),
    "file": (_FILE,),
    _BODY: (),
}
"""The conditions of a field, one of which must hold; each has one parameter."""

FIELDS: Final = (*_FIELDS, "state")
"""The names before a colon."""


class Search:
    """The conditions of searches, and the index of the bodies.

    :param indexed: whether to use FTS5; default if SQLite has it.
    """

    def __init__(self, db: sqlite3.Connection, *, indexed: bool | None = None) -> None:
        self._db = db
        self.indexed = _has_fts5(db) if indexed is None else indexed
        if self.indexed:
            self._open_index()

    def _open_index(self) -> None:
        with transaction(self._db):
            self._db.execute(
                "CREATE VIRTUAL TABLE IF NOT EXISTS bodies USING fts5(text, tokenize = 'unicode61 remove_diacritics 2')"
            )
            # What another SQLite, or an earlier version, did to the file without the index.
            self._db.execute("DELETE FROM bodies WHERE rowid NOT IN (SELECT number FROM sends)")
            missing = "SELECT number, content, html FROM sends WHERE number NOT IN (SELECT rowid FROM bodies)"
            for number, content, html in self._db.execute(missing).fetchall():
                self._insert(number, content, html)
            # Temporary: in the file, it would keep a SQLite without FTS5 from deleting messages.
            self._db.execute(
                "CREATE TEMP TRIGGER forget_body AFTER DELETE ON main.sends BEGIN"
                " DELETE FROM bodies WHERE rowid = old.number; END"
            )

    def add(self, number: int, content: str, html: str | None) -> None:
        """Index the body of a new message, inside a transaction of the caller."""
        if self.indexed:
            self._insert(number, content, html)

    def condition(self, text: str, now_ms: int) -> tuple[str, list[Any]]:
        """The condition on a row of ``sends``, and its values. Each term must be found.

        :param text: the search; the case of ASCII letters is ignored.
        :param now_ms: a state is that of this moment, ms since the epoch.
        """
        conditions, values = ["1"], []
        for match in _TERM.finditer(text[:MAX_SEARCH]):
            field, value = match["field"] or "", match["quoted"] if match["word"] is None else match["word"]
            name = field.lower()
            if name not in FIELDS:
                # A colon of the word itself, as in an idempotency key.
                name, value = "", f"{field}:{value}" if field else value
            if not value:
                continue
            if name == "state":
                conditions.append(_STATE)
                values += [now_ms, value.lower()]
                continue
            parts = list(_FIELDS[name] if name else (part for parts in _FIELDS.values() for part in parts))
            found: list[Any] = [_like(value)] * len(parts)
            if name in ("", _BODY):
                condition, wanted = self._in_body(value)
                parts.append(condition)
                found += wanted
            conditions.append(f"({' OR '.join(parts)})")
            values += found
        return " AND ".join(conditions), values

    def _in_body(self, value: str) -> tuple[str, list[Any]]:
        if not self.indexed:
            return f"{_PART.format('content')} OR {_PART.format('html')}", [_like(value)] * 2
        phrase = value.replace('"', '""')
        return "number IN (SELECT rowid FROM bodies WHERE bodies MATCH ?)", [f'"{phrase}" *']

    def _insert(self, number: int, content: str, html: str | None) -> None:
        text = content[:_MAX_INDEXED]
        if html:
            text += "\n" + text_of(html[:_MAX_INDEXED])
        self._db.execute("INSERT INTO bodies (rowid, text) VALUES (?, ?)", (number, text))


def text_of(html: str) -> str:
    """The words of an HTML document, in time that grows with its length only. Not exact, and never shown."""
    first, *pieces = html.split("<")
    texts, hidden = [first], ""
    for piece in pieces:
        tag, closed, text = piece.partition(">")
        name = re.match(r"/?[a-z]*", tag[:20].lower())
        name_text = name[0] if name else ""
        if hidden:
            if name_text != f"/{hidden}":
                continue
            hidden = ""
        elif name_text in ("style", "script"):
            hidden = name_text
            continue
        # Otherwise the sign was text, as in 1 < 2.
        texts.append(text if closed and (name_text or tag[:1] in ("!", "?")) else piece)
    return unescape(" ".join(texts))


def _like(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _has_fts5(db: sqlite3.Connection) -> bool:
    return any(row[0] == "ENABLE_FTS5" for row in db.execute("PRAGMA compile_options"))
