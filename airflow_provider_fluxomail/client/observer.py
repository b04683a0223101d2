"""What clients, batches and watchers tell of what happens to them, to whoever counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.wire import SendResult


class Observer:
    """Is told, in the thread or on the event loop where it happens; must be quick and never raise. This one is deaf."""

    def sent(self, result: SendResult) -> None:
        """Take in that a send was accepted, or was answered with what an earlier one has sent."""

    def not_sent(self, error: FluxomailError) -> None:
        """Take in that a send has ended in an error."""

    def redirected(self, messages: int = 1) -> None:
        """Called before a message goes to ``redirect_to`` instead of its recipients.

        :param messages: how many, where one call stands for several.
        """

    def retrying(self, error: FluxomailError, seconds: float) -> None:
        """Take in that a request failed and is made again after so many seconds."""

    def rate_limited(self) -> None:
        """Take in that a request was answered with 429."""

    def held(self, seconds: float) -> None:
        """Take in that the key's cap has let somebody wait so many seconds, or will."""

    def watching(self, watcher: object, waits: int, *, by_events: bool) -> None:
        """Take in how many waits a watcher has, and whether they follow the event stream.

        :param waits: 0: it has ended.
        """
