"""Requests and responses as data: paths, headers, bodies, and what an answer means. No I/O.

Both transports (:mod:`.sync` and :mod:`.aio`) only move the bytes that this module makes and reads, so they cannot
drift apart.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailResponseError,
    FluxomailValidationError,
    error_from_response,
)
from airflow_provider_fluxomail.client.origin import is_from_fluxomail
from airflow_provider_fluxomail.client.pacing import retry_after
from airflow_provider_fluxomail.client.settings import API_PREFIX, ClientSettings
from airflow_provider_fluxomail.client.timeline import Timeline

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.messages import EmailMessage

#: An answer larger than this is not Fluxomail's; reading stops there. Bytes.
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
#: Longest idempotency key, in characters (the API states no limit; this is its safe subset).
MAX_KEY_LENGTH = 128
#: Pages of one timeline that are read at most: a server that pages for ever must not hold a task for ever.
MAX_TIMELINE_PAGES = 100

_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY_LENGTH}}}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One request, without its credentials."""

    method: str
    path: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    content: bytes | None = dataclasses.field(default=None, repr=False)
    idempotency_key: str | None = None
    #: Strings of this request that no error may print.
    private: tuple[str, ...] = dataclasses.field(default=(), repr=False)

    @property
    def repeatable(self) -> bool:
        """True when repeating it after an unknown outcome cannot send a second mail."""
        return self.method == "GET" or self.idempotency_key is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
    """One answer: status, headers (names in lower case), body (bounded)."""

    status: int
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    content: bytes = dataclasses.field(repr=False)

    @property
    def request_id(self) -> str | None:
        """Fluxomail's request id under either of its documented names, fit for a log line."""
        value = self.headers.get("x-request-id") or self.headers.get("fluxomail-request-id")
        return re.sub(r"[^\x21-\x7e]", "?", value)[:128] if value else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class SendResult:
    """What the API said of one send.

    :param reused: the key had been used before (a replay).
    :param own_replay: it may have been used by an earlier attempt of this same call.
    """

    send_id: str
    message_id: str | None
    status: str | None
    reused: bool
    idempotency_key: str | None
    request_id: str | None
    own_replay: bool = False


def check_idempotency_key(key: str) -> str:
    """Return ``key`` if it can be a header value as it is.

    :raises FluxomailValidationError: when it is empty, too long, or holds anything but visible ASCII.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise FluxomailValidationError(
            f"idempotency_key must be 1 to {MAX_KEY_LENGTH} visible ASCII characters without white space"
        )
    return key


def send_request(message: EmailMessage, idempotency_key: str | None) -> Request:
    """``POST /emails/send``. https://docs.fluxomail.com/api-reference/fluxomail/send-email"""
    headers = {"Content-Type": "application/json"}
    if idempotency_key is not None:
        headers["Idempotency-Key"] = check_idempotency_key(idempotency_key)
    return Request(
        method="POST",
        path=f"{API_PREFIX}/emails/send",
        headers=headers,
        content=json.dumps(message.to_json(), separators=(",", ":")).encode(),
        idempotency_key=idempotency_key,
        private=message.private_strings(),
    )


def timeline_request(send_id: str, cursor: str | None = None) -> Request:
    """``GET /sends/{id}``. https://docs.fluxomail.com/api-reference/fluxomail/get-send

    :raises FluxomailValidationError: when the send id is empty.
    """
    if not isinstance(send_id, str) or not send_id.strip():
        raise FluxomailValidationError("send_id is empty: give the send_id that the send returned")
    if send_id in (".", ".."):
        # URL libraries resolve these even though they are quoted: the request would go to another path.
        raise FluxomailValidationError(f"send_id {send_id!r} is not a send id")
    query = f"?{urlencode({'cursor': cursor})}" if cursor else ""
    return Request(method="GET", path=f"{API_PREFIX}/sends/{quote(send_id, safe='')}{query}")


def request_headers(settings: ClientSettings, request: Request) -> dict[str, str]:
    """Every header of ``request`` but ``Authorization``, which the transport adds last."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": settings.user_agent}
    if settings.api_version:
        headers["Fluxomail-Version"] = settings.api_version
    return {**headers, **request.headers}


def read_payload(request: Request, response: Response, settings: ClientSettings) -> dict[str, Any]:
    """Return the JSON object of a 2xx.

    :raises FluxomailError: the error that any other answer stands for.
    """
    if 300 <= response.status < 400:
        # The target is named by host only: a signed URL in a Location header is a secret.
        target = urlsplit(response.headers.get("location", "")).hostname
        raise FluxomailResponseError(
            f"the server redirects{f' to {target}' if target else ''}; redirects are not followed, for they would take "
            "the API key along. Put the final address into the connection's host",
            status=response.status,
            request_id=response.request_id,
            idempotency_key=request.idempotency_key,
        )
    if not 200 <= response.status < 300:
        raise error_from_response(
            response.status,
            response.content,
            request_id=response.request_id,
            idempotency_key=request.idempotency_key,
            retry_after=retry_after(response.status, response.headers),
            # Not in a variable: a traceback may show them.
            private=(settings.api_key, *request.private),
        )
    try:
        payload = json.loads(response.content)
    except (ValueError, RecursionError):
        what = "is not JSON" if response.content.strip() else "is empty"
        raise response_error(request, response, f"the answer {what}") from None
    if not isinstance(payload, dict):
        raise response_error(request, response, "the answer is not a JSON object")
    return payload


def response_error(request: Request, response: Response, why: str) -> FluxomailResponseError:
    """Say that an answer came, and that it is not Fluxomail's."""
    return FluxomailResponseError(
        f"{why}: it does not come from Fluxomail. Check the connection's host, and the proxies on the way",
        status=response.status,
        request_id=response.request_id,
        idempotency_key=request.idempotency_key,
        body=response.content[:4096].decode("utf-8", "replace"),
    )


