"""The rows of the store, and its errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class StoreError(Exception):
    """The data file cannot be used; the text is one line that says why."""


class StoreFullError(Exception):
    """A bound is reached; the text names it."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of the sandbox.

    :param scopes: None allows everything; an empty tuple may send and nothing else.
    :param cap: requests per minute, None for no limit.
    :param expires_ms: when a short-lived token expires, ms since the epoch; None for a key, which does not.
    """

    key: str
    organization: str
    scopes: tuple[str, ...] | None = None
    cap: int | None = None
    expires_ms: int | None = None

    def alive(self, now_ms: int) -> bool:
        return self.expires_ms is None or now_ms < self.expires_ms

    def allows(self, scope: str) -> bool:
        """Whether the key has a scope.

        A key with an empty list of scopes may still send: the API documents that for old keys.
        """
        if self.scopes is None or scope in self.scopes:
            return True
        return not self.scopes and scope == "send_email"


@dataclass(frozen=True)
class StoredSend:
    """A stored send; ``number`` increases with every send, ``address`` is the bare address of the recipient."""

    number: int
    send_id: str
    message_id: str
    organization: str
    endpoint: str
    recipient: str
    address: str
    subject: str
    content: str
    html: str | None
    cc: list[str]
    bcc: list[str]
    policy_key: str | None
    idempotency_key: str | None
    fingerprint: str
    extra: dict[str, Any]
    created_ms: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """What the recipient of a message gets that its sender did not write.

    :param html: as it is delivered; None for a message without HTML.
    :param links: the URLs of its tracked links, in their order.
    :param unsubscribe_url: for the ``List-Unsubscribe`` header; None if it has none.
    """

    html: str | None = None
    links: list[str] = field(default_factory=list)
    unsubscribe_url: str | None = None

    @property
    def size(self) -> int:
        """Characters, for the bound of what is kept."""
        return len(self.html or "") + sum(map(len, self.links))


class StoredAttachment(BaseModel):
    """A file of a message, without its content."""

    model_config = ConfigDict(frozen=True)

    filename: str
    content_type: str | None
    size: int = Field(description="Bytes, decoded.")
    sha256: str = Field(description="Of the bytes, in hex.")


class Position(NamedTuple):
    """A place in the order of all events: their time in ms, then the order in which they were stored."""

    at_ms: int
    number: int

    def __str__(self) -> str:
        return f"{self.at_ms}:{self.number}"


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of a send's timeline; ``number`` increases with every event, ``address`` is the recipient's."""

    number: int
    send_id: str
    message_id: str
    organization: str
    address: str
    type: str
    at_ms: int
    data: dict[str, Any]

    @property
    def position(self) -> Position:
        return Position(self.at_ms, self.number)
