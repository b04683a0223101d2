"""What can go wrong, named for what the reader does next.

::

    FluxomailError
    ├── FluxomailAuthError                 401: replace the API key
    ├── FluxomailPermissionError           403: give the key the scope that is named
    │   └── FluxomailTenantPausedError     403: a person must resume the organization
    ├── FluxomailPlanRequiredError         402: the feature is not in the plan
    ├── FluxomailRequestError              any other 4xx: the request itself must change
    ├── FluxomailValidationError           400, 422, or refused here before sending: mend the field
    ├── FluxomailNotFoundError             404: no such send for this key
    ├── FluxomailIdempotencyConflictError  409 that lasts: the key was used for another message
    ├── FluxomailUnknownOutcomeError       a try too long ago may have sent: a person must look
    ├── FluxomailRateLimitError            429: wait ``retry_after`` seconds
    ├── FluxomailServerError               5xx and 408: try again with the same key
    ├── FluxomailConnectionError           no answer: try again with the same key
    ├── FluxomailResponseError             an answer, but not one of Fluxomail's
    ├── FluxomailDeliveryError             the message bounced, was complained of, dropped, or failed
    ├── FluxomailClearedError              the task was cleared while this attempt was running
    └── FluxomailBatchError                messages of a batch were rejected: fix these rows
        └── FluxomailBatchUnfinishedError  some outcomes are unknown: a retry requests them again, with the same keys

An error prints its status, code, request id and idempotency key. It never prints the API key, a recipient or a
body: error texts end up in task logs, alerts and tickets. What the server said in full stays in
:attr:`FluxomailError.body`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

#: Longest piece of a server's text that an error prints, in characters.
MAX_TEXT = 300

#: So many characters in common with a body are a quotation of it.
_QUOTE = 12
_ADDRESS = re.compile(r"[^\s<>\"'(),;:\[\]]+@[^\s<>\"'(),;\[\]]+")


class FluxomailError(Exception):
    """Base of every error of this package.

    .. seealso:: :doc:`/troubleshooting`

    :param message: what happened and, where known, the cure.
    :param status: HTTP status, ``None`` when no answer was read.
    :param code: Fluxomail's error code, e.g. ``missing_scope``.
    :param request_id: quote it to Fluxomail's support.
    :param idempotency_key: the key that was sent, if one was.
    :param send_id: the send it is about, where known.
    :param details: the answer's ``details``.
    :param preview: the answer's ``preview`` (402: what the plan lacks).
    :param body: the raw answer, cut; never printed.
    :param retry_after: seconds the server asked to wait.
    """

    #: True when trying again cannot help: an Airflow task fails at once instead of using up its retries.
    permanent: ClassVar[bool] = False
    #: True when the send may have been stored all the same; of several attempts of one call, by any of them.
    ambiguous: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        send_id: str | None = None,
        details: object = None,
        preview: object = None,
        body: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id
        self.idempotency_key = idempotency_key
        self.send_id = send_id
        self.details = details
        self.preview = preview
        self.body = body
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts = {
            "status": self.status,
            "code": self.code,
            "request id": self.request_id,
            "idempotency key": self.idempotency_key,
            "send id": self.send_id,
            "retry after": None if self.retry_after is None else f"{self.retry_after:g} s",
        }
        told = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        return f"{self.message} ({told})" if told else self.message


class FluxomailAuthError(FluxomailError):
    """401: the API key is missing, wrong or revoked."""

    permanent = True


class FluxomailPermissionError(FluxomailError):
    """403: the API key lacks a scope, or a policy forbids the send."""

    permanent = True


class FluxomailTenantPausedError(FluxomailPermissionError):
    """403: the organization is paused; a person resumes it in Settings > Deliverability."""


class FluxomailPlanRequiredError(FluxomailError):
    """402: the organization's plan lacks the feature."""

    permanent = True


class FluxomailValidationError(FluxomailError, ValueError):
    """400 or 422, or a message that was refused here, before anything was sent."""

    permanent = True


class FluxomailNotFoundError(FluxomailError):
    """404: the send does not exist, or belongs to another organization."""

    permanent = True


