"""Triggers: what goes on while no worker is held. They only read and wait; they never send.

Their arguments are stored in plain text in Airflow's database and are part of the package's promises: serialized
triggers of released versions still load. No key, body or recipient is among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_fluxomail.client.errors import (
    FluxomailAuthError,
    FluxomailConnectionError,
    FluxomailError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.timeline import FAILURES
from airflow_provider_fluxomail.client.waiting import TROUBLE, Ending, Wait, now
from airflow_provider_fluxomail.hooks import FluxomailHook

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient


class FluxomailDeliveryTrigger(BaseTrigger):
    """Waits for a send's event. Survives restarts: its deadline is a moment, not a duration.

    :param send_id: which send.
    :param target: the event hoped for.
    :param fail_on: events that end the wait as a failure.
    :param fluxomail_conn_id: id of the connection.
    :param poll_interval: seconds between looks, with jitter.
    :param started: epoch seconds of the wait's first look, which a worker made.
    :param deadline: epoch seconds at which it fires as timed out.
    :param resume_after: epoch seconds before which it does not fire: Airflow may kill a task that resumes at once.
    :param next_look: epoch seconds before which it does not look: the worker's last look was told to wait.
    :param result: comes back with the event; what the task that deferred wants to return.
    """

    def __init__(
        self,
        *,
        send_id: str,
        deadline: float,
        started: float,
        target: str = "delivered",
        fail_on: Sequence[str] = FAILURES,
        fluxomail_conn_id: str = FluxomailHook.default_conn_name,
        poll_interval: float = 30.0,
        resume_after: float = 0.0,
        next_look: float = 0.0,
        result: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.send_id = send_id
        self.target = target
        self.fail_on = list(fail_on)
        self.fluxomail_conn_id = fluxomail_conn_id
        self.poll_interval = poll_interval
        self.started = started
        self.deadline = deadline
        self.resume_after = resume_after
        self.next_look = next_look
        self.result = result

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger anew after a restart."""
        return (
            f"{__name__}.{type(self).__name__}",
            {
                "send_id": self.send_id,
                "target": self.target,
                "fail_on": self.fail_on,
                "fluxomail_conn_id": self.fluxomail_conn_id,
                "poll_interval": self.poll_interval,
                "started": self.started,
                "deadline": self.deadline,
                "resume_after": self.resume_after,
                "next_look": self.next_look,
                "result": self.result,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look until the wait ends, then fire once, with an :class:`.Ending` and ``result``."""
        wait = Wait(
            self.send_id, target=self.target, fail_on=self.fail_on, started=self.started, deadline=self.deadline
        )
        ending = await self._wait(wait)
        await asyncio.sleep(max(0.0, self.resume_after - now()))
        yield TriggerEvent({**ending.to_json(), "result": self.result})

    async def _wait(self, wait: Wait) -> Ending:
        self.log.info(
            "Waiting for send %s to be %s, looking every %g s.", self.send_id, self.target, self.poll_interval
        )
        await asyncio.sleep(max(0.0, min(self.next_look, self.deadline) - now()))
        client: AsyncFluxomailClient | None = None
        try:
            while True:
                ending = None
                try:
                    client = client or await self._connect()
                    try:
                        timeline = await client.get_timeline(self.send_id, max_attempts=1)
                    except FluxomailAuthError:
                        # The key may have been replaced: read the connection anew, once a look.
                        await client.close()
                        client = await self._connect()
                        timeline = await client.get_timeline(self.send_id, max_attempts=1)
                    ending = wait.saw(timeline)
                except FluxomailError as error:
                    ending = wait.met(error, now())
                if ending:
                    return ending
                if wait.trouble_is_new:
                    self.log.warning(TROUBLE, wait.trouble)
                if now() >= wait.deadline:
                    return wait.timed_out()
                await asyncio.sleep(wait.delay(self.poll_interval, now()))
        finally:
            if client is not None:
                await client.close()

    async def _connect(self) -> AsyncFluxomailClient:
        """Look the connection up. Airflow's own outage is one that a wait survives; a missing connection is not."""
        from airflow.providers.common.compat.sdk import AirflowNotFoundException

        try:
            return await FluxomailHook(self.fluxomail_conn_id).aget_conn()
        except FluxomailError:
            raise
        except AirflowNotFoundException as error:
            raise FluxomailValidationError(
                f"connection {self.fluxomail_conn_id!r} does not exist: create it"
            ) from error
        except Exception as error:
            raise FluxomailConnectionError(
                f"Airflow cannot give connection {self.fluxomail_conn_id!r}: {error}", ambiguous=False
            ) from error


class FluxomailRetryAfterTrigger(BaseTrigger):
    """Waits out a long ``Retry-After`` without holding a worker, then lets the task send again with the same key.

    :param resume_at: epoch seconds at which it fires; the jitter is in it already, so a restart adds none.
    :param give_up_at: epoch seconds after which the task stops trying; comes back with the event.
    :param state: comes back with the event; where a batch goes on.
    """

    def __init__(self, *, resume_at: float, give_up_at: float, state: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.resume_at = resume_at
        self.give_up_at = give_up_at
        self.state = state

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger anew after a restart."""
        return (
            f"{__name__}.{type(self).__name__}",
            {"resume_at": self.resume_at, "give_up_at": self.give_up_at, "state": self.state},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire once, at ``resume_at``."""
        # In pieces: a laptop or a virtual machine that sleeps stops the loop's clock, not the calendar's.
        while (left := self.resume_at - now()) > 0:  # noqa: ASYNC110 - a moment, not an event of this process
            await asyncio.sleep(min(left, 60.0))
        yield TriggerEvent({"give_up_at": self.give_up_at, "state": self.state})
