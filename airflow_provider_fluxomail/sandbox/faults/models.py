"""Faults: what goes wrong, for which requests, and how often. Each kind is a model that the control API takes.

The docs tables are generated from the docstrings and fields. Which requests meet a fault is decided in :mod:`.queue`,
what it does to their responses in :mod:`.responses`, and to event streams in :mod:`.stream`.
"""

from __future__ import annotations

import re
import secrets
from typing import Annotated, ClassVar, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from airflow_provider_fluxomail.sandbox.exchange import Input, Seconds, Text

_FRAMING_HEADERS: Final = ("content-length", "transfer-encoding", "connection")


def _any_case(name: str) -> str:
    return "".join(f"[{sign}{sign.upper()}]" if sign.isalpha() else sign for sign in name)


_NAME_SIGNS = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_HEADER_NAME = f"^(?!(?:{'|'.join(map(_any_case, _FRAMING_HEADERS))})$){_NAME_SIGNS}$"
_HEADER_VALUE = "^(?:[!-~](?:[ -~]*[!-~])?)?$"


def _header_name(name: str) -> str:
    if not re.fullmatch(_NAME_SIGNS, name):
        raise ValueError("must be the name of a header: letters, digits and -")
    if not re.fullmatch(_HEADER_NAME, name):
        raise ValueError("frames the response and cannot be set")
    return name


def _header_value(value: str) -> str:
    # A space at either end is no part of the value, and not every HTTP implementation accepts it.
    if not re.fullmatch(_HEADER_VALUE, value):
        raise ValueError("must be printable ASCII on one line, without a space at either end")
    return value


HeaderName = Annotated[
    str, Field(max_length=256, json_schema_extra={"pattern": _HEADER_NAME}), AfterValidator(_header_name)
]
HeaderValue = Annotated[
    str, Field(max_length=2_000, json_schema_extra={"pattern": _HEADER_VALUE}), AfterValidator(_header_value)
]


class Match(Input):
    """Which requests a fault meets: those for which everything that is given holds.

    ``path`` covers the paths below it; with ``*``, ``?`` or ``[`` it is a glob for the whole path. The others are
    globs too; for ``method`` and ``recipient`` case is ignored. The recipient matches as it was sent or as a bare
    address; recipient and idempotency key of a read are those of the send that it reads.
    """

    method: Text | None = None
    path: Text | None = None
    api_key: Text | None = None
    idempotency_key: Text | None = None
    recipient: Text | None = None


class HttpDate(Input):
    """A ``Retry-After`` as an HTTP date."""

    http_date_in: float = Field(
        ge=-1e9, le=1e9, description="Seconds from the sandbox clock's now; negative for a date that has passed."
    )


RetryAfter = HttpDate | HeaderValue | Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, allow_inf_nan=False)]


_SEED_NEEDS_CHANCE: Final[dict[str, JsonValue]] = {
    "anyOf": [
        {"properties": {"seed": {"type": "null"}}},
        {"properties": {"chance": {"type": "number"}}, "required": ["chance"]},
    ]
}


class Fault(Input):
    """The fields of every fault."""

    model_config = ConfigDict(json_schema_extra=_SEED_NEEDS_CHANCE)

    stored: ClassVar[bool] = True
    """Whether the request is handled before the fault acts."""
    stream: ClassVar[bool] = False
    """Whether it is a fault of open event streams only."""

    kind: str
    times: int | None = Field(
        default=1,
        ge=1,
        le=1_000_000,
        description="How many requests it meets, null for no limit: the default with `every` or `chance`, else 1.",
    )
    skip: int = Field(default=0, ge=0, le=1_000_000, description="How many matching requests it lets pass first.")
    every: int = Field(default=1, ge=1, le=1_000_000, description="It meets every Nth matching request.")
    chance: float | None = Field(default=None, gt=0, le=1, description="The chance to meet a matching request.")
    seed: int | None = Field(default=None, description="Of `chance`; left out, a random one is used and shown.")
    match: Match = Field(default_factory=Match)

    @model_validator(mode="after")
    def _schedule(self) -> Self:
        if self.chance is None and self.seed is not None:
            raise ValueError("seed belongs to chance: give chance too")
        if "times" not in self.model_fields_set and (self.every > 1 or self.chance is not None):
            self.times = None
        if self.chance is not None and self.seed is None:
            self.seed = secrets.randbelow(2**31)
        return self


class Delay(Fault):
    """The request is handled after a delay."""

    kind: Literal["delay"]
    seconds: Seconds


