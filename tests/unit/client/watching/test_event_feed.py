"""The feed's own pace; what it makes of a real stream is in ``tests/wire/test_feed.py``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.client.events import EventFilter, EventPage, FeedEvent
from airflow_provider_fluxomail.client.models import Event
from airflow_provider_fluxomail.client.pacing import Pacer, Turns
from airflow_provider_fluxomail.client.watching import event_feed
from airflow_provider_fluxomail.client.watching.event_feed import EventFeed

COUNT = 200


class Stream:
    """Events that are all there already, each in a turn of its own."""

    opened_at = time.time()
    last_id = None

    async def __aiter__(self) -> AsyncIterator[tuple[FeedEvent, ...]]:
        for number in range(COUNT):
            yield (FeedEvent(f"s{number}", Event(type="delivered", time=datetime.now(UTC))),)


@pytest.mark.parametrize("error", [None, KeyError("x"), MemoryError()], ids=repr)
async def test_a_stream_that_closes_after_each_event_is_not_reopened_at_once(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    pauses: list[float] = []

    class OneEvent(Stream):
        async def __aiter__(self) -> AsyncIterator[tuple[FeedEvent, ...]]:
            yield (FeedEvent("s1", Event(type="delivered", time=datetime.now(UTC))),)
            if error is not None:
                raise error

    @contextlib.asynccontextmanager
    async def stream_events(*_: Any, **__: Any) -> AsyncIterator[Stream]:
        yield OneEvent()

    async def list_events(*_: Any, **__: Any) -> EventPage:
        return EventPage(events=(), cursor=None)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) >= 20:
            raise asyncio.CancelledError

    monkeypatch.setattr(event_feed, "asyncio", SimpleNamespace(sleep=sleep))
    client: Any = SimpleNamespace(stream_events=stream_events, list_events=list_events)
    feed = EventFeed(client, EventFilter(), turns=Turns(Pacer()), receive=lambda _: None)
    with pytest.raises(asyncio.CancelledError):
        await feed.run()
    assert sum(pauses) > 30, "a request every few seconds at most"


async def test_a_pause_to_gather_events_does_not_let_it_fall_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn may bring one event alone, so a pause after each would read ten a second."""
    received: list[FeedEvent] = []
    pauses: list[float] = []

    @contextlib.asynccontextmanager
    async def stream_events(*_: Any, **__: Any) -> AsyncIterator[Stream]:
        yield Stream()

    async def sleep(seconds: float) -> None:
        if len(received) == COUNT:
            raise asyncio.CancelledError
        pauses.append(seconds)

    monkeypatch.setattr(event_feed, "asyncio", SimpleNamespace(sleep=sleep))
    client: Any = SimpleNamespace(stream_events=stream_events)
    feed = EventFeed(client, EventFilter(), turns=Turns(Pacer()), receive=received.extend)
    with pytest.raises(asyncio.CancelledError):
        await feed.run()
    assert len(received) == COUNT
    assert len(pauses) < COUNT / 10
