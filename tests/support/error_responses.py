"""Errors of responses."""

from __future__ import annotations

import json

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.errors import FluxomailError, error_from_response

BY_STATUS = {
    400: errors.FluxomailValidationError,
    401: errors.FluxomailAuthError,
    402: errors.FluxomailPlanRequiredError,
    403: errors.FluxomailPermissionError,
    404: errors.FluxomailNotFoundError,
    405: errors.FluxomailRequestError,
    408: errors.FluxomailServerError,
    409: errors.FluxomailIdempotencyConflictError,
    413: errors.FluxomailRequestError,
    415: errors.FluxomailRequestError,
    422: errors.FluxomailValidationError,
    429: errors.FluxomailRateLimitError,
    500: errors.FluxomailServerError,
    502: errors.FluxomailServerError,
    503: errors.FluxomailServerError,
    504: errors.FluxomailServerError,
    599: errors.FluxomailServerError,
}


def error(status: int, payload: object, **facts: object) -> FluxomailError:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return error_from_response(status, content, **facts)  # type: ignore[arg-type]
