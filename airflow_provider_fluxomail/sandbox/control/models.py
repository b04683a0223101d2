"""What the control API returns. Its handlers return these models; OpenAPI and :mod:`..testing.records` reuse them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_fluxomail.sandbox.faults.queue import PendingFault
from airflow_provider_fluxomail.sandbox.store.records import StoredAttachment
from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
    from airflow_provider_fluxomail.sandbox.store.records import StoredEvent, StoredSend

Epoch = Annotated[float, Field(description="Seconds since the epoch, by the sandbox clock.")]


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
        """The model of an event of the store."""
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
    html_content: str | None
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
    def of(cls, send: StoredSend, attachments: Sequence[StoredAttachment], events: Sequence[StoredEvent]) -> Self:
        """The model of a stored send."""
        return cls.model_validate(
            {
                "send_id": send.send_id,
                "message_id": send.message_id,
                "to": send.recipient,
                "subject": send.subject,
                "content": send.content,
                "html_content": send.html,
                "cc": list(send.cc),
                "bcc": list(send.bcc),
                "attachments": attachments,
                "policy_key": send.policy_key,
                "idempotency_key": send.idempotency_key,
                "organization": send.organization,
                "endpoint": send.endpoint,
                "created_at": send.created_ms / 1000,
                "extra_fields": send.extra,
                "events": [Event.of(event) for event in events],
            }
        )


class Messages(BaseModel):
    """Messages, oldest first."""

    count: int = Field(description="How many match, on all pages.")
    messages: list[Message]


class Faults(BaseModel):
    """The pending faults."""

    count: int
    faults: list[PendingFault]


class Requests(BaseModel):
    """Requests, oldest first."""

    count: int
    requests: list[LoggedRequest]
