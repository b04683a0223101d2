"""The trigger of the delivery sensor, and of sends that wait for their delivery."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import TRIGGERS_CAN_END_TASKS, BaseOperator, conf, has_post_execute_hook
from airflow_provider_fluxomail.client.errors import FluxomailAuthError, as_response_error
from airflow_provider_fluxomail.client.event_types import FAILURES
from airflow_provider_fluxomail.client.watching.wait import CANNOT_READ, Wait, WaitOutcome, now, timing
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.links import FluxomailTimelineLink
from airflow_provider_fluxomail.metrics import Metrics
from airflow_provider_fluxomail.waiting.watcher_pool import WatcherPool
from airflow_provider_fluxomail.waiting.worker import earliest_resume

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.watching.watcher import Watcher
    from airflow_provider_fluxomail.operators import FluxomailSendOperator
    from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

#: The arguments that Airflow stores.
_STORED: Final = (
    "send_id", "target", "fail_on", "fluxomail_conn_id", "poll_interval", "started", "deadline", "resume_after",
    "next_look", "seen", "result", "end_from_trigger", "multiple_outputs",
)  # fmt: skip


class FluxomailDeliveryTrigger(BaseTrigger):
    """Waits for a send's event. Survives restarts: its deadline is a moment, not a duration.

    >>> trigger = FluxomailDeliveryTrigger(send_id="s1", started=1767225600.0, deadline=1767229200.0)
    >>> trigger.serialize()[0]
    'airflow_provider_fluxomail.triggers.FluxomailDeliveryTrigger'

    All waits of a triggerer on one key share a watcher, which follows the event stream, or polls timelines within a
    share of the rate limit where there is none.

    .. seealso:: :doc:`/guides/waiting`

    :param send_id: the send to wait for.
    :param target: the event to wait for: ``delivered``, ``opened`` or ``clicked``.
    :param fail_on: events that end the wait as a failure.
    :param fluxomail_conn_id: id of the connection.
    :param poll_interval: seconds between polls, with jitter.
    :param started: time of the wait's first poll, in a worker; epoch seconds.
    :param deadline: time at which the wait times out; epoch seconds.
    :param resume_after: epoch seconds before which it does not fire: Airflow may kill a task that resumes at once.
    :param next_look: epoch seconds before which it does not poll: the server asked the worker to wait.
    :param seen: time of the last poll that returned the timeline, epoch seconds; ``None`` if there was none.
    :param result: returned with the event; the result so far of the task that deferred.
    :param end_from_trigger: end the task here when the target is reached, without a worker (Airflow 3.3 and later).
    :param multiple_outputs: then push each entry of the result as an XCom of its own as well.
    """

    def __init__(
        self,
        *,
        send_id: str,
        deadline: float,
        started: float,
        target: str = "delivered",
        fail_on: Collection[str] = FAILURES,
        fluxomail_conn_id: str = airflow_cfg.default_conn_id(),
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
        """Return the class path and the arguments from which Airflow makes this trigger again after a restart."""
        return (
            "airflow_provider_fluxomail.triggers.FluxomailDeliveryTrigger",
            {name: getattr(self, name) for name in _STORED},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until it ends, then fire once, with a :class:`.WaitOutcome` and ``result``."""
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

    async def _wait(self, wait: Wait) -> WaitOutcome:
        """Let a watcher watch the wait; if it crashes, start another one.

        After a 401 the connection is looked up again: its key may be new.
        """
        refused: Watcher | None = None
        # The worker that deferred has used the connection.
        used_before = self.resume_after > 0 or self.seen is not None
        while True:
            try:
                watcher = await WatcherPool.for_running_loop().get(
                    self.fluxomail_conn_id,
                    instead_of=refused,
                    used_before=used_before,
                    within=wait.poll_seconds(now()),
                )
                used_before = True
                if watcher.ended:
                    # Its last wait left before this one joined.
                    continue
                watch = watcher.watch(wait, interval=self.poll_interval, log=self.log.log, not_before=self.next_look)
                try:
                    return await watch
                except FluxomailAuthError:
                    if refused is not None and not watcher.accepted:
                        raise
                    refused = watcher
            except Exception as failure:  # noqa: BLE001 - whatever it is, another watcher can continue
                error = as_response_error(failure)
                if ending := wait.on_error(error, now()):
                    return ending
                if wait.error_is_new:
                    self.log.warning(CANNOT_READ, error)
                if now() >= wait.deadline:
                    return wait.timed_out()
                await asyncio.sleep(wait.delay(min(self.poll_interval, timing().restart), now()))

    async def _push(self, ending: WaitOutcome) -> bool:
        """Push the task's return value; return False if a worker has to do it.

        Not with the event: Airflow 3.3 stores an event's XComs as text, and other tasks get ``'{"event": ...'``.
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
            text = "Could not store the result from the triggerer, resuming in a worker: %s"
            self.log.warning(text, type(error).__name__)
            return False
        return True


def defer(
    task: FluxomailSendOperator | FluxomailDeliverySensor,
    wait: Wait,
    *,
    interval: float,
    result: dict[str, Any] | None = None,
) -> NoReturn:
    """Let the triggerer continue a wait which a task began in its worker. ``result`` is that of the task so far."""
    trigger = FluxomailDeliveryTrigger(
        send_id=wait.send_id,
        target=wait.target,
        fail_on=wait.fail_on,
        fluxomail_conn_id=task.fluxomail_conn_id,
        poll_interval=interval,
        started=wait.started,
        deadline=wait.deadline,
        resume_after=earliest_resume(),
        next_look=now() + wait.requested_wait,
        seen=wait.seen,
        result=result,
        end_from_trigger=can_end_in_triggerer(task),
        multiple_outputs=bool(getattr(task, "multiple_outputs", False)),
    )
    timeout = tasks.backstop(wait.deadline)
    task.defer(trigger=trigger, method_name=task.execute_complete.__name__, timeout=timeout)


def hold_in_worker(task: FluxomailSendOperator | FluxomailDeliverySensor) -> float:
    """Return for how many seconds a task polls in its worker before it defers.

    Longer if a success after the deferral resumes in a worker: that takes another process, at least 8 s later.
    """
    if task.defer_at_once:
        return 0.0
    return timing().short_hold if can_end_in_triggerer(task) else timing().worker_polls[-1]


def can_end_in_triggerer(task: BaseOperator) -> bool:
    """Return whether a success needs no worker, which would start a process only to return the result.

    In the triggerer, Airflow runs no callback, no ``post_execute``, no custom XCom backend and no operator link (this
    package's own is stored before the wait), and registers no asset event and no length to map over.
    """
    if not TRIGGERS_CAN_END_TASKS:
        return False
    own = type(task)
    return (
        bool(task.do_xcom_push)
        and not task.on_success_callback
        and not task.outlets
        and all(isinstance(link, FluxomailTimelineLink) for link in task.operator_extra_links)
        and not has_post_execute_hook(task)
        and own.post_execute is BaseOperator.post_execute
        # A subclass may do more.
        and own.execute_complete.__module__.startswith("airflow_provider_fluxomail.")  # type: ignore[attr-defined]
        and task.has_dag()
        and next(iter(task.iter_mapped_dependants()), None) is None
        and conf.get("core", "xcom_backend", fallback="BaseXCom").endswith("BaseXCom")
    )
