"""Event triggers, run as a triggerer does."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.triggers import FluxomailEventTrigger
from tests.support import running
from tests.support.timing import event_timing

EVENTS = "/api/v1/events"
STREAM = "/api/v1/events/stream"
DEADLINE = 60.0
on_airflow_3_3 = pytest.mark.skipif(
    importlib.util.find_spec("airflow.triggers.shared_stream") is None, reason="shared streams came with Airflow 3.3"
)


@pytest.fixture
def quick_event_triggers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As patient as tests are."""
    event_timing(
        monkeypatch,
        tick=0.2,
        pause=0.02,
        auth_wait=0.5,
        refused_wait=0.5,
        outage_wait=0.2,
        save_every=0.5,
        spacing=0.0,
    )


@pytest.fixture
def message_event_triggers(sandbox: Sandbox) -> None:
    """A send that nothing happens to by itself."""
    send("never@example.org")


def send(to: str) -> str:
    hook = FluxomailHook()
    sent = hook.send({"to": to, "subject": "Hi", "content": "Text"}, idempotency_key=to)
    hook.close()
    return sent.send_id


class Stores:
    """The asset state store of one asset, as a trigger sees it: it outlives triggers, and can be down."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.down = False
        self.writes = 0

    async def aget(self, key: str, default: Any = None) -> Any:
        await self._answer()
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        await self._answer()
        self.writes += 1
        self.values[key] = json.loads(json.dumps(value))

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.down:
            raise RuntimeError("Airflow's API is down")

    @property
    def cursor(self) -> Any:
        (value,) = self.values.values()
        return value


class Triggerer:
    """Runs triggers as Airflow 3.3's triggerer does, with its own shared streams; its database is a list.

    :param persists: whether what triggers fire reaches the database.
    """

    def __init__(self, *, persists: bool = True, queue: int = 1024) -> None:
        from airflow.triggers.shared_stream import SharedStreamManager

        self.manager = SharedStreamManager(max_subscriber_queue=queue)
        self.persists = persists
        self.changes: list[list[dict[str, Any]]] = []
        self.errors: list[BaseException] = []
        self._fired: list[tuple[list[dict[str, Any]], int | None]] = []
        self._ids = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []
        self._syncing = asyncio.create_task(self._sync())
        self._changed = asyncio.Event()

    def start(self, store: Stores | None, **arguments: Any) -> asyncio.Task[None]:
        """Start a trigger, as it is read from the database."""
        trigger = running.rebuilt(FluxomailEventTrigger(**{"types": ["bounced"], **arguments}))
        trigger.asset_state_store = store
        task = asyncio.create_task(self._run(next(self._ids), trigger))
        self._tasks.append(task)
        return task

    async def _run(self, trigger_id: int, trigger: Any) -> None:
        key = trigger.shared_stream_key()
        parts = self.manager.subscribe(trigger_id=trigger_id, trigger=trigger, key=key)
        try:
            async for event in trigger.filter_shared_stream(parts):
                seq = self.manager.bind_pending_event(trigger_id=trigger_id, key=key)
                self._fired.append((json.loads(json.dumps(event.payload))["events"], seq))
        except Exception as error:
            self.errors.append(error)
            raise
        finally:
            await self.manager.unsubscribe(trigger_id, key)
            self._changed.set()

    async def _sync(self) -> None:
        """What the runner and its supervisor exchange every second, here more often."""
        while True:
            await asyncio.sleep(0.02)
            if self.persists and self._fired:
                fired, self._fired = self._fired, []
                self.changes += [events for events, _ in fired]
                # The runner hears of it the next time.
                await asyncio.sleep(0.02)
                self.manager.confirm_persisted([seq for _, seq in fired if seq is not None])
                self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self._changed.wait()

    async def has(self, *moments: float) -> None:
        """Wait until the events of these moments are stored."""
        await self.until(lambda: set(moments) <= set(self.moments))

    @property
    def stored(self) -> list[dict[str, Any]]:
        """The events, as the asset has them."""
        return [event for events in self.changes for event in events]

    @property
    def moments(self) -> list[int]:
        return [moment_of(event) for event in self.stored]

    async def kill(self) -> None:
        """End at once: what is not stored is gone."""
        self.persists = False
        for task in (self._syncing, *self._tasks):
            task.cancel()
        await asyncio.gather(self._syncing, *self._tasks, return_exceptions=True)
        await self.manager.stop_all()


def moment_of(payload: dict[str, Any]) -> int:
    return round(datetime.fromisoformat(payload["time"]).timestamp())


@pytest.fixture
async def triggerers() -> AsyncIterator[Callable[..., Triggerer]]:
    """Start triggerers; those that are left end with the test."""
    started: list[Triggerer] = []

    def start(**how: Any) -> Triggerer:
        started.append(Triggerer(**how))
        return started[-1]

    yield start
    for triggerer in started:
        await triggerer.kill()


@pytest.fixture
def moments(sandbox: Sandbox) -> Iterator[int]:
    """Times of the near future, a second apart, to identify events by."""
    return itertools.count(round(sandbox.now()) + 30)


def bounce(sandbox: Sandbox, at: float, to: str = "never@example.org") -> None:
    sandbox.bounce(to=to, at=at)
    sandbox.advance(max(0.0, at - sandbox.now()))


def streams(sandbox: Sandbox, status: int | None = None) -> list[Any]:
    return list(sandbox.requests("GET", STREAM, status=status))


def lists(sandbox: Sandbox) -> list[Any]:
    return [one for one in sandbox.requests("GET", EVENTS) if one.path == EVENTS]


async def live(triggerer: Triggerer, store: Stores) -> None:
    """Wait until a trigger has its cursor, which it stores when it sees the stream for the first time."""
    await triggerer.until(lambda: bool(store.values))
