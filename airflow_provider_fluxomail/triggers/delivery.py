"""The trigger of the delivery sensor, and of sends that wait for their delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_fluxomail.client.errors import FluxomailAuthError, FluxomailError
from airflow_provider_fluxomail.client.event_types import FAILURES
from airflow_provider_fluxomail.client.watching.wait import TROUBLE, Ending, Wait, now
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.metrics import Metrics
from airflow_provider_fluxomail.waiting.watcher_pool import Watchers

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.watching.watcher import Watcher


class FluxomailDeliveryTrigger(BaseTrigger):
    """Waits for a send's event. Survives restarts: its deadline is a moment, not a duration.

    All waits of a triggerer on one key share a watcher, which reads timelines in turns, or follows the event stream if
    they are many.

    :param send_id: which send.
    :param target: the event hoped for.
    :param fail_on: events that end the wait as a failure.
    :param fluxomail_conn_id: id of the connection.
    :param poll_interval: seconds between looks, with jitter, where timelines are read.
    :param started: epoch seconds of the wait's first look, which a worker made.
    :param deadline: epoch seconds at which it fires as timed out.
    :param resume_after: epoch seconds before which it does not fire: Airflow may kill a task that resumes at once.
    :param next_look: epoch seconds before which it does not look: the worker's last look was told to wait.
    :param seen: epoch seconds of the last look that showed the timeline; ``None`` if none did.
    :param result: comes back with the event; what the task that deferred wants to return.
    :param end_from_trigger: end the task here when the target is reached, without a worker (Airflow 3.3 and later).
    :param multiple_outputs: then push each entry of the result as an XCom of its own, too.
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
        seen: float | None = None,
        result: dict[str, Any] | None = None,
        end_from_trigger: bool = False,
        multiple_outputs: bool = False,
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
        self.seen = seen
        self.result = result
        self.end_from_trigger = end_from_trigger
        self.multiple_outputs = multiple_outputs

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments that make this trigger anew after a restart."""
        return (
            "airflow_provider_fluxomail.triggers.FluxomailDeliveryTrigger",
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
                "seen": self.seen,
                "result": self.result,
                "end_from_trigger": self.end_from_trigger,
                "multiple_outputs": self.multiple_outputs,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until it ends, then fire once, with an :class:`.Ending` and ``result``."""
        wait = Wait(
            self.send_id,
            target=self.target,
            fail_on=self.fail_on,
            started=self.started,
            deadline=self.deadline,
            seen=self.seen,
        )
        ending = await self._wait(wait)
        Metrics(self.fluxomail_conn_id).wait_ended(wait.target, ending.status, now() - wait.started)
        if self.end_from_trigger and ending.status == "reached" and await self._push(ending):
            from airflow.triggers.base import TaskSuccessEvent

            self.log.info("The message was %s (%s).", ending.event, ending.time or "no time given")
            yield TaskSuccessEvent()
            return
        await asyncio.sleep(max(0.0, self.resume_after - now()))
        yield TriggerEvent({**ending.to_json(), "result": self.result})

    async def _wait(self, wait: Wait) -> Ending:
        """Have the wait looked after. A key that is refused is looked up anew: it may have been replaced."""
        refused: Watcher | None = None
        while True:
            try:
                watcher = await Watchers.here().get(self.fluxomail_conn_id, instead_of=refused)
                if watcher.ended:
                    # Its last wait left before this one came.
                    continue
                try:
                    return await watcher.watch(
                        wait, interval=self.poll_interval, tell=self.log.log, hold=self.next_look
                    )
                except FluxomailAuthError:
                    if refused is not None and not watcher.accepted:
                        raise
                    refused = watcher
            except FluxomailError as error:
                if ending := wait.met(error, now()):
                    return ending
                if wait.trouble_is_new:
                    self.log.warning(TROUBLE, error)
                if now() >= wait.deadline:
                    return wait.timed_out()
                await asyncio.sleep(wait.delay(self.poll_interval, now()))

    async def _push(self, ending: Ending) -> bool:
        """Push what the task returns; False if that is a worker's to do.

        Not with the event: what an event brings, Airflow 3.3 stores as text, and other tasks get ``'{"event": ...'``.
        """
        from airflow_provider_fluxomail.airflow_compat import XCom

        task = self.task_instance
        if task is None:
            # dag.test(), which resumes the task after any event.
            return False
        value = {**(self.result or {}), **ending.result}
        xcoms = {**(value if self.multiple_outputs else {}), "return_value": value}
        where = {name: getattr(task, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
        try:
            for name, one in xcoms.items():
                await asyncio.to_thread(XCom.set, key=name, value=one, **where)
        except Exception as error:  # noqa: BLE001 - whatever it is, a worker can do it
            self.log.warning("The result cannot be stored from here, a worker does it: %s", type(error).__name__)
            return False
        return True
