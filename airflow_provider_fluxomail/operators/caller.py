"""Who runs an operator: the task itself, other code within a task, or a callback; its messages' keys depend on it.

Airflow users run operators by hand (``FluxomailSendOperator(...).execute(context)``) in a ``@task``, in callbacks and
in subclasses that send more than once. What such an operator sends is another message than the task's own.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_provider_fluxomail.alerts import callback_context
from airflow_provider_fluxomail.sending.batch.requested import Requested
from airflow_provider_fluxomail.sending.idempotency_key import (
    explicit_key,
    is_callback,
    is_running_task,
    notification_key,
    operator_part,
    operator_position,
)
from airflow_provider_fluxomail.sending.retention import Retention
from airflow_provider_fluxomail.sending.send_once import Identity
from airflow_provider_fluxomail.sending.send_record import StateStore, state_store

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection
    from airflow_provider_fluxomail.operators.batch import FluxomailSendBatchOperator
    from airflow_provider_fluxomail.operators.send import FluxomailSendOperator
    from airflow_provider_fluxomail.sending.batch.rows import Row

    SendTask: TypeAlias = FluxomailSendOperator | FluxomailSendBatchOperator


@dataclasses.dataclass(frozen=True, repr=False)
class BatchContent:
    """The content by which two runs of a batch are compared; tracebacks with local variables do not show it."""

    messages: object
    defaults: object = None


class Caller:
    """Who runs an operator.

    :param content: equal if a second call in the same try repeats the first.
    :param recipient: empty for a batch.
    :param resumed: whether the task was deferred before in this try.
    :ivar position: the position of what is sent; a context manager for the send.
    :ivar is_task: whether the operator is the task that runs.
    :ivar may_defer: whether Airflow would resume this operator.
    :ivar store: the task state store; ``None`` in callbacks, before Airflow 3.3 and with ``durable=False``.
    """

    def __init__(
        self, task: SendTask, context: Context, content: object, recipient: str = "", *, resumed: bool = False
    ) -> None:
        self._task = task
        self._context = context
        self._recipient = recipient
        self._resumed = resumed
        self.is_task = is_running_task(task, context)
        self._callback = not self.is_task and is_callback(context)
        self.position = operator_position(task, context, content, recipient, resumed=resumed)
        self.may_defer = bool(task.deferrable and self.position.of_task)
        self.store: StateStore | None = state_store(context) if task.durable and not self._callback else None

    def state_name(self, name: str) -> str:
        """Return the name of a batch's progress in the state store."""
        return name if self.position.of_task else f"{name}_{_digest(operator_part(self._task, self.position))}"

    def requested(self, connection: FluxomailConnection, state: Mapping[str, Any]) -> Requested:
        """Return what earlier legs and tries of a batch requested."""
        part = operator_part(self._task, self.position)
        return Requested(
            state,
            scope=self._identity(connection, "", part, record_name=None).key,
            retention=Retention.of(connection.settings, connection.key_retention_hours * 3600),
        )

    def message(self, connection: FluxomailConnection, idempotency_key: object = None) -> Identity:
        """Return the identity of a single message."""
        part = operator_part(self._task, self.position, recipient=self._recipient)
        return self._identity(
            connection,
            self._recipient,
            part,
            idempotency_key=idempotency_key,
            record_name=None if self.position.of_task else _digest(part),
        )

    def row(self, connection: FluxomailConnection, row: Row, *, recorded: bool) -> Identity:
        """Return the identity of a row of a batch, with a record of its own if ``recorded``."""
        part = operator_part(self._task, self.position, row.part)
        # A name of its own for each: after a clear it must find the record of an earlier try.
        identity = self._identity(
            connection, row.message.to, part, recorded=recorded, record_name=_digest(part) if recorded else None
        )
        # The batch logs one line about a clear for all of its messages.
        named = row.key is None and self.position.of_task
        return dataclasses.replace(identity, cleared=False, names_recipient=named, position=None)

    def _identity(
        self,
        connection: FluxomailConnection,
        recipient: str,
        part: str,
        *,
        idempotency_key: object = None,
        recorded: bool = True,
        record_name: str | None,
    ) -> Identity:
        if self._callback:
            if idempotency_key is not None:
                return Identity(key=explicit_key(idempotency_key, self._context))
            # As a notifier's alert, which Airflow's second call of the same callback must not repeat.
            key = notification_key(
                **callback_context.identity(self._context),
                namespace=connection.idempotency_namespace,
                recipient=recipient,
                configuration={"operator": self._task.task_id},
                part=part,
            )
            return Identity(key=key)
        identity = Identity.of_task(
            self._context,
            connection,
            idempotency_key=idempotency_key,
            part=part,
            resend_on_clear=self._task.resend_on_clear,
            resumed=self._resumed,
            record_name=record_name,
            position=self.position,
        )
        return dataclasses.replace(identity, store=self.store if recorded else None)


def _digest(part: str) -> str:
    return hashlib.sha256(part.encode()).hexdigest()[:32]
