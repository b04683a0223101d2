"""The fixtures that promises share with other tests, and the timing of all of them."""

from __future__ import annotations

import pytest

from tests.support.deployments import by_hand, running
from tests.support.durable_sends import advance_clock, store
from tests.support.emails import BACKEND, Clock, clock
from tests.support.event_streams import follow, message_event_streams
from tests.support.event_triggers import message_event_triggers, moments, quick_event_triggers, triggerers
from tests.support.notifiers import log, way
from tests.support.statsd_server import statsd
from tests.support.timing import quick_retries, quick_waits
from tests.support.watcher_pools import lookups
from tests.support.ways import quick
from tests.wire.conftest import call, serve

# fmt: off
__all__ = [
    "advance_clock", "by_hand", "call", "clock", "follow", "log", "lookups", "message_event_streams",
    "message_event_triggers", "moments", "quick", "quick_event_triggers", "running", "serve", "statsd", "store",
    "triggerers", "way",
]
# fmt: on


@pytest.fixture(autouse=True)
def quick_and_steady(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are as short as the server allows, and the hour, which is part of an email's key, does not change."""
    quick_retries(monkeypatch)
    quick_waits(monkeypatch, rate_limit_spread=0.01, rate_limit_wait=0.01, least_interval=0.02)
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", BACKEND)