def read_send(request: Request, response: Response, settings: ClientSettings) -> SendResult:
    """Read the answer to :func:`send_request`. Only ``sendId`` is required: sources differ on the rest."""
    payload = read_payload(request, response, settings)
    send_id = payload.get("sendId")
    if not isinstance(send_id, str) or not send_id:
        # A traceback that shows local variables would show what the answer quotes.
        del payload
        raise response_error(request, response, "the answer holds no sendId")
    message_id, status = payload.get("messageId"), payload.get("status")
    return SendResult(
        send_id=send_id,
        message_id=message_id if isinstance(message_id, str) else None,
        status=status if isinstance(status, str) else None,
        reused=payload.get("reused") is True
        or response.headers.get("idempotency-replayed", "").strip().lower() == "true",
        idempotency_key=request.idempotency_key,
        request_id=response.request_id,
    )


class TimelineReader:
    """Reads a timeline page by page: ``next_request``, ``read``, until ``next_request`` is ``None``."""

    def __init__(self, send_id: str) -> None:
        self._send_id = send_id
        self._cursors: set[str] = set()
        self._timeline: Timeline | None = None

    @property
    def timeline(self) -> Timeline:
        """What was read so far."""
        assert self._timeline is not None, "nothing was read yet"
        return self._timeline

    def next_request(self) -> Request | None:
        """Return the request for the next page, ``None`` after the last.

        A cursor that comes back a second time ends the reading: a server may page in circles.
        """
        if self._timeline is None:
            return timeline_request(self._send_id)
        cursor = self._timeline.next_cursor
        if not cursor or cursor in self._cursors or len(self._cursors) >= MAX_TIMELINE_PAGES:
            return None
        self._cursors.add(cursor)
        return timeline_request(self._send_id, cursor)

    def read(self, request: Request, response: Response, settings: ClientSettings) -> None:
        """Take in one page, in any of its forms.

        A gateway's 404 says nothing of the send: the next request may reach Fluxomail.

        :raises FluxomailResponseError: the response is not Fluxomail's.
        :raises FluxomailError: the error that any other response stands for.
        """
        if response.status == 404 and not is_from_fluxomail(response):
            raise response_error(request, response, "the 404 has neither a request id nor an error of the API")
        payload = read_payload(request, response, settings)
        try:
            page = Timeline.parse(self._send_id, payload)
        except ValueError as error:
            # It names the recipient, and a traceback may show local variables.
            del payload
            raise response_error(request, response, str(error)) from None
        self._timeline = self._timeline.joined(page) if self._timeline else page


class BoundedBody:
    """Collects an answer's body, neither larger nor slower than allowed."""

    def __init__(self, request: Request, seconds: float) -> None:
        self._request = request
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """Take in a piece.

        :raises FluxomailResponseError: when the body is too large.
        :raises FluxomailConnectionError: when it trickles in for too long.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > MAX_RESPONSE_BYTES:
            raise FluxomailResponseError(
                f"the answer is larger than {MAX_RESPONSE_BYTES // 2**20} MiB: it does not come from Fluxomail",
                idempotency_key=self._request.idempotency_key,
            )
        if time.monotonic() > self._until:
            raise FluxomailConnectionError(
                f"the answer was not complete after {self._seconds:g} s",
                idempotency_key=self._request.idempotency_key,
            )

    @property
    def content(self) -> bytes:
        """All of it."""
        return b"".join(self._chunks)


def no_answer(
    request: Request, settings: ClientSettings, error: BaseException, *, ambiguous: bool
) -> FluxomailConnectionError:
    """Say in words that no answer came, without the address of the request or a proxy's password."""
    # With its port: on one machine it alone tells a sandbox from another. The settings refuse credentials in it.
    host = urlsplit(settings.base_url).netloc
    causes = list(_causes(error))
    if any("timeout" in type(cause).__name__.lower() for cause in causes):
        why = f"timed out after {settings.timeout:g} s"
    else:
        said = (_system_text(cause) for cause in causes if isinstance(cause, OSError) and cause.strerror)
        why = next(said, "the connection was closed before the answer was complete")
    return FluxomailConnectionError(
        f"no answer from {host}: {why}", ambiguous=ambiguous, idempotency_key=request.idempotency_key
    )


def _system_text(error: OSError) -> str:
    """Return what the error number means: asyncio puts a sentence of its own into ``strerror``."""
    if isinstance(error, ssl.SSLError):
        # Its number is OpenSSL's, which reads as "Operation not permitted".
        return f"TLS failed: {getattr(error, 'verify_message', '') or error.reason or 'no reason given'}"
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error.strerror)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk to the root of an error: libraries wrap what the system said, in causes, contexts and arguments."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [
                *current.args,
                getattr(current, "reason", None),
                current.__cause__,
                current.__context__,
            ]
