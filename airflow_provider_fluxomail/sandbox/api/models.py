"""What the v1 API takes and returns. Handlers return these models, streams send them, and OpenAPI describes them.

A field that is not set is left out of the JSON; which ones, the switches decide.
https://docs.fluxomail.com/api-reference/introduction
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from airflow_provider_fluxomail.sandbox.clock import iso
from airflow_provider_fluxomail.sandbox.exchange import Document
from airflow_provider_fluxomail.sandbox.limits import FROM_EMAIL, MAX_IDEMPOTENCY_KEY_CHARS
from airflow_provider_fluxomail.sandbox.message import MAILBOX, NOT_BLANK, ONE_LINE
from airflow_provider_fluxomail.sandbox.outcomes import CLICKED, OPENED, UNSUBSCRIBED
from airflow_provider_fluxomail.sandbox.store.records import StoredEvent, StoredSend

_NOT_BLANK: Final[dict[str, Any]] = {"pattern": NOT_BLANK}
_Copy = Annotated[str, Field(json_schema_extra={"pattern": "@"})]
_Copies = _Copy | list[_Copy] | None

Ms = Annotated[int, Field(description="Milliseconds since the epoch.")]


def _without_default(schema: dict[str, Any]) -> None:
    """For a field that may be left out, but has no value of its own then."""
    schema.pop("default", None)


class AttachmentInput(BaseModel):
    """A file of a message."""

    filename: str = Field(json_schema_extra=_NOT_BLANK)
    contentBase64: str = Field(
        json_schema_extra={"pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"}
    )
    contentType: str | None = None


class SendInput(Document):
    """A message to one recipient."""

    to: str = Field(
        description="Exactly one address, bare or with a display name.",
        json_schema_extra={"pattern": MAILBOX},
    )
    subject: str = Field(description="A single line.", json_schema_extra={"pattern": ONE_LINE})
    content: str = Field(description="The plain text.", json_schema_extra=_NOT_BLANK)
    htmlContent: str | None = None
    cc: _Copies = None
    bcc: _Copies = None
    attachments: list[AttachmentInput] | None = Field(
        default=None, description="By default at most 5.", json_schema_extra={"maxItems": 5}
    )
    policyKey: str | None = None
    idempotencyKey: str | None = Field(
        default=None,
        description="For clients that cannot set the header.",
        json_schema_extra={"maxLength": MAX_IDEMPOTENCY_KEY_CHARS},
    )


class SendResponse(Document):
    """An accepted message."""

    sendId: str
    status: Literal["sent"]
    messageId: str | None = None
    accepted: bool | None = None
    reused: bool | None = Field(default=None, description="The first result again: nothing was sent now.")


class EventRow(Document):
    """An event in the short form; further fields depend on the type."""

    type: str
    ts: Ms
    providerMessageId: str | None = None

    @classmethod
    def of(cls, event: StoredEvent) -> Self:
        row = event.data | {"type": event.type, "ts": event.at_ms}
        # The tracking routes know no provider message: the documented rows of opens and clicks have none.
        if event.type not in (OPENED, CLICKED, UNSUBSCRIBED):
            row["providerMessageId"] = event.message_id
        return cls.model_validate(row)


class EventData(Document):
    """What an event is about; further fields depend on the type."""

    sendId: str
    providerMessageId: str | None = None


class EventEnvelope(Document):
    """An event in the long form."""

    id: str = Field(description="`<sendId>:<ms>`; two events of a send in the same millisecond share it.")
    type: str = Field(description="Such as `email.delivered`.")
    created: str = Field(description="ISO 8601, UTC.")
    data: EventData

    @classmethod
    def of(cls, event: StoredEvent) -> Self:
        data = event.data | {"sendId": event.send_id, "providerMessageId": event.message_id}
        return cls(
            id=f"{event.send_id}:{event.at_ms}",
            type=f"email.{event.type}",
            created=iso(event.at_ms),
            data=EventData.model_validate(data),
        )


class TimelineSend(Document):
    """The send of a timeline."""

    id: str = Field(alias="_id")
    toEmail: str
    subject: str
    status: Literal["sent"]
    idempotencyKey: str | None
    createdAt: Ms
    updatedAt: Ms

    @classmethod
    def of(cls, send: StoredSend, updated_ms: int) -> Self:
        return cls(
            _id=send.send_id,
            toEmail=send.recipient,
            subject=send.subject,
            status="sent",
            idempotencyKey=send.idempotency_key,
            createdAt=send.created_ms,
            updatedAt=updated_ms,
        )


class TimelineMessage(Document):
    """The message that the provider got."""

    sendId: str
    provider: str
    fromEmail: str
    toEmail: str
    feedbackId: str
    providerMessageId: str
    createdAt: Ms

    @classmethod
    def of(cls, send: StoredSend) -> Self:
        return cls(
            sendId=send.send_id,
            provider="aws_ses",
            fromEmail=FROM_EMAIL,
            toEmail=send.recipient,
            feedbackId=f"send-{send.send_id}",
            providerMessageId=send.message_id,
            createdAt=send.created_ms,
        )


class TimelineResponse(Document):
    """A send and its events, in the form that the switch `timeline_form` chooses."""

    send: TimelineSend
    messages: list[TimelineMessage]
    events: list[EventRow] | list[EventEnvelope]
    rawEvents: list[EventRow] | None = None
    nextCursor: str | None = None


class EventsResponse(Document):
    """A page of events, newest first."""

    events: list[EventEnvelope] | None = None
    items: list[EventEnvelope] | None = Field(
        default=None, description="In place of `events`, by the switch `list_form`."
    )
    nextCursor: str | None = None


class ContactInput(Document):
    """A contact to create or change; fields that are left out stay as they are."""

    model_config = ConfigDict(strict=True)

    email: str = Field(description="The bare address; case is ignored.")
    externalId: str | None = None
    name: str | None = None
    plan: Literal["free", "pro", "unlimited", "lifetime"] | None = None
    subscribed: bool | None = Field(default=None, description="False unsubscribes the contact from everything.")
    deleted: bool | None = None
    state: str | None = None
    sourceUpdatedAt: int | float | str | None = Field(
        default=None, description="ISO 8601 or ms since the epoch; an older row than the last one is skipped."
    )
    planStartedAt: int | float | str | None = None
    planEndsAt: int | float | str | None = None
    categories: list[str] | None = Field(default=None, description="To subscribe to, by their keys.")
    metadata: dict[str, JsonValue] | None = None
    eventId: str | None = Field(default=None, description="A row with one that was seen is skipped.")


class ContactsSyncInput(Document):
    """Contacts to create or change: with an `Idempotency-Key`, or an `eventId` on every row."""

    model_config = ConfigDict(strict=True)

    source: str | None = None
    contacts: list[ContactInput] = Field(
        min_length=1, description="By default at most 500.", json_schema_extra={"maxItems": 500}
    )


class ContactError(BaseModel):
    """A row that was not processed."""

    email: str
    message: str


class ContactsSyncResponse(Document):
    """What became of the rows; with `failed`, the others were processed."""

    ok: bool = Field(description="Whether no row failed.")
    source: str
    processed: int = Field(description="All rows.")
    created: int
    updated: int
    failed: int
    skippedStale: int
    skippedDuplicate: int
    unsubscribed: int = Field(description="Contacts whose address was subscribed and now is not; new ones too.")
    resubscribed: int
    replayed: bool | None = Field(default=None, description="The first result again: nothing was changed now.")
    syncedAt: Ms
    errors: list[ContactError] | None = Field(default=None, description="Of the rows that failed, at most 100.")


class Subscription(Document):
    """Whether a contact is subscribed to a category."""

    model_config = ConfigDict(strict=True)

    categoryKey: str
    subscribed: bool


class Category(Document):
    """A category of an organization."""

    key: str
    name: str


class PreferencesContact(Document):
    """Whose preferences they are."""

    id: str
    email: str


class PreferencesResponse(Document):
    """The subscriptions of a contact."""

    contact: PreferencesContact
    categories: list[Category]
    subscriptions: list[Subscription]


class PreferencesInput(Document):
    """Subscriptions to change, of the contact of a token or an address."""

    model_config = ConfigDict(
        strict=True, json_schema_extra={"anyOf": [{"required": ["token"]}, {"required": ["email"]}]}
    )

    token: str = Field(
        default="",
        min_length=1,
        description="Of the contact, or of an unsubscribe link; wins over `email`.",
        json_schema_extra=_without_default,
    )
    email: str = Field(default="", min_length=1, json_schema_extra=_without_default)
    subscriptions: list[Subscription]


class PreferencesUpdated(Document):
    """The subscriptions were changed."""

    ok: Literal[True]


class MetricsWindow(Document):
    """The time that the metrics are about."""

    preset: Literal["24h", "7d", "30d", "all"]
    since: str = Field(description="ISO 8601, UTC.")
    until: str = Field(description="ISO 8601, UTC.")


class MetricsScan(Document):
    """Which sends were counted."""

    sends: int
    sendScanLimit: int = Field(description="Most sends that are counted, by the switch `metrics_scan_limit`.")


class Metrics(Document):
    """Counts of messages, and of opens and clicks; rates in percent, with one decimal."""

    totalSent: int
    totalDelivered: int
    deliveryRate: float = Field(description="Of those sent.")
    totalOpened: int = Field(description="Opens, repeated ones included.")
    uniqueOpens: int = Field(description="Messages that were opened.")
    avgOpenRate: float = Field(description="Messages opened, of those delivered.")
    totalClicked: int
    uniqueClicks: int
    avgClickRate: float = Field(description="Messages clicked, of those delivered.")
    avgClickToOpenRate: float = Field(description="Messages clicked, of those opened.")
    totalBounced: int
    bounceRate: float = Field(description="Of those sent.")
    totalComplained: int
    complaintRate: float = Field(description="Of those delivered.")
    totalDelayed: int
    delayedRate: float = Field(description="Of those sent.")
    totalDropped: int
    totalFailed: int


class MetricsResponse(Document):
    """Metrics of the newest sends in a window of time."""

    window: MetricsWindow
    scanned: MetricsScan
    metrics: Metrics
