"""The position of a trigger in the events, with a stream and a list that behave badly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.asset_events.cursor import Cursor, CursorStore, TriggerCursor, digest
from airflow_provider_fluxomail.asset_events.source import EventTiming
from airflow_provider_fluxomail.client.errors import FluxomailServerError, FluxomailValidationError
from airflow_provider_fluxomail.client.events import EventFilter
from tests.support.cursors import WANTED, Source, Store, T, event, page, trigger_cursor


async def test_events_missing_from_the_list_come_from_the_recent_ones() -> None:
    """The trigger joins a stream that has brought an event already, and the list lags behind."""
    source, one = Source(page()), trigger_cursor()
    assert await one.on_batch(source.batch(recent=(event(1), event(2, "opened")))) == [event(1)]
    assert await one.on_batch(source.batch(event(1), event(3))) == [event(3)]


async def test_events_before_the_first_start_do_not_count() -> None:
    source, one = Source(page(event(-5), event(5))), trigger_cursor()
    assert await one.on_batch(source.batch(recent=(event(-9),))) == [event(5)]
    assert await one.on_batch(source.batch(event(-30), event(6))) == [event(6)], "a gap is read from before it"


async def test_an_event_that_the_stream_brings_late_counts() -> None:
    store = Store({"since_ms": (T + 7200) * 1000, "began_ms": T * 1000, "seen": []})
    source, one = Source(page(event(1))), trigger_cursor(store)
    assert await one.on_batch(source.batch()) == [], "the list is full of those that were fired long ago"
    assert await one.on_batch(source.batch(event(60))) == [event(60)]


async def test_after_a_restart_the_list_is_read_from_before_the_cursor() -> None:
    seen = digest(event(101))
    store = Store({"since_ms": (T + 1000) * 1000, "began_ms": T * 1000, "seen": [seen]})
    source, one = Source(page(event(1010), event(990), event(101))), trigger_cursor(store)
    assert await one.on_batch(source.batch()) == [event(990), event(1010)]
    ((_, since_ms, _),) = source.requested
    assert since_ms == (T + 1000) * 1000 - 300_000


async def test_pages_that_go_in_circles_are_left() -> None:
    source = Source(page(event(1), cursor="a"), page(event(2), cursor="b"), page(event(3), cursor="a"))
    one = trigger_cursor()
    assert await one.on_batch(source.batch()) == [event(1), event(2), event(3)]
    assert [cursor for _, _, cursor in source.requested] == [None, "a", "b"]
    await one.on_batch(source.batch())
    assert len(source.requested) == 3


async def test_a_list_that_does_not_know_types_is_read_without() -> None:
    source = Source(FluxomailValidationError("no such parameter"), page(event(1), event(2, "opened")))
    one = trigger_cursor(longest_pause=0.0)
    assert await one.on_batch(source.batch()) == []
    assert await one.on_batch(source.batch()) == [event(1)]
    assert [wanted.types for wanted, _, _ in source.requested] == [("email.bounced",), ()]


async def test_batches_before_the_list_was_read_are_in_the_list() -> None:
    source, store = Source(FluxomailServerError("down"), page(event(1))), Store()
    one = trigger_cursor(store, longest_pause=0.0)
    assert await one.on_batch(source.batch(event(1))) == []
    began = store.value
    assert await one.on_batch(source.batch()) == [event(1)]
    assert store.value == began, "the cursor waits for the list, and for Airflow"
    await one.on_batch(source.batch())
    assert store.value["seen"] == [digest(event(1))]
    assert store.value["since_ms"] == (T + 2) * 1000, "of the batch in which it was fired"


async def test_a_pending_event_is_confirmed_with_the_batch_in_which_it_was_fired() -> None:
    """Not with the batch that held it: that fired nothing, so Airflow confirmed it at once."""
    source, store = Source(page()), Store()
    one = trigger_cursor(store, spacing=3600.0, save_every=0.0)
    assert await one.on_batch(source.batch(event(1))) == [event(1)]
    assert await one.on_batch(source.batch(event(2))) == []
    await one.on_batch(source.batch())
    assert (store.value["since_ms"], store.value["seen"]) == ((T + 1) * 1000, [digest(event(1))])
    one._fire_at = 0.0
    assert await one.on_batch(source.batch()) == [event(2)]
    for _ in range(3):
        await one.on_batch(source.batch(confirmed=3))
    assert (store.value["since_ms"], store.value["seen"]) == ((T + 1) * 1000, [digest(event(1))])
    await one.on_batch(source.batch(confirmed=4))
    assert store.value["since_ms"] == (T + 4) * 1000
    assert store.value["seen"] == [digest(event(1)), digest(event(2))]


async def test_what_is_one_event() -> None:
    wanted = EventFilter(types=("email.bounced", "email.opened"))
    one = TriggerCursor(wanted, CursorStore(Store(), []), timing=EventTiming(spacing=0.0))
    source = Source(page(event(1), event(1, "opened"), event(1)))
    assert await one.on_batch(source.batch()) == [event(1), event(1, "opened")], "not two types under one id"
    bare = event(1, time=None, id=None)
    assert await one.on_batch(source.batch(bare, bare)) == [bare], "without a time or an id"


async def test_what_is_kept_is_bounded() -> None:
    store = Store()
    source, one = Source(page()), trigger_cursor(store, kept=50, stored=20, overlap=10.0**6)
    for number in range(10):
        await one.on_batch(source.batch(*(event(number * 10 + n) for n in range(10))))
    await one.on_batch(source.batch())
    assert len(one._known) == 50
    assert store.value["seen"] == [digest(event(number)) for number in range(80, 100)]


@pytest.mark.parametrize(
    "stored",
    [None, "text", [], {}, {"since_ms": "1", "began_ms": 1, "seen": []}, {"since_ms": True, "began_ms": 1, "seen": []},
     {"since_ms": 1, "began_ms": 1, "seen": "ab"}, {"since_ms": 1, "began_ms": 1}],
    ids=str,
)  # fmt: skip
async def test_anything_but_a_cursor_is_ignored(stored: Any) -> None:
    assert Cursor.parse(stored) is None
    store = Store(stored)
    await trigger_cursor(store).on_batch(Source().batch())
    assert store.value == {"since_ms": T * 1000, "began_ms": T * 1000, "seen": []}


async def test_watchers_of_an_asset_have_cursors_of_their_own() -> None:
    identities = [["c", None, ["bounced"]], ["c", "example.org", ["bounced"]], ["d", None, ["bounced"]]]
    keys = {CursorStore(None, identity).key for identity in identities}
    assert len(keys) == 3
    assert keys == {CursorStore(None, identity).key for identity in identities}


async def test_of_the_cursors_of_several_assets_the_earliest_counts() -> None:
    late, early = (Store({"since_ms": since, "began_ms": 1, "seen": []}) for since in (9, 5))
    accessors = SimpleNamespace(_by_name={"0": late, "1": Store(None), "2": early})
    assert await CursorStore(accessors, []).read() == Cursor(since_ms=5, began_ms=1)
    assert await CursorStore(None, []).read() is None


async def test_without_a_store_it_is_kept_in_memory() -> None:
    one = TriggerCursor(WANTED, CursorStore(None, []), timing=EventTiming(spacing=0.0))
    source = Source(page(), page(event(7)))
    await one.on_batch(source.batch(event(5)))
    for _ in range(3):
        await one.on_batch(source.batch())
    await one.on_batch(source.batch(generation=2))
    assert source.requested[1][1] == T * 1000, "no earlier than the first start"
