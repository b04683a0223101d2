"""Hooks for counting: what clients, batches and watchers report while they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.errors import FluxomailError
    from airflow_provider_fluxomail.client.models import SendResult


class Observer:
    """Called on the thread or event loop where something happens. The default does nothing.

    ::

        class Counter(Observer):
            sends = 0

            def sent(self, result: SendResult) -> None:
                self.sends += not result.reused


        settings = ClientSettings(api_key="...", observer=Counter())

    Methods must return quickly and must not raise.
    """

    def sent(self, result: SendResult) -> None:
        """Called when a send was accepted, or returned the result of an earlier one."""

    def not_sent(self, error: FluxomailError) -> None:
        """Called when a send ended in an error."""

    def redirected(self, messages: int = 1) -> None:
        """Called before a message goes to ``redirect_to`` instead of its recipients.

        :param messages: how many, where one call stands for several.
        """

    def retrying(self, error: FluxomailError, seconds: float) -> None:
        """Called when a request failed and is retried after this many seconds."""

    def rate_limited(self) -> None:
        """Called for each response with status 429."""

    def held(self, seconds: float) -> None:
        """Called when the rate limit made something wait this many seconds, or will."""

    def watching(self, watcher: object, waits: int, *, by_events: bool) -> None:
        """Called when the number of waits of a watcher changes, or how they are served.

        :param waits: 0: the watcher has ended, or keeps the stream for the next wait.
        :param by_events: whether they follow the event stream.
        """
