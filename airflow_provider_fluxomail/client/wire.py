"""What each request holds, and what its response means. No I/O.

Both transports (:mod:`.sync` and :mod:`.aio`) only move the bytes that this module makes and reads, so they cannot
differ.
"""

from __future__ import annotations

import functools
import json
import os
import re
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_fluxomail.client import headers
from airflow_provider_fluxomail.client.errors import (
    MAX_BODY,
    FluxomailConnectionError,
    FluxomailResponseError,
    FluxomailValidationError,
    as_response_error,
    error_from_response,
)
from airflow_provider_fluxomail.client.json_text import read_json
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.models import Request, Response, SendResult, Timeline
from airflow_provider_fluxomail.client.origin import is_from_fluxomail
from airflow_provider_fluxomail.client.private import Secret, private
from airflow_provider_fluxomail.client.redaction import MAX_ID, identifier
from airflow_provider_fluxomail.client.settings import API_PREFIX, ClientSettings

_P = ParamSpec("_P")
_T = TypeVar("_T")

#: A larger response is not Fluxomail's; reading stops there. Bytes.
MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024
#: Longest idempotency key, in characters (the API states no limit; this is a safe one).
MAX_KEY_LENGTH: Final = 128

#: Fields of a message that a plan (402) or a policy (403) may refuse by themselves.
_OPTIONAL_FIELDS: Final = ("attachments", "policyKey")
_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}")


def check_idempotency_key(key: str) -> str:
    """Return ``key`` if it can be sent as a header."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise FluxomailValidationError(
            f"idempotency_key must be 1 to {MAX_KEY_LENGTH} visible ASCII characters without white space"
        )
    return key


def send_request(message: EmailMessage, idempotency_key: str | None) -> Request:
    """``POST /emails/send``. https://docs.fluxomail.com/api-reference/fluxomail/send-email"""
    own = {"Content-Type": "application/json"}
    if idempotency_key is not None:
        own["Idempotency-Key"] = check_idempotency_key(idempotency_key)
    body = message.to_json()
    return Request(
        method="POST",
        path=f"{API_PREFIX}/emails/send",
        headers=own,
        content=json.dumps(body, separators=(",", ":")).encode(),
        idempotency_key=idempotency_key,
        optional_fields=tuple(name for name in _OPTIONAL_FIELDS if name in body),
        private=message.private_strings(),
    )


def timeline_request(send_id: str, cursor: str | None = None) -> Request:
    """``GET /sends/{id}``. https://docs.fluxomail.com/api-reference/fluxomail/get-send"""
    if not isinstance(send_id, str) or not send_id.strip():
        raise FluxomailValidationError("send_id is empty: give the send_id that the send returned")
    # URL libraries resolve dots even if quoted: the request would go to another path. No server accepts a longer URL.
    if send_id in (".", "..") or len(send_id) > MAX_ID:
        raise FluxomailValidationError(f"send_id {send_id[:100]!r} is not a send id")
    query = f"?{urlencode({'cursor': cursor})}" if cursor else ""
    return Request(method="GET", path=f"{API_PREFIX}/sends/{quote(send_id, safe='', errors='replace')}{query}")


def request_headers(settings: ClientSettings, request: Request) -> dict[str, str]:
    """Return every header of ``request``, with the settings' own."""
    common = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": settings.user_agent}
    if settings.api_version:
        common["Fluxomail-Version"] = settings.api_version
    return {**common, **request.headers, "Authorization": Secret(f"Bearer {settings.api_key}")}


@private
def read_payload(request: Request, response: Response, settings: ClientSettings) -> dict[str, Any]:
    """Return the JSON object of a 2xx; raise the error that any other response stands for.

    Requests allow no encoding, so that no response becomes larger by decoding it. The status of an error counts all the
    same: a gateway that compresses its errors may send a 429.
    """
    encoded = headers.is_encoded(response.headers)
    if 300 <= response.status < 400:
        target = headers.redirect_host(response.headers)
        raise FluxomailResponseError(
            f"the server redirects{f' to {target}' if target else ''}; redirects are not followed, because they would "
            "take the API key along. Put the final address into the connection's host",
            **_facts(request, response),
        )
    if not 200 <= response.status < 300:
        raise error_from_response(
            content=b"" if encoded else response.content,
            **_facts(request, response),
            retry_after=headers.retry_after(response.status, response.headers),
            # Not in a variable: a traceback may show them.
            private=(settings.api_key, *request.private),
            optional_fields=request.optional_fields,
        )
    if encoded:
        raise response_error(request, response, "the response uses compression, which the request did not allow")
    try:
        payload = read_json(response.content)
    except ValueError:
        what = "is not JSON" if response.content.strip() else "is empty"
        raise response_error(request, response, f"the response {what}") from None
    if not isinstance(payload, dict):
        raise response_error(request, response, "the response is not a JSON object")
    return payload


