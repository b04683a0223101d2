"""Whether the response to a known key is about this message, or about a message that another sender gave the key.

Fluxomail responds to a key it knows with the first result, whatever the message. If another deployment, another Dag or
a mapping in another order used the key first, this email was never sent, and its task must not succeed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.client import flows
from airflow_provider_fluxomail.client.addresses import identity
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailIdempotencyConflictError
from airflow_provider_fluxomail.sending.position import several_in_another_order

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.flows import Flow
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.client.models import SendResult, Timeline
    from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard
    from airflow_provider_fluxomail.sending.position import Position

log = logging.getLogger(__name__)

_ANOTHER_SENDER = (
    "This email was not sent. The key was used by another deployment (give each its own idempotency_namespace in the "
    "connection), by another Dag (an explicit idempotency_key is shared by all that use it), or by a mapping whose "
    "items changed their order"
)
_EARLIER_TRY = (
    "An earlier try of this task has probably sent the email; the message was rendered again since and differs. Search "
    "for the key in Fluxomail, and mark the task as success if it was sent"
)


def is_foreign(sent: SendResult) -> bool:
    """Return whether a result is a replay that this call's own requests cannot explain."""
    return sent.reused and not sent.own_replay


def check(
    message: EmailMessage, sent: SendResult, *, guard: RecipientGuard, first_try: bool, position: Position | None
) -> Flow[None]:
    """Compare a replay that this call did not cause with the stored send. A flow, see :mod:`.client.flows`.

    If the stored send cannot be read at all, there is only a warning: a send-only key is no reason to fail.

    :raises FluxomailIdempotencyConflictError: it is another message.
    """
    if not is_foreign(sent):
        return
    try:
        stored = yield from flows.timeline(sent.send_id)
    except FluxomailError as error:
        if not error.permanent:
            raise
        log.warning(
            "Idempotency key %s was used before, for send %s. Assuming that it is this message, as the stored send "
            "cannot be read: %s",
            sent.idempotency_key,
            sent.send_id,
            error,
        )
    else:
        _compare(stored, guard.apply(message), sent, first_try=first_try, position=position)


def _compare(
    stored: Timeline, message: EmailMessage, sent: SendResult, *, first_try: bool, position: Position | None
) -> None:
    """Raise an error, without recipient and subject, if the stored send is not the message.

    :param first_try: of a task that was never cleared. Nothing of the task can have sent before, so the subject must
        match too; on later tries it may have been rendered again.
    :param position: of a message that is one of several to its recipient; with another subject, it is another of them.
    """
    facts: dict[str, Any] = {
        "send_id": sent.send_id,
        "idempotency_key": sent.idempotency_key,
        "request_id": sent.request_id,
    }
    same_subject = stored.subject is None or _line(stored.subject) == _line(message.subject)
    if stored.recipient is not None and identity(stored.recipient) != identity(message.to):
        difference = "another recipient"
    elif first_try and not same_subject:
        difference = "another subject"
    else:
        if position is not None and not same_subject:
            position.another_subject = True
            if position.ordinal > 0:
                raise several_in_another_order(**facts)
        return
    raise FluxomailIdempotencyConflictError(
        f"the idempotency key was already used for a message with {difference}. {_ANOTHER_SENDER}",
        **facts,
    )


def explain_clear(sent: SendResult) -> None:
    """Log why a task that a person cleared sends nothing, once the stored send is known to be the task's own."""
    if is_foreign(sent):
        log.warning(
            "This task was cleared, but its message was sent before as send %s and is not sent again. To send again "
            "when a task is cleared, set resend_on_clear=True.",
            sent.send_id,
        )


@contextlib.contextmanager
def explain_conflict(*, first_try: bool) -> Iterator[None]:
    """Add to the server's conflict error what it means for the task."""
    try:
        yield
    except FluxomailIdempotencyConflictError as error:
        error.message += f". {_ANOTHER_SENDER if first_try else _EARLIER_TRY}"
        # Without its frames: a traceback that shows local variables would show those of the request.
        raise error.with_traceback(None) from None


def _line(text: str) -> str:
    """Return the text without differences in white space: servers and mail systems fold it."""
    return " ".join(text.split())
