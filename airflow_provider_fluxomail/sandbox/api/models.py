"""The answers of both APIs as models: what the OpenAPI document describes. The handlers write JSON themselves.

Fields that a switch leaves out are optional here. https://docs.fluxomail.com/api-reference/introduction
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Ms = Annotated[int, Field(description="Milliseconds since the epoch.")]
Epoch = Annotated[float, Field(description="Seconds since the epoch.")]


class Document(BaseModel):
    """What a client is told; more fields may come."""

    model_config = ConfigDict(extra="allow")


# The API


class AttachmentInput(BaseModel):
    """A file of a message."""

    filename: str
    contentBase64: str  # noqa: N815  the wire's name
    contentType: str | None = None  # noqa: N815


class SendInput(Document):
    """A message to one recipient."""

    to: str = Field(description="Exactly one address, bare or with a display name.")
    subject: str
    content: str = Field(description="The plain text.")
    htmlContent: str | None = None  # noqa: N815
    cc: str | list[str] | None = None
    bcc: str | list[str] | None = None
    attachments: list[AttachmentInput] | None = None
    policyKey: str | None = None  # noqa: N815
    idempotencyKey: str | None = Field(default=None, description="For clients that can't set the header.")  # noqa: N815


class SendAnswer(Document):
    """An accepted message."""

    sendId: str  # noqa: N815
    status: Literal["sent"]
    messageId: str | None = None  # noqa: N815
    accepted: bool | None = None
    reused: bool | None = Field(default=None, description="The first result again: nothing was sent now.")


class ErrorAnswer(Document):
    """A refusal, in the form that the switch `error_form` chooses."""

    code: str | None = None
    message: str | None = None
    error: str | None = None
    details: dict[str, JsonValue] | None = None
    preview: dict[str, JsonValue] | None = Field(default=None, description="Of a plan that would do; with 402.")


class EventRow(Document):
    """An event in the short form; further fields depend on the type."""

    type: str
    ts: Ms
    providerMessageId: str | None = None  # noqa: N815


class EventData(Document):
    """What an event is about; further fields depend on the type."""

    sendId: str  # noqa: N815
    providerMessageId: str | None = None  # noqa: N815


class Event(Document):
    """An event in the long form."""

    id: str = Field(description="`<sendId>:<ms>`; two events of a send in the same millisecond share it.")
    type: str = Field(description="Such as `email.delivered`.")
    created: str = Field(description="ISO 8601, UTC.")
    data: EventData


class TimelineAnswer(Document):
    """A send and what has become of it, in the form that the switch `timeline_form` chooses."""

    send: dict[str, JsonValue] | None = None
    messages: list[dict[str, JsonValue]] | None = None
    events: list[EventRow] | list[Event]
    rawEvents: list[EventRow] | None = None  # noqa: N815
    nextCursor: str | None = None  # noqa: N815


class EventsAnswer(Document):
    """A page of events, newest first."""

    events: list[Event] | None = None
    items: list[Event] | None = Field(default=None, description="In place of `events`, by the switch `list_form`.")
    nextCursor: str | None = None  # noqa: N815


# The control API


class Mistake(BaseModel):
    """A control call that can't be done."""

    error: str


class Health(BaseModel):
    """The sandbox answers."""

    status: Literal["ok"]
    now: Epoch


class Clock(BaseModel):
    """The sandbox clock."""

    now: Epoch


class Deleted(BaseModel):
    """A key that is gone."""

    deleted: str


class ControlEvent(Document):
    """An event as the control API shows it; further fields depend on the type."""

    type: str
    at: Epoch


class AddedEvent(ControlEvent):
    """The event that was added."""

    dropped: bool = Field(description="Left out as a duplicate, by the switch `repeated_events`.")


class StoredAttachment(BaseModel):
    """A file of a stored message."""

    filename: str
    content_type: str | None
    size: int = Field(description="Bytes, decoded.")
    sha256: str


class StoredMessage(BaseModel):
    """A message that the sandbox holds."""

    send_id: str
    message_id: str
    to: str
    subject: str
    content: str
    html_content: str | None
    cc: list[str]
    bcc: list[str]
    attachments: list[StoredAttachment]
    policy_key: str | None
    idempotency_key: str | None
    organization: str
    endpoint: Literal["send", "send-global"]
    created_at: Epoch
    extra_fields: dict[str, JsonValue]
    events: list[ControlEvent]


class Messages(BaseModel):
    """Messages, oldest first."""

    count: int = Field(description="How many match, on all pages.")
    messages: list[StoredMessage]


class Faults(BaseModel):
    """The faults that wait, each as it was given, with its `id`, how many requests it `met` and how many `remain`."""

    count: int
    faults: list[dict[str, Any]]


class QueuedFault(Document):
    """The fault as it waits."""

    id: int
    kind: str
    met: int
    remaining: int | None


class LoggedRequest(BaseModel):
    """A request that the API has seen."""

    at: Epoch
    method: str
    path: str
    query: str
    status: int | None = Field(description="null without an answer.")
    idempotency_key: str | None
    fault: str | None = Field(description="The kinds that met it, joined by `+`.")
    user_agent: str | None
    headers: dict[str, str]
    gap: float | None = Field(description="Seconds since the one before it in this answer.")


class Requests(BaseModel):
    """Requests, oldest first."""

    count: int
    requests: list[LoggedRequest]


class Done(BaseModel):
    """The sandbox is as fresh."""

    reset: Literal[True]
