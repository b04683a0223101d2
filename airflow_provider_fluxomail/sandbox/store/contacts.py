"""The contacts of the organizations in the store: their fields, subscriptions, and which syncs of them were seen."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_fluxomail.sandbox.limits import Bounds
from airflow_provider_fluxomail.sandbox.store.schema import scalar

_COLUMNS = "contact_id, organization, email, token, deleted, source_ms, subscriptions, fields"


@dataclass(slots=True)
class Contact:
    """A contact of an organization. Whether it has unsubscribed from all email is in the list of suppressed addresses.

    :param email: the bare address in lower case.
    :param token: identifies the contact without a key, as the token of an unsubscribe link does.
    :param deleted: the contact is no longer found, but still known, so that an older row of a sync does not restore it.
    :param source_ms: ``sourceUpdatedAt`` of the last row of a sync that had one, ms since the epoch.
    :param subscriptions: whether the contact is subscribed, by category.
    :param fields: all other fields, by the names of the API.
    """

    contact_id: str
    organization: str
    email: str
    token: str
    deleted: bool = False
    source_ms: int | None = None
    subscriptions: dict[str, bool] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(cls, organization: str, email: str) -> Contact:
        return cls(f"contact_{secrets.token_hex(12)}", organization, email.lower(), f"pref_{secrets.token_hex(16)}")


class Contacts:
    """All queries and changes of contacts."""

    def __init__(self, db: sqlite3.Connection, bounds: Bounds) -> None:
        self._db = db
        self._bounds = bounds

    def find(self, organization: str, email: str) -> Contact | None:
        """The contact of an address, deleted or not."""
        return self._one("organization = ? AND email = ?", organization, email.lower())

    def of_token(self, token: str) -> Contact | None:
        return self._one("token = ?", token)

    def recipient(self, organization: str, email: str) -> Contact | None:
        """The contact of an address; a recipient of a message becomes one."""
        found = self.find(organization, email)
        if found is None:
            query = "SELECT 1 FROM sends WHERE address = ? AND organization = ?"
            if scalar(self._db, query, email, organization) is not None:
                found = Contact.new(organization, email)
                self.put(found)
        return found

    def put(self, contact: Contact) -> None:
        """Create or change a contact; the one that was changed first is dropped if the bound is reached."""
        row = (
            contact.contact_id,
            contact.organization,
            contact.email,
            contact.token,
            int(contact.deleted),
            contact.source_ms,
            json.dumps(contact.subscriptions),
            json.dumps(contact.fields),
        )
        # With a new rowid: the order of the last changes.
        self._db.execute(f"INSERT OR REPLACE INTO contacts ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
        self._drop_oldest("contacts", self._bounds.contacts)

    def page(self, organization: str | None, *, limit: int, offset: int) -> tuple[int, list[Contact]]:
        """How many contacts there are, and those from ``offset`` on, the last changed first."""
        condition = "organization = coalesce(?, organization)"
        count = scalar(self._db, f"SELECT count(*) FROM contacts WHERE {condition}", organization)  # noqa: S608
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM contacts WHERE {condition} ORDER BY rowid DESC LIMIT ? OFFSET ?",  # noqa: S608
            (organization, limit, offset),
        )
        return int(count), [_contact(row) for row in rows]

    def categories(self, organization: str) -> set[str]:
        """The categories that contacts of an organization have."""
        query = (
            "SELECT DISTINCT category.key FROM contacts, json_each(contacts.subscriptions) AS category"
            " WHERE organization = ?"
        )
        return {str(row[0]) for row in self._db.execute(query, (organization,))}

    # Syncs that were seen

    def knows_event(self, organization: str, event_id: str) -> bool:
        """Whether a row with this ``eventId`` was processed."""
        query = "SELECT 1 FROM contact_events WHERE organization = ? AND event_id = ?"
        return scalar(self._db, query, organization, event_id) is not None

    def put_event(self, organization: str, event_id: str) -> None:
        query = "INSERT OR IGNORE INTO contact_events (organization, event_id) VALUES (?, ?)"
        self._db.execute(query, (organization, event_id))
        self._drop_oldest("contact_events", self._bounds.contacts)

    def find_sync(self, organization: str, key: str, since_ms: int) -> tuple[str, Any] | None:
        """Fingerprint and result of a sync by its idempotency key, unless it was at ``since_ms`` or before."""
        query = "SELECT fingerprint, result FROM contact_syncs WHERE organization = ? AND key = ? AND created_ms > ?"
        row = self._db.execute(query, (organization, key, since_ms)).fetchone()
        return None if row is None else (row[0], json.loads(row[1]))

    def put_sync(self, organization: str, key: str, fingerprint: str, result: Any, created_ms: int) -> None:
        row = (organization, key, fingerprint, json.dumps(result), created_ms)
        self._db.execute("INSERT OR REPLACE INTO contact_syncs VALUES (?, ?, ?, ?, ?)", row)
        self._drop_oldest("contact_syncs", self._bounds.keys)

    def _one(self, where: str, *values: object) -> Contact | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM contacts WHERE {where}", values).fetchone()  # noqa: S608
        return None if row is None else _contact(row)

    def _drop_oldest(self, table: str, bound: int) -> None:
        excess = int(scalar(self._db, f"SELECT count(*) FROM {table}")) - bound  # noqa: S608  names from above
        if excess > 0:
            oldest = f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} ORDER BY rowid LIMIT ?)"  # noqa: S608
            self._db.execute(oldest, (excess,))


def _contact(row: tuple[Any, ...]) -> Contact:
    contact_id, organization, email, token, deleted, source_ms, subscriptions, fields = row
    return Contact(
        contact_id,
        organization,
        email,
        token,
        deleted=bool(deleted),
        source_ms=source_ms,
        subscriptions=json.loads(subscriptions),
        fields=json.loads(fields),
    )
