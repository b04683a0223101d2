"""Following the event stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.events import EventFilter, FeedEvent
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.client.watching.event_feed import EventFeed, FeedTiming
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox

EVENTS = "/api/v1/events"
STREAM = "/api/v1/events/stream"
OPENED = EventFilter(types=("email.opened",))
T = 1_700_000_000
DEADLINE = 60.0
#: As patient as tests are.
QUICK = FeedTiming(silence=DEADLINE, overlap=10.0, backoff=1.0)


class Following:
    """A running feed, and the events that it has received."""

    def __init__(self, client: AsyncFluxomailClient, pacer: Pacer, wanted: EventFilter, **how: Any) -> None:
        self.found: list[FeedEvent] = []
        self.changes: list[tuple[bool, int]] = []
        self._changed = asyncio.Event()
        how = {"timing": QUICK, **how}
        self.feed = EventFeed(
            client, wanted, turns=Turns(pacer), receive=self._receive, on_change=self._on_change, **how
        )
        self.task = asyncio.create_task(self.feed.run())

    def _receive(self, events: Sequence[FeedEvent]) -> None:
        self.found += events
        self._changed.set()

    def _on_change(self) -> None:
        self.changes.append((self.feed.live, self.feed.generation))
        self._changed.set()

    @property
    def numbers(self) -> list[int]:
        """The seconds of the events, as a test numbers them."""
        return [int(one.event.time.timestamp()) - T for one in self.found if one.event.time]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the feed receives, or its end."""
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                await asyncio.wait((changed, self.task), return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                if self.task.done():
                    self.task.result()

    async def until_live(self) -> None:
        await self.until(lambda: self.feed.live)

    async def has(self, *wanted: int) -> None:
        await self.until(lambda: set(wanted) <= set(self.numbers))

    async def error(self) -> BaseException:
        async with asyncio.timeout(DEADLINE):
            await asyncio.wait((self.task,))
        error = self.task.exception()
        assert error is not None
        return error


Follow = Callable[..., Following]


@pytest.fixture
async def follow(sandbox: Sandbox) -> AsyncIterator[Follow]:
    """Start to follow the sandbox's events; it ends with the test."""
    async with contextlib.AsyncExitStack() as stack:
        tasks: list[asyncio.Task[None]] = []

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        def start(url: str = sandbox.url, *, key: str = "fm_sandbox", **how: Any) -> Following:
            pacer = Pacer()
            client = AsyncFluxomailClient(
                ClientSettings(api_key=key, base_url=url, timeout=DEADLINE), on_response=pacer.on_response
            )
            stack.push_async_exit(client)
            following = Following(client, pacer, how.pop("wanted", OPENED), **how)
            tasks.append(following.task)
            return following

        stack.push_async_callback(end)
        yield start
        await end()


@pytest.fixture
async def message_event_streams(sandbox: Sandbox) -> None:
    """A send that nothing happens to by itself."""
    async with AsyncFluxomailClient(ClientSettings(api_key="fm_sandbox", base_url=sandbox.url)) as client:
        await client.send(EmailMessage(to="never@example.org", subject="Hi", content="Text"), idempotency_key="1")


def streams(sandbox: Sandbox) -> list[Any]:
    return sandbox.requests("GET", STREAM)


async def seen(condition: Callable[[], bool]) -> None:
    """Wait for something that only the sandbox knows."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)
