"""The Fluxomail API, v1: contacts/sync and the preferences of a contact.

https://docs.fluxomail.com/api-reference/fluxomail/preferences
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api.access import Access
from airflow_provider_fluxomail.sandbox.api.models import (
    Category,
    ContactError,
    ContactInput,
    ContactsSyncInput,
    ContactsSyncResponse,
    PreferencesContact,
    PreferencesInput,
    PreferencesResponse,
    PreferencesUpdated,
    Subscription,
)
from airflow_provider_fluxomail.sandbox.api.query_parameters import moment
from airflow_provider_fluxomail.sandbox.errors import ApiError, format_errors
from airflow_provider_fluxomail.sandbox.exchange import EXCHANGE, Exchange, header_credential, json_response
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION, MAX_CONTACT_CHARS
from airflow_provider_fluxomail.sandbox.message import bare_address, idempotency_key_of, parse_body
from airflow_provider_fluxomail.sandbox.store.contacts import Contact
from airflow_provider_fluxomail.sandbox.store.records import ApiKey, StoredSend
from airflow_provider_fluxomail.sandbox.tracking.recording import message_of, unsubscribe

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

SYNC_SCOPE: Final = "contacts_write"
PREFERENCES_READ_SCOPE: Final = "preferences_read"
PREFERENCES_MANAGE_SCOPE: Final = "preferences_manage"

_MAX_ERRORS: Final = 100
_MAX_EMAIL: Final = 320
_OWN_FIELDS: Final = frozenset(("email", "subscribed", "deleted", "categories", "sourceUpdatedAt", "eventId"))
"""Fields of a row that are not kept as they are."""

Body = TypeVar("Body", bound=BaseModel)


class RowError(Exception):
    """A row that cannot be processed; the text names the field."""


class ContactsApi:
    """The handlers."""

    def __init__(self, sandbox: Sandbox, access: Access) -> None:
        self._sandbox = sandbox
        self._access = access

    async def sync(self, request: Request) -> Response:
        """``POST /api/v1/contacts/sync``. Rows that cannot be processed are counted as failed; the others are.

        :raises ApiError: 401, 403, 429, 400, or 409 for a key that was used with other contacts.
        """
        organization = self._access.admit(request, SYNC_SCOPE).organization
        exchange: Exchange = request.scope[EXCHANGE]
        fields = parse_body(await request.body())
        body = _parse(ContactsSyncInput, fields)
        most = self._sandbox.switches.contacts_max_rows
        if len(body.contacts) > most:
            raise _invalid(f"contacts must have at most {most} rows", "contacts")
        key = idempotency_key_of(request.headers.get("idempotency-key"), {})
        if key is None and not all((row.eventId or "").strip() for row in body.contacts):
            raise _invalid("send an Idempotency-Key, or an eventId with every contact", "contacts")
        store, now_ms = self._sandbox.store, self._sandbox.clock.now_ms()
        fingerprint = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
        if key is not None:
            exchange.entry.idempotency_key = key
            exchange.echo("Idempotency-Key", key)
            since_ms = now_ms - int(self._sandbox.switches.idempotency_life * 1000)
            first = store.contacts.find_sync(organization, key, since_ms)
            if first is not None:
                if first[0] != fingerprint:
                    raise ApiError(409, "Idempotency key was used with other contacts")
                exchange.headers["Idempotency-Replayed"] = "true"
                return json_response(ContactsSyncResponse.model_validate(first[1] | {"replayed": True}))
        with store.transaction():
            response = self._process(organization, body, now_ms)
            if key is not None:
                result = response.model_dump(exclude_unset=True)
                store.contacts.put_sync(organization, key, fingerprint, result, now_ms)
        return json_response(response)

    async def get_preferences(self, request: Request) -> Response:
        """``GET /api/v1/preferences``, by ``token`` or ``email``.

        :raises ApiError: 400, 401, 403, 404 or 429.
        """
        key = self._key(request, PREFERENCES_READ_SCOPE)
        query = request.query_params
        contact, _ = self._contact(key, query.get("token"), query.get("email"))
        subscribed = not self._is_unsubscribed(contact)
        return json_response(
            PreferencesResponse(
                contact=PreferencesContact(id=contact.contact_id, email=contact.email),
                categories=[Category(key=key, name=_name(key)) for key in self._categories(contact)],
                subscriptions=[
                    Subscription(categoryKey=key, subscribed=subscribed and contact.subscriptions.get(key, True))
                    for key in self._categories(contact)
                ],
            )
        )

    async def put_preferences(self, request: Request) -> Response:
        """``POST /api/v1/preferences``.

        A contact without any subscription left is unsubscribed from all email; any subscription ends that.

        :raises ApiError: 400, 401, 403, 404 or 429.
        """
        key = self._key(request, PREFERENCES_MANAGE_SCOPE)
        body = _parse(PreferencesInput, parse_body(await request.body()))
        contact, send = self._contact(key, body.token, body.email)
        known = self._categories(contact)
        unknown = sorted({row.categoryKey for row in body.subscriptions} - set(known))
        if unknown:
            shown = ", ".join(name[:100] for name in unknown[:10])
            raise _invalid(f"unknown category {shown}: the categories are {', '.join(known)}", "subscriptions")
        wanted = {row.categoryKey: row.subscribed for row in body.subscriptions}
        unsubscribed = before = self._is_unsubscribed(contact)
        changed = (dict.fromkeys(known, False) if unsubscribed else contact.subscriptions) | wanted
        if any(changed.get(category, True) for category in known):
            contact.subscriptions, unsubscribed = changed, False
        elif wanted:
            # What it was subscribed to stays, for when it subscribes again.
            unsubscribed = True
        if unsubscribed and send is not None:
            unsubscribe(self._sandbox, request, send, "preferences")
        with self._sandbox.store.transaction():
            self._put(contact, before, unsubscribed)
        return json_response(PreferencesUpdated(ok=True))

    # Syncing

    def _process(self, organization: str, body: ContactsSyncInput, now_ms: int) -> ContactsSyncResponse:
        counts: Counter[str] = Counter()
        errors: list[ContactError] = []
        for row in body.contacts:
            try:
                counts.update(self._process_row(organization, row, body.source))
            except RowError as error:
                errors.append(ContactError(email=row.email[:_MAX_EMAIL], message=str(error)))
        response = ContactsSyncResponse(
            ok=not errors,
            source=body.source or "api",
            processed=len(body.contacts),
            created=counts["created"],
            updated=counts["updated"],
            failed=len(errors),
            skippedStale=counts["skippedStale"],
            skippedDuplicate=counts["skippedDuplicate"],
            unsubscribed=counts["unsubscribed"],
            resubscribed=counts["resubscribed"],
            syncedAt=now_ms,
        )
        if errors:
            response.errors = errors[:_MAX_ERRORS]
        return response

    def _process_row(self, organization: str, row: ContactInput, source: str | None) -> list[str]:
        """Create or change one contact; return what is counted.

        :raises RowError: nothing was changed.
        """
        contacts = self._sandbox.store.contacts
        event_id = (row.eventId or "").strip()
        if event_id and contacts.knows_event(organization, event_id):
            return ["skippedDuplicate"]
        address = bare_address(row.email)
        if address is None or address != row.email.strip() or len(address) > _MAX_EMAIL:
            raise RowError("email must be one bare email address")
        source_ms = _ms("sourceUpdatedAt", row.sourceUpdatedAt)
        for name in ("planStartedAt", "planEndsAt"):
            _ms(name, getattr(row, name))
        found = contacts.find(organization, address)
        contact = Contact.new(organization, address) if found is None else found
        counted = ["created" if found is None or found.deleted else "updated"]
        if source_ms is not None and contact.source_ms is not None and source_ms < contact.source_ms:
            counted = ["skippedStale"]
        else:
            _change(contact, row, source)
            before = self._is_unsubscribed(contact)
            unsubscribed = before if row.subscribed is None else not row.subscribed
            if unsubscribed != before:
                counted.append("unsubscribed" if unsubscribed else "resubscribed")
            if len(json.dumps(contact.fields)) + len(json.dumps(contact.subscriptions)) > MAX_CONTACT_CHARS:
                raise RowError(f"a contact must have at most {MAX_CONTACT_CHARS} characters as JSON")
            contact.source_ms = contact.source_ms if source_ms is None else source_ms
            self._put(contact, before, unsubscribed)
        if event_id:
            contacts.put_event(organization, event_id)
        return counted

    # Preferences

    def _key(self, request: Request, scope: str) -> ApiKey | None:
        """The key of the request, if it has one: preferences can be read and changed by a token alone.

        :raises ApiError: 401, 403, 429 or 400.
        """
        return None if header_credential(request.headers) is None else self._access.admit(request, scope)

    def _contact(self, key: ApiKey | None, token: str | None, email: str | None) -> tuple[Contact, StoredSend | None]:
        """The contact of a token, else of an address; and the message, if it is the token of an unsubscribe link.

        Without a key, an address is one of the organization of the start key.

        :raises ApiError: 400, 401 or 404.
        """
        if key is None and not token and self._sandbox.switches.preferences_auth == "required":
            raise ApiError(401)
        if not token and not email:
            raise _invalid("token or email is missing", "token", "email")
        contacts, send = self._sandbox.store.contacts, None
        if token:
            found = message_of(self._sandbox.store, "unsubscribe", token)
            if found is None:
                contact = contacts.of_token(token)
            else:
                send = found[0]
                contact = contacts.recipient(send.organization, send.address)
        else:
            contact = contacts.recipient(key.organization if key else DEFAULT_ORGANIZATION, str(email).strip())
        if contact is None or contact.deleted or (key is not None and contact.organization != key.organization):
            raise ApiError(404, "Contact not found")
        return contact, send

    def _is_unsubscribed(self, contact: Contact) -> bool:
        now_ms = self._sandbox.clock.now_ms()
        return self._sandbox.store.suppressions.is_unsubscribed(contact.organization, contact.email, now_ms)

    def _put(self, contact: Contact, before: bool, unsubscribed: bool) -> None:
        """Create or change a contact, inside a transaction of the caller.

        :param before: whether it was unsubscribed before. :param unsubscribed: whether it is now.
        """
        store, now_ms = self._sandbox.store, self._sandbox.clock.now_ms()
        store.contacts.put(contact)
        if unsubscribed != before:
            store.suppressions.set_unsubscribed(contact.organization, contact.email, unsubscribed, now_ms)

    def _categories(self, contact: Contact) -> list[str]:
        further = self._sandbox.store.contacts.categories(contact.organization)
        return list(dict.fromkeys([*self._sandbox.switches.preference_categories, *sorted(further)]))


def _change(contact: Contact, row: ContactInput, source: str | None) -> None:
    given = {name: value for name, value in row.model_dump(exclude_unset=True).items() if value is not None}
    contact.fields |= {name: value for name, value in given.items() if name not in _OWN_FIELDS}
    if source is not None:
        contact.fields["source"] = source
    contact.deleted = bool(row.deleted)
    for category in row.categories or ():
        contact.subscriptions[category] = True


def _ms(name: str, value: str | float | None) -> int | None:
    """A time of a row in ms since the epoch.

    :raises RowError: it is no time.
    """
    if value is None:
        return None
    try:
        return moment(name, value if isinstance(value, str) else str(int(value)))
    except ApiError:
        raise RowError(f"{name} must be an ISO 8601 time or milliseconds since the epoch") from None


def _name(key: str) -> str:
    """What people read for a category."""
    words = key.replace("_", " ").replace("-", " ").strip()
    return f"{words[:1].upper()}{words[1:]}" or key


def _parse(model: type[Body], fields: dict[str, Any]) -> Body:
    """A request body as its model.

    :raises ApiError: 400; it names the field.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)[:10]
        names = dict.fromkeys(".".join(map(str, one["loc"])) for one in found)
        shown: list[dict[str, Any]] = [{**one, "loc": ("body", *one["loc"])} for one in found]
        raise _invalid(format_errors(shown), *names) from None


def _invalid(message: str, *fields: str) -> ApiError:
    return ApiError(400, f"Invalid request: {message}", details={"fields": list(fields)})
