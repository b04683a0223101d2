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
    quick_event_triggers,
    send,
    streams,
    triggerers,
)
from tests.support.timing import event_timing

__all__ = ["message_event_triggers", "moments", "quick_event_triggers", "triggerers"]
pytestmark = pytest.mark.usefixtures("quick_event_triggers", "message_event_triggers")


on_airflow_3 = pytest.mark.skipif(AIRFLOW_VERSION < (3, 0), reason="Airflow 2 has no asset watchers")


class World:
    """Triggerers, and what happens to the message that their triggers hear of."""

    def __init__(self, sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]) -> None:
        self.sandbox = sandbox
        self._triggerers = triggerers
        self._moments = moments

    def start(self, *stores: Any, persists: bool = True, **arguments: Any) -> Triggerer:
        """A triggerer with a trigger for each of the stores."""
        triggerer = self._triggerers(persists=persists)
        for store in stores:
            triggerer.start(store, **arguments)
        return triggerer

    async def live(self, **how: Any) -> tuple[Triggerer, Stores]:
        """A triggerer whose only trigger follows the events."""
        store = Stores()
        triggerer = self.start(store, **how)
        await live(triggerer, store)
        return triggerer, store

    async def down(self) -> Stores:
        """The store of a trigger that was live, and whose triggerer is down."""
        triggerer, store = await self.live()
        await triggerer.kill()
        return store

    def bounce(self, to: str = "never@example.org") -> int:
        """Let the message bounce now; returns the moment, by which a test tells events apart."""
        at = next(self._moments)
        bounce(self.sandbox, at, to)
        return at


def bounce_often(sandbox: Sandbox, count: int) -> list[int]:
    """Let the message bounce many times in a minute, a second apart, which then passes; returns the moments."""
    base = round(sandbox.now()) + 60
    for at in range(base, base + count):
        sandbox.bounce(at=at)
    sandbox.advance(count + 65)
    return list(range(base, base + count))


@pytest.fixture
def world(sandbox: Sandbox, triggerers: Callable[..., Triggerer], moments: Iterator[int]) -> World:
    pytest.importorskip("airflow.triggers.shared_stream", reason="shared streams came with Airflow 3.3")
    return World(sandbox, triggerers, moments)


# What it is


