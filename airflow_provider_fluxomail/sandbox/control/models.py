"""What the control API takes and returns. Inputs are checked by pydantic: every error names the field.

The handlers return these models; OpenAPI and :mod:`..testing.records` reuse them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from airflow_provider_fluxomail.sandbox.exchange import Input, Seconds, Text
from airflow_provider_fluxomail.sandbox.faults.queue import PendingFault
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION, MAX_EPOCH_SECONDS
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.store.contacts import Contact as StoredContact
from airflow_provider_fluxomail.sandbox.store.records import StoredAttachment, StoredEvent, StoredSend
from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest
from airflow_provider_fluxomail.sandbox.webhooks.deliveries import Delivery

_KEY: Final = "^[!-~]+$"
_OWN_FIELDS: Final = ("ts", "sendId", "providerMessageId", "dropped")
"""Fields of an event that the sandbox fills in."""

Epoch = Annotated[float, Field(description="Seconds since the epoch, by the sandbox clock.")]
Moment = Annotated[float, Field(ge=0, le=MAX_EPOCH_SECONDS, allow_inf_nan=False)]


class KeyInput(Input):
    """A key to create or replace."""

    key: Text = Field(description="Printable ASCII without spaces.", json_schema_extra={"pattern": _KEY})
    scopes: Annotated[list[Text], Field(max_length=100)] | None = Field(
        default=None, description="null for all of them; with an empty list, the key may only send."
    )
    rate_limit_per_minute: int | None = Field(default=None, ge=1, le=1_000_000_000)
    organization: Text = DEFAULT_ORGANIZATION
    expires_in: Seconds | None = Field(
        default=None,
        description="Seconds until it expires. With it, the key is a short-lived token that `?token=` takes too.",
    )

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        if not re.fullmatch(_KEY, value):
            raise ValueError("must be printable ASCII without spaces, or no header could carry it")
        return value


class PauseInput(Input):
    """Whether an organization is paused."""

    paused: bool
    organization: Text = DEFAULT_ORGANIZATION


class ClockInput(Input):
    """How far to move the clock."""

    advance_seconds: Moment


class EventInput(BaseModel):
    """Something that happens to a message; further fields become fields of the event."""

    model_config = ConfigDict(
        extra="allow", strict=True, json_schema_extra={"propertyNames": {"not": {"enum": list(_OWN_FIELDS)}}}
    )
    __pydantic_extra__: dict[str, JsonValue]

    type: Literal[
        "sent",
        "delivered",
        "delayed",
        "opened",
        "clicked",
        "bounced",
        "complained",
        "dropped",
        "failed",
        "unsubscribed",
    ]
    at: Moment | None = Field(default=None, description="When, in seconds since the epoch; null for now.")

    @model_validator(mode="after")
    def _own_fields(self) -> EventInput:
        for name in _OWN_FIELDS:
            if name in (self.model_extra or {}):
                raise ValueError(f"{name} is filled in by the sandbox: leave it out (at sets the time)")
        return self


class MessagesQuery(Input):
    """Which messages."""

    model_config = ConfigDict(strict=False)

    to: str | None = Field(default=None, description="The bare address, or `to` as it was sent.")
    idempotency_key: str | None = None
    limit: int = Field(default=1_000, ge=0, le=1_000)
    offset: int = Field(default=0, ge=0, le=1_000_000_000)


class ContactsQuery(Input):
    """Which contacts."""

    model_config = ConfigDict(strict=False)

    organization: Text | None = None
    limit: int = Field(default=1_000, ge=0, le=1_000)
    offset: int = Field(default=0, ge=0, le=1_000_000_000)


class RequestsQuery(Input):
    """Which requests. Texts are globs."""

    model_config = ConfigDict(strict=False)

    method: Text | None = None
    path: Text | None = Field(default=None, description="Covers the paths below it, or is a glob.")
    idempotency_key: Text | None = None
    status: int | None = Field(default=None, description="Of the response; 0 for a connection that was cut.")
    fault: Text | None = Field(default=None, description="A kind of fault that met the request.")


class Health(BaseModel):
    """The sandbox responds."""

    status: Literal["ok"]
    now: Epoch


class ClockTime(BaseModel):
    """The sandbox clock."""

    now: Epoch


class DeletedKey(BaseModel):
    """A key that was revoked."""

    deleted: str


class ResetResponse(BaseModel):
    """The sandbox is in the state of a fresh start."""

    reset: Literal[True]


class Event(BaseModel):
    """Something that happened to a message; further fields depend on the type.

    :param type: such as ``delivered``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    at: Epoch

    @classmethod
    def of(cls, event: PlannedEvent | StoredEvent, **further: Any) -> Self:
        return cls.model_validate(event.data | {"type": event.type, "at": event.at_ms / 1000} | further)

    @property
    def data(self) -> dict[str, Any]:
        """The further fields, such as ``reason``."""
        return self.model_extra or {}


