"""Waits on one watcher, as the triggers of a triggerer start them, against the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

from airflow_provider_fluxomail.client.event_types import FAILURES
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.observer import Observer
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.client.sync import FluxomailClient
from airflow_provider_fluxomail.client.timeline import judge
from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming
from airflow_provider_fluxomail.client.watching.wait import Wait, WaitOutcome, now
from airflow_provider_fluxomail.client.watching.watched_wait import WatchTiming
from airflow_provider_fluxomail.client.watching.watcher import Watcher
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox

#: How long a test waits for what must happen, in seconds.
PATIENCE: Final = 30.0


def settings(sandbox: Sandbox, key: str | None = None) -> ClientSettings:
    return ClientSettings(api_key=key or sandbox.api_key, base_url=sandbox.url, timeout=10)


def send(sandbox: Sandbox, count: int = 1, to: str = "never@example.org") -> list[str]:
    """Send this many messages to which nothing happens by itself."""
    with FluxomailClient(settings(sandbox)) as client:
        message = EmailMessage(to=to, subject="Hi", content="Text", html_content="<p>Hi</p>")
        return [client.send(message, idempotency_key=uuid.uuid4().hex).send_id for _ in range(count)]


def timing(*, silence: float = 45.0, gap_pages: int = 50, **fields: Any) -> WatchTiming:
    """A watcher ends with its last wait, and reopens a stream soon."""
    feed = FeedTiming(silence=silence, backoff=0.5, gap_pages=gap_pages)
    return WatchTiming(**{"linger": 0.0, "feed": feed, **fields})


class Waits:
    """Waits that were started, and their outcomes."""

    def __init__(self, watcher: Callable[[], Watcher]) -> None:
        self._watcher = watcher
        self.endings: dict[str, list[WaitOutcome | Exception]] = {}
        self.log: dict[str, list[str]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(
        self,
        send_ids: Iterable[str],
        *,
        target: str = "delivered",
        timeout: float = 600.0,
        interval: float = 600.0,
        ago: float | None = 0.0,
        hold: float = 0.0,
    ) -> None:
        """Start waits.

        :param ago: seconds since a worker has polled; ``None`` if none did.
        """
        for send_id in send_ids:
            began = now() - (ago or 0.0)
            wait = Wait(
                send_id,
                target=target,
                fail_on=FAILURES,
                started=began,
                deadline=began + timeout,
                seen=None if ago is None else began,
            )
            self._tasks[send_id] = asyncio.create_task(self._wait(wait, interval, hold))

    async def one(self, send_id: str, seen: float) -> WaitOutcome:
        """Start a wait that a worker has polled at ``seen``, and return its outcome."""
        wait = Wait(send_id, started=seen, deadline=seen + 600.0, seen=seen)
        return await self._watcher().watch(wait, interval=600.0, log=lambda level, text: None)

    @property
    def started(self) -> int:
        """How many were started."""
        return len(self._tasks)

    async def _wait(self, wait: Wait, interval: float, hold: float) -> None:
        said = self.log.setdefault(wait.send_id, [])

        def on_log(level: int, text: str) -> None:
            said.append(f"{logging.getLevelName(level)} {text}")

        try:
            ended: WaitOutcome | Exception = await self._watcher().watch(
                wait, interval=interval, log=on_log, not_before=hold
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is how the wait ended
            ended = error
        self.endings.setdefault(wait.send_id, []).append(ended)

    async def leave(self, send_ids: Iterable[str] | None = None) -> None:
        """Cancel waits, as a triggerer does that stops, or whose task was cleared."""
        tasks = [self._tasks.pop(send_id) for send_id in list(self._tasks if send_ids is None else send_ids)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def all_ended(self, send_ids: Iterable[str] | None = None) -> dict[str, Any]:
        """Wait until they have ended; return how each did, by its status or the name of the error."""
        wanted = list(self._tasks if send_ids is None else send_ids)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(self._tasks[send_id] for send_id in wanted))
        return {send_id: outcome_name(self.endings[send_id]) for send_id in wanted}


def outcome_name(endings: list[WaitOutcome | Exception]) -> str:
    (ending,) = endings
    return ending.status if isinstance(ending, WaitOutcome) else type(ending).__name__


async def until(true: Callable[[], Any], what: str = "it") -> None:
    """Wait until something holds."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await asyncio.to_thread(true):  # noqa: ASYNC110 - what another process does has no event here
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {PATIENCE:g} s") from None


@contextlib.asynccontextmanager
async def watching(
    sandbox: Sandbox,
    when: WatchTiming | None = None,
    *,
    key: str | None = None,
    share: float = 0.5,
    follow: bool = True,
    request_timeout: float = 10.0,
    observer: Observer | None = None,
) -> AsyncIterator[Waits]:
    """Waits on one watcher; at the end nothing of it is left."""
    before = asyncio.all_tasks()
    who = dataclasses.replace(settings(sandbox, key), timeout=request_timeout, observer=observer or Observer())
    watcher = Watcher(who, timing=when or timing(), share=share, follow=follow)
    waits = Waits(lambda: watcher)
    try:
        yield waits
    finally:
        await waits.leave()
        for _ in range(100):
            if asyncio.all_tasks() == before:
                break
            await asyncio.sleep(0.02)
        assert asyncio.all_tasks() == before, "the watcher has left tasks behind"


def outcome(sandbox: Sandbox, send_id: str, target: str = "delivered") -> tuple[str, str] | None:
    """What the send's timeline means to a wait."""
    with FluxomailClient(settings(sandbox)) as client:
        found = judge(client.get_timeline(send_id), target, FAILURES)
    return ("reached" if found.reached else "failed", found.event.type) if found else None


def streams(sandbox: Sandbox) -> int:
    return len(sandbox.requests(path="/api/v1/events/stream"))


def lists(sandbox: Sandbox) -> int:
    return len([one for one in sandbox.requests(path="/api/v1/events") if not one.path.endswith("/stream")])


def reads(sandbox: Sandbox) -> int:
    return len(sandbox.requests("GET", "/api/v1/sends"))


class Mail:
    """The sandbox's messages by their send id."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._messages = {message.send_id: message for message in sandbox.messages()}

    def event(self, kind: str, send_id: str, **fields: Any) -> None:
        """Let something happen to a message now."""
        self._sandbox.event(kind, self._messages[send_id], **fields)
