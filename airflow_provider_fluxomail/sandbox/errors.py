"""Error answers of the API in the documented structured form. https://docs.fluxomail.com/api-reference/fluxomail/errors"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.sandbox.jsonbody import json_response

if TYPE_CHECKING:
    from starlette.responses import Response

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
    :param message: the text, under both ``message`` and ``error``.
    :param code: the code, by default that of the status.
    :param details: what a program may want to know, such as the fields at fault.
    :param headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code or CODES.get(status, "internal_error")
        self.details = details
        self.headers = headers

    def response(self) -> Response:
        """The answer on the wire."""
        return json_response(error_body(self.code, self.message, self.details), self.status, self.headers)


def error_body(code: str, message: str, details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The structured form: ``code``, the text twice, ``details`` if there are any."""
    body: dict[str, Any] = {"code": code, "message": message, "error": message}
    if details:
        body["details"] = details
    return body


def default_error_body(status: int) -> dict[str, Any]:
    """The body of an injected status that was given none."""
    return error_body(CODES.get(status, "internal_error"), MESSAGES.get(status, f"Error {status}"))
