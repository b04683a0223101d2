"""Replays: whether the answer to a known key is about this message, or about one that somebody else sent.

Fluxomail answers a key it knows with the first result, whatever the message. Another deployment, another Dag or a
mapping in another order may have used the key first; then this mail never went out, and its task must not go green.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.client import flows
from airflow_provider_fluxomail.client.addresses import normalised
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailIdempotencyConflictError

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.flows import Flow
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.client.models import SendResult, Timeline
    from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard

log = logging.getLogger(__name__)

_WHO = (
    "This mail was not sent. Another deployment used the key (give each its own idempotency_namespace in the "
    "connection), another Dag (an explicit idempotency_key is shared by all that use it), or a mapping whose items "
    "have changed their order"
)


def is_foreign(sent: SendResult) -> bool:
    """Tell whether a result is a replay that this call's own requests can't explain."""
    return sent.reused and not sent.own_replay


def check(message: EmailMessage, sent: SendResult, *, guard: RecipientGuard, first_try: bool) -> Flow[None]:
    """Compare a result with the stored send, if it is a replay that this call's own requests do not explain.

    A flow: ``client.run(check(...))``, or ``await client.run(check(...))``. A stored send that cannot be read for good
    is a warning: a key that may only send is no reason to fail.

    :param guard: of the connection; it was applied to what was sent.
    :raises FluxomailIdempotencyConflictError: see :func:`check_stored`.
    :raises FluxomailError: the stored send cannot be read now; the next try checks again.
    """
    if not is_foreign(sent):
        return
    try:
        stored = yield from flows.timeline(sent.send_id)
    except FluxomailError as error:
        if not error.permanent:
            raise
        log.warning(
            "Idempotency key %s was used before, for send %s. It is taken for this message, as the stored send cannot "
            "be read: %s",
            sent.idempotency_key,
            sent.send_id,
            error,
        )
    else:
        check_stored(stored, guard.apply(message), sent, first_try=first_try)


def check_stored(stored: Timeline, message: EmailMessage, sent: SendResult, *, first_try: bool) -> None:
    """Compare the stored send with the message.

    :param message: as it was sent, after the connection's guards.
    :param first_try: of a task that was never cleared. Nothing of the task can have sent before, so that the subject
        must agree too; later it may have been rendered anew.
    :raises FluxomailIdempotencyConflictError: the key belongs to another message. Names neither recipient nor subject.
    """
    if stored.recipient is not None and normalised(stored.recipient) != normalised(message.to):
        differs = "another recipient"
    elif first_try and stored.subject is not None and _line(stored.subject) != _line(message.subject):
        differs = "another subject"
    else:
        return
    raise FluxomailIdempotencyConflictError(
        f"the idempotency key was already used for a message with {differs}. {_WHO}",
        send_id=sent.send_id,
        idempotency_key=sent.idempotency_key,
        request_id=sent.request_id,
    )


def explain_clear(sent: SendResult, *, cleared: bool) -> None:
    """Log why a task that a person has cleared sends nothing.

    :param sent: the result, after :func:`check`: the stored send is the task's own.
    :param cleared: whether this is the first try after the clear, and was not to send again.
    """
    if cleared and is_foreign(sent):
        log.warning(
            "This task was cleared, but its message was sent before as send %s and is not sent again. To send again "
            "when a task is cleared, set resend_on_clear=True.",
            sent.send_id,
        )


@contextlib.contextmanager
def explaining(*, first_try: bool) -> Iterator[None]:
    """Say of the server's own refusal of a known key what it means to the task.

    :raises FluxomailIdempotencyConflictError: the refusal, explained.
    """
    try:
        yield
    except FluxomailIdempotencyConflictError as error:
        # Without its context: a traceback that shows local variables would show those of the request.
        raise _explained(error, first_try=first_try) from None


def _explained(error: FluxomailIdempotencyConflictError, *, first_try: bool) -> FluxomailIdempotencyConflictError:
    """Return the server's own refusal of a known key with what it means to the task."""
    if first_try:
        meaning = _WHO
    else:
        meaning = (
            "An earlier try of this task has probably sent the mail; the message was rendered anew since and differs. "
            "Look the key up in Fluxomail, and mark the task as success if it was sent"
        )
    return FluxomailIdempotencyConflictError(
        f"{error.message}. {meaning}",
        status=error.status,
        code=error.code,
        request_id=error.request_id,
        idempotency_key=error.idempotency_key,
        send_id=error.send_id,
        details=error.details,
        body=error.body,
    )


def _line(text: str) -> str:
    """Without differences in white space: servers and mail systems fold it."""
    return " ".join(text.split())
