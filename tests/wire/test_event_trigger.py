"""Event-driven Dags: the trigger in Airflow's own shared streams, against the sandbox; no event is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION
from airflow_provider_fluxomail.asset_events import cursor
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.triggers import FluxomailEventTrigger
from tests.support import running
from tests.support.event_triggers import (
    DEADLINE,
    STREAM,
    Stores,
    Triggerer,
    bounce,
    lists,
    live,
    message_event_triggers,
    moment_of,
    moments,
    on_airflow_3_3,
    quick_event_triggers,
    send,
    streams,
    triggerers,
)
from tests.support.timing import event_timing

__all__ = ["message_event_triggers", "moments", "quick_event_triggers", "triggerers"]
pytestmark = pytest.mark.usefixtures("quick_event_triggers", "message_event_triggers")


on_airflow_3 = pytest.mark.skipif(AIRFLOW_VERSION < (3, 0), reason="Airflow 2 has no asset watchers")


# What it is


@on_airflow_3
def test_it_can_be_made_anew_from_what_is_stored() -> None:
    trigger = FluxomailEventTrigger(types=("complained", "bounced", "bounced"), domain=" Example.ORG ")
    path, kwargs = trigger.serialize()
    assert path == "airflow_provider_fluxomail.triggers.FluxomailEventTrigger"
    assert kwargs == {
        "types": ["bounced", "complained"],
        "domain": "example.org",
        "fluxomail_conn_id": "fluxomail_default",
    }
    assert running.rebuilt(trigger).serialize() == (path, kwargs)
    assert FluxomailEventTrigger(types="bounced").types == ["bounced"]


@on_airflow_3
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"types": "bouncd"}, "unknown event type 'bouncd': use any of sent, delayed"),
        ({"types": ["bounced", "email.opened"]}, "unknown event type 'email.opened'"),
        ({"types": []}, "types is empty"),
        ({"types": ""}, "unknown event type ''"),
        ({"types": "bounced", "domain": "ada@example.org"}, "not a domain"),
        ({"types": "bounced", "domain": " "}, "not a domain"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(FluxomailValidationError, match=told) as refused:
        FluxomailEventTrigger(**arguments)
    assert "ada" not in str(refused.value), "promise 5"


@pytest.mark.skipif(AIRFLOW_VERSION >= (3, 0), reason="Airflow 3 has asset watchers")
def test_airflow_2_is_told() -> None:
    with pytest.raises(Exception, match="needs Airflow 3"):
        FluxomailEventTrigger(types="bounced")


@on_airflow_3_3
def test_an_asset_takes_it_as_its_watcher() -> None:
    from airflow.sdk import Asset, AssetWatcher

    asset = Asset("bounces", watchers=[AssetWatcher(name="fluxomail", trigger=FluxomailEventTrigger(types="bounced"))])
    assert asset.watchers


# Shared, on Airflow 3.3


@on_airflow_3_3
async def test_an_event_changes_the_asset(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    at = next(moments)
    sandbox.open(at=at)
    bounce(sandbox, at)
    await triggerer.has(at)
    (payload,) = triggerer.stored
    (message,) = sandbox.messages()
    assert payload == {
        "type": "bounced",
        "send_id": message.send_id,
        "message_id": message.message_id,
        "time": payload["time"],
        "event_id": f"{message.send_id}:{at * 1000}",
        "reason": "550 5.1.1 no such user",
    }


@on_airflow_3_3
async def test_domains_and_connections_have_streams_of_their_own(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    send("never@example.com")
    sandbox.connect("other")
    triggerer = triggerers()
    stores = [Stores() for _ in range(3)]
    triggerer.start(stores[0], domain="example.com")
    triggerer.start(stores[1])
    triggerer.start(stores[2], fluxomail_conn_id="other")
    for store in stores:
        await live(triggerer, store)
    bounce(sandbox, at := next(moments))
    await triggerer.until(lambda: triggerer.moments.count(at) == 2)
    bounce(sandbox, at := next(moments), to="never@example.com")
    await triggerer.until(lambda: triggerer.moments.count(at) == 3)
    assert len(triggerer.stored) == 5
    assert sorted(one.query for one in streams(sandbox)) == ["", "", "domain=example.com"]


@on_airflow_3_3
async def test_the_first_start_begins_now(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    sandbox.bounce(at=sandbox.now() - 30)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    bounce(sandbox, at := next(moments))
    await triggerer.has(at)
    assert triggerer.moments == [at]
    await triggerer.kill()
    again = triggerers()
    again.start(store)
    bounce(sandbox, later := next(moments))
    await again.has(later)
    assert set(again.moments) <= {at, later}, "a restart does not reach back beyond the first start"


@on_airflow_3_3
async def test_what_happens_between_the_start_and_the_stream_is_not_lost(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    sandbox.fail_next(503, path=STREAM, times=2)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await triggerer.until(lambda: bool(streams(sandbox)))
    bounce(sandbox, at := next(moments))
    await triggerer.has(at)


@on_airflow_3_3
async def test_no_event_is_lost_while_the_triggerer_is_down(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    bounce(sandbox, first := next(moments))
    await triggerer.has(first)
    await triggerer.until(lambda: store.cursor["seen"] != [])
    await triggerer.kill()
    bounce(sandbox, second := next(moments))
    bounce(sandbox, third := next(moments))
    again = triggerers()
    again.start(store)
    await again.has(second, third)
    assert again.moments == [second, third], "in order, and what is confirmed comes once"


@on_airflow_3_3
async def test_what_was_fired_and_not_stored_comes_again(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    """The cursor must not go past what Airflow has not persisted."""
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    triggerer.persists = False
    bounce(sandbox, at := next(moments))
    await triggerer.until(lambda: len(triggerer._fired) == 1)
    # Parts go on, and with them the chances to move the cursor too far.
    writes = store.writes
    sandbox.open(at=at + 5)
    await asyncio.sleep(1.0)
    await triggerer.kill()
    assert store.writes == writes
    assert triggerer.stored == []
    again = triggerers()
    again.start(store)
    await again.has(at)


@on_airflow_3_3
async def test_of_two_events_the_one_that_is_not_stored_comes_again(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    triggerer.persists = False
    bounce(sandbox, first := next(moments))
    await triggerer.until(lambda: len(triggerer._fired) == 1)
    bounce(sandbox, second := next(moments))
    await triggerer.until(lambda: len(triggerer._fired) == 2)
    ((event,), seq), _ = triggerer._fired
    triggerer.manager.confirm_persisted([seq or 0])
    await triggerer.until(lambda: store.cursor["seen"] != [])
    assert moment_of(event) == first
    await triggerer.kill()
    again = triggerers()
    again.start(store)
    await again.has(second)
    assert again.moments == [second]


@on_airflow_3_3
async def test_one_that_lags_behind_holds_no_other_ones_cursor_too_far(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    """Two on one stream: each goes on from its own cursor, also the one that joins late."""
    triggerer, one, two = triggerers(), Stores(), Stores()
    triggerer.start(one)
    triggerer.start(two)
    await live(triggerer, one)
    await live(triggerer, two)
    await triggerer.kill()
    bounce(sandbox, first := next(moments))
    again = triggerers()
    again.start(one)
    await again.has(first)
    await again.until(lambda: one.cursor["seen"] != [])
    bounce(sandbox, second := next(moments))
    await again.has(second)
    again.start(two)
    await again.until(lambda: sorted(again.moments) == [first, first, second, second])
    assert len(streams(sandbox)) == 2


@on_airflow_3_3
async def test_one_that_joins_late_has_its_cursor_behind_what_it_has_fired(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    """The stream is safe up to now for the other one: not for it."""
    sandbox.settings(stream_heartbeat=0.1)
    triggerer, one, two = triggerers(), Stores(), Stores()
    triggerer.start(two)
    await live(triggerer, two)
    await triggerer.kill()
    bounce(sandbox, at := next(moments))
    position = two.cursor["since_ms"]
    again = triggerers()
    again.start(one)
    await live(again, one)
    await again.until(lambda: one.cursor["since_ms"] > one.cursor["began_ms"])
    again.persists = False
    again.start(two)
    await again.until(lambda: len(again._fired) == 1)
    await asyncio.sleep(0.5)
    await again.kill()
    assert two.cursor["since_ms"] == position
    third = triggerers()
    third.start(two)
    await third.has(at)


@on_airflow_3_3
async def test_events_close_together_change_the_asset_once(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow lets a run see the first of several quick changes, and the others when there is another one."""
    event_timing(monkeypatch, spacing=2.0)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    first, second, third = (next(moments) for _ in range(3))
    bounce(sandbox, first)
    await triggerer.has(first)
    began = asyncio.get_running_loop().time()
    for at in (third, second):
        sandbox.bounce(at=at)
        await asyncio.sleep(0.1)
    sandbox.advance(5)
    await triggerer.has(second, third)
    assert asyncio.get_running_loop().time() - began >= 1.5
    assert [[moment_of(event) for event in events] for events in triggerer.changes] == [[first], [second, third]]
    await triggerer.until(lambda: len(store.cursor["seen"]) == 3)