class AddedEvent(Event):
    """The event that was added."""

    dropped: bool = Field(description="Left out as a duplicate, by the switch `repeated_events`.")


class Message(BaseModel):
    """A message that the sandbox has accepted."""

    model_config = ConfigDict(frozen=True)

    send_id: str
    message_id: str
    to: str = Field(description="As it was sent, which may be `Name <address>`.")
    subject: str
    content: str = Field(description="The plain text.")
    html_content: str | None = Field(description="The HTML as it was sent.")
    delivered_html: str | None = Field(description="The HTML that the recipient gets: with tracking and footer.")
    cc: list[str]
    bcc: list[str]
    attachments: list[StoredAttachment]
    policy_key: str | None
    idempotency_key: str | None
    organization: str
    endpoint: Literal["send", "send-global"]
    created_at: Epoch
    extra_fields: dict[str, Any] = Field(description="Fields of the request that the API does not name.")
    events: list[Event] = Field(description="Those that have happened, oldest first.")

    @classmethod
    def of(
        cls,
        send: StoredSend,
        attachments: Sequence[StoredAttachment],
        events: Sequence[StoredEvent],
        delivered_html: str | None,
    ) -> Self:
        return cls.model_validate(
            vars(send)
            | {
                "to": send.recipient,
                "html_content": send.html,
                "delivered_html": delivered_html,
                "attachments": attachments,
                "created_at": send.created_ms / 1000,
                "extra_fields": send.extra,
                "events": [Event.of(event) for event in events],
            }
        )


class Messages(BaseModel):
    """Messages, oldest first."""

    count: int = Field(description="How many match, on all pages.")
    messages: list[Message]


class Contact(BaseModel):
    """A contact of an organization."""

    contact_id: str
    organization: str
    email: str
    token: str = Field(description="Identifies the contact at `/api/v1/preferences` without a key.")
    subscribed: bool = Field(description="False if it has unsubscribed from all email.")
    deleted: bool
    subscriptions: dict[str, bool] = Field(description="By category; others are subscribed.")
    fields: dict[str, Any] = Field(description="Further fields, as they were synced.")

    @classmethod
    def of(cls, contact: StoredContact, *, subscribed: bool) -> Contact:
        return cls(
            contact_id=contact.contact_id,
            organization=contact.organization,
            email=contact.email,
            token=contact.token,
            subscribed=subscribed,
            deleted=contact.deleted,
            subscriptions=contact.subscriptions,
            fields=contact.fields,
        )


class Contacts(BaseModel):
    """Contacts, the last changed first."""

    count: int = Field(description="How many match, on all pages.")
    contacts: list[Contact]


class Webhooks(BaseModel):
    """The delivery log of webhooks, oldest first."""

    count: int
    deliveries: list[Delivery]


class Faults(BaseModel):
    """The pending faults."""

    count: int
    faults: list[PendingFault]


class Requests(BaseModel):
    """Requests, oldest first."""

    count: int
    requests: list[LoggedRequest]