class FluxomailIdempotencyConflictError(FluxomailError):
    """409 that outlasted a few short waits, or a 422 that says so: the key belongs to another message."""

    permanent = True


class FluxomailUnknownOutcomeError(FluxomailError):
    """An earlier try may have sent, longer ago than Fluxomail remembers keys: sending again might send twice."""

    permanent = True


class FluxomailRateLimitError(FluxomailError):
    """429: the key's cap per minute is used up. ``retry_after`` says for how many seconds, if known."""


class FluxomailServerError(FluxomailError):
    """5xx or 408: Fluxomail, or something before it, could not answer. Whether the mail was stored is unknown."""

    ambiguous = True


class FluxomailConnectionError(FluxomailError):
    """No answer: refused, reset, timed out.

    :param ambiguous: False when the request certainly never reached the server.
    """

    def __init__(self, message: str, *, ambiguous: bool = True, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.ambiguous = ambiguous


class FluxomailResponseError(FluxomailError):
    """An answer that is not Fluxomail's: not JSON, empty, too large, redirected, or without a ``sendId``."""

    ambiguous = True


class FluxomailRequestError(FluxomailError):
    """A 4xx that no other class names (405, 413, 415...): the request itself must change."""

    permanent = True


class FluxomailDeliveryError(FluxomailError):
    """The timeline shows a failure: bounced, complained, dropped or failed.

    :param event: the event's type.
    """

    permanent = True

    def __init__(self, message: str, *, event: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.event = event


class FluxomailClearedError(FluxomailError):
    """The task was cleared while this attempt was running; this attempt must not send."""

    permanent = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchCounts:
    """Number of messages in a batch, by outcome.

    :param total: all of them.
    :param replayed: sent before with the same key.
    :param unknown: may or may not have been sent.
    """

    total: int = 0
    sent: int = 0
    replayed: int = 0
    rejected: int = 0
    unknown: int = 0

    @property
    def settled(self) -> int:
        """Messages that have an outcome."""
        return self.sent + self.replayed + self.rejected + self.unknown


class FluxomailBatchError(FluxomailError):
    """Messages of a batch were rejected, and a retry would be rejected too.

    :param counts: messages by outcome.
    """

    permanent = True

    def __init__(self, message: str, *, counts: BatchCounts, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.counts = counts


class FluxomailBatchUnfinishedError(FluxomailBatchError):
    """The outcome of some messages is unknown; a retry requests these again, with the same keys."""

    permanent = False


_BY_STATUS: dict[int, type[FluxomailError]] = {
    400: FluxomailValidationError,
    401: FluxomailAuthError,
    402: FluxomailPlanRequiredError,
    403: FluxomailPermissionError,
    404: FluxomailNotFoundError,
    408: FluxomailServerError,
    409: FluxomailIdempotencyConflictError,
    422: FluxomailValidationError,
    429: FluxomailRateLimitError,
}

_CURES: dict[type[FluxomailError], str] = {
    FluxomailAuthError: "check the connection's password: it holds the API key",
    FluxomailTenantPausedError: "resume the organization in Fluxomail under Settings > Deliverability",
    FluxomailPlanRequiredError: "the organization's plan does not include this feature",
    FluxomailIdempotencyConflictError: "the idempotency key was already used for another message",
}


def redact(text: str, private: Iterable[str] = ()) -> str:
    """Return ``text`` on one line, cut, without any address and without the ``private`` strings.

    Servers quote what they refuse: a 400 names the address, a bounce's reason holds the whole recipient.

    :param text: what a server said.
    :param private: strings to hide as well: the API key, names of people, the subject, the bodies.
    """
    text = text[: 4 * MAX_TEXT]
    # A server that quotes JSON quotes it escaped.
    secrets = {form for value in private for form in (value, json.dumps(value)[1:-1], _escaped(value))}
    for secret in sorted((value for value in secrets if len(value) > 3), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = without_addresses(_without_quotes(text, secrets))
    text = " ".join(text.split())
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def without_addresses(text: str) -> str:
    """Return ``text`` with ``<address>`` in place of each address."""
    return _ADDRESS.sub("<address>", text)


def _escaped(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)[1:-1]


def _without_quotes(text: str, secrets: Iterable[str]) -> str:
    """Blank out what a server quotes of a secret in part: every run of :data:`_QUOTE` characters or more."""
    long = [secret for secret in secrets if len(secret) >= _QUOTE]
    hidden = [False] * len(text)
    for start in range(len(text) - _QUOTE + 1):
        piece = text[start : start + _QUOTE]
        if any(piece in secret for secret in long):
            hidden[start : start + _QUOTE] = [True] * _QUOTE
    for address in _ADDRESS.finditer(text):
        # Of another person's at the recipient's domain, the domain alone would go, and the name would stay.
        start, end = address.span()
        if any(hidden[start:end]):
            hidden[start:end] = [True] * (end - start)
    runs = itertools.groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
    return "".join("***" if private else "".join(character for character, _ in run) for private, run in runs)


def error_from_response(
    status: int,
    content: bytes,
    *,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    retry_after: float | None = None,
    private: Iterable[str] = (),
) -> FluxomailError:
    """Turn a status and a body in any of the documented forms into the error that says what to do.

    Text is ``message``, else ``error`` (a string or a nested object), else the raw text; the code is ``code``,
    else the nested object's. https://docs.fluxomail.com/api-reference/fluxomail/errors

    :param status: HTTP status of an answer that is not a 2xx.
    :param content: the body, already bounded.
    :param private: strings the printed text must not hold (see :func:`redact`).
    """
    raw = content.decode("utf-8", "replace")
    payload = _json_object(raw)
    nested = payload.get("error")
    inner: Mapping[str, Any] = nested if isinstance(nested, dict) else {}
    text = _first_text(payload.get("message"), nested, inner.get("message"), inner.get("error"))
    if not text and not payload:
        text = _plain(raw)
    code = _first_text(payload.get("code"), inner.get("code")) or None
    details = payload.get("details", inner.get("details"))
    kind = _kind(status, code, text)
    said = redact(text, private) or "no error text"
    if isinstance(details, dict | list) and details and issubclass(kind, FluxomailValidationError):
        said += f"; details: {redact(json.dumps(details, ensure_ascii=False, default=str), private)}"
    cure = _CURES.get(kind)
    send_id = _first_text(payload.get("sendId"), details.get("sendId") if isinstance(details, dict) else None)
    return kind(
        f"Fluxomail answered {status}: {said}" + (f"; {cure}" if cure else ""),
        status=status,
        code=redact(code, private) if code else None,
        request_id=request_id,
        idempotency_key=idempotency_key,
        send_id=send_id or None,
        details=details,
        preview=payload.get("preview", inner.get("preview")),
        body=raw[:4096],
        retry_after=retry_after,
    )


def _kind(status: int, code: str | None, text: str) -> type[FluxomailError]:
    if status == 403 and (code == "tenant_paused" or "paused" in text.lower()):
        return FluxomailTenantPausedError
    if status == 422 and code and ("idempot" in code or "conflict" in code):
        return FluxomailIdempotencyConflictError
    if known := _BY_STATUS.get(status):
        return known
    if status >= 500:
        return FluxomailServerError
    return FluxomailRequestError if status >= 400 else FluxomailResponseError


def _json_object(raw: str) -> dict[str, Any]:
    try:
        payload = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return payload if isinstance(payload, dict) else {}


def _first_text(*candidates: object) -> str:
    return next((text for text in candidates if isinstance(text, str) and text.strip()), "")


def _plain(raw: str) -> str:
    """Make a proxy's HTML page readable as one line; its markup tells nobody anything."""
    if "<html" in raw[:1024].lower() or "<!doctype" in raw[:1024].lower():
        title = re.search(r"<title[^>]*>(.*?)</title>", raw, re.IGNORECASE | re.DOTALL)
        return f"an HTML page{f' titled {title.group(1).strip()!r}' if title else ''}"
    return raw
