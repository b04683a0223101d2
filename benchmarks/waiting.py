"""The process of a benchmark that waits, and does nothing else: N triggers as tasks of one loop, as in a triggerer.

Reads what to do as one line of JSON, prints ``ready``, begins at a further line, prints ``begun`` when all of its tasks
run, and at the end what came of it as one line of JSON. Its CPU time counts from the beginning to the end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TextIO

import psutil  # type: ignore[import-untyped]
from airflow.sdk.log import configure_logging, reset_logging
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
from benchmarks.protocol import UNTIL_DELIVERED, Result, Task, connection_id

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Far enough not to matter, near enough to be a deadline.
_DEADLINE_SECONDS: Final = 3600.0
_LAG_EVERY: Final = 0.01
#: How long waits have to come to rest before memory is measured.
_REST_SECONDS: Final = 6.0


class DoNothingTrigger(FluxomailDeliveryTrigger):
    """What a wait costs at least: the same arguments, and a task that awaits something of its own."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait forever."""
        await asyncio.Event().wait()
        yield TriggerEvent(None)


def delivery_arguments(task: Task, number: int) -> dict[str, Any]:
    """The arguments of a wait as a worker passes them on: it has just polled."""
    now = time.time()
    return {
        "send_id": task.sends[number],
        "fluxomail_conn_id": connection_id(number * task.connections // len(task.sends)),
        "started": now,
        "deadline": now + _DEADLINE_SECONDS,
        "seen": now,
    }


def _http(send_id: str, poke_interval: float) -> BaseTrigger:
    """The trigger as ``HttpSensor(deferrable=True)`` makes it, after its poll in the worker."""
    # Here: what it imports is no part of our memory.
    from airflow.providers.http.triggers.http import HttpSensorTrigger

    trigger: BaseTrigger = HttpSensorTrigger(
        endpoint=f"/api/v1/sends/{send_id}",
        http_conn_id="http_default",
        data=UNTIL_DELIVERED,
        headers={},
        method="GET",
        extra_options={},
        poke_interval=poke_interval,
    )
    return trigger


def make_trigger(task: Task, number: int) -> BaseTrigger:
    """The trigger of one wait."""
    if task.kind == "http":
        return _http(task.sends[number], task.poke_interval)
    kind = {"fluxomail": FluxomailDeliveryTrigger, "nothing": DoNothingTrigger}[task.kind]
    return kind(**delivery_arguments(task, number))


class Waits:
    """The waits of this process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.fired: list[float | None] = [None] * len(task.sends)
        self.wrong: list[str] = []

    async def run(self) -> Result:
        """Wait until all have come back, or the time is over."""
        return await (self._measure_memory() if self.task.memory else self._measure_time())

    async def _measure_time(self) -> Result:
        began = time.process_time()
        tasks = await self._begin(0, len(self.task.sends))
        _say("begun")
        lags: list[float] = []
        measuring = [asyncio.create_task(_measure_lag(lags))] if self.task.lag else []
        _, left = await asyncio.wait(tasks, timeout=self.task.seconds)
        cpu = time.process_time() - began
        await _end([*left, *measuring])
        return Result(self.fired, self.wrong, cpu, lags, [])

    async def _measure_memory(self) -> Result:
        """Three readings: the difference of the last two is that of waits alone, without client and connection."""
        readings = [_rss()]
        first = await self._begin(0, self.task.memory)
        _say("begun")
        await asyncio.sleep(_REST_SECONDS)
        readings.append(_rss())
        others = await self._begin(self.task.memory, len(self.task.sends))
        await asyncio.sleep(_REST_SECONDS)
        readings.append(_rss())
        await _end([*first, *others])
        return Result(self.fired, self.wrong, 0.0, [], readings)

    async def events(self, number: int) -> AsyncIterator[TriggerEvent]:
        """What the trigger of one wait yields."""
        trigger = make_trigger(self.task, number)
        try:
            async for event in trigger.run():
                yield event
        finally:
            await trigger.cleanup()

    async def _begin(self, start: int, end: int) -> list[asyncio.Task[None]]:
        """Start waits as a triggerer does: in one go, each a task."""
        tasks = [asyncio.create_task(self._wait(number)) for number in range(start, end)]
        await asyncio.sleep(0)
        return tasks

    async def _wait(self, number: int) -> None:
        try:
            async for event in self.events(number):
                self.fired[number] = time.time()
                if not _is_delivery(event.payload):
                    self.wrong.append(str(event.payload)[:500])
        except Exception as error:  # noqa: BLE001  whatever it is, it is the result
            self.wrong.append(repr(error)[:500])


def _is_delivery(payload: Any) -> bool:
    # The HTTP trigger says True, and nothing else.
    return payload is True or (payload["status"], payload["event"]) == ("reached", "delivered")


async def _measure_lag(lags: list[float]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_EVERY
        await asyncio.sleep(_LAG_EVERY)
        lags.append(loop.time() - due)


async def _end(tasks: Sequence[asyncio.Task[None]] | set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _rss() -> int:
    gc.collect()
    rss: int = psutil.Process().memory_info().rss
    return rss


def run(waits: Callable[[Task], Coroutine[Any, Any, Result]]) -> None:
    """Read the task, say that everything is ready, start on request, and report the result."""
    task = Task(**json.loads(sys.stdin.readline()))
    _say("ready")
    sys.stdin.readline()
    result = asyncio.run(waits(task))
    _say(json.dumps(dataclasses.asdict(result)))


def _say(line: str) -> None:
    _channel.write(line + "\n")
    _channel.flush()


def _as_a_triggerer_logs() -> TextIO:
    """Make log lines as the process of a triggerer does, and drop them; stdout is for the results alone."""
    channel = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    reset_logging()
    configure_logging(json_output=True, output=os.fdopen(nowhere, "wb", buffering=0), sending_to_supervisor=True)
    return channel


_channel: Final = _as_a_triggerer_logs()

if __name__ == "__main__":
    run(lambda task: Waits(task).run())
