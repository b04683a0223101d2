"""Sends single messages of a batch, from several threads, and says what became of each."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailError,
    FluxomailIdempotencyConflictError,
    FluxomailPermissionError,
    FluxomailPlanRequiredError,
    FluxomailResponseError,
    FluxomailServerError,
    FluxomailTenantPausedError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.inline_images import InlineImageWarning
from airflow_provider_fluxomail.client.sync import FluxomailClient
from airflow_provider_fluxomail.sending import replay
from airflow_provider_fluxomail.sending.send_once import Identity, send_once

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.pacing import Pacer
    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.sending.batch.progress import Kind
    from airflow_provider_fluxomail.sending.batch.rows import Row


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one message; ``kind`` is ``None`` if nothing did: it waits, or ends the batch."""

    kind: Kind | None
    send_id: str | None = None
    message_id: str | None = None
    error: FluxomailError | None = None


class Sender:
    """Sends one message at a time in each thread that uses it.

    :param settings: of the clients, of which each thread has its own.
    :param pacer: is shown every answer.
    :param first_try: of a task that was never cleared: a replay then is somebody else's.
    """

    def __init__(self, settings: ClientSettings, pacer: Pacer, *, first_try: bool) -> None:
        self._settings = settings
        self._pacer = pacer
        self._first_try = first_try
        self._inline_images = InlineImageWarning()
        self._local = threading.local()
        self._clients: list[FluxomailClient] = []
        self._ended = threading.Event()
        self._counting = threading.Lock()
        #: Messages that went to ``redirect_to``: one line of the log stands for all.
        self.redirected = 0

    def send(self, row: Row, key: str) -> Outcome:
        """Send a message, and look whether the answer is about it."""
        try:
            identity = Identity(key=key, first_try=self._first_try, names_recipient=row.key is None)
            sent = send_once(row.message, identity, self._client())
        except FluxomailError as error:
            return Outcome(_kind_of(error, row), error=error)
        return Outcome("replayed" if replay.is_foreign(sent) else "sent", sent.send_id, sent.message_id)

    @property
    def ended(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._ended.is_set()

    def end(self) -> None:
        """Let no thread try a message again: the task ends, and what it sent later nobody would know of."""
        self._ended.set()

    def close(self) -> None:
        """Close the connections that are kept open."""
        for client in self._clients:
            client.close()

    def _client(self) -> FluxomailClient:
        """Return this thread's own client, which keeps its connection open."""
        client: FluxomailClient | None = getattr(self._local, "client", None)
        if client is None:
            client = FluxomailClient(
                self._settings,
                sleep=self._sleep,
                on_answer=self._pacer.saw,
                on_redirect=self._count_redirect,
                inline_images=self._inline_images,
            )
            self._local.client = client
            self._clients.append(client)
        return client

    def _count_redirect(self) -> None:
        with self._counting:
            self.redirected += 1

    def _sleep(self, seconds: float) -> None:
        if self._ended.wait(seconds):
            raise FluxomailConnectionError("the task was told to end before the message was tried again")


def _kind_of(error: FluxomailError, row: Row) -> Kind | None:
    """Say what an error means to the message; ``None``: it is not the message's, but holds for all of them."""
    if isinstance(error, FluxomailValidationError | FluxomailIdempotencyConflictError):
        return "rejected"
    if isinstance(error, FluxomailPlanRequiredError):
        return "rejected" if row.message.attachments else None
    if isinstance(error, FluxomailPermissionError) and not isinstance(error, FluxomailTenantPausedError):
        # Without a code that speaks of the key or the organization, it is the message's policy that forbids it.
        about_all = error.code == "missing_scope" or "missing scope" in error.message
        return "rejected" if row.message.policy_key and not about_all else None
    if isinstance(error, FluxomailServerError | FluxomailConnectionError | FluxomailResponseError):
        return "unknown"
    return None
