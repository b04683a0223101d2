"""What a task keeps of its send over tries, crashes and clears, where Airflow can keep it (task state store, 3.3).

Set before the request, it is two things more: a fence that stops an attempt whose task was cleared under it, and the
knowledge of when the key was used first, after which Fluxomail may have forgotten it.
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
    FluxomailUnknownOutcomeError,
)

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context

log = logging.getLogger(__name__)

_NAME: Final = "fluxomail_send"


class StateStore(Protocol):
    """The part of Airflow's task state store that is used. Its values outlive retries and clears."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any) -> None: ...

    def delete(self, key: str) -> None: ...


def state_store(context: Context) -> StateStore | None:
    """Return the task's state store, ``None`` below Airflow 3.3."""
    store: StateStore | None = context.get("task_state_store")
    return store


def save(store: StateStore, name: str, value: dict[str, Any]) -> bool:
    """Write to the store, and see whether this attempt still is the task's own.

    :return: whether it was written. A store that is out of order does not stop a send: the key is what prevents a
        second mail.
    :raises FluxomailClearedError: Airflow no longer knows this attempt.
    """
    try:
        store.set(name, value)
    except Exception as error:  # noqa: BLE001 - every version has its own classes
        if api_error_status(error) == 404:
            raise FluxomailClearedError(
                "this attempt was cleared or replaced while it was running: it stops, the new one sends"
            ) from None
        log.warning("Airflow's task state store cannot be written: %s. Going on without it.", error)
        return False
    return True


def load(store: StateStore, name: str) -> Mapping[str, Any]:
    """Read from the store; empty if there is nothing that this package wrote."""
    try:
        value = store.get(name)
    except Exception as error:  # noqa: BLE001 - every version has its own classes
        log.warning("Airflow's task state store cannot be read: %s. Going on without it.", error)
        return {}
    return value if isinstance(value, Mapping) else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SendRecord:
    """What is kept.

    :param key: the idempotency key; a record of another one is of another send of the task.
    :param recipient: digest of the address, which tells whether it is the same and not who it is.
    :param asked: epoch seconds of the first request with the key.
    :param send_id: as Fluxomail answered; ``None`` as long as no answer came.
    """

    key: str
    recipient: str
    asked: float
    send_id: str | None = None

    @classmethod
    def read(cls, value: Mapping[str, Any], key: str) -> SendRecord | None:
        """Return the record of ``key``, ``None`` if ``value`` is none."""
        if value.get("key") != key or not isinstance(value.get("asked"), int | float):
            return None
        send_id, recipient = value.get("send_id"), value.get("recipient")
        return cls(
            key=key,
            recipient=recipient if isinstance(recipient, str) else "",
            asked=float(value["asked"]),
            send_id=send_id if isinstance(send_id, str) else None,
        )


class SendState:
    """The record of one send, in the store if there is one.

    :param store: see :func:`state_store`.
    :param key: the send's idempotency key.
    :param recipient: the address that it goes to.
    :param name: what tells the send from others of its task.
    """

    def __init__(self, store: StateStore | None, key: str, recipient: str, *, name: str | None = None) -> None:
        self._store = store
        self._name = f"{_NAME}_{name}" if name else _NAME
        self._record = SendRecord(key=key, recipient=recipient_digest(key, recipient), asked=0.0)
        self._asked_before = False

    def begin(self, now: float, *, retention: float) -> str | None:
        """Note that the send is about to be asked for.

        :param now: epoch seconds.
        :param retention: seconds for which Fluxomail remembers a key.
        :return: ``None``: ask. Or the id of the send that an earlier try made, longer ago than that: asking again would
            send again.
        :raises FluxomailIdempotencyConflictError: the task used the key before, for another recipient.
        :raises FluxomailUnknownOutcomeError: an earlier try may have sent, longer ago than ``retention``.
        :raises FluxomailClearedError: this attempt was cleared.
        """
        if self._store is None:
            return None
        earlier = SendRecord.read(load(self._store, self._name), self._record.key)
        if earlier and earlier.recipient and earlier.recipient != self._record.recipient:
            raise FluxomailIdempotencyConflictError(
                "an earlier try of this task used the idempotency key for another recipient. This mail was not sent: "
                "the list that the task is mapped over has changed its order, or the template of its recipient renders "
                "to somebody else now. Clear the task with resend_on_clear=True to send it",
                idempotency_key=self._record.key,
                send_id=earlier.send_id,
            )
        self._asked_before = earlier is not None
        self._record = earlier or dataclasses.replace(self._record, asked=now)
        save(self._store, self._name, dataclasses.asdict(self._record))
        if now - self._record.asked <= retention:
            return None
        if self._record.send_id is None:
            raise FluxomailUnknownOutcomeError(
                f"an earlier try asked for this send {(now - self._record.asked) / 3600:.1f} hours ago and got no "
                f"answer. Fluxomail remembers a key for {retention / 3600:g} hours (key_retention_hours), so asking "
                "again might send a second mail. Look the key up in Fluxomail: if it was sent, mark the task as "
                "success; if not, clear the task with resend_on_clear=True, or give it another idempotency_key",
                idempotency_key=self._record.key,
            )
        return self._record.send_id

    def sent(self, send_id: str) -> None:
        """Note the answer. That this attempt was cleared in the meantime is no error any more: the mail is out."""
        if self._store is not None:
            try:
                save(self._store, self._name, dataclasses.asdict(dataclasses.replace(self._record, send_id=send_id)))
            except FluxomailClearedError as error:
                log.warning("Send %s was accepted, and %s.", send_id, error)

    def refused(self) -> None:
        """Note that the request certainly stored nothing, so that it does not count as a use of the key."""
        if self._store is not None and not self._asked_before:
            try:
                self._store.delete(self._name)
            except Exception as error:  # noqa: BLE001 - every version has its own classes
                log.warning("Airflow's task state store cannot be written: %s.", error)


def recipient_digest(key: str, recipient: str) -> str:
    """Return what tells whether a key stands for the same recipient as before, and not who that is."""
    # With the key in it: the digest of an address alone can be looked up in a list of addresses.
    return hashlib.sha256(f"{key}\n{normalised(recipient)}".encode()).hexdigest()[:32]
