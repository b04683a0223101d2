"""What a Dag file pays for importing our classes, against the classes of the providers that people use instead.

Airflow parses each Dag file again and again, each time in a new process that has Airflow imported already. So each
import is measured in an interpreter of its own, over ``from airflow.sdk import DAG`` as the Dag file has it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from typing import Final

from benchmarks.report import Row, at_most

CASE: Final = "import"
RUNS: Final = 5
HTTP_LIBRARIES: Final = ("requests", "aiohttp")
OWN: Final = tuple(
    name
    for name in ("operators", "sensors", "notifications")
    if importlib.util.find_spec(f"airflow_provider_fluxomail.{name}")
)
PEERS: Final = {
    "EmailOperator (SMTP)": "airflow.providers.smtp.operators.smtp",
    "SlackAPIPostOperator": "airflow.providers.slack.operators.slack",
    "HttpOperator": "airflow.providers.http.operators.http",
}

_PROGRAM: Final = f"""
import importlib, json, sys, time
from airflow.sdk import DAG
before = set(sys.modules)
began = time.process_time()
for module in sys.argv[1:]:
    importlib.import_module(module)
spent = time.process_time() - began
libraries = [name for name in set(sys.modules) - before if name.partition(".")[0] in {HTTP_LIBRARIES!r}]
print(json.dumps([1000 * spent, len(libraries)]))
"""


def bench() -> list[Row]:
    """CPU milliseconds, as imports read files that the system has in memory."""
    asked = {"own": [f"airflow_provider_fluxomail.{name}" for name in OWN]}
    asked |= {name: [module] for name, module in PEERS.items()}
    spent: dict[str, list[float]] = {name: [] for name in asked}
    libraries = 0
    for run in range(RUNS + 1):
        for name, modules in asked.items():
            milliseconds, many = _measured(modules)
            # The first run writes the bytecode, which an installed package has.
            if run:
                spent[name].append(milliseconds)
            if name == "own":
                libraries = max(libraries, many)
    median = {name: statistics.median(values) for name, values in spent.items()}
    metric = f"CPU ms for {', '.join(OWN)}"
    return [
        at_most(CASE, metric, median["own"], 15),
        at_most(CASE, f"modules of {', '.join(HTTP_LIBRARIES)} that come along", libraries, 0),
        *(
            Row(
                CASE,
                f"the same against {name}",
                median["own"],
                median[name],
                "ratio <= 1",
                median["own"] <= median[name],
            )
            for name in PEERS
        ),
    ]


def _measured(modules: list[str]) -> tuple[float, int]:
    """Import in a new interpreter: milliseconds, and how many modules of HTTP libraries came along."""
    # Without bytecode on disk our modules would be compiled each time, and the peers', which are installed, would not.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *modules], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    milliseconds, libraries = json.loads(done.stdout.splitlines()[-1])
    return milliseconds, libraries
