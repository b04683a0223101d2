"""One request and its response on their way through the sandbox: JSON in and out, the body, the connection."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Message, Receive, Send

from airflow_provider_fluxomail.sandbox.limits import MAX_DELAY_SECONDS

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.faults.queue import Subject
    from airflow_provider_fluxomail.sandbox.store.request_log import LoggedRequest

API_PREFIX: Final = "/api/v1"
SENDS_PREFIX: Final = f"{API_PREFIX}/sends/"
STREAM_PATH: Final = f"{API_PREFIX}/events/stream"
EXCHANGE: Final = "fluxomail.exchange"
"""The key of the :class:`Exchange` in the ASGI scope."""
IS_HEAD: Final = "fluxomail.is_head"
"""The key in the ASGI scope of a GET that the client sent as HEAD."""

_MAX_DEPTH: Final = 100
_SAFE_HEADER: Final = re.compile(r"[\x20-\x7e]{1,256}")

Text = Annotated[str, Field(min_length=1, max_length=256)]
Seconds = Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS, allow_inf_nan=False)]


class Input(BaseModel):
    """Takes no value of another type, and no field that would be ignored, such as a misspelt one."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, value: Any) -> Any:
        """Name the known fields, which ``extra="forbid"`` alone does not; take 5.0 for 5, as JSON does."""
        if not isinstance(value, dict):
            return value
        unknown = sorted(str(name) for name in set(value) - set(cls.model_fields))
        if unknown:
            known = ", ".join(cls.model_fields) or "none"
            raise ValueError(f"unknown field {', '.join(unknown)}: the fields are {known}")
        return {name: _whole(cls.model_fields[name].annotation, given) for name, given in value.items()}


def _whole(annotation: object, value: object) -> object:
    """A whole number as an int, where the field takes no other number."""
    takes_int = int in (annotation, *get_args(annotation))
    return int(value) if takes_int and isinstance(value, float) and value.is_integer() else value


class Document(BaseModel):
    """A JSON object that may have further fields."""

    model_config = ConfigDict(extra="allow")


@dataclass(slots=True)
class Exchange:
    """One request to the API.

    :param entry: its row in the request log.
    :param subject: what faults match it by.
    :param cut: cuts its connection.
    :param interrupted: set when the request must not be held back any longer.
    :param headers: response headers added to whatever the handler returns.
    """

    entry: LoggedRequest
    subject: Subject
    cut: Callable[[], Awaitable[None]]
    interrupted: asyncio.Event
    headers: dict[str, str] = field(default_factory=dict)

    def echo(self, name: str, value: str) -> None:
        """Add a response header with a client's value, unless a header cannot carry it."""
        if is_header_value(value):
            self.headers[name] = value

    async def sleep(self, seconds: float) -> bool:
        """Hold the request back in real time; return False if the server stopped or was reset meanwhile."""
        try:
            await asyncio.wait_for(self.interrupted.wait(), seconds)
        except TimeoutError:
            return True
        return False

    def note_fault(self, kind: str) -> None:
        self.entry.fault = f"{self.entry.fault}+{kind}" if self.entry.fault else kind

    def drop_fault(self) -> None:
        self.entry.fault = (self.entry.fault or "").rpartition("+")[0] or None


def header_credential(headers: Headers) -> str | None:
    """The API key in the headers: the Bearer token, else ``x-api-key``."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key")


def is_header_value(value: str) -> bool:
    """Whether a client's text can be sent back in a header."""
    return _SAFE_HEADER.fullmatch(value) is not None


# JSON


def parse_json(body: bytes | bytearray) -> Any:
    """Parse a request body.

    Refuses what Python's parser takes beyond JSON in UTF-8 (``NaN``, numbers that become infinite), strings that no
    encoding can carry (half of a surrogate pair) and values nested deeper than 100 levels: those would only fail later,
    when they are stored or sent back.

    :raises ValueError: the body is not such JSON.
    """
    try:
        # Decoded here: the parser itself would accept other encodings, and halves of surrogate pairs in them.
        text = body.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text.count("[") + text.count("{") > _MAX_DEPTH and _deeper(value, _MAX_DEPTH):
        raise ValueError("nested too deeply")
    return value


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response with a JSON body in UTF-8; a content type among the headers wins.

    :param content: a model, of which the fields that are not set are left out, or plain JSON values.
    """
    if isinstance(content, BaseModel):
        text = content.model_dump_json(by_alias=True, exclude_unset=True)
    else:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Response(text, status_code=status, headers=headers, media_type="application/json")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _deeper(value: object, levels: int) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, list) and (levels == 0 or any(_deeper(item, levels - 1) for item in value))


# Body and connection


def replay_body(body: bytes | bytearray, receive: Receive) -> Receive:
    """A ``receive`` that returns the body that was read once more, then what the server sends next."""
    pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


def transport_of(send: Send) -> Any:
    """The connection's transport beneath uvicorn's ``send``; None under another server."""
    return getattr(getattr(send, "__self__", None), "transport", None)


async def send_head(response: Response, send: Send) -> None:
    """Send the head of a response that has no end, for a HEAD."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body"})


async def cut_connection(receive: Receive, send: Send) -> None:
    """Close the connection, however much of a response was sent.

    ASGI has no message for that, and returning without a response makes uvicorn send a 500. ``send`` is a method of
    uvicorn's request cycle, for each of its HTTP implementations, and the cycle holds the connection's transport.
    Waiting for the disconnect lets the cycle notice that there is nobody left to send that 500 to.
    """
    transport = transport_of(send)
    if transport is None:
        raise RuntimeError("the HTTP server gives no access to its connection, so it cannot be cut")
    try:
        # A process that was forked meanwhile holds this socket too: closing ours alone would end nothing.
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # The client closed first.
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
