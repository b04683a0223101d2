"""The events in the store: of one message, in pages from the newest, and from a stream's cursor onwards.

Every query over all events walks an index and stops at its limit, so a page costs the same with 20 messages and
with 20,000, unless its filter matches hardly any event.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from airflow_provider_fluxomail.sandbox.store.records import Position, StoredEvent, StoredSend
from airflow_provider_fluxomail.sandbox.store.schema import scalar

LAST: Final = 2**63 - 1
"""A number above those of all events."""

_COLUMNS = "events.number, send_id, message_id, organization, address, type, at_ms, data"
# CROSS JOIN makes SQLite read the events first, in the order of their index, instead of sorting all of them.
_SELECT = f"SELECT {_COLUMNS} FROM events CROSS JOIN sends ON sends.number = send WHERE "  # noqa: S608  a constant


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to read.

    :param types: globs of SQLite, one of which must match ``email.<type>``; if there are none, every type matches.
    :param domain: the domain of the recipient; case is ignored.
    """

    organization: str
    types: tuple[str, ...] = ()
    domain: str | None = None
    smtp_code: str | None = None
    mta_host: str | None = None

    def condition(self) -> tuple[str, list[Any]]:
        # The + keeps SQLite from using another index than that of the order.
        conditions, values = ["+organization = ?"], [self.organization]
        if self.types:
            globs = " OR ".join(["'email.' || type GLOB ?"] * len(self.types))
            conditions.append(f"({globs})")
            values += self.types
        if self.domain is not None:
            suffix = f"@{self.domain}"
            conditions.append("substr(address, -length(?)) = ? COLLATE NOCASE")
            values += [suffix, suffix]
        for name, wanted in (("smtpCode", self.smtp_code), ("mtaHost", self.mta_host)):
            if wanted is not None:
                conditions.append(f"CAST(json_extract(data, '$.{name}') AS TEXT) = ?")
                values.append(wanted)
        return " AND ".join(conditions), values


class Cursor(NamedTuple):
    """The position of a stream in the log.

    It has sent every event up to ``position`` that was among the first ``seen`` that were stored, and no other.
    Events that were stored later but happened before the position are still to be sent.

    :param seen: a number of :class:`StoredEvent`.
    """

    position: Position
    seen: int


class Moment(NamedTuple):
    """A view of the log that no longer changes: events up to a time, of those that are stored.

    :param newest: number of the last event that was stored; 0 if there is none.
    """

    now_ms: int
    newest: int


