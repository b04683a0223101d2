"""Watched waits and their states."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_provider_fluxomail.client.events import FeedEvent
from airflow_provider_fluxomail.client.models import Event
from airflow_provider_fluxomail.client.watching.wait import Wait, WaitOutcome, now
from airflow_provider_fluxomail.client.watching.watched_wait import State, WatchedWait, WatchedWaits, WatchTiming

SETTLE = 0.01
ENDING = WaitOutcome(status="timeout", send_id="s1", target="delivered")


def event(kind: str, seconds: float = 0.0) -> FeedEvent:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    return FeedEvent("s1", Event(type=kind, time=moment, id=kind))


def watched(waits: WatchedWaits, *, seen: float | None = None, age: float = 600.0, **fields: Any) -> WatchedWait:
    wait = Wait("s1", started=now() - age, deadline=now() + 3600, seen=seen)
    one = WatchedWait(wait, fields.pop("interval", 600.0), lambda level, text: None, **fields)
    waits.add(one)
    return one


def new(settle: float = SETTLE) -> WatchedWaits:
    return WatchedWaits(WatchTiming(settle=settle))


POLLED, JOINING, FOLLOWING, SETTLING, ENDED = State
SIGNALS: dict[str, Callable[[WatchedWaits, WatchedWait], None]] = {
    "nothing is missing": lambda waits, one: waits.follow(one),
    "something is missing": lambda waits, one: waits.join(one),
    "events are not enough": lambda waits, one: waits.poll(one),
    "an event": lambda waits, one: waits.on_event(event("delivered")),
    "the stream is down": lambda waits, one: waits.stream_down(),
    "the end": lambda waits, one: waits.end(one, ENDING),
}
