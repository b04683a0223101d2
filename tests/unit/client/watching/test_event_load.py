"""When an event stream carries too much for the number of waits."""

from __future__ import annotations

from airflow_provider_fluxomail.client.watching.event_load import EventLoad
from airflow_provider_fluxomail.client.watching.watched_wait import WatchTiming

TIMING = WatchTiming(events_a_second=100.0, events_per_wait=40.0, load_window=10.0)


class Load:
    """A load whose clock the test moves."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        self.load = EventLoad(TIMING, lambda: self.seconds)
        self.streamed = 50_000
        self.load.start(self.streamed)

    def carry(self, events: int, seconds: float = 1.0) -> float:
        """Let events be streamed; the rate as it is known after that."""
        self.seconds += seconds
        self.streamed += events
        self.load.update(self.streamed)
        return self.load.rate


def test_a_stream_is_left_at_twice_the_events_for_which_it_is_opened() -> None:
    one = Load()
    one.carry(0, 10.0)
    assert one.carry(10_000, 10.0) == 1_000
    assert (one.load.most(22), one.load.most(23)) == (980, 1_020)
    assert [waits for waits in range(30) if one.load.is_too_much(waits)] == list(range(10)), "twice 500"


def test_single_waits_that_come_and_go_do_not_change_it() -> None:
    one = Load()
    one.carry(0, 10.0)
    for waits in (25, 20, 25, 15, 12):
        one.carry(10_000, 10.0)
        assert not one.load.is_too_much(waits)


def test_what_the_stream_repeats_when_it_opens_does_not_count() -> None:
    one = Load()
    assert one.carry(1_000_000, 10.0) == 0.0
    assert [one.carry(5) for _ in range(9)] == [0.0] * 9, "before a whole window"
    assert one.carry(5) == 5.0
    one.load.start(one.streamed)
    assert one.load.rate == 0.0
