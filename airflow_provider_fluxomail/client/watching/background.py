"""Background tasks of a watcher, which run until it closes."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any


class BackgroundTasks:
    """Starts background tasks, and cancels all of them at the end.

    :param on_failure: called with the error of a task that failed.
    """

    def __init__(self, on_failure: Callable[[BaseException], None]) -> None:
        self._on_failure = on_failure
        #: The tasks that have not ended.
        self.running: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task outside of any trigger's context: its log lines belong to no single task."""
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self.running.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel(self) -> None:
        """Cancel all tasks except the caller's, and wait until they have ended."""
        pending = self.running - {asyncio.current_task()}
        while pending:
            for task in pending:
                task.cancel()
            # Again each second: anyio 4.10 and 4.13 were seen to lose a cancellation.
            _, pending = await asyncio.wait(pending, timeout=1.0)

    def _done(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(error)
