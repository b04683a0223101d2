"""Error answers of the API in each documented form. https://docs.fluxomail.com/api-reference/fluxomail/errors"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.exchange import json_response

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.switches import Settings

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


class ApiError(Exception):
    """An answer of the API that is not a success.

    :param status: HTTP status.
    :param message: the text.
    :param code: the code, by default that of the status.
    :param details: what a program may want to know, such as the fields at fault.
    :param preview: what a 402 tells of the plan that would do.
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

    def copy(self) -> ApiError:
        """The same anew, without the traceback, whose frames would keep whole requests in memory."""
        return ApiError(
            self.status,
            self.message,
            code=self.code,
            details=self.details,
            preview=self.preview,
            headers=self.headers,
        )

    def response(self, settings: Settings) -> Response:
        """The answer on the wire, in the form that the settings ask for."""
        status = settings.validation_status if self.status == 400 else self.status
        if settings.error_form == "text":
            return Response(self.message.encode(), status, self.headers, "text/plain")
        return json_response(self.body(settings.error_form), status, self.headers)

    def body(self, form: str) -> dict[str, Any]:
        """The JSON in one of the forms."""
        if form == "plain":
            body: dict[str, Any] = {"error": self.message}
        else:
            body = {"code": self.code, "message": self.message}
            if form == "structured":
                body["error"] = self.message
            if form != "spec" and self.details:
                body["details"] = self.details
        if self.preview:
            body["preview"] = self.preview
        return body
