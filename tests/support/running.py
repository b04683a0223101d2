"""Runs a task the way Airflow does, in this process: execute, defer, trigger, resume."""

from __future__ import annotations

import asyncio
import importlib
import json
from types import SimpleNamespace
from typing import Any

from tests.support.airflow_names import TaskDeferred


def context(**fields: Any) -> Any:
    """The part of a task's context that this package reads."""
    pushed: dict[str, Any] = {}
    ti = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "max_tries": 3, "try_number": 1}
    xcoms = {"pushed": pushed, "xcom_push": lambda key, value: pushed.update({key: value})}
    return {"ti": SimpleNamespace(**{**ti, **xcoms, **fields}), "run_id": "run", "params": {}}


def rebuilt(trigger: Any) -> Any:
    """Make a trigger again from what is stored of it, as a triggerer does after a restart."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return made_from(getattr(importlib.import_module(module), name), json.loads(json.dumps(kwargs)))


def made_from(trigger_class: Any, kwargs: dict[str, Any]) -> Any:
    return trigger_class(**kwargs)


async def fire(trigger: Any) -> Any:
    """Run a trigger until it fires and return the event's payload, as JSON leaves it."""
    events = trigger.run()
    try:
        event = await anext(events)
    finally:
        await events.aclose()
    return json.loads(json.dumps(event.payload))


class Run:
    """The outcome of a task: result or error, and every deferral before it."""

    def __init__(self, task: Any, ctx: Any | None = None) -> None:
        ctx = ctx or context()
        self.deferrals: list[TaskDeferred] = []
        self.result: Any = None
        self.error: BaseException | None = None
        step: Any = task.execute
        arguments: tuple[Any, ...] = (ctx,)
        try:
            while True:
                try:
                    self.result = step(*arguments)
                    return
                except TaskDeferred as deferral:
                    self.deferrals.append(deferral)
                    event = asyncio.run(fire(rebuilt(deferral.trigger)))
                    kwargs = {**(deferral.kwargs or {}), "event": event}
                    step, arguments = task.resume_execution, (deferral.method_name, kwargs, ctx)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of the task
            self.error = error

    @property
    def kind(self) -> str:
        return "success" if self.error is None else type(self.error).__name__