class EventLog:
    """All queries and changes of the events."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def insert(self, send_number: int, kind: str, at_ms: int, data: str) -> None:
        """Add an event with its further fields as JSON, inside a transaction of the caller."""
        self._db.execute(
            "INSERT INTO events (send, type, at_ms, data) VALUES (?, ?, ?, ?)", (send_number, kind, at_ms, data)
        )

    def count(self, send: StoredSend, kind: str | None = None) -> int:
        """The number of events of a send, planned or past; of one type if it is given."""
        query = "SELECT count(*) FROM events WHERE send = ? AND type = coalesce(?, type)"
        return int(scalar(self._db, query, send.number, kind))

    def of_send(self, send: StoredSend, now_ms: int) -> list[StoredEvent]:
        return self._rows("send = ? AND at_ms <= ? ORDER BY at_ms, events.number", [send.number, now_ms])

    def totals(
        self, organization: str, since_ms: int, now_ms: int, limit: int
    ) -> tuple[int, dict[str, tuple[int, int]]]:
        """What has happened by now to the newest sends since a moment.

        :param limit: of the sends.
        :return: their number, and for each type the events and the sends that have one.
        """
        sends = "SELECT number FROM sends WHERE organization = ? AND created_ms >= ? ORDER BY number DESC LIMIT ?"
        chosen = (organization, since_ms, limit)
        count = int(scalar(self._db, f"SELECT count(*) FROM ({sends})", *chosen))  # noqa: S608  a constant
        rows = self._db.execute(
            "SELECT type, count(*), count(DISTINCT send) FROM events"  # noqa: S608  constants
            f" WHERE send IN ({sends}) AND at_ms <= ? GROUP BY type",
            (*chosen, now_ms),
        )
        return count, {kind: (events, messages) for kind, events, messages in rows}

    def page(
        self, wanted: EventFilter, *, before: Position | None, since_ms: int, now_ms: int, limit: int
    ) -> tuple[list[StoredEvent], bool]:
        """Events that have happened by now, newest first, and whether there are older ones.

        :param before: only events before it.
        :param since_ms: only events of this ms and later.
        """
        last = before or Position(now_ms, LAST)
        condition, values = wanted.condition()
        rows = self._rows(
            "at_ms >= ? AND at_ms <= ? AND (at_ms < ? OR events.number < ?) AND "
            f"{condition} ORDER BY at_ms DESC, events.number DESC LIMIT ?",
            [since_ms, min(last.at_ms, now_ms), last.at_ms, last.number, *values, limit + 1],
        )
        return rows[:limit], len(rows) > limit

    def after(
        self, cursor: Cursor, wanted: EventFilter, moment: Moment, limit: int, size: int
    ) -> tuple[list[StoredEvent], Cursor, bool]:
        """The events that a stream has not sent yet, oldest first.

        :param moment: what is stored or happens after it is left out, so that the result is always the same.
        :param size: stop once their data have this many characters.
        :return: the events, the cursor after them, and whether there may be more.
        """
        condition, values = wanted.condition()
        position, seen = cursor
        late: list[StoredEvent] = []
        if moment.newest > seen:
            # Stored since, with a time that is before the stream's position.
            late, full = self._some(
                # The + leaves the order of the numbers as the only index: these events are few.
                "events.number > ? AND events.number <= ? AND (+at_ms < ? OR (+at_ms = ? AND events.number <= ?)) AND "
                f"{condition} ORDER BY events.number LIMIT ?",
                [seen, moment.newest, position.at_ms, position.at_ms, position.number, *values, limit],
                size,
            )
            seen = late[-1].number if full else moment.newest
            late.sort(key=lambda event: event.position)
            if full:
                return late, Cursor(position, seen), True
        rows, full = self._some(
            "at_ms >= ? AND at_ms <= ? AND (at_ms > ? OR events.number > ?) AND +events.number <= ? AND "
            f"{condition} ORDER BY at_ms, events.number LIMIT ?",
            [position.at_ms, moment.now_ms, position.at_ms, position.number, moment.newest, *values, limit],
            size,
        )
        end = rows[-1].position if full else max(position, Position(moment.now_ms, moment.newest))
        return late + rows, Cursor(end, seen), full

    def find(self, organization: str, send_id: str, at_ms: int) -> Position | None:
        """The position of the first stored event with the id ``<send_id>:<at_ms>``, or None."""
        number = scalar(
            self._db,
            "SELECT min(events.number) FROM sends JOIN events ON send = sends.number"
            " WHERE send_id = ? AND organization = ? AND at_ms = ?",
            *(send_id, organization, at_ms),
        )
        return None if number is None else Position(at_ms, int(number))

    def newest(self) -> int:
        return int(scalar(self._db, "SELECT coalesce(max(number), 0) FROM events"))

    def next_after(self, at_ms: int) -> int | None:
        """When the next event after a moment happens, ms since the epoch; None if none is planned."""
        found: int | None = scalar(self._db, "SELECT min(at_ms) FROM events WHERE at_ms > ?", at_ms)
        return found

    def _rows(self, condition: str, values: list[Any]) -> list[StoredEvent]:
        return [_event(row) for row in self._db.execute(_SELECT + condition, values)]

    def _some(self, condition: str, values: list[Any], size: int) -> tuple[list[StoredEvent], bool]:
        """The first rows, until their data reach a size; whether there may be more, because a limit was reached.

        :param values: the last one is the limit of rows.
        """
        found: list[StoredEvent] = []
        cursor = self._db.execute(_SELECT + condition, values)
        for row in cursor:
            found.append(_event(row))
            size -= len(row[-1])
            if size <= 0:
                break
        cursor.close()
        return found, size <= 0 or len(found) >= values[-1]


def _event(row: tuple[Any, ...]) -> StoredEvent:
    return StoredEvent(*(*row[:-1], json.loads(row[-1])))
