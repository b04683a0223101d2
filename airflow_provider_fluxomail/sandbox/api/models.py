"""What the v1 API takes and returns. Handlers return these models, streams send them, and OpenAPI describes them.

A field that is not set is left out of the JSON; which ones, the switches decide.
https://docs.fluxomail.com/api-reference/introduction
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from airflow_provider_fluxomail.sandbox.clock import iso
from airflow_provider_fluxomail.sandbox.exchange import Document
from airflow_provider_fluxomail.sandbox.limits import FROM_EMAIL
from airflow_provider_fluxomail.sandbox.outcomes import CLICKED, OPENED, UNSUBSCRIBED
from airflow_provider_fluxomail.sandbox.store.records import StoredEvent, StoredSend

Ms = Annotated[int, Field(description="Milliseconds since the epoch.")]


class AttachmentInput(BaseModel):
    """A file of a message."""

    filename: str
    contentBase64: str
    contentType: str | None = None


class SendInput(Document):
    """A message to one recipient."""

    to: str = Field(description="Exactly one address, bare or with a display name.")
    subject: str
    content: str = Field(description="The plain text.")
    htmlContent: str | None = None
    cc: str | list[str] | None = None
    bcc: str | list[str] | None = None
    attachments: list[AttachmentInput] | None = None
    policyKey: str | None = None
    idempotencyKey: str | None = Field(default=None, description="For clients that cannot set the header.")


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


class Event(Document):
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
    events: list[EventRow] | list[Event]
    rawEvents: list[EventRow] | None = None
    nextCursor: str | None = None


class EventsResponse(Document):
    """A page of events, newest first."""

    events: list[Event] | None = None
    items: list[Event] | None = Field(default=None, description="In place of `events`, by the switch `list_form`.")
    nextCursor: str | None = None