@on_airflow_3
def test_it_can_be_rebuilt_from_what_is_stored() -> None:
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
    ("arguments", "text"),
    [
        ({"types": "bouncd"}, "unknown event type 'bouncd': use any of sent, delayed"),
        ({"types": ["bounced", "email.opened"]}, "unknown event type 'email.opened'"),
        ({"types": []}, "types is empty"),
        ({"types": ""}, "unknown event type ''"),
        ({"types": "bounced", "domain": "ada@example.org"}, "not a domain"),
        *(
            ({"types": "bounced", "domain": bad}, "not a domain")
            for bad in (" ", "*.a.org", "a.org;b.org", "http://a.org")
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(FluxomailValidationError, match=text) as refused:
        FluxomailEventTrigger(**arguments)
    assert "ada" not in str(refused.value), "promise 5"


@pytest.mark.skipif(AIRFLOW_VERSION >= (3, 0), reason="Airflow 3 has asset watchers")
def test_it_needs_airflow_3() -> None:
    with pytest.raises(Exception, match="needs Airflow 3"):
        FluxomailEventTrigger(types="bounced")


# Shared, on Airflow 3.3


def test_airflows_classes_have_what_is_read_of_them(world: World) -> None:
    """A private attribute: no other way gives a trigger its assets."""
    from airflow.sdk import Asset, AssetWatcher
    from airflow.sdk.execution_time.context import AssetStateStoreAccessors

    watcher = AssetWatcher(name="fluxomail", trigger=FluxomailEventTrigger(types="bounced"))
    assert Asset("bounces", watchers=[watcher]).watchers
    stores = AssetStateStoreAccessors(inlets=[Asset("one"), Asset("two")])
    found = cursor.CursorStore(stores, [])._stores
    assert [hasattr(one, "aget") and hasattr(one, "aset") for one in found] == [True, True]


async def test_an_event_changes_the_asset(world: World) -> None:
    before = asyncio.all_tasks()
    triggerer, _ = await world.live()
    world.sandbox.open(at=round(world.sandbox.now()) + 1)
    at = world.bounce()
    await triggerer.has(at)
    (payload,) = triggerer.stored
    message = world.sandbox.message()
    assert payload == {
        "type": "bounced",
        "send_id": message.send_id,
        "message_id": message.message_id,
        "time": payload["time"],
        "event_id": f"{message.send_id}:{at * 1000}",
        "reason": "550 5.1.1 no such user",
    }
    await triggerer.kill()
    assert asyncio.all_tasks() == before, "it leaves nothing behind"


async def test_domains_and_connections_have_streams_of_their_own(world: World) -> None:
    send("never@example.com")
    world.sandbox.connect("other")
    triggerer, stores = world.start(), [Stores() for _ in range(3)]
    triggerer.start(stores[0], domain="example.com")
    triggerer.start(stores[1])
    triggerer.start(stores[2], fluxomail_conn_id="other")
    for store in stores:
        await live(triggerer, store)
    first = world.bounce()
    await triggerer.until(lambda: triggerer.moments.count(first) == 2)
    second = world.bounce("never@example.com")
    await triggerer.until(lambda: triggerer.moments.count(second) == 3)
    assert len(triggerer.stored) == 5
    assert sorted(one.query for one in streams(world.sandbox)) == ["", "", "domain=example.com"]


async def test_the_first_start_begins_now(world: World) -> None:
    world.sandbox.bounce(at=world.sandbox.now() - 30)
    triggerer, store = await world.live()
    at = world.bounce()
    await triggerer.has(at)
    assert triggerer.moments == [at]
    await triggerer.kill()
    again = world.start(store)
    later = world.bounce()
    await again.has(later)
    assert set(again.moments) <= {at, later}, "a restart does not reach back beyond the first start"


async def test_what_happens_between_the_start_and_the_stream_is_not_lost(world: World) -> None:
    world.sandbox.fail_next(503, path=STREAM, times=2)
    triggerer = world.start(Stores())
    await triggerer.until(lambda: bool(streams(world.sandbox)))
    await triggerer.has(world.bounce())


async def test_no_event_is_lost_while_the_triggerer_is_down(world: World) -> None:
    triggerer, store = await world.live()
    await triggerer.has(world.bounce())
    await triggerer.until(lambda: store.cursor["seen"] != [])
    await triggerer.kill()
    missed = [world.bounce(), world.bounce()]
    again = world.start(store)
    await again.has(*missed)
    assert again.moments == missed, "in order, and what is confirmed comes once"


async def test_what_was_fired_and_not_stored_comes_again(world: World) -> None:
    """The cursor must not go past what Airflow has not persisted, of several events either."""
    triggerer, store = await world.live()
    triggerer.persists = False
    first = world.bounce()
    await triggerer.until(lambda: len(triggerer._fired) == 1)
    second = world.bounce()
    await triggerer.until(lambda: len(triggerer._fired) == 2)
    # Batches continue, and with them the chances to move the cursor too far.
    writes = store.writes
    world.sandbox.open(at=second + 5)
    await asyncio.sleep(1.0)
    assert store.writes == writes
    ((event,), seq), _ = triggerer._fired
    assert moment_of(event) == first
    triggerer.manager.confirm_persisted([seq or 0])
    await triggerer.until(lambda: store.cursor["seen"] != [])
    await triggerer.kill()
    assert triggerer.stored == []
    again = world.start(store)
    await again.has(second)
    assert again.moments == [second]


async def test_one_that_lags_behind_holds_no_other_ones_cursor_too_far(world: World) -> None:
    """Two on one stream: each continues from its own cursor, also the one that joins late."""
    one, two = Stores(), Stores()
    triggerer = world.start(one, two)
    await live(triggerer, one)
    await live(triggerer, two)
    await triggerer.kill()
    first = world.bounce()
    again = world.start(one)
    await again.has(first)
    await again.until(lambda: one.cursor["seen"] != [])
    second = world.bounce()
    await again.has(second)
    again.start(two)
    await again.until(lambda: sorted(again.moments) == [first, first, second, second])
    assert len(streams(world.sandbox)) == 2


async def test_one_that_joins_late_has_its_cursor_behind_what_it_has_fired(world: World) -> None:
    """The stream is safe up to now for the other one: not for it."""
    world.sandbox.settings(stream_heartbeat=0.1)
    two = await world.down()
    at, position = world.bounce(), two.cursor["since_ms"]
    again, one = await world.live()
    await again.until(lambda: one.cursor["since_ms"] > one.cursor["began_ms"])
    again.persists = False
    again.start(two)
    await again.until(lambda: len(again._fired) == 1)
    await asyncio.sleep(0.5)
    await again.kill()
    assert two.cursor["since_ms"] == position
    await world.start(two).has(at)


async def test_events_close_together_change_the_asset_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow lets a run see the first of several quick changes, and the others when there is another one."""
    event_timing(monkeypatch, spacing=2.0)
    triggerer, store = await world.live()
    began = asyncio.get_running_loop().time()
    first = world.bounce()
    await triggerer.has(first)
    for at in (first + 62, first + 61):
        world.sandbox.bounce(at=at)
        await asyncio.sleep(0.1)
    world.sandbox.advance(65)
    await triggerer.has(first + 61, first + 62)
    assert asyncio.get_running_loop().time() - began >= 2.0
    assert [[moment_of(one) for one in events] for events in triggerer.changes] == [[first], [first + 61, first + 62]]
    await triggerer.until(lambda: len(store.cursor["seen"]) == 3)


async def test_what_waits_to_be_fired_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    event_timing(monkeypatch, spacing=3600.0)
    world.sandbox.settings(stream_heartbeat=0.1)
    triggerer, store = await world.live()
    await triggerer.has(world.bounce())
    second = world.bounce()
    await triggerer.until(lambda: store.cursor["seen"] != [])
    await asyncio.sleep(0.5)
    await triggerer.kill()
    again = world.start(store)
    await again.has(second)
    assert again.moments == [second]


async def test_a_change_has_a_bounded_number_of_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    event_timing(monkeypatch, together=4, spacing=0.1)
    triggerer, store = await world.live()
    wanted = bounce_often(world.sandbox, 10)
    await triggerer.has(*wanted)
    assert [len(events) for events in triggerer.changes] == [4, 4, 2]
    assert triggerer.moments == wanted
    await triggerer.until(lambda: len(store.cursor["seen"]) == 10)


async def test_a_long_absence_is_made_up_for_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    event_timing(monkeypatch, pages=2)
    world.sandbox.settings(page_size=3)
    store = await world.down()
    wanted = bounce_often(world.sandbox, 20)
    world.sandbox.advance(7200)
    again = world.start(store)
    await again.has(*wanted)
    assert len(again.stored) == 20
    await again.until(lambda: store.cursor["since_ms"] > (wanted[0] + 3600) * 1000)
    assert not again.errors


async def test_killed_while_it_catches_up_it_begins_with_that_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, pages=1)
    world.sandbox.settings(page_size=2)
    store = await world.down()
    wanted, position = bounce_often(world.sandbox, 8), store.cursor["since_ms"]
    halfway = world.start(store, persists=False)
    await halfway.until(lambda: len(halfway._fired) == 1)
    # The next page is not read before these are stored.
    await asyncio.sleep(0.5)
    assert [len(events) for events, _ in halfway._fired] == [2]
    await halfway.kill()
    assert store.cursor["since_ms"] == position
    await world.start(store).has(*wanted)


@pytest.mark.parametrize("kind", ["stream_drop", "stream_stall", "stream_duplicate", "stream_out_of_order"])
async def test_no_fault_of_the_stream_loses_or_doubles_an_event(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    event_timing(monkeypatch, feed=FeedTiming(silence=0.5, overlap=60.0, backoff=0.5))
    world.sandbox.fail_next("stream_gap", times=None)
    triggerer, _ = await world.live()
    world.sandbox.fail_next(kind, times=3)
    wanted = []
    for _ in range(8):
        wanted.append(world.bounce())
        await asyncio.sleep(0.1)
    await triggerer.has(*wanted)
    assert sorted(triggerer.moments) == wanted
    assert not triggerer.errors


async def test_a_gap_too_large_for_the_stream_is_read_from_the_cursor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_timing(monkeypatch, feed=FeedTiming(overlap=60.0, gap_pages=1))
    world.sandbox.settings(page_size=2)
    world.sandbox.fail_next("stream_gap", times=None)
    triggerer, _ = await world.live()
    world.sandbox.fail_next(503, path=STREAM, times=2)
    world.sandbox.fail_next("stream_drop")
    await triggerer.until(lambda: len(streams(world.sandbox, 503)) == 1)
    wanted = bounce_often(world.sandbox, 9)
    await triggerer.has(*wanted)
    assert sorted(triggerer.moments) == wanted


async def test_airflows_own_outage_is_waited_out(world: World, caplog: pytest.LogCaptureFixture) -> None:
    store = Stores()
    store.down = True
    triggerer = world.start(store)
    await triggerer.until(lambda: "the cursor cannot be read" in caplog.text)
    first = world.bounce()
    store.down = False
    await triggerer.has(first)
    await triggerer.until(lambda: store.cursor["seen"] != [])
    store.down = True
    second = world.bounce()
    await triggerer.has(second)
    await triggerer.until(lambda: "the cursor cannot be stored" in caplog.text)
    store.down = False
    await triggerer.until(lambda: len(store.cursor["seen"]) == 2)
    assert caplog.text.count("the cursor cannot be read") == 1
    assert triggerer.moments == [first, second]


@pytest.mark.parametrize("status", [402, 403, 404])
async def test_a_refusal_is_logged_once_and_retried(
    world: World, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.INFO)
    world.sandbox.fail_next(status, path=STREAM, times=3)
    triggerer, _ = await world.live()
    await triggerer.has(world.bounce())
    (error,) = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert "Cannot follow the events" in error
    assert str(status) in error
    assert "Following the events of connection fluxomail_default again" in caplog.text
    assert min(world.sandbox.requests("GET", STREAM).gaps) >= 0.8 * 0.5


async def test_a_key_that_was_replaced_is_read_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.sandbox.connect(key=world.sandbox.key("fm_old_secret"))
    triggerer, _ = await world.live()
    world.sandbox.revoke("fm_old_secret")
    await triggerer.until(lambda: len(streams(world.sandbox, 401)) >= 2)
    at = world.bounce()
    world.sandbox.connect(key=world.sandbox.key("fm_new_secret"))
    await triggerer.has(at)
    assert triggerer.moments == [at]
    assert caplog.text.count("Cannot follow the events") == 1
    assert "_secret" not in caplog.text, "promise 5"


async def test_a_key_that_has_just_been_replaced_is_read_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    event_timing(monkeypatch, auth_wait=3600.0)
    world.sandbox.connect(key=world.sandbox.key("fm_old"))
    triggerer, _ = await world.live()
    world.sandbox.connect(key=world.sandbox.key("fm_new"))
    world.sandbox.revoke("fm_old")
    await triggerer.has(world.bounce())


async def test_a_connection_that_does_not_exist_is_read_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    store = Stores()
    triggerer = world.start(store, fluxomail_conn_id="later")
    await triggerer.until(lambda: "Cannot follow the events" in caplog.text)
    world.sandbox.connect("later")
    await live(triggerer, store)
    await triggerer.has(world.bounce())


async def test_an_idle_cursor_moves_now_and_then(world: World) -> None:
    world.sandbox.settings(stream_heartbeat=0.1)
    triggerer, store = await world.live()
    began = store.cursor["since_ms"]
    await triggerer.until(lambda: store.cursor["since_ms"] >= began + 1500)
    assert store.writes <= 1 + (store.cursor["since_ms"] - began) / 500


async def test_a_trigger_of_two_assets_keeps_the_cursor_in_both(world: World) -> None:
    class Accessors:
        def __init__(self, *stores: Stores) -> None:
            self._by_name = {str(number): store for number, store in enumerate(stores)}

    one, two = Stores(), Stores()
    triggerer = world.start(Accessors(one, two))
    await live(triggerer, two)
    await triggerer.has(world.bounce())
    await triggerer.until(lambda: one.cursor["seen"] != [] and one.values == two.values)


# Alone, before Airflow 3.3


async def alone(trigger: Any, found: list[Any]) -> None:
    async for event in trigger.run():
        found += event.payload["events"]


@contextlib.asynccontextmanager
async def running_alone(**arguments: Any) -> AsyncIterator[list[Any]]:
    """What a trigger without a shared stream fires; at the end nothing of it is left."""
    before = asyncio.all_tasks()
    found: list[Any] = []
    task = asyncio.create_task(alone(running.rebuilt(FluxomailEventTrigger(**arguments)), found))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert asyncio.all_tasks() == before


async def seen(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.02)


@on_airflow_3
async def test_alone_it_fires_from_now_on_across_breaks(sandbox: Sandbox, moments: Iterator[int]) -> None:
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
        sandbox.fail_next(503, path=STREAM)
        sandbox.fail_next("stream_drop")
        await seen(lambda: len(streams(sandbox, 503)) == 1)
        wanted = bounce_often(sandbox, 9)
        await seen(lambda: len(found) >= 9)
    assert sorted(map(moment_of, found)) == wanted
