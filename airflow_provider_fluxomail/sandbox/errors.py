"""Error responses: those of the API, in each documented form, and those of the control API.

https://docs.fluxomail.com/api-reference/fluxomail/errors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field, JsonValue
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.exchange import Document, json_response

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.switches import Switches

CODES: Final[dict[int, str]] = {
    400: "validation_error",
    401: "invalid_key",
    402: "plan_required",
    403: "missing_scope",
    404: "not_found",
    405: "method_not_allowed",
    409: "idempotency_conflict",
    413: "validation_error",
    422: "validation_error",
    429: "rate_limited",
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
    """An error response of the API.

    :param status: HTTP status.
    :param message: the text; the default depends on the status.
    :param code: the code; the default depends on the status.
    :param details: values for programs, such as the invalid fields.
    :param preview: with a 402, the plan that has the feature.
    :param headers: further response headers.
    """

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
        """The response with another status and other headers."""
        if switches.error_form == "text":
            return Response(self.message.encode(), status, headers, "text/plain")
        return json_response(self._body(switches.error_form), status, headers)

    def _body(self, form: str) -> ErrorResponse:
        shown: dict[str, Any] = {}
        if form != "plain":
            shown |= {"code": self.code, "message": self.message}
            if form != "spec" and self.details:
                shown["details"] = self.details
        if form in ("plain", "structured"):
            shown["error"] = self.message
        if self.preview:
            shown["preview"] = self.preview
        return ErrorResponse(**shown)


class ControlError(Exception):
    """A control call that failed; the text names the field and says what to do.

    :param status: HTTP status of the response.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status

    def response(self) -> Response:
        """The response."""
        return json_response(ControlErrorResponse(error=str(self)), self.status)
