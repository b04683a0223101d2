"""When an event source and its triggers do what."""

from __future__ import annotations

import dataclasses

from airflow_provider_fluxomail.client.watching.event_feed import FeedTiming


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventTiming:
    """How patient event sources and triggers are, and how much they keep. Times in seconds."""

    #: Between two parts when nothing happens.
    tick: float = 10.0
    #: Least time between two parts: a trigger's queue holds 1,024 of them, and a trigger may be reading the list.
    pause: float = 0.2
    #: Until a key that was not accepted is used again. The connection is read again each time.
    auth_wait: float = 60.0
    #: Until events that are not available (402, 403, 404, no such connection) are requested again.
    refused_wait: float = 300.0
    #: Until a connection that Airflow could not return is looked up again.
    outage_wait: float = 10.0
    #: An event may become visible this late when only the stream was interrupted.
    feed: FeedTiming = dataclasses.field(default_factory=lambda: FeedTiming(overlap=60.0))
    #: An event may become visible this long after its own time: the list is read from that much earlier.
    overlap: float = 300.0
    #: How many fired events a trigger remembers, and how many are stored with the cursor (11 KB; Airflow warns at 64).
    kept: int = 20_000
    stored: int = 1_000
    #: How far a cursor may lag behind when nothing happens.
    save_every: float = 60.0
    #: Least time between two changes of an asset. Airflow 3.3 lets a Dag run see the events until it first learned of a
    #: change; later ones wait for the next change. So events close together make one change.
    spacing: float = 5.0
    #: Events of one change, at most: Airflow stores and logs them as one text.
    together: int = 500
    #: Pages of the list that are read within one part, at most, and the time for it: Airflow fails a trigger at 300 s.
    pages: int = 10
    reading: float = 60.0
    #: Longest wait after the list could not be read.
    longest_pause: float = 300.0


#: What triggers use. Tests replace it.
_timing = EventTiming()


def event_timing() -> EventTiming:
    """Return the timing of event sources in this process."""
    return _timing
