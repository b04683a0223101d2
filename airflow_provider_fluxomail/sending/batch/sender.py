"""Sends single messages of a batch, from several threads, and returns the outcome of each."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.client.errors import FluxomailConnectionError, FluxomailError
from airflow_provider_fluxomail.client.inline_images import InlineImageWarning
from airflow_provider_fluxomail.client.sync import FluxomailClient
from airflow_provider_fluxomail.client.unexpected import unexpected
from airflow_provider_fluxomail.sending.replay import is_foreign
from airflow_provider_fluxomail.sending.send_once import send_once

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import SendResult
    from airflow_provider_fluxomail.client.pacing import Pacer
    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.sending.batch.progress import Kind
    from airflow_provider_fluxomail.sending.batch.rows import Row
    from airflow_provider_fluxomail.sending.send_once import Identity


@dataclasses.dataclass(frozen=True)
class Flight:
    """A message that is being sent, and its position in the batch."""

    position: int
    row: Row
    identity: Identity


@dataclasses.dataclass(frozen=True)
class MessageOutcome:
    """The outcome of one message; without a ``kind``, the error concerns all messages, and this one has no outcome."""

    kind: Kind | None
    sent: SendResult | None = None
    error: FluxomailError | None = None


class Sender:
    """Sends one message at a time in each thread that uses it, with a client of its own.

    :param pacer: gets every response.
    :ivar ended: stops all retries: the task is ending, and a later success could no longer be recorded.
    :ivar redirected: messages that went to ``redirect_to``: one line in the log stands for all.
    """

    def __init__(self, settings: ClientSettings, pacer: Pacer) -> None:
        self._settings = settings
        self._pacer = pacer
        self._inline_images = InlineImageWarning()
        self._local = threading.local()
        self._clients: list[FluxomailClient] = []
        self._counting = threading.Lock()
        self.ended = threading.Event()
        self.redirected = 0

    def send(self, flight: Flight) -> MessageOutcome:
        """Send a message once."""
        try:
            sent = send_once(flight.row.message, flight.identity, self._client())
        except Exception as caught:  # noqa: BLE001 - about this message only, unless it says otherwise
            error = unexpected(caught)
            kind: Kind = "rejected" if error.permanent else "unknown"
            return MessageOutcome(kind if error.concerns_one_message else None, error=error)
        return MessageOutcome("replayed" if is_foreign(sent) else "sent", sent)

    def close(self) -> None:
        """Close the open connections."""
        for client in self._clients:
            client.close()

    def _client(self) -> FluxomailClient:
        client: FluxomailClient | None = getattr(self._local, "client", None)
        if client is None:
            client = FluxomailClient(
                self._settings,
                sleep=self._sleep,
                on_response=self._pacer.on_response,
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
        if self.ended.wait(seconds):
            raise FluxomailConnectionError("the task was stopped before the message was retried")