@on_airflow_3_3
async def test_what_waits_to_be_fired_is_not_lost(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, spacing=3600.0)
    sandbox.settings(stream_heartbeat=0.1)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    bounce(sandbox, first := next(moments))
    await triggerer.has(first)
    bounce(sandbox, second := next(moments))
    await triggerer.until(lambda: store.cursor["seen"] != [])
    await asyncio.sleep(0.5)
    await triggerer.kill()
    again = triggerers()
    again.start(store)
    await again.has(second)
    assert again.moments == [second]


@on_airflow_3_3
async def test_a_change_has_so_many_events_at_most(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, together=4, spacing=0.1)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    base = round(sandbox.now()) + 1
    for number in range(10):
        sandbox.bounce(at=base + number)
    sandbox.advance(20)
    await triggerer.has(*range(base, base + 10))
    assert [len(events) for events in triggerer.changes] == [4, 4, 2]
    assert triggerer.moments == list(range(base, base + 10))
    await triggerer.until(lambda: len(store.cursor["seen"]) == 10)


@on_airflow_3_3
async def test_a_long_absence_is_made_up_for_in_pages(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, pages=2)
    sandbox.settings(page_size=3)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    await triggerer.kill()
    base = round(sandbox.now()) + 1
    for number in range(20):
        sandbox.bounce(at=base + number)
    sandbox.advance(7200)
    again = triggerers()
    again.start(store)
    await again.has(*range(base, base + 20))
    assert len(again.stored) == 20
    before = store.cursor["since_ms"]
    await again.until(lambda: store.cursor["since_ms"] > (base + 3600) * 1000)
    assert before < (base + 3600) * 1000 or len(again.stored) == 20
    assert not again.errors


