"""The OpenAPI document of both APIs, served at ``/openapi.json``: what the models and handlers do not say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.sandbox.api.metrics import WINDOWS
from airflow_provider_fluxomail.sandbox.api.models import (
    ContactsSyncInput,
    ContactsSyncResponse,
    EventEnvelope,
    EventsResponse,
    MetricsResponse,
    PreferencesInput,
    PreferencesResponse,
    PreferencesUpdated,
    SendInput,
    SendResponse,
    TimelineResponse,
)
from airflow_provider_fluxomail.sandbox.errors import ErrorResponse
from airflow_provider_fluxomail.sandbox.limits import MAX_IDEMPOTENCY_KEY_CHARS

_REF: Final = "#/components/schemas/"
_DESCRIPTION: Final = """\
The Fluxomail API, v1, as the sandbox of airflow-provider-fluxomail imitates it, and the control API of the sandbox
itself. The first follows the public documentation; it is not the vendor's document.
"""
_TEXT: Final = {"type": "string"}
_WHOLE: Final = {"type": "string", "pattern": "^[0-9]+$"}


def _header(description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    return {"description": description, "schema": schema}


_ALWAYS: Final = {
    "X-Request-Id": _header("The client's, else a new one."),
    "Fluxomail-Request-Id": _header("The same."),
}
_RATES: Final = {
    "X-RateLimit-Limit": _header("Requests per minute, for a key with a limit.", _WHOLE),
    "X-RateLimit-Remaining": _header("What is left of them.", _WHOLE),
    "X-RateLimit-Reset": _header("When the minute ends, seconds since the epoch.", _WHOLE),
}
_IDEMPOTENCY: Final = {
    "Idempotency-Key": _header("The key that was used."),
    "Idempotency-Replayed": _header("`true` on a replay only."),
}
_RETRY: Final = {"Retry-After": _header("Seconds, in whole numbers.", _WHOLE)}

_MEANINGS: Final = {
    400: "A field is missing or invalid.",
    401: "The key is missing or unknown.",
    402: "The plan lacks this.",
    403: "The key lacks the scope, or the organization is paused.",
    404: "No such send or contact.",
    409: "The idempotency key was used with another request; for sends, only with the switch `idempotency_conflict`.",
    413: "The body is too large.",
    429: "The rate limit is exceeded.",
    500: "A server error; here, from a fault.",
}


def _parameter(name: str, place: str, description: str, schema: dict[str, Any] = _TEXT) -> dict[str, Any]:
    required = place == "path"
    return {"name": name, "in": place, "required": required, "description": description, "schema": schema}


def _body(model: type[BaseModel]) -> dict[str, Any]:
    """A request body; :func:`document` adds the schemas of :data:`_INPUTS`."""
    return {"required": True, "content": {"application/json": {"schema": {"$ref": f"{_REF}{model.__name__}"}}}}


_SERVER_SENT_EVENT: Final = {
    "type": "object",
    "description": "One server-sent event of the stream, without a name. Comments between them are heartbeats.",
    "properties": {
        "id": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": f"{_REF}{EventEnvelope.__name__}"},
        },
    },
    "required": ["id", "data"],
}
_INPUTS: Final = (SendInput, ContactsSyncInput, PreferencesInput)
_KEY: Final = {"type": "string", "maxLength": MAX_IDEMPOTENCY_KEY_CHARS}
_MOMENT: Final = {
    "anyOf": [{"type": "string", "pattern": "^[0-9]{0,15}$"}, {"type": "string", "format": "date-time"}],
}
_VERSION: Final = _parameter("Fluxomail-Version", "header", "`2025-09-01`.")
_REQUEST_ID: Final = _parameter("X-Request-Id", "header", "An id of the client.")
_LIMIT: Final = _parameter(
    "limit",
    "query",
    "Rows at most; a page has at most `page_size`. Empty for no limit of its own.",
    {"type": "string", "pattern": "^[0-9]{0,12}$"},
)
_CURSOR: Final = _parameter(
    "cursor",
    "query",
    "`nextCursor` of the page before, or a moment: older rows.",
    {"anyOf": [*_MOMENT["anyOf"], {"type": "string", "pattern": "^[0-9]{1,15}:[0-9]{1,18}$"}]},
)
_SINCE: Final = {"anyOf": [*_MOMENT["anyOf"], {"type": "string", "pattern": "^.+:[0-9]{1,15}$"}]}
_TYPES: Final = {"type": "array", "maxItems": 100, "items": {"type": "string", "maxLength": 100}}
_FILTERS: Final = [
    _parameter("types", "query", "Such as `email.bounced` or `email.*`; can be repeated.", _TYPES),
    _parameter("domain", "query", "The recipient's domain."),
    _parameter("smtpCode", "query", "Such as `550`."),
    _parameter("mtaHost", "query", "The remote host."),
]


def _operation(
    description: str,
    model: type[BaseModel] | None,
    errors: Sequence[int],
    parameters: Sequence[dict[str, Any]],
    headers: dict[str, Any] = _RATES,
    *,
    token: bool = False,
    **further: Any,
) -> dict[str, Any]:
    """The options of one of FastAPI's routes.

    :param model: the body of a 200; None for an event stream.
    :param headers: of a 200, besides those of every response.
    """
    accepted: dict[str, Any] = {"description": description, "headers": _ALWAYS | headers}
    if model is None:
        accepted["content"] = {"text/event-stream": {"schema": _SERVER_SENT_EVENT}}
    responses: dict[int | str, dict[str, Any]] = {200: accepted}
    for status in errors:
        headers = _ALWAYS | (_RETRY if status == 429 else {})
        responses[status] = {"model": ErrorResponse, "description": _MEANINGS[status], "headers": headers}
    credentials = ["Bearer", "ApiKey", *(["Token"] if token else [])]
    return {
        "tags": ["api"],
        "response_class": Response if model is None else JSONResponse,
        "response_model": model,
        "responses": responses,
        "openapi_extra": {"security": [{name: []} for name in credentials], "parameters": list(parameters), **further},
    }


SEND: Final = _operation(
    "Accepted, or the first result again.",
    SendResponse,
    (400, 401, 402, 403, 409, 413, 429, 500),
    [
        _parameter("Idempotency-Key", "header", "Unique per logical message.", _KEY),
        _REQUEST_ID,
        _VERSION,
    ],
    headers=_IDEMPOTENCY | _RATES,
    requestBody=_body(SendInput),
)
TIMELINE: Final = _operation(
    "The timeline.",
    TimelineResponse,
    (400, 401, 403, 404, 429, 500),
    [_parameter("send_id", "path", "Of the send."), _LIMIT, _CURSOR, _REQUEST_ID, _VERSION],
)
EVENTS: Final = _operation(
    "A page of events.",
    EventsResponse,
    (400, 401, 402, 429, 500),
    [
        *_FILTERS,
        _parameter("since", "query", "Not before this moment: ISO 8601, or ms since the epoch.", _MOMENT),
        *(_LIMIT, _CURSOR, _REQUEST_ID, _VERSION),
    ],
)
STREAM: Final = _operation(
    "Server-sent events without a name: `id` and `data`, which is an event in the long form.",
    None,
    (400, 401, 402, 429, 500),
    [
        *_FILTERS,
        _parameter(
            "since", "query", "The id of the last event that was seen, or a moment; wins over the header.", _SINCE
        ),
        _parameter("Last-Event-ID", "header", "The same.", _SINCE),
        _REQUEST_ID,
    ],
    token=True,
)


CONTACTS_SYNC: Final = _operation(
    "What became of the contacts, or the first result again.",
    ContactsSyncResponse,
    (400, 401, 403, 409, 413, 429, 500),
    [
        _parameter(
            "Idempotency-Key", "header", "Unique per request. Without it, every contact needs an `eventId`.", _KEY
        ),
        _REQUEST_ID,
        _VERSION,
    ],
    headers=_IDEMPOTENCY | _RATES,
    requestBody=_body(ContactsSyncInput),
)
PREFERENCES: Final = _operation(
    "The subscriptions of a contact.",
    PreferencesResponse,
    (400, 401, 403, 404, 429, 500),
    [
        _parameter("token", "query", "Of the contact, or of an unsubscribe link; wins over `email`, and needs no key."),
        _parameter("email", "query", "Of the contact."),
        _REQUEST_ID,
        _VERSION,
    ],
)
PREFERENCES_UPDATE: Final = _operation(
    "The subscriptions were changed.",
    PreferencesUpdated,
    (400, 401, 403, 404, 413, 429, 500),
    [_REQUEST_ID, _VERSION],
    requestBody=_body(PreferencesInput),
)
METRICS: Final = _operation(
    "Metrics of the newest sends.",
    MetricsResponse,
    (400, 401, 403, 429, 500),
    [
        _parameter("window", "query", "Default `7d`.", {"type": "string", "enum": list(WINDOWS)}),
        _parameter("since", "query", "A moment; wins over `window`.", _MOMENT),
        _REQUEST_ID,
        _VERSION,
    ],
)


def document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """The document of FastAPI's routes."""
    made = get_openapi(title="Fluxomail sandbox", version=__version__, description=_DESCRIPTION, routes=list(routes))
    components = made.setdefault("components", {})
    known = components.setdefault("schemas", {})
    for model in _INPUTS:
        schema = model.model_json_schema(ref_template=_REF + "{model}")
        known |= schema.pop("$defs", {}) | {model.__name__: schema}
    components["schemas"] = dict(sorted(known.items()))
    components["securitySchemes"] = {
        "Bearer": {"type": "http", "scheme": "bearer"},
        "ApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "Token": {"type": "apiKey", "in": "query", "name": "token", "description": "A short-lived token."},
    }
    return made
