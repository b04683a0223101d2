"""The trigger of sends that wait for the rate limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_fluxomail.client.watching.wait import now


class FluxomailRetryAfterTrigger(BaseTrigger):
    """Waits out a long ``Retry-After`` without holding a worker, then lets the task send again with the same key.

    >>> trigger = FluxomailRetryAfterTrigger(resume_at=1767225660.0, give_up_at=1767229200.0)
    >>> trigger.serialize()[1]
    {'resume_at': 1767225660.0, 'give_up_at': 1767229200.0, 'state': None}

    .. seealso:: :doc:`/guides/sending`

    :param resume_at: epoch seconds at which it fires; the jitter is included, so a restart adds none.
    :param give_up_at: epoch seconds after which the task stops retrying; returned with the event.
    :param state: returned with the event; where a batch continues.
    """

    def __init__(self, *, resume_at: float, give_up_at: float, state: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.resume_at = resume_at
        self.give_up_at = give_up_at
        self.state = state

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which Airflow makes this trigger again after a restart."""
        return (
            "airflow_provider_fluxomail.triggers.FluxomailRetryAfterTrigger",
            {"resume_at": self.resume_at, "give_up_at": self.give_up_at, "state": self.state},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, at ``resume_at``."""
        # At most a minute: while a machine sleeps, the event loop's clock stops, but the wall clock does not.
        while (left := self.resume_at - now()) > 0:  # noqa: ASYNC110 - a moment, not an event of this process
            await asyncio.sleep(min(left, 60.0))
        yield TriggerEvent({"give_up_at": self.give_up_at, "state": self.state})
