"""One organization with more waits than a machine can hold: by formula from measured parts, and by simulation.

``python -m benchmarks.scale`` prints the tables of docs/operate/scale.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from airflow_provider_fluxomail.client.watching.event_load import EventLoad
from airflow_provider_fluxomail.client.watching.recent_events import KEEP_EVENTS
from airflow_provider_fluxomail.client.watching.watched_wait import WatchTiming
from benchmarks.report import Row, at_least, at_most
from tests.support.paced_senders import together

BYTES_OF_AN_EVENT: Final = 300
CPU_OF_AN_EVENT: Final = 30e-6
"""Seconds: what ``waits-busy`` measures, as is the size."""
CPU_OF_A_WAIT: Final = 4e-3
"""Seconds to start and end its trigger: 3 ms of Airflow's, 1 ms of this package's (docs/operate/operations.md)."""
MEMORY_OF_A_WAIT: Final = 29e3
"""Bytes: 24 KB of Airflow's, 5 KB of this package's."""
ENDS_A_SECOND: Final = 200
"""Ended triggers that Airflow records."""

_WINDOWS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Triggerers that share the waits of one organization and one key.

    :param waits: of all triggerers together.
    :param events: that decide waits, of the whole organization, a second.
    :param limit: requests a minute of the key.
    :param poll_share: of the connection; by default a half, divided by the number of triggerers.
    """

    waits: int
    triggerers: int
    events: int
    limit: int
    poll_share: float | None = None

    @property
    def share(self) -> float:
        return 0.5 / self.triggerers if self.poll_share is None else self.poll_share

    @property
    def waits_each(self) -> float:
        return self.waits / self.triggerers

    @property
    def polls_a_second(self) -> float:
        """Of all triggerers."""
        return min(1.0, self.share * self.triggerers) * self.limit / 60

    @property
    def follows(self) -> bool:
        """Whether a triggerer's waits are worth the events."""
        return self.events <= EventLoad(WatchTiming()).most(round(self.waits_each))

    def figures(self) -> dict[str, str]:
        """What it costs, by name and unit."""
        streams = self.triggerers if self.follows else 0
        stream_bytes = self.events * BYTES_OF_AN_EVENT
        polled_every = self.waits / self.polls_a_second
        return {
            "waits of a triggerer": f"{self.waits_each:,.0f}",
            "memory of a triggerer, for them": f"{self.waits_each * MEMORY_OF_A_WAIT / 1e6:,.0f} MB",
            "streams": f"{streams:,}",
            "stream of a triggerer": f"{stream_bytes / 1e6:.1f} MB/s" if streams else "none",
            "all streams, at Fluxomail": f"{streams * stream_bytes / 1e6:,.0f} MB/s" if streams else "none",
            "CPU of a triggerer, for the stream": f"{self.events * CPU_OF_AN_EVENT:.0%} of a core",
            "polls, all together": f"{self.polls_a_second:,.0f} a second",
            "each timeline is polled": f"every {_duration(max(polled_every, WatchTiming().reconcile))}",
            "new waits that can join by a poll": f"{self.polls_a_second:,.0f} a second",
            "recent events cover": f"{KEEP_EVENTS / self.events:.1f} s" if streams else "nothing",
            "after a restart of all triggerers, until the last wait was polled": _duration(polled_every),
            "Airflow records the end of all waits in": _duration(self.waits / ENDS_A_SECOND),
            "CPU of all triggerers to start and end the waits": f"{self.waits * CPU_OF_A_WAIT / 60:,.0f} min",
        }


#: One million waits, on as many triggerers as their default capacity asks for, and what changes with other settings.
DEPLOYMENTS: Final = {
    "1,000 triggerers": Deployment(waits=1_000_000, triggerers=1_000, events=10_000, limit=60_000),
    "100 triggerers": Deployment(waits=1_000_000, triggerers=100, events=10_000, limit=60_000),
    "100 triggerers, a tenth for each of 10 organizations": Deployment(
        waits=100_000, triggerers=10, events=1_000, limit=60_000
    ),
}


def bench() -> list[Row]:
    """A thousand triggerers that poll as much as they may, on one key with a rate limit."""
    rows = []
    triggerers, limit = 1_000, 60_000
    for share in (0.5 / triggerers, 0.5):
        server, counts = together(limit, [share] * triggerers, _WINDOWS)
        case = f"{triggerers:,} triggerers, poll_share {share:g}"
        used = sum(map(sum, counts)) / len(counts[0]) / limit
        refused = 100 * server.refused / sum(server.counts.values())
        rows += (
            [at_most(case, "refused, %", refused, 0.0), at_least(case, "part of the limit used", used, 0.3)]
            if share < 0.5
            else [Row(case, "refused, %", refused), Row(case, "part of the limit used", used)]
        )
    return rows


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def main() -> None:
    """Print the formulas' results."""
    table = Table()
    table.add_column("")
    for name in DEPLOYMENTS:
        table.add_column(name, justify="right")
    columns = [deployment.figures() for deployment in DEPLOYMENTS.values()]
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    Console(width=max(120, Console().width)).print(table)


if __name__ == "__main__":
    main()