class Status(Fault):
    """A response with any status, body and headers, in place of the API's."""

    kind: Literal["status"]
    status: int = Field(ge=200, le=599)
    body: JsonValue = Field(default=None, description="Any JSON, a text, or null for the API's own body.")
    headers: dict[HeaderName, HeaderValue] = Field(
        default_factory=dict, json_schema_extra={"additionalProperties": False}
    )
    retry_after: RetryAfter | None = Field(
        default=None, description="A number, a text that is sent as it is, or an HTTP date; null for no header."
    )
    after_store: bool = Field(default=False, description="Whether the request is handled first.")

    @field_validator("retry_after", mode="wrap")
    @classmethod
    def _any_form(cls, value: object, check: ValidatorFunctionWrapHandler) -> object:
        """One error, not one for each form that it does not have."""
        try:
            return check(value)
        except ValidationError:
            raise ValueError(
                "must be a number that is not negative, printable ASCII on one line without a space at either end, "
                '{"http_date_in": seconds}, or null'
            ) from None


class ProxyErrorPage(Fault):
    """The HTML page of a proxy in front of the API."""

    kind: Literal["proxy_error_page"]
    status: int = Field(default=502, ge=400, le=599)
    after_store: bool = Field(default=False, description="Whether the request is handled first.")


class ErrorBeforeStore(Fault):
    """A 500."""

    stored = False
    kind: Literal["error_before_store"]


class ErrorAfterStore(Fault):
    """A 500 after the send was stored."""

    kind: Literal["error_after_store"]


class CutBeforeStore(Fault):
    """The connection is cut before the first byte of a response."""

    stored = False
    kind: Literal["cut_before_store"]


class ResponseLostAfterStore(Fault):
    """The send is stored, then the connection is cut before the first byte of the response."""

    kind: Literal["response_lost_after_store"]


class CutInBody(Fault):
    """The connection is cut in the middle of the response's body."""

    kind: Literal["cut_in_body"]


class SlowFirstByte(Fault):
    """The request is handled at once, and the response starts late."""

    kind: Literal["slow_first_byte"]
    seconds: Seconds


class SlowBody(Fault):
    """The response's head comes at once, its body in pieces."""

    kind: Literal["slow_body"]
    seconds: Seconds = Field(description="From the first byte of the body to the last.")


class MalformedJson(Fault):
    """The response's JSON ends in the middle, as if it were complete."""

    kind: Literal["malformed_json"]


class GzipGarbage(Fault):
    """The response says that it is compressed, and is not."""

    kind: Literal["gzip_garbage"]


class MissingSendId(Fault):
    """The response to a send has no `sendId`."""

    kind: Literal["missing_send_id"]


class StreamFault(Fault):
    """A fault of an event stream: it meets one that is open, else the next that opens; ``times`` counts streams."""

    stream = True


class StreamDrop(StreamFault):
    """The connection of the stream is cut."""

    kind: Literal["stream_drop"]
    after_events: int = Field(default=0, ge=0, description="Events that are sent first.")


class StreamStall(StreamFault):
    """The stream stays open, and nothing more is sent, not even a heartbeat."""

    kind: Literal["stream_stall"]
    after_events: int = Field(default=0, ge=0, description="Events that are sent first.")


class StreamDuplicate(StreamFault):
    """Events are sent twice."""

    kind: Literal["stream_duplicate"]
    events: int | None = Field(default=None, ge=1, description="How many; null for all.")


class StreamOutOfOrder(StreamFault):
    """An event is held back and sent after the next one."""

    kind: Literal["stream_out_of_order"]
    events: int | None = Field(default=None, ge=1, description="How many are held back; null for every other one.")
    seconds: Seconds = Field(default=1.0, description="How long one is held back if no other follows.")


class StreamGap(StreamFault):
    """A resumed stream starts now: what happened in between is not sent."""

    kind: Literal["stream_gap"]


AnyFault = Annotated[
    Delay
    | Status
    | ProxyErrorPage
    | ErrorBeforeStore
    | ErrorAfterStore
    | CutBeforeStore
    | ResponseLostAfterStore
    | CutInBody
    | SlowFirstByte
    | SlowBody
    | MalformedJson
    | GzipGarbage
    | MissingSendId
    | StreamDrop
    | StreamStall
    | StreamDuplicate
    | StreamOutOfOrder
    | StreamGap,
    Field(discriminator="kind"),
]


MODELS: Final = get_args(get_args(AnyFault)[0])
KINDS: Final = tuple(str(get_args(model.model_fields["kind"].annotation)[0]) for model in MODELS)
"""Every kind of fault."""


def handled_first(spec: AnyFault) -> bool:
    """Whether the request is handled, and perhaps stored, before the fault acts."""
    if isinstance(spec, Status | ProxyErrorPage):
        return spec.after_store
    return spec.stored
