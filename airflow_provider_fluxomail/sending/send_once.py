"""How a message goes out: its key, its record, the request, and the check of a replay. Every sender goes through here.

::

    sent = send_once(message, Identity(key="alert:7"), client)                   # a key of the caller's own
    sent = send_once(message, Identity.of_task(context, connection), client)     # the task's message
    sent = await asend_once(message, Identity(key="alert:7"), async_client)

The steps are written once, as a generator that a blocking and an asynchronous client drive.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.client.wire import SendResult
from airflow_provider_fluxomail.sending import replay
from airflow_provider_fluxomail.sending.idempotency_key import (
    explicit_key,
    is_first_try,
    is_first_try_after_clear,
    running_task_key,
    task_key,
)
from airflow_provider_fluxomail.sending.send_record import SendRecord, StateStore, state_store

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard
    from airflow_provider_fluxomail.client.sync import FluxomailClient
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection

log = logging.getLogger(__name__)

#: One call of a client: takes the client, returns what the call returns (an awaitable for an asynchronous client).
Step = Callable[[Any], Any]
Steps = Generator[Step, Any, SendResult]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """Which logical message this is, and what the caller knows about earlier sends of it.

    :param key: the idempotency key. The same key never sends twice.
    :param first_try: whether no earlier try of the task can have used the key. ``None``: the key is the caller's own,
        and a replay is accepted as it is.
    :param cleared: whether a person cleared the task since its last try, and it does not send again.
    :param names_recipient: whether the key contains the recipient. Then a replay in a later try cannot be another
        recipient's, and is not checked.
    :param store: where the record of the send is kept, ``None`` for no record. See :mod:`.send_record`.
    :param retention: seconds for which Fluxomail remembers a key. Only matters with a record.
    :param record_name: distinguishes the record from those of the task's other messages.
    """

    key: str
    first_try: bool | None = None
    cleared: bool = False
    names_recipient: bool = False
    store: StateStore | None = dataclasses.field(default=None, repr=False)
    retention: float = 0.0
    record_name: str | None = None

    @classmethod
    def of_task(
        cls,
        context: Context,
        connection: FluxomailConnection,
        *,
        idempotency_key: object = None,
        part: str = "",
        resend_on_clear: bool = False,
        durable: bool = False,
        resumed: bool = False,
        record_name: str | None = None,
    ) -> Identity:
        """Return the identity of a message of the running task.

        :param context: as ``execute`` got it, in a worker.
        :param connection: for its ``idempotency_namespace`` and ``key_retention_hours``.
        :param idempotency_key: chosen by the author; replaces the derived key.
        :param part: names one of several messages of the task.
        :param durable: keep a record in the task state store, if Airflow has one.
        :param resumed: whether the task was deferred before in this try.
        :raises FluxomailValidationError: the key is empty or contains a line break.
        """
        if idempotency_key is not None:
            key = explicit_key(idempotency_key, context, resend_on_clear=resend_on_clear)
        else:
            namespace = connection.idempotency_namespace
            key = task_key(context, namespace=namespace, resend_on_clear=resend_on_clear, part=part)
        return cls(
            key=key,
            first_try=is_first_try(context) and not resumed,
            cleared=not resend_on_clear and is_first_try_after_clear(context),
            store=state_store(context) if durable else None,
            retention=connection.key_retention_hours * 3600,
            record_name=record_name,
        )

    @classmethod
    def of_running_task(
        cls, message: EmailMessage, connection: FluxomailConnection, *, part: str | None, resend_on_clear: bool = False
    ) -> Identity:
        """Return the identity of a message that the running task's own code sends.

        :param part: names the message within the task, see :func:`.running_task_key`.
        :raises FluxomailValidationError: no task is running, or ``part`` is empty.
        """
        key, context = running_task_key(
            message, namespace=connection.idempotency_namespace, part=part, resend_on_clear=resend_on_clear
        )
        return cls(
            key=key,
            first_try=is_first_try(context),
            cleared=not resend_on_clear and is_first_try_after_clear(context),
        )


def send_once(message: EmailMessage, identity: Identity, client: FluxomailClient) -> SendResult:
    """Send a message once, however often it is called with the same identity.

    :raises FluxomailIdempotencyConflictError: the key belongs to another message; this one was not sent.
    :raises FluxomailUnknownOutcomeError: an earlier try may have sent, too long ago to ask Fluxomail.
    :raises FluxomailClearedError: the task was cleared while this attempt was running.
    :raises FluxomailError: the subclass says what to do.
    """
    steps = _steps(message, identity, client.settings.guard)
    try:
        step = next(steps)
        while True:
            try:
                result = step(client)
            except BaseException as error:  # noqa: BLE001 - the steps decide
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        sent: SendResult = end.value
        return sent


async def asend_once(message: EmailMessage, identity: Identity, client: AsyncFluxomailClient) -> SendResult:
    """Send a message once from an event loop, see :func:`send_once`.

    Airflow's task state store blocks, so leave ``store`` out of the identity here.
    """
    steps = _steps(message, identity, client.settings.guard)
    try:
        step = next(steps)
        while True:
            try:
                result = await step(client)
            except BaseException as error:  # noqa: BLE001 - the steps decide
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        sent: SendResult = end.value
        return sent


def _steps(message: EmailMessage, identity: Identity, guard: RecipientGuard) -> Steps:
    # The guarded message is in no variable: a traceback that shows local variables would show its recipient.
    record = SendRecord(identity.store, identity.key, guard.apply(message).to, name=identity.record_name)
    if send_id := record.begin(wait.now(), retention=identity.retention):
        log.warning(
            "Not sending: an earlier try did, so long ago that Fluxomail may have forgotten the idempotency key."
        )
        sent = SendResult(
            send_id=send_id, message_id=None, status=None, reused=True, idempotency_key=identity.key, request_id=None
        )
        yield from _check_replay(message, sent, guard, first_try=False)
    else:
        try:
            sent = yield from _request(message, identity, guard)
        except FluxomailError as error:
            if not error.ambiguous:
                record.refused()
            raise
        record.accepted(sent.send_id)
    if identity.cleared:
        replay.explain_clear(sent)
    return sent


def _request(message: EmailMessage, identity: Identity, guard: RecipientGuard) -> Steps:
    key, first_try = identity.key, identity.first_try
    if first_try is None:
        sent: SendResult = yield lambda client: client.send(message, idempotency_key=key)
        return sent
    with replay.explain_conflict(first_try=first_try):
        sent = yield lambda client: client.send(message, idempotency_key=key)
    if first_try or not identity.names_recipient:
        yield from _check_replay(message, sent, guard, first_try=first_try)
    return sent


def _check_replay(
    message: EmailMessage, sent: SendResult, guard: RecipientGuard, *, first_try: bool
) -> Generator[Step, Any, None]:
    """Compare a replay that this call did not cause with the stored send."""
    if replay.is_foreign(sent):
        with replay.tolerate_unreadable(sent):
            replay.check_stored(
                (yield lambda client: client.get_timeline(sent.send_id)),
                guard.apply(message),
                sent,
                first_try=first_try,
            )
