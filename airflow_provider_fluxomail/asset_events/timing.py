"""When an event source and its triggers do what."""

from __future__ import annotations

import dataclasses

from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventTiming:
    """How patient event sources and triggers are, and how much they keep. Times in seconds.

    :param tick: time between two parts when nothing happens.
    :param pause: least time between two parts: a trigger's queue holds 1,024 of them, and a trigger may be reading the
        list.
    :param auth_wait: time until a key that was not accepted is used again. The connection is read again each time.
    :param refused_wait: time until events that are not available (402, 403, 404, no such connection) are requested
        again.
    :param outage_wait: time until a connection that Airflow could not return is looked up again.
    :param feed: of the event stream. An event may become visible this late when only the stream was interrupted.
    :param overlap: an event may become visible this long after its own time: the list is read from that much earlier.
    :param kept: how many fired events a trigger remembers.
    :param stored: how many of them are stored with the cursor (11 KB; Airflow warns above 64).
    :param save_every: how far a cursor may lag behind when nothing happens.
    :param spacing: least time between two changes of an asset. Airflow 3.3 lets a Dag run see the events until it first
        learned of a change; later ones wait for the next change. So events close together make one change, and the
        scheduler has time to create the run.
    :param together: events of one change, at most: Airflow stores and logs them as one text.
    :param pages: pages of the list that are read within one part, at most.
    :param reading: time for reading them: Airflow fails a trigger that takes 300 s over a part.
    :param longest_pause: longest wait after the list could not be read.
    """

    tick: float = 10.0
    pause: float = 0.2
    auth_wait: float = 60.0
    refused_wait: float = 300.0
    outage_wait: float = 10.0
    feed: FeedTiming = dataclasses.field(default_factory=lambda: FeedTiming(overlap=60.0))
    overlap: float = 300.0
    kept: int = 20_000
    stored: int = 1_000
    save_every: float = 60.0
    spacing: float = 5.0
    together: int = 500
    pages: int = 10
    reading: float = 60.0
    longest_pause: float = 300.0


#: What triggers use. Tests replace it.
_timing = EventTiming()


def event_timing() -> EventTiming:
    """Return the timing of event sources in this process."""
    return _timing
