"""The hook: an Airflow connection turned into a Fluxomail client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.airflow_compat import BaseHook
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.sync import FluxomailClient
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.connection import FluxomailConnection, read_connection
from airflow_provider_fluxomail.configuration.connection_test import probe
from airflow_provider_fluxomail.configuration.form import FIELD_BEHAVIOUR, fab_widgets
from airflow_provider_fluxomail.sending.send_once import Identity, asend_once, send_once

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import SendResult, Timeline


class FluxomailHook(BaseHook):
    """Sends messages and reads timelines through an Airflow connection of type ``fluxomail``.

    >>> hook = FluxomailHook()
    >>> sent = hook.send(
    ...     {"to": "ada@example.org", "subject": "Report", "content": "All rows were loaded."},
    ...     idempotency_key="report-2026-01-01",  # in a running task, the key is derived from the task
    ... )
    >>> hook.get_timeline(sent.send_id).recipient
    'ada@example.org'

    Every method has an asynchronous twin for triggers and asynchronous tasks; both raise the errors of
    :mod:`airflow_provider_fluxomail.client.errors`. The connection's ``redirect_to`` and ``allowed_recipient_domains``
    apply to every message.

    .. seealso:: :doc:`/operate/connection` and :doc:`/guides/sending`.

    :param fluxomail_conn_id: id of the connection.
    """

    conn_name_attr = "fluxomail_conn_id"
    default_conn_name = airflow_cfg.default_conn_id()
    conn_type = "fluxomail"
    hook_name = "Fluxomail"

    def __init__(self, fluxomail_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.fluxomail_conn_id = fluxomail_conn_id
        self._connection: FluxomailConnection | None = None
        self._client: FluxomailClient | None = None

    @private
    def send(
        self,
        message: EmailMessage | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        part: str | None = None,
        resend_on_clear: bool = False,
    ) -> SendResult:
        """Send one message. https://docs.fluxomail.com/api-reference/fluxomail/send-email

        In a running task the key is derived from the task, as by the operator, so that a retry of the task sends
        nothing twice. ``part`` distinguishes several messages of one task.

        :param message: an :class:`.EmailMessage`, or a mapping of its fields.
        :param idempotency_key: names the logical message: the same key never sends twice. Required outside of a task.
        :param part: names the message within the task; the same in every try. If left out, it is the recipient, and
            for several messages to one recipient also their position (first, second, ...) in this try. A call that
            repeats one that failed, with the same message, has its position.
        :param resend_on_clear: derive another key after a person cleared the task.
        :raises FluxomailValidationError: the message, the key or the part is invalid, there is no key outside of a
            task, or the task sent another text with this subject to the recipient and this one has no ``part``.
        :raises FluxomailIdempotencyConflictError: the key belongs to another message.
        :raises FluxomailConnectionError: also if it is unknown whether this try sent another message to the recipient,
            and this one has no ``part``.
        :raises FluxomailError: the subclass says what to do.
        """
        message = EmailMessage.of(message)
        identity = self._identity(message, idempotency_key, part, resend_on_clear)
        with identity.call:
            return send_once(message, identity, self.get_conn())

    def get_timeline(self, send_id: str, *, max_attempts: int | None = None, within: float | None = None) -> Timeline:
        """Read what happened to a send. https://docs.fluxomail.com/api-reference/fluxomail/get-send

        :param send_id: as ``send`` returned it.
        :param max_attempts: replaces the connection's ``max_attempts``.
        :param within: seconds after which no further page of a long timeline is requested; the call fails instead.
        :raises FluxomailError: the subclass says what to do.
        """
        return self.get_conn().get_timeline(send_id, max_attempts=max_attempts, within=within)

    @private
    async def asend(
        self,
        message: EmailMessage | Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        part: str | None = None,
        resend_on_clear: bool = False,
    ) -> SendResult:
        """Send one message, see :meth:`send`."""
        message = EmailMessage.of(message)
        async with await self.aget_conn() as client:
            identity = self._identity(message, idempotency_key, part, resend_on_clear)
            with identity.call:
                return await asend_once(message, identity, client)

    def _identity(
        self, message: EmailMessage, idempotency_key: str | None, part: str | None, resend_on_clear: bool
    ) -> Identity:
        if idempotency_key is None:
            return Identity.of_running_task(message, self.get_options(), part=part, resend_on_clear=resend_on_clear)
        if part is not None or resend_on_clear:
            raise FluxomailValidationError(
                "part and resend_on_clear belong to a derived key: leave idempotency_key out, or make them part of it"
            )
        return Identity(key=idempotency_key)

    async def aget_timeline(
        self, send_id: str, *, max_attempts: int | None = None, within: float | None = None
    ) -> Timeline:
        """Read what happened to a send, see :meth:`get_timeline`."""
        async with await self.aget_conn() as client:
            return await client.get_timeline(send_id, max_attempts=max_attempts, within=within)

    def get_conn(self) -> FluxomailClient:
        """Return the client. There is one per hook, and it keeps its connection open."""
        if self._client is None:
            self._client = FluxomailClient(self.get_options().settings)
        return self._client

    async def aget_conn(self) -> AsyncFluxomailClient:
        """Return a new client; use it with ``async with``."""
        return AsyncFluxomailClient((await self.aget_options()).settings)

    def get_options(self) -> FluxomailConnection:
        """Return the connection's options, looked up once.

        :raises FluxomailValidationError: names the connection and the field, and says how to fix it.
        """
        if self._connection is None:
            self._connection = FluxomailConnection.of(self.get_connection(self.fluxomail_conn_id))
        return self._connection

    async def aget_options(self) -> FluxomailConnection:
        """Return the connection's options, looked up once, in the way each Airflow version allows on an event loop."""
        if self._connection is None:
            self._connection = await read_connection(self.fluxomail_conn_id)
        return self._connection

    def forget(self) -> None:
        """Close, and look the connection up again for the next call: its key may have been replaced."""
        self.close()
        self._connection = None

    def close(self) -> None:
        """Close the client's connections; the next call opens them again."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def test_connection(self) -> tuple[bool, str]:
        """Request a send that does not exist, which shows whether the key is valid without sending anything.

        Makes one request and returns within the connection's ``timeout``, whatever the network does.
        """
        try:
            settings = self.get_options().settings
        except FluxomailError as error:
            return False, f"{type(error).__name__}: {error}"
        return probe(settings)

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form to Airflow before 3.2; later versions read the provider's metadata."""
        return {name.replace("-", "_"): value for name, value in FIELD_BEHAVIOUR.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the fields for extras to Airflow before 3.2."""
        return fab_widgets()
