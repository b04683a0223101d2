"""Every benchmark but the sandbox's own: one table, each figure with its peer from the same run.

python -m benchmarks [case ...]
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Final

from benchmarks.report import show

if TYPE_CHECKING:
    from benchmarks.report import Row

#: Case to the function that measures it, as ``module:function``. Imported late: importing is among what is measured.
CASES: Final[dict[str, str]] = {
    "imports": "benchmarks.imports:bench",
    "send": "benchmarks.sending:bench",
    "batch-capped": "benchmarks.batches:bench_capped",
    "batch": "benchmarks.batches:bench",
    "waits-1000": "benchmarks.waits:bench_1000",
    "waits-10000": "benchmarks.waits:bench_10000",
    "waits-timeline": "benchmarks.waits:bench_timeline",
    "waits-few": "benchmarks.following:bench_few",
    "waits-busy": "benchmarks.following:bench_busy",
    "waits-keys": "benchmarks.following:bench_keys",
    "waits-triggerers": "benchmarks.following:bench_triggerers",
    "shared-stream": "benchmarks.waits:bench_shared_stream",
    "airflow-200": "benchmarks.airflow:bench",
    "latency": "benchmarks.latency:bench",
    "first-seconds": "benchmarks.first_seconds:bench",
    "early-resumes": "benchmarks.early_resumes:bench",
    "scale": "benchmarks.scale:bench",
}


def run(name: str) -> list[Row]:
    """Measure one case."""
    module, _, function = CASES[name].partition(":")
    rows: list[Row] = getattr(importlib.import_module(module), function)()
    return rows


def main(names: list[str]) -> int:
    """Run the cases that are named, else all."""
    unknown = set(names) - set(CASES)
    if unknown:
        print(f"no case {', '.join(sorted(unknown))}: there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or CASES:
        print(f"==> {name}", file=sys.stderr)
        rows += run(name)
    return show("Fluxomail in Airflow, against its peers", rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
