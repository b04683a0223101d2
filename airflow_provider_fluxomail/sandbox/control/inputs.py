"""What the control API takes, checked by pydantic: every error names the field."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from airflow_provider_fluxomail.sandbox.exchange import Input, Seconds, Text
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION, MAX_EPOCH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

Moment = Annotated[float, Field(ge=0, le=MAX_EPOCH_SECONDS, allow_inf_nan=False)]


class KeyInput(Input):
    """A key to create or replace."""

    key: Text = Field(description="Printable ASCII without spaces.")
    scopes: Annotated[list[Text], Field(max_length=100)] | None = Field(
        default=None, description="null for all of them; with an empty list, the key may only send."
    )
    rate_limit_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    organization: Text = DEFAULT_ORGANIZATION
    expires_in: Seconds | None = Field(
        default=None,
        description="Seconds until it expires. With it, the key is a short-lived token that `?token=` takes too.",
    )

    @field_validator("key")
    @classmethod
    def _fits_a_header(cls, value: str) -> str:
        if not value.isascii() or not value.isprintable() or " " in value:
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

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, JsonValue]

    type: Literal["sent", "delivered", "delayed", "opened", "clicked", "bounced", "complained", "dropped", "failed"]
    at: Moment | None = Field(default=None, description="When, in seconds since the epoch; null for now.")

    @model_validator(mode="after")
    def _own_fields(self) -> EventInput:
        for name in ("ts", "sendId", "providerMessageId", "dropped"):
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


class RequestsQuery(Input):
    """Which requests. Texts are globs."""

    model_config = ConfigDict(strict=False)

    method: Text | None = None
    path: Text | None = Field(default=None, description="Covers the paths below it, or is a glob.")
    idempotency_key: Text | None = None
    status: int | None = Field(default=None, description="Of the response; 0 for a connection that was cut.")
    fault: Text | None = Field(default=None, description="A kind of fault that met the request.")


_WORDS = (
    ("Value error, ", ""),
    ("Field required", "is missing"),
    ("Input should ", "must "),
    ("String should ", "must "),
    ("Input tag ", "kind "),
    (" found using 'kind' does not match any of the expected tags", " is none of"),
)
_OBJECT = re.compile(r"a valid dictionary( or (instance of \w+|object to extract fields from))?$")


def format_errors(errors: Sequence[dict[str, Any]], kinds: Collection[str] = ()) -> str:
    """Pydantic's errors as one line that names each field.

    :param kinds: names of alternatives, which pydantic puts before the field.
    """
    return "; ".join(_format_error(error, kinds) for error in errors)


def _format_error(error: dict[str, Any], kinds: Collection[str]) -> str:
    source, *place = [str(part) for part in error["loc"] if part != "[key]"]
    if source == "body" and place and place[0] in kinds:
        place = place[1:]
    text = str(error["msg"])
    if error["type"] == "union_tag_not_found":
        text = f"kind is missing: it is one of {', '.join(kinds)}"
    for theirs, ours in _WORDS:
        text = text.replace(theirs, ours)
    text = _OBJECT.sub("an object", text)
    name = ".".join(place)
    return f"{name}{' ' if text.startswith(('must ', 'is ')) else ': '}{text}" if name else text
