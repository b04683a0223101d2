"""Error responses: those of the API, in each documented form, and those of the control API.

https://docs.fluxomail.com/api-reference/fluxomail/errors
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.exchange import Document, json_response
from airflow_provider_fluxomail.sandbox.switches import Switches

CODES: Final[dict[int, str]] = {
    400: "validation_error",
    401: "invalid_key",
    402: "plan_required",
    403: "missing_scope",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "idempotency_conflict",
    413: "validation_error",
    415: "unsupported_media_type",
    422: "validation_error",
    429: "rate_limited",
    431: "headers_too_large",
    501: "not_implemented",
}
"""The code of a status; any other is ``internal_error``."""

MESSAGES: Final[dict[int, str]] = {
    401: "Invalid API key",
    402: "Plan required",
    404: "Not found",
    429: "Rate limit exceeded",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
}


class ErrorResponse(Document):
    """An error, in the form that the switch `error_form` chooses."""

    code: str | None = None
    message: str | None = None
    error: str | None = None
    details: dict[str, JsonValue] | None = None
    preview: dict[str, JsonValue] | None = Field(default=None, description="With 402: the plan that has the feature.")


class ControlErrorResponse(BaseModel):
    """A control call that failed."""

    error: str


class ApiError(Exception):
    """An error response of the API; the defaults of message and code depend on the status."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        code: str | None = None,
        details: dict[str, Any] | None = None,
        preview: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status = status
        self.message = message or MESSAGES.get(status, f"Error {status}")
        super().__init__(self.message)
        self.code = code or CODES.get(status, "internal_error")
        self.details = details
        self.preview = preview
        self.headers = headers

    def response(self, switches: Switches) -> Response:
        """The response in the form that the switches choose."""
        status = switches.validation_status if self.status == 400 else self.status
        return self.response_with(status, switches, self.headers)

    def response_with(self, status: int, switches: Switches, headers: dict[str, str] | None) -> Response:
        if switches.error_form == "text":
            return Response(self.message.encode(), status, headers, "text/plain")
        return json_response(self._body(switches.error_form), status, headers)

    def _body(self, form: str) -> ErrorResponse:
        shown: dict[str, Any] = {} if form == "plain" else {"code": self.code, "message": self.message}
        if form in ("structured", "message") and self.details:
            shown["details"] = self.details
        if form in ("plain", "structured"):
            shown["error"] = self.message
        if self.preview:
            shown["preview"] = self.preview
        return ErrorResponse(**shown)


class ControlError(Exception):
    """A control call that failed; the text names the field and says what to do."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status

    def response(self) -> Response:
        return json_response(ControlErrorResponse(error=str(self)), self.status)


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
