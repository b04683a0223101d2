"""Every error of this package, and which response is which error.

An error prints its status, code, request id and idempotency key. It never prints the API key, a recipient or a body.
What the server said in full is in :attr:`FluxomailError.body`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_fluxomail.client.redaction import identifier, redact, without_markup

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.batch_counts import BatchCounts

#: Of a response, in an error. Characters.
MAX_BODY: Final = 4096


class FluxomailError(Exception):
    """Base of every error of this package.

    ::

        try:
            client.send(message, idempotency_key="nightly-load-2026-01-01")
        except FluxomailError as error:
            print(error.status, error.code, error.request_id, error.permanent)

    .. seealso:: :doc:`/operate/troubleshooting`

    :param message: what happened and, where known, how to fix it.
    :param status: HTTP status; ``None`` without a response.
    :param code: Fluxomail's error code, e.g. ``missing_scope``.
    :param request_id: quote it to Fluxomail's support.
    :param idempotency_key: the key that was sent, if one was.
    :param send_id: the send it is about, where known.
    :param details: the response's ``details``, unless the response is larger than 4096 characters.
    :param preview: the response's ``preview`` (402: what the plan lacks), likewise.
    :param body: the raw response, cut; never printed.
    :param retry_after: seconds that the server asked to wait.
    :param concerns_one_message: replaces the class's default.
    """

    #: True if a retry cannot succeed: an Airflow task fails at once and keeps its retries.
    permanent: ClassVar[bool] = False
    #: True if the message may have been accepted all the same, by any attempt of the call.
    ambiguous: bool = False
    _concerns_one_message: bool = False

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
        concerns_one_message: bool | None = None,
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
        if concerns_one_message is not None:
            self._concerns_one_message = concerns_one_message

    @property
    def concerns_one_message(self) -> bool:
        """True if the cause may lie in this message: others may be accepted. False if all would fail, as on a 401."""
        return self._concerns_one_message

    def __str__(self) -> str:
        facts = {
            "status": self.status,
            "code": self.code,
            "request id": self.request_id,
            "idempotency key": self.idempotency_key,
            "send id": self.send_id,
            "retry after": None if self.retry_after is None else f"{self.retry_after:g} s",
        }
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
        return f"{self.message} ({known})" if known else self.message


class FluxomailAuthError(FluxomailError):
    """401: the API key is missing, wrong or revoked.
    What to do: put a valid API key into the connection's password.
    """

    permanent = True


class FluxomailPermissionError(FluxomailError):
    """403: the API key lacks a scope, or a policy forbids the send.
    What to do: give the key the scope that the error names.
    """

    permanent = True


class FluxomailTenantPausedError(FluxomailPermissionError):
    """403: the organization is paused.
    What to do: a person resumes the organization in Fluxomail under Settings > Deliverability.
    """


class FluxomailPlanRequiredError(FluxomailError):
    """402: the organization's plan lacks the feature; ``preview`` says which.
    What to do: leave the feature out, or change the plan.
    """

    permanent = True


class FluxomailValidationError(FluxomailError, ValueError):
    """400 or 422, or a message that was refused here before anything was sent.

    What to do: fix the field that the error names.
    """

    permanent = True
    _concerns_one_message = True


class FluxomailNotFoundError(FluxomailError):
    """404: the send does not exist, or belongs to another organization.
    What to do: check the send id, and that the connection belongs to the organization that sent it.
    """

    permanent = True


class FluxomailIdempotencyConflictError(FluxomailError):
    """409 that outlasts a few short waits, a 422 that says so, or a wrong replay: the key belongs to another message.

    What to do: find out who uses the key, and set ``idempotency_namespace`` or another key.
    """

    permanent = True
    _concerns_one_message = True


class FluxomailUnknownOutcomeError(FluxomailError):
    """An earlier try may have sent, longer ago than Fluxomail remembers keys: sending again might send twice.

    What to do: look the key up in Fluxomail. Mark the task as success, or clear it with ``resend_on_clear=True``.
    """

    permanent = True
    _concerns_one_message = True


class FluxomailRateLimitError(FluxomailError):
    """429: the key's rate limit is used up. ``retry_after`` says for how many seconds, if known.

    What to do: set ``deferrable=True``, or raise the key's limit in Fluxomail.
    """


class FluxomailServerError(FluxomailError):
    """5xx or 408: Fluxomail, or a gateway in front of it, failed. Whether the message was stored is unknown.

    What to do: retry with the same key.
    """

    ambiguous = True
    _concerns_one_message = True


class FluxomailConnectionError(FluxomailError):
    """No response: refused, reset, timed out. Whether the message was stored may be unknown.

    What to do: retry with the same key. If every try fails, check host, proxies and network.

    :param ambiguous: False when the request certainly never reached the server.
    """

    def __init__(self, message: str, *, ambiguous: bool = True, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.ambiguous = ambiguous

    @property
    def concerns_one_message(self) -> bool:
        """True unless no server was reached: then no message has a chance."""
        return self.ambiguous


class FluxomailResponseError(FluxomailError):
    """A response that is not Fluxomail's: not JSON, empty, too large, redirected, or without a ``sendId``.
    What to do: check the connection's host, and any proxies in between.
    """

    ambiguous = True
    _concerns_one_message = True


class FluxomailRequestError(FluxomailError):
    """A 4xx that no other class names (405, 413, 415...).
    What to do: check the connection's host. The request itself must change: for 413, send less.
    """

    permanent = True


class FluxomailDeliveryError(FluxomailError):
    """The timeline shows a failure: bounced, complained, dropped or failed.

    What to do: read event and reason in the error, and check the recipient.

    :param event: the event's type.
    """

    permanent = True

    def __init__(self, message: str, *, event: str | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.event = event


class FluxomailWatcherError(FluxomailError):
    """A bug in this package stopped a watcher; its waits continue with a new one.

    What to do: report it, with the traceback in the triggerer's log.
    """


class FluxomailStateError(FluxomailError):
    """Airflow's task state store (3.3 and later) cannot be read or written; nothing was sent.
    What to do: nothing, Airflow retries. To send without the store, set ``durable=False``.
    """


class FluxomailClearedError(FluxomailError):
    """The task was cleared while this attempt was running (Airflow 3.3 and later): it stops without sending.
    What to do: nothing. The new attempt sends.
    """

    permanent = True


class FluxomailStorageError(FluxomailError):
    """A storage failed while a file was read or written: object storage, a network, a shared volume.
    What to do: retry. If every try fails, check what the error says, and the storage's connection.
    """


class FluxomailBatchError(FluxomailError):
    """Messages of a batch were rejected.
    What to do: look at the report or the log, and fix these rows.

    :param counts: messages by outcome.
    """

    permanent = True

    def __init__(self, message: str, *, counts: BatchCounts | None = None, **facts: Any) -> None:
        from airflow_provider_fluxomail.client.batch_counts import BatchCounts

        super().__init__(message, **facts)
        self.counts = counts or BatchCounts()


class FluxomailBatchUnfinishedError(FluxomailBatchError):
    """It is unknown whether some messages of a batch were sent.
    What to do: retry. The next try requests these again, with the same keys.
    """

    permanent = False
    ambiguous = True


#: Which status is which error. 403 and 422 have exceptions by code, see :func:`_kind`.
_BY_STATUS: Final[Mapping[int, type[FluxomailError]]] = {
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

_FIXES: Final[Mapping[type[FluxomailError], str]] = {
    FluxomailAuthError: "check the connection's password: it holds the API key",
    FluxomailTenantPausedError: "resume the organization in Fluxomail under Settings > Deliverability",
    FluxomailPlanRequiredError: "the organization's plan does not include this feature",
    FluxomailIdempotencyConflictError: "the idempotency key was already used for another message",
}


def error_from_response(
    status: int,
    content: bytes,
    *,
    request_id: str | None = None,
    idempotency_key: str | None = None,
    retry_after: float | None = None,
    private: Iterable[str] = (),
    optional_fields: Collection[str] = (),
) -> FluxomailError:
    """Return the error that a status and a body in any of the documented forms stand for.

    Its text is ``message``, else ``error`` (a string or a nested object), else the raw text.
    https://docs.fluxomail.com/api-reference/fluxomail/errors

    :param status: HTTP status of a response that is not a 2xx.
    :param private: strings that the printed text must not hold (see :func:`.redact`).
    :param optional_fields: of the request, see :class:`.Request`.
    """
    # No Dag parse reads a response.
    from airflow_provider_fluxomail.client.json_text import json_object

    raw = content.decode("utf-8", "replace")
    payload = json_object(raw)
    nested = payload.get("error")
    inner: Mapping[str, Any] = nested if isinstance(nested, dict) else {}
    text = _first_text(payload.get("message"), nested, inner.get("message"), inner.get("error"))
    text = text or ("" if payload else without_markup(raw))
    code = _first_text(payload.get("code"), inner.get("code")) or None
    details = payload.get("details", inner.get("details"))
    kind = _kind(status, code, text)
    message = redact(text, private) or "no error text"
    if isinstance(details, dict | list) and details and issubclass(kind, FluxomailValidationError):
        message += f"; details: {redact(json.dumps(details, ensure_ascii=False, default=str), private)}"
    fix = _FIXES.get(kind)
    inner_id = details.get("sendId") if isinstance(details, dict) else None
    # Each of many waits keeps its last error.
    small = len(raw) <= MAX_BODY
    return kind(
        f"Fluxomail returned {status}: {message}" + (f"; {fix}" if fix else ""),
        status=status,
        code=redact(code, private) if code else None,
        request_id=request_id,
        idempotency_key=idempotency_key,
        send_id=identifier(payload.get("sendId")) or identifier(inner_id),
        details=details if small else None,
        preview=payload.get("preview", inner.get("preview")) if small else None,
        body=raw[:MAX_BODY],
        retry_after=retry_after,
        concerns_one_message=_is_about_its_fields(status, kind, code, text, optional_fields) or None,
    )


def _kind(status: int, code: str | None, text: str) -> type[FluxomailError]:
    if status == 403 and (code == "tenant_paused" or "paused" in text.lower()):
        return FluxomailTenantPausedError
    if status == 422 and code and ("idempot" in code or "conflict" in code):
        return FluxomailIdempotencyConflictError
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    others = FluxomailRequestError if status >= 400 else FluxomailResponseError
    return FluxomailServerError if status >= 500 else others


def _is_about_its_fields(
    status: int, kind: type[FluxomailError], code: str | None, text: str, optional_fields: Collection[str]
) -> bool:
    """Return whether an error that usually concerns all messages is about what this one holds."""
    if kind is FluxomailPlanRequiredError:
        return "attachments" in optional_fields
    if kind is FluxomailPermissionError:
        # Neither code nor text name the key's scope, so it is the message's policy that forbids it.
        return "policyKey" in optional_fields and code != "missing_scope" and "missing scope" not in text
    return status == 413


def as_response_error(error: Exception) -> FluxomailError:
    """Return an error of this package as it is, any other as the error of a response that could not be processed."""
    if isinstance(error, FluxomailError):
        return error
    # By its type alone: its text may quote the response.
    return FluxomailResponseError(f"the response could not be processed: {type(error).__name__}")


def _first_text(*candidates: object) -> str:
    return next((text for text in candidates if isinstance(text, str) and text.strip()), "")
