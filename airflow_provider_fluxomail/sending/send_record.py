"""What a task remembers of its send across tries, crashes and clears, in Airflow's task state store (3.3 and later).

Written before the request, the record also stops an attempt whose task was cleared while it was running, and says when
the key was first used: after its retention Fluxomail may have forgotten it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_fluxomail.airflow_compat import api_error_status
from airflow_provider_fluxomail.client.addresses import normalised
from airflow_provider_fluxomail.client.errors import (
    FluxomailClearedError,
    FluxomailIdempotencyConflictError,
    FluxomailStateError,
)

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.sending.retention import Retention

log = logging.getLogger(__name__)

_NAME: Final = "fluxomail_send"
_WITHOUT: Final = (
    "another try might send a second email without knowing of this request, so it was not made. Let Airflow retry; "
    "durable=False sends without the store"
)


class StateStore(Protocol):
    """The part of Airflow's task state store that is used. Its values survive retries and clears."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...

    def delete(self, key: str) -> None: ...


def state_store(context: Context) -> StateStore | None:
    """Return the task's state store, ``None`` before Airflow 3.3."""
    store: StateStore | None = context.get("task_state_store")
    return store


def save(store: StateStore, name: str, value: dict[str, Any], *, required: bool = False) -> None:
    """Write to the store.

    :param required: whether a request follows that later tries must know of.
    :raises FluxomailClearedError: Airflow no longer knows this attempt.
    :raises FluxomailStateError: the write failed, and it is required.
    """
    try:
        store.set(name, value)
    except Exception as error:
        if api_error_status(error) == 404:
            raise FluxomailClearedError(
                "this attempt was cleared while it was running; it stops without sending, the new attempt sends"
            ) from None
        if required:
            raise FluxomailStateError(f"Airflow's task state store cannot be written: {_WITHOUT}: {error}") from error
        log.warning("Could not write to Airflow's task state store, continuing without it: %s", error)


def load(store: StateStore, name: str, *, required: bool) -> Mapping[str, Any]:
    """Read from the store; empty if it holds nothing that this package wrote.

    :param required: whether an earlier try may have written to it.
    :raises FluxomailStateError: reading failed, and it is required.
    """
    try:
        value = store.get(name)
    except Exception as error:
        if required:
            raise FluxomailStateError(f"Airflow's task state store cannot be read: {_WITHOUT}: {error}") from error
        log.warning("Could not read Airflow's task state store, continuing without it: %s", error)
        return {}
    return value if isinstance(value, Mapping) else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredRecord:
    """What the store holds. The names of the fields are stored, so they never change.

    :param key: the idempotency key. A record of another key belongs to another send of the task.
    :param recipient: digest of the address: shows whether it is the same without revealing it.
    :param asked: epoch seconds of the first request with the key.
    :param send_id: from Fluxomail's response; ``None`` until there is one.
    """

    key: str
    recipient: str
    asked: float
    send_id: str | None = None

    @classmethod
    def read(cls, value: Mapping[str, Any], key: str) -> StoredRecord | None:
        """Return the record of ``key``, ``None`` if ``value`` is not one."""
        if value.get("key") != key or not isinstance(value.get("asked"), int | float):
            return None
        send_id, recipient = value.get("send_id"), value.get("recipient")
        return cls(
            key=key,
            recipient=recipient if isinstance(recipient, str) else "",
            asked=float(value["asked"]),
            send_id=send_id if isinstance(send_id, str) else None,
        )


class SendRecord:
    """The record of one send, ``name`` among those of its task. Without a store it does nothing.

    :param content: a digest of the message, if its position among others is part of its key.
    :ivar account: of the first request with the key, see :class:`.Retention`.
    :ivar recorded_content: of an earlier try; empty if unknown.
    """

    def __init__(
        self, store: StateStore | None, key: str, recipient: str, *, name: str | None = None, content: str = ""
    ) -> None:
        self._store = store
        self._name = f"{_NAME}_{name}" if name else _NAME
        self._stored = StoredRecord(key=key, recipient=recipient_digest(key, recipient), asked=0.0)
        self.account = ""
        self.recorded_content = ""
        self._content = content
        self._used_before = False

    def begin(self, now: float, *, retention: Retention, first_try: bool) -> str | None:
        """Record that the request is about to be made.

        :param first_try: whether no earlier try can have written the record.
        :return: ``None``: make the request. Otherwise the send id of an earlier try, which Fluxomail may not find by
            its key any more: another request would send a second email.
        """
        if self._store is None:
            return None
        value = load(self._store, self._name, required=not first_try)
        earlier = StoredRecord.read(value, self._stored.key)
        if earlier and earlier.recipient and earlier.recipient != self._stored.recipient:
            raise FluxomailIdempotencyConflictError(
                "an earlier try of this task used the idempotency key for another recipient. This email was not sent: "
                "the list that the task is mapped over changed its order, or the template of its recipient renders to "
                "another address now. Clear the task with resend_on_clear=True to send it",
                idempotency_key=self._stored.key,
                send_id=earlier.send_id,
            )
        self._used_before = earlier is not None
        if earlier:
            self.recorded_content = str(value.get("content") or "")
            self._content = self.recorded_content
        self._stored = earlier or dataclasses.replace(self._stored, asked=now)
        account = value.get("account") if earlier else None
        self.account = account if isinstance(account, str) and account else retention.account
        self._save(required=True)
        if not retention.is_over(self._stored.asked, self.account, now):
            return None
        if self._stored.send_id is None and (
            error := retention.unknown_outcome(
                self._stored.key, asked=self._stored.asked, account=self.account, now=now
            )
        ):
            raise error
        return self._stored.send_id

    def _save(self, *, required: bool = False) -> None:
        if self._store is not None:
            value = {**dataclasses.asdict(self._stored), "account": self.account}
            if self._content:
                value["content"] = self._content
            save(self._store, self._name, value, required=required)

    def accepted(self, send_id: str) -> None:
        """Record the response. A clear in the meantime is no error any more: the email is out."""
        self._stored = dataclasses.replace(self._stored, send_id=send_id)
        try:
            self._save()
        except FluxomailClearedError:
            log.warning("Send %s was accepted, but this attempt was cleared while it was running.", send_id)

    def refused(self) -> None:
        """Delete the record of a request that certainly stored nothing, so that the key counts as unused."""
        if self._store is not None and not self._used_before:
            try:
                self._store.delete(self._name)
            except Exception as error:  # noqa: BLE001 - every version has its own classes
                log.warning("Could not write to Airflow's task state store, continuing without it: %s", error)


def recipient_digest(key: str, recipient: str) -> str:
    """Return a digest that shows whether a key has the same recipient as before, without revealing the recipient."""
    # Includes the key: the digest of an address alone can be looked up in a list of addresses.
    return hashlib.sha256(f"{key}\n{normalised(recipient)}".encode()).hexdigest()[:32]
