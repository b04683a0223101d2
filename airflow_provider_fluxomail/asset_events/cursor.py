"""Stores each trigger's position in the events in Airflow's asset state store, and replays what it missed."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
import itertools
import json
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import asset_state_stores
from airflow_provider_fluxomail.asset_events.source import BatchPosition, EventBatch, EventTiming, event_timing
from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailRequestError,
    FluxomailValidationError,
    as_response_error,
)
from airflow_provider_fluxomail.client.event_types import without_prefix
from airflow_provider_fluxomail.client.retries import Backoff

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.events import EventFilter, EventPage, FeedEvent

log = logging.getLogger(__name__)

#: In place of a batch's number: not fired yet.
_PENDING: Final = 2**62


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cursor:
    """The position of a trigger in the events.

    :param since_ms: every event before it was fired and stored. Milliseconds of Fluxomail's clock.
    :param began_ms: when the trigger started for the first time: earlier events do not count.
    :param seen: digests of events after ``since_ms``, or shortly before, that were fired and stored as well.
    """

    since_ms: int
    began_ms: int
    seen: tuple[str, ...] = ()

    @classmethod
    def parse(cls, stored: object) -> Cursor | None:
        """Read what was stored; return ``None`` if it is not a cursor."""
        if not isinstance(stored, Mapping):
            return None
        since, began, seen = (stored.get(name) for name in ("since_ms", "began_ms", "seen"))
        if type(since) is not int or type(began) is not int or not isinstance(seen, list):
            return None
        return cls(since_ms=since, began_ms=began, seen=tuple(map(str, seen)))


class CursorStore:
    """A trigger's entry in the state stores of its assets.

    :param stores: ``asset_state_store`` of the trigger; ``None`` where Airflow has none.
    :param identity: tells the watchers of an asset apart.
    """

    def __init__(self, stores: Any, identity: object) -> None:
        self._stores = asset_state_stores(stores)
        self.key = f"fluxomail_events_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]}"

    async def read(self) -> Cursor | None:
        """Return the cursor; if the assets have several, the earliest."""
        cursors = [Cursor.parse(await store.aget(self.key)) for store in self._stores]
        return min((one for one in cursors if one), key=lambda one: one.since_ms, default=None)

    async def write(self, cursor: Cursor) -> None:
        for store in self._stores:
            await store.aset(self.key, {**dataclasses.asdict(cursor), "seen": list(cursor.seen)})


class TriggerCursor:
    """Turns the batches of a source into what one trigger fires, each event once, and moves its cursor.

    First it reads from the list what has happened since its cursor, then it takes the events of the batches. The cursor
    moves only past batches whose events are all in Airflow's database, and not before the list is read to its end.

    :param wanted: which events.
    """

    def __init__(self, wanted: EventFilter, store: CursorStore, *, timing: EventTiming | None = None) -> None:
        self._wanted = wanted
        self._names = frozenset(without_prefix(name) for name in wanted.types)
        self._store = store
        self._timing = timing or event_timing()
        self._overlap_ms = int(self._timing.overlap * 1000)
        self._started = time.time()
        self._cursor: Cursor | None = None
        #: Digests of the events, each with the number of the batch with which it was fired, and its time.
        self._known: dict[str, tuple[int, int]] = {}
        self._pending: list[FeedEvent] = []
        self._fire_at = 0.0
        #: Batches after which nothing was pending, without those that are confirmed.
        self._fired: collections.deque[BatchPosition] = collections.deque()
        self._confirmed_until = 0
        self._generation: int | None = None
        self._pages: _Pages | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._last_problem: str | None = None

    async def on_batch(self, batch: EventBatch) -> list[FeedEvent]:
        """Return the events to fire now, together. They must be fired before the next batch is passed."""
        if self._cursor is None and not await self._begin(batch):
            return []
        if batch.generation != self._generation:
            # Until the list is read, batches are skipped: it has their events as well.
            self._pages = _Pages(self._current.since_ms)
        else:
            self._gather(batch.events, self._current.began_ms)
        if self._pages is not None and not self._pending and batch.confirmed.number >= self._pages.number:
            await self._catch_up(batch, self._pages)
        await self._move(batch)
        return self._due(batch)

    async def _catch_up(self, batch: EventBatch, pages: _Pages) -> None:
        """Read some pages of the list. The next ones follow when Airflow has stored the events of these."""
        reading_until = time.monotonic() + self._timing.reading
        for _ in range(self._timing.pages):
            page = await self._read(batch, pages)
            if page is None:
                return
            if batch.generation != self._generation:
                self._generation = batch.generation
                self._gather(batch.recent, self._floor_ms)
            self._gather(page.events, self._floor_ms)
            batch.source.wake_when_confirmed(batch.position)
            if pages.done:
                self._pages = None
                return
            if time.monotonic() > reading_until:
                return

    @property
    def _current(self) -> Cursor:
        assert self._cursor is not None, "it is read with the first batch"
        return self._cursor

    @property
    def _floor_ms(self) -> int:
        """Older events of the list do not count."""
        return max(self._current.since_ms - self._overlap_ms, self._current.began_ms)

    async def _begin(self, batch: EventBatch) -> bool:
        """Read the cursor; the first time, start with new events. Return False if Airflow does not respond."""
        try:
            cursor = await self._store.read()
            if cursor is None:
                now_ms = batch.source.server_ms(self._started)
                cursor = Cursor(since_ms=now_ms, began_ms=now_ms)
                await self._store.write(cursor)
        except Exception as error:  # noqa: BLE001 - whatever it is: the events must not start at another time
            self._warn(f"the cursor cannot be read: {type(error).__name__}")
            return False
        self._cursor = cursor
        self._known = dict.fromkeys(cursor.seen, (0, cursor.since_ms))
        return True

    def _gather(self, events: Iterable[FeedEvent], floor_ms: int) -> None:
        """Keep the events that this trigger wants and has not seen yet."""
        for event in events:
            name, at = digest(event), _time_ms(event)
            if event.event.type in self._names and at >= floor_ms and name not in self._known:
                self._known[name] = (_PENDING, at)
                self._pending.append(event)
        for name in list(itertools.islice(self._known, max(0, len(self._known) - self._timing.kept))):
            del self._known[name]

    def _due(self, batch: EventBatch) -> list[FeedEvent]:
        """Return the events to fire now, in order of their time."""
        if not self._pending:
            return []
        early = self._fire_at - time.monotonic()
        if early > 0:
            batch.source.wake_in(early)
            return []
        self._pending.sort(key=_time_ms)
        due, self._pending = self._pending[: self._timing.together], self._pending[self._timing.together :]
        for event in due:
            self._known[digest(event)] = (batch.position.number, _time_ms(event))
        if self._pending:
            batch.source.wake_in(self._timing.spacing)
        else:
            self._fired.append(batch.position)
        if self._pages is not None:
            self._pages.number = batch.position.number
        batch.source.wake_when_confirmed(batch.position)
        self._fire_at = time.monotonic() + self._timing.spacing
        return due

    async def _read(self, batch: EventBatch, pages: _Pages) -> EventPage | None:
        """Read the next page; return ``None`` if it is not available now."""
        if time.monotonic() < self._retry_at:
            return None
        since_ms = max(pages.since_ms - self._overlap_ms, self._current.began_ms)
        try:
            async with asyncio.timeout(self._timing.reading):
                page = await batch.source.read_page(self._wanted, since_ms=since_ms, cursor=pages.cursor)
        except Exception as failure:  # noqa: BLE001 - whatever the list holds, the next request may be readable
            error = as_response_error(failure)
            if isinstance(error, FluxomailValidationError | FluxomailRequestError) and self._wanted.types:
                # Not every server may know the filter; types are checked here in any case.
                self._wanted = dataclasses.replace(self._wanted, types=())
            elif not isinstance(error, FluxomailConnectionError):
                self._warn(f"the list of events cannot be read: {error}")
            self._failures += 1
            backoff = Backoff(first=1.0, longest=self._timing.longest_pause, jitter=0.5)
            self._retry_at = time.monotonic() + backoff.seconds(self._failures, at_least=error.retry_after)
            return None
        self._failures, self._last_problem = 0, None
        pages.read(page, batch)
        return page

    async def _move(self, batch: EventBatch) -> None:
        """Move the cursor as far as every event was fired and is in Airflow's database."""
        cursor, reached = self._current, self._last_confirmed(batch)
        if self._pages is not None or reached is None:
            return
        fresh = any(self._confirmed_until < number <= reached.number for number, _ in self._known.values())
        advance_ms = reached.reached_ms - cursor.since_ms
        if advance_ms <= 0 or not (fresh or advance_ms >= self._timing.save_every * 1000):
            return
        oldest = reached.reached_ms - self._overlap_ms
        stored = [name for name, (number, at) in self._known.items() if number <= reached.number and at >= oldest]
        moved = dataclasses.replace(cursor, since_ms=reached.reached_ms, seen=tuple(stored[-self._timing.stored :]))
        try:
            await self._store.write(moved)
        except Exception as error:  # noqa: BLE001 - a cursor that lags behind loses nothing
            self._warn(f"the cursor cannot be stored: {type(error).__name__}")
            return
        self._cursor, self._confirmed_until = moved, reached.number

    def _last_confirmed(self, batch: EventBatch) -> BatchPosition | None:
        """Return the last batch up to which every event was fired and is stored."""
        reached = None
        while self._fired and self._fired[0].number <= batch.confirmed.number:
            reached = self._fired.popleft()
        if not self._fired and not self._pending:
            # The batches since had nothing for this trigger.
            return batch.confirmed
        return reached

    def _warn(self, problem: str) -> None:
        """Log a problem, once."""
        if problem != self._last_problem:
            self._last_problem = problem
            log.warning("Cannot process events: %s. Retrying.", problem)


class _Pages:
    """The position in the list, which is read from the newest event back to a given time."""

    def __init__(self, since_ms: int) -> None:
        self.since_ms = since_ms
        self.cursor: str | None = None
        self.done = False
        #: Number of the batch with which the last page was read.
        self.number = 0
        self._seen: set[str] = set()

    def read(self, page: EventPage, batch: EventBatch) -> None:
        self.number = batch.position.number
        # Do not read forever from a server that repeats a cursor.
        self.done = not page.cursor or page.cursor in self._seen
        self.cursor = page.cursor
        if page.cursor:
            self._seen.add(page.cursor)


def digest(event: FeedEvent) -> str:
    """Return a digest that identifies an event. Its id alone is not unique: two types may share one."""
    own = event.event
    facts = [event.send_id, own.type, own.id or (own.time.isoformat() if own.time else None), own.provider_message_id]
    return urlsafe_b64encode(hashlib.sha256(json.dumps(facts).encode()).digest()[:6]).decode()


def _time_ms(event: FeedEvent) -> int:
    # An event without a readable time counts as new.
    return int(event.event.time.timestamp() * 1000) if event.event.time else 2**62
