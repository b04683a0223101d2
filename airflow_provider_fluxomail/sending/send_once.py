"""How a message is sent: its key, its record, the request, and the check of a replay. Every send goes through here.

::

    sent = send_once(message, Identity(key="alert:7"), client)                   # a key of the caller's own
    sent = send_once(message, Identity.of_task(context, connection), client)     # the task's message
    sent = await asend_once(message, Identity(key="alert:7"), async_client)

The steps are written once, as a flow (see :mod:`.client.flows`) that a blocking and an asynchronous client run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.models import SendResult
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.sending import replay
from airflow_provider_fluxomail.sending.idempotency_key import (
    explicit_key,
    is_first_try,
    is_first_try_after_clear,
    part_in_task,
    task_key,
)
from airflow_provider_fluxomail.sending.retention import Retention
from airflow_provider_fluxomail.sending.send_record import SendRecord, StateStore, state_store

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
    from airflow_provider_fluxomail.client.flows import BaseClient, Flow
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.client.sync import FluxomailClient
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection
    from airflow_provider_fluxomail.sending.position import Position

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """Which logical message this is, and what the caller knows about earlier sends of it.

    :param key: the idempotency key. The same key never sends twice.
    :param first_try: whether no earlier try of the task can have used the key. ``None``: the key is the caller's own,
        and a replay is accepted as it is.
    :param cleared: whether a person cleared the task since its last try, and it does not send again.
    :param names_recipient: whether the key contains the recipient. Then a replay in a later try is not checked.
    :param store: where the record of the send is kept, ``None`` for no record. See :mod:`.send_record`.
    :param retention: seconds for which Fluxomail remembers a key. Only matters with a record.
    :param record_name: distinguishes the record from those of the task's other messages.
    :param position: of a message that code in the task sends without a name of its own.
    """

    key: str
    first_try: bool | None = None
    cleared: bool = False
    names_recipient: bool = False
    store: StateStore | None = dataclasses.field(default=None, repr=False)
    retention: float = 0.0
    record_name: str | None = None
    position: Position | None = dataclasses.field(default=None, repr=False)

    @property
    def call(self) -> contextlib.AbstractContextManager[object]:
        """A context manager for the call, which records in its position how it ended."""
        return self.position or contextlib.nullcontext()

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
        position: Position | None = None,
    ) -> Identity:
        """Return the identity of a message of the running task.

        :param part: names one of several messages of the task.
        :param durable: keep a record in the task state store, if Airflow has one.
        :param resumed: whether the task was deferred before in this try.
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
            position=position,
        )

    @classmethod
    def of_running_task(
        cls, message: EmailMessage, connection: FluxomailConnection, *, part: str | None, resend_on_clear: bool = False
    ) -> Identity:
        """Return the identity of a message that the running task's own code sends, see :func:`.part_in_task`."""
        part, context, position = part_in_task(message, part)
        return cls.of_task(context, connection, part=part, resend_on_clear=resend_on_clear, position=position)


def send_once(message: EmailMessage, identity: Identity, client: FluxomailClient) -> SendResult:
    """Send a message once, however often it is called with the same identity.

    :raises FluxomailIdempotencyConflictError: the key belongs to another message; this one was not sent.
    :raises FluxomailUnknownOutcomeError: an earlier try may have sent, too long ago to repeat the request.
    :raises FluxomailClearedError: the task was cleared while this attempt was running.
    :raises FluxomailError: the subclass says what to do.
    """
    return client.run(send_flow(message, identity, client))


async def asend_once(message: EmailMessage, identity: Identity, client: AsyncFluxomailClient) -> SendResult:
    """Send a message once from an event loop, see :func:`send_once`.

    Airflow's task state store blocks, so leave ``store`` out of the identity here.
    """
    return await client.run(send_flow(message, identity, client))


def send_flow(message: EmailMessage, identity: Identity, client: BaseClient) -> Flow[SendResult]:
    """Send a message once, as a step of a longer flow that ``client`` runs."""
    guard = client.settings.guard
    # The guarded message is in no variable: a traceback with local variables would show its recipient.
    position = identity.position
    record = SendRecord(
        identity.store,
        identity.key,
        guard.apply(message).to,
        name=identity.record_name,
        content=position.content if position else "",
    )
    retention = Retention.of(client.settings, identity.retention)
    send_id = record.begin(wait.now(), retention=retention, first_try=bool(identity.first_try))
    if position:
        position.recorded = record.recorded_content
    if send_id:
        if retention.is_other(record.account):
            log.warning(
                "Not sending: an earlier try did, with another host or API key of the connection. If that belongs to "
                "another organization, this one does not know the idempotency key."
            )
        else:
            log.warning(
                "Not sending: an earlier try did, so long ago that Fluxomail may have forgotten the idempotency key."
            )
        sent = SendResult(
            send_id=send_id, message_id=None, status=None, reused=True, idempotency_key=identity.key, request_id=None
        )
        yield from replay.check(message, sent, guard=guard, first_try=False, position=identity.position)
    else:
        try:
            sent = yield from _request(message, identity, client)
        except FluxomailError as error:
            if not error.ambiguous:
                record.refused()
            raise
        record.accepted(sent.send_id)
    if identity.cleared:
        replay.explain_clear(sent)
    return sent


def _request(message: EmailMessage, identity: Identity, client: BaseClient) -> Flow[SendResult]:
    first_try = identity.first_try
    if first_try is None:
        return (yield from client.send_flow(message, idempotency_key=identity.key))
    with replay.explain_conflict(first_try=first_try):
        sent = yield from client.send_flow(message, idempotency_key=identity.key)
    if first_try or not identity.names_recipient:
        guard = client.settings.guard
        yield from replay.check(message, sent, guard=guard, first_try=first_try, position=identity.position)
    return sent
