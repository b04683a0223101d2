"""Whether a response comes from Fluxomail, or from a gateway, a proxy or another server in its place.

What the API's documentation promises:

* Every response carries the request's id: ``X-Request-Id``, with the client's value if it sent one, or
  ``Fluxomail-Request-Id``; sources differ on the name, so either will do.
* An error is a JSON object: ``{"error": "..."}`` alone, or ``code`` and ``message``, with or without ``error``,
  ``details`` and ``preview``. For 401 and 429 one source has both ``code`` and ``message`` optional. The 404 of a
  send has the code ``not_found``, where it has one. It is never HTML or XML.

What is inferred: no other server uses the name ``Fluxomail-Request-Id``. Many use ``X-Request-Id``, so that name counts
only together with a documented code, or with the value that was sent and a documented form. A 404 with any other code
is not about a send. https://docs.fluxomail.com/api-reference/fluxomail/errors
"""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_fluxomail.client.json_text import json_object
from airflow_provider_fluxomail.client.models import Response

_CODES: Final[dict[int, frozenset[str]]] = {
    401: frozenset({"invalid_key"}),
    402: frozenset({"plan_required"}),
    403: frozenset({"missing_scope", "tenant_paused"}),
    404: frozenset({"not_found"}),
    429: frozenset({"rate_limited"}),
}
_FIELDS: Final = frozenset({"code", "message", "error", "details", "preview", "sendId"})


def is_from_fluxomail(response: Response, *, request_id: str | None = None) -> bool:
    """Return whether a response has what marks Fluxomail's.

    A success is judged by its headers alone: what its body must hold depends on the request.

    :param request_id: the ``X-Request-Id`` that was sent with the request, if one was.
    """
    named = response.headers.get("x-request-id")
    own = bool(response.headers.get("fluxomail-request-id"))
    if not named and not own:
        return False
    echoed = request_id is None or named == request_id
    if response.status < 300:
        return own or echoed
    if response.content.lstrip().startswith(b"<"):
        return False
    payload = json_object(response.content)
    nested = payload.get("error")
    code = payload.get("code", nested.get("code") if isinstance(nested, dict) else None)
    if isinstance(code, str) and code in _CODES.get(response.status, ()):
        return True
    if response.status == 404 and code is not None:
        return False
    return own or (echoed and _is_documented(response.status, payload))


def _is_documented(status: int, payload: dict[str, Any]) -> bool:
    # Many gateways send a 404 with only a message; no source documents one.
    texts = [payload.get("error"), *([] if status == 404 else [payload.get("message")])]
    return any(texts) and _FIELDS.issuperset(payload)