@on_airflow_3_3
async def test_killed_while_it_catches_up_it_begins_with_that_again(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, pages=1)
    sandbox.settings(page_size=2)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    await triggerer.kill()
    base = round(sandbox.now()) + 1
    for number in range(8):
        sandbox.bounce(at=base + number)
    sandbox.advance(60)
    position = store.cursor["since_ms"]
    halfway = triggerers(persists=False)
    halfway.start(store)
    await halfway.until(lambda: len(halfway._fired) == 1)
    # The next page is not read before these are stored.
    await asyncio.sleep(0.5)
    assert [len(events) for events, _ in halfway._fired] == [2]
    await halfway.kill()
    assert store.cursor["since_ms"] == position
    again = triggerers()
    again.start(store)
    await again.has(*range(base, base + 8))


@on_airflow_3_3
@pytest.mark.parametrize("kind", ["stream_drop", "stream_stall", "stream_duplicate", "stream_out_of_order"])
async def test_no_fault_of_the_stream_loses_or_doubles_an_event(
    sandbox: Sandbox,
    triggerers: Callable[..., Triggerer],
    moments: Iterator[int],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    event_timing(monkeypatch, feed=FeedTiming(silence=0.5, overlap=60.0, backoff=0.5))
    sandbox.fail_next("stream_gap", times=None)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    sandbox.fail_next(kind, times=3)
    wanted = [next(moments) for _ in range(8)]
    for at in wanted:
        bounce(sandbox, at)
        await asyncio.sleep(0.1)
    await triggerer.has(*wanted)
    assert sorted(triggerer.moments) == wanted
    assert not triggerer.errors


@on_airflow_3_3
async def test_a_gap_too_large_for_the_stream_is_read_from_the_cursor(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, feed=FeedTiming(overlap=60.0, gap_pages=1))
    sandbox.settings(page_size=2)
    sandbox.fail_next("stream_gap", times=None)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    base = round(sandbox.now()) + 1
    sandbox.fail_next(503, path=STREAM, times=2)
    sandbox.fail_next("stream_drop")
    await triggerer.until(lambda: len(streams(sandbox, 503)) == 1)
    for number in range(9):
        sandbox.bounce(at=base + number)
    sandbox.advance(20)
    await triggerer.has(*range(base, base + 9))
    assert sorted(triggerer.moments) == list(range(base, base + 9))


@on_airflow_3_3
async def test_a_burst_does_not_overflow_the_queue(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    """What comes together is one entry of it."""
    triggerer, store = triggerers(queue=8), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    at = next(moments)
    for number in range(150):
        sandbox.bounce(at=at + number / 1000)
    sandbox.advance(5)
    await triggerer.until(lambda: len(triggerer.stored) == 150)
    assert not triggerer.errors


@on_airflow_3_3
async def test_one_that_was_failed_goes_on_from_its_cursor(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    """As after an overflow: Airflow starts it anew, within a second."""
    triggerer, store, other = triggerers(), Stores(), Stores()
    task = triggerer.start(store)
    triggerer.start(other)
    await live(triggerer, store)
    await live(triggerer, other)
    (group,) = triggerer.manager._groups.values()
    first_id = min(group._subscribers)
    triggerer.persists = False
    bounce(sandbox, at := next(moments))
    await triggerer.until(lambda: len(triggerer._fired) == 2)
    group._fail_overflowed_subscriber(first_id, group._subscribers[first_id])
    group._fail_subscriber_in_outstanding(first_id)
    await triggerer.until(task.done)
    assert type(task.exception()).__name__ == "_SubscriberOverflow"
    # What it had fired is lost on the way; the other one's is stored.
    del triggerer._fired[0]
    triggerer.persists = True
    await triggerer.until(lambda: other.cursor["seen"] != [])
    assert triggerer.moments == [at]
    triggerer.start(store)
    await triggerer.until(lambda: triggerer.moments == [at, at])


@on_airflow_3_3
async def test_airflows_own_outage_is_waited_out(
    sandbox: Sandbox,
    triggerers: Callable[..., Triggerer],
    moments: Iterator[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    triggerer, store = triggerers(), Stores()
    store.down = True
    triggerer.start(store)
    await triggerer.until(lambda: "the cursor cannot be read" in caplog.text)
    bounce(sandbox, first := next(moments))
    store.down = False
    await triggerer.has(first)
    await triggerer.until(lambda: store.cursor["seen"] != [])
    store.down = True
    bounce(sandbox, second := next(moments))
    await triggerer.has(second)
    await triggerer.until(lambda: "the cursor cannot be stored" in caplog.text)
    store.down = False
    await triggerer.until(lambda: len(store.cursor["seen"]) == 2)
    assert caplog.text.count("the cursor cannot be read") == 1
    assert triggerer.moments == [first, second]


@on_airflow_3_3
async def test_a_list_that_cannot_be_read_is_asked_for_again(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int], caplog: pytest.LogCaptureFixture
) -> None:
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    await triggerer.kill()
    bounce(sandbox, first := next(moments))
    sandbox.fail_next(500, path="/api/v1/event[s]", times=3)
    again = triggerers()
    again.start(store)
    await again.until(lambda: len(lists(sandbox)) >= 3)
    bounce(sandbox, second := next(moments))
    await again.has(first, second)
    assert sorted(again.moments) == [first, second]
    assert caplog.text.count("the list of events cannot be read") == 3, "request ids differ"


@on_airflow_3_3
@pytest.mark.parametrize("status", [402, 403, 404])
async def test_what_cannot_be_had_is_told_and_asked_for_again(
    sandbox: Sandbox,
    triggerers: Callable[..., Triggerer],
    moments: Iterator[int],
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    sandbox.fail_next(status, path=STREAM, times=3)
    triggerer, store = triggerers(), Stores()
    caplog.set_level(logging.INFO)
    triggerer.start(store)
    await live(triggerer, store)
    bounce(sandbox, at := next(moments))
    await triggerer.has(at)
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "Cannot follow the events" in errors[0].getMessage()
    assert f"HTTP {status}" in errors[0].getMessage() or str(status) in errors[0].getMessage()
    assert "Following the events of connection fluxomail_default again" in caplog.text
    assert min(sandbox.requests("GET", STREAM).gaps) >= 0.8 * 0.5


@on_airflow_3_3
async def test_a_key_that_was_replaced_is_read_anew(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int], caplog: pytest.LogCaptureFixture
) -> None:
    old = sandbox.key("fm_old_secret")
    sandbox.connect(key=old)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    sandbox.revoke(old)
    await triggerer.until(lambda: len(streams(sandbox, 401)) >= 2)
    bounce(sandbox, at := next(moments))
    sandbox.connect(key=sandbox.key("fm_new_secret"))
    await triggerer.has(at)
    assert triggerer.moments == [at]
    assert caplog.text.count("Cannot follow the events") == 1
    assert "_secret" not in caplog.text, "promise 5"


@on_airflow_3_3
async def test_a_key_that_has_just_been_replaced_is_read_at_once(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, auth_wait=3600.0)
    old = sandbox.key("fm_old")
    sandbox.connect(key=old)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    sandbox.connect(key=sandbox.key("fm_new"))
    sandbox.revoke(old)
    bounce(sandbox, at := next(moments))
    await triggerer.has(at)


@on_airflow_3_3
async def test_a_connection_that_does_not_exist_is_told_and_looked_up_again(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int], caplog: pytest.LogCaptureFixture
) -> None:
    triggerer, store = triggerers(), Stores()
    triggerer.start(store, fluxomail_conn_id="later")
    await triggerer.until(lambda: "Cannot follow the events" in caplog.text)
    sandbox.connect("later")
    await live(triggerer, store)
    bounce(sandbox, at := next(moments))
    await triggerer.has(at)


@on_airflow_3_3
async def test_an_idle_cursor_moves_now_and_then(sandbox: Sandbox, triggerers: Callable[..., Triggerer]) -> None:
    sandbox.settings(stream_heartbeat=0.1)
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    await live(triggerer, store)
    began = store.cursor["since_ms"]
    await triggerer.until(lambda: store.cursor["since_ms"] >= began + 1500)
    assert store.writes <= 1 + (store.cursor["since_ms"] - began) / 500


@on_airflow_3_3
async def test_a_trigger_of_two_assets_keeps_the_cursor_in_both(
    sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]
) -> None:
    class Accessors:
        def __init__(self, *stores: Stores) -> None:
            self._by_name = {str(number): store for number, store in enumerate(stores)}

    triggerer, one, two = triggerers(), Stores(), Stores()
    both: Any = Accessors(one, two)
    triggerer.start(both)
    await live(triggerer, two)
    bounce(sandbox, at := next(moments))
    await triggerer.has(at)
    await triggerer.until(lambda: one.cursor["seen"] != [] and one.values == two.values)


@on_airflow_3_3
def test_the_real_accessors_have_what_is_read_of_them() -> None:
    """A private attribute: no other way tells a trigger its assets."""
    from airflow.sdk import Asset
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    stores = AssetStateStoreAccessors(inlets=[Asset("one"), Asset("two")])
    assert len(cursor.CursorStore(stores, [])._stores) == 2
    assert all(hasattr(one, "aget") and hasattr(one, "aset") for one in cursor.CursorStore(stores, [])._stores)


@on_airflow_3_3
async def test_it_leaves_nothing_behind(sandbox: Sandbox, triggerers: Callable[..., Triggerer]) -> None:
    before = asyncio.all_tasks()
    triggerer, store = triggerers(), Stores()
    triggerer.start(store)
    triggerer.start(Stores())
    await live(triggerer, store)
    await triggerer.kill()
    assert asyncio.all_tasks() == before


# Alone, before Airflow 3.3


async def alone(trigger: Any, found: list[Any]) -> None:
    async for event in trigger.run():
        found += event.payload["events"]


@contextlib.asynccontextmanager
async def running_alone(**arguments: Any) -> AsyncIterator[list[Any]]:
    found: list[Any] = []
    task = asyncio.create_task(alone(running.rebuilt(FluxomailEventTrigger(**arguments)), found))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def seen(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)


@on_airflow_3
async def test_alone_it_fires_from_now_on_over_breaks(sandbox: Sandbox, moments: Iterator[int]) -> None:
    sandbox.bounce(at=sandbox.now() - 30)
    sandbox.fail_next("stream_gap", times=None)
    async with running_alone(types=["bounced"], domain="example.org") as found:
        await seen(lambda: bool(lists(sandbox)))
        bounce(sandbox, first := next(moments))
        await seen(lambda: len(found) == 1)
        sandbox.fail_next(503, path=STREAM)
        sandbox.fail_next("stream_drop")
        await seen(lambda: len(streams(sandbox, 503)) == 1)
        bounce(sandbox, second := next(moments))
        await seen(lambda: len(found) == 2)
    assert [moment_of(payload) for payload in found] == [first, second]
    assert {parse_qs(one.query)["domain"][0] for one in streams(sandbox)} == {"example.org"}


@on_airflow_3
async def test_alone_it_reads_a_large_gap_to_its_end(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    event_timing(monkeypatch, pages=1, feed=FeedTiming(overlap=60.0, gap_pages=1))
    sandbox.settings(page_size=2)
    sandbox.fail_next("stream_gap", times=None)
    async with running_alone(types=["bounced"]) as found:
        await seen(lambda: bool(lists(sandbox)))
        base = round(sandbox.now()) + 1
        sandbox.fail_next(503, path=STREAM)
        sandbox.fail_next("stream_drop")
        await seen(lambda: len(streams(sandbox, 503)) == 1)
        for number in range(9):
            sandbox.bounce(at=base + number)
        sandbox.advance(20)
        await seen(lambda: len(found) >= 9)
    assert sorted(map(moment_of, found)) == list(range(base, base + 9))


@on_airflow_3
async def test_alone_it_leaves_nothing_behind(sandbox: Sandbox) -> None:
    before = asyncio.all_tasks()
    async with running_alone(types="bounced"):
        await seen(lambda: bool(lists(sandbox)))
    assert asyncio.all_tasks() == before