def response_error(request: Request, response: Response, why: str) -> FluxomailResponseError:
    """Return the error for a response that is not Fluxomail's."""
    return FluxomailResponseError(
        f"{why}: it does not come from Fluxomail. Check the connection's host, and any proxies in between",
        **_facts(request, response),
        body=response.content[:MAX_BODY].decode("utf-8", "replace"),
    )


def reads_response(read: Callable[_P, _T]) -> Callable[_P, _T]:
    """Turn every error of a function that reads a response into one of this response: it may hold anything."""

    @functools.wraps(read)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return read(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            raise as_response_error(error) from None

    return call


def _facts(request: Request, response: Response) -> dict[str, Any]:
    return {
        "status": response.status,
        "request_id": response.request_id,
        "idempotency_key": request.idempotency_key,
    }


@private
@reads_response
def read_send(request: Request, response: Response, settings: ClientSettings) -> SendResult:
    """Read the response to :func:`send_request`. Only ``sendId`` is required: sources differ on the rest."""
    payload = read_payload(request, response, settings)
    texts = {name: identifier(payload.get(name)) for name in ("sendId", "messageId", "status")}
    if not texts["sendId"]:
        raise response_error(request, response, "the response holds no sendId, or an invalid one")
    return SendResult(
        send_id=texts["sendId"],
        message_id=texts["messageId"],
        status=texts["status"],
        reused=payload.get("reused") is True or headers.is_replay(response.headers),
        idempotency_key=request.idempotency_key,
        request_id=response.request_id,
    )


@private
@reads_response
def read_timeline(send_id: str, request: Request, response: Response, settings: ClientSettings) -> Timeline:
    """Read one page of the response to :func:`timeline_request`, in either of its forms."""
    # A gateway's refusal says nothing about the send: the next request may reach Fluxomail. After a 401 the caller
    # reads the connection again.
    if 400 <= response.status < 500 and response.status not in (401, 408, 429) and not is_from_fluxomail(response):
        why = f"the {response.status} has neither a request id nor an error of the API"
        raise response_error(request, response, why)
    payload = read_payload(request, response, settings)
    try:
        return Timeline.parse(send_id, payload)
    except ValueError as error:
        raise response_error(request, response, str(error)) from None


def too_large(request: Request) -> FluxomailResponseError:
    """Return the error for a response of more than :data:`MAX_RESPONSE_BYTES`."""
    return FluxomailResponseError(
        f"the response is larger than {MAX_RESPONSE_BYTES // 2**20} MiB: it does not come from Fluxomail",
        idempotency_key=request.idempotency_key,
    )


def no_response(
    request: Request, settings: ClientSettings, error: BaseException, *, ambiguous: bool
) -> FluxomailConnectionError:
    """Return the error for a request without a response. Does not print the URL or a proxy's password."""
    # With its port: on one machine, only the port tells sandboxes apart. The settings refuse credentials in it.
    host = urlsplit(settings.base_url).netloc
    causes = list(_causes(error))
    if any("timeout" in type(cause).__name__.lower() for cause in causes):
        why = f"timed out after {settings.timeout:g} s"
    else:
        texts = (_system_text(cause) for cause in causes if isinstance(cause, OSError) and cause.strerror)
        why = next(texts, "the connection was closed before the response was complete, or the response is not HTTP")
    return FluxomailConnectionError(
        f"no response from {host}: {why}", ambiguous=ambiguous, idempotency_key=request.idempotency_key
    )


def unusable_connection(error: BaseException) -> FluxomailValidationError:
    """Return the error for a host or a proxy that no HTTP library accepts."""
    # By its type alone: its text may hold a proxy's password.
    why = f"the connection cannot be used ({type(error).__name__}): check its host and its proxies"
    return FluxomailValidationError(why, concerns_one_message=False)


def _system_text(error: OSError) -> str:
    """Return the text for the error number: asyncio puts a sentence of its own into ``strerror``."""
    if isinstance(error, ssl.SSLError):
        # Its number is OpenSSL's, which reads as "Operation not permitted".
        return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or 'no reason given'}"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk to the root of an error: libraries wrap the system's error in causes, contexts and arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [*current.args, getattr(current, "reason", None), current.__cause__, current.__context__]
