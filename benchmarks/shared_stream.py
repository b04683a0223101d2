"""The same waits over the shared streams of Airflow 3.3, which hand every event to every waiter.

For information: why waits have a watcher of their own (``client/watcher.py``), which knows who waits for what.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent
from airflow.triggers.shared_stream import SharedStreamManager

from airflow_provider_fluxomail.client.event_types import DECIDING
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.hooks import FluxomailHook
from benchmarks.protocol import Task
from benchmarks.waiting import Waits, run


class SharedDeliveryTrigger(BaseEventTrigger):
    """Waits for the delivery of one send, on a stream that all such triggers share."""

    def __init__(self, *, send_id: str, fluxomail_conn_id: str = "fluxomail_default") -> None:
        super().__init__()
        self.send_id = send_id
        self.fluxomail_conn_id = fluxomail_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return (
            f"{__name__}.{type(self).__name__}",
            {"send_id": self.send_id, "fluxomail_conn_id": self.fluxomail_conn_id},
        )

    def shared_stream_key(self) -> Hashable:
        """One stream for each connection."""
        return (type(self).__name__, self.fluxomail_conn_id)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Yield every event of the organization."""
        async with (
            await FluxomailHook(kwargs["fluxomail_conn_id"]).aget_conn() as client,
            client.stream_events(EventFilter(types=DECIDING), silence=45.0) as stream,
        ):
            async for events in stream:
                for event in events:
                    yield event

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Not used: the stream is shared."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Pick out the delivery that is waited for."""
        async for event in shared_stream:
            if event.send_id == self.send_id:
                yield TriggerEvent({"status": "reached", "event": event.event.type})
                return


class SharedWaits(Waits):
    """The waits of this process, on the manager of shared streams that a triggerer has, with its default settings."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._manager = SharedStreamManager()

    async def events(self, number: int) -> AsyncIterator[TriggerEvent]:
        """As ``TriggerRunner.run_trigger`` does it."""
        trigger = SharedDeliveryTrigger(send_id=self.task.sends[number])
        key = trigger.shared_stream_key()
        stream = self._manager.subscribe(trigger_id=number, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(stream):
                yield event
        finally:
            await self._manager.unsubscribe(number, key)


if __name__ == "__main__":
    run(lambda task: SharedWaits(task).run())
