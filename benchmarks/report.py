"""What the benchmarks print: one row per metric, with its peer from the same run and the bar it must reach."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """One measured figure.

    :param value: what was measured, in the unit that the metric's name says.
    :param peer: the same of the peer, None if there is none to compare with.
    :param bar: the bar in words, empty if the figure is for information only.
    :param holds: whether the bar is reached, None without one.
    """

    case: str
    metric: str
    value: float
    peer: float | None = None
    bar: str = ""
    holds: bool | None = None

    @property
    def ratio(self) -> float | None:
        """Value by peer."""
        return self.value / self.peer if self.peer else None


def at_least(case: str, metric: str, value: float, bar: float, peer: float | None = None) -> Row:
    """A row whose value must reach a bar."""
    return Row(case, metric, value, peer, f">= {bar:g}", value >= bar)


def at_most(case: str, metric: str, value: float, bar: float, peer: float | None = None) -> Row:
    """A row whose value must not exceed a bar."""
    return Row(case, metric, value, peer, f"<= {bar:g}", value <= bar)


def median_round(rounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return value and peer of the round whose ratio is the median one.

    Not the medians of each: what else the machine did in a round, it did to both.
    """
    return sorted(rounds, key=lambda both: both[0] / both[1])[len(rounds) // 2]


def percentile(values: Iterable[float], percent: float) -> float:
    """The value that this percentage of all does not exceed: one of them, never one in between or beyond."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def show(title: str, rows: Sequence[Row]) -> int:
    """Print the table; with ``BENCH_JSON=file`` also write it as JSON.

    :return: how many bars are missed, as an exit code: 0 or 1.
    """
    table = Table(title=title, title_justify="left")
    for name in ("case", "metric"):
        table.add_column(name)
    for name in ("value", "peer", "ratio", "bar", "holds"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.case,
            row.metric,
            _number(row.value),
            _number(row.peer),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.bar,
            {None: "", True: "yes", False: "NO"}[row.holds],
        )
    Console(width=max(120, Console().width)).print(table)
    if target := os.environ.get("BENCH_JSON"):
        listed = [asdict(row) | {"ratio": row.ratio} for row in rows]
        Path(target).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
    return int(any(row.holds is False for row in rows))


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
