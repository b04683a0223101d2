"""Runs one Dag to its end, in a process of its own whose log has the level that the environment names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from airflow_provider_fluxomail.client.watching.wait import WaitTiming, set_timing
from tests.support.airflow_runs import DagRuns

ROOT = str(Path(__file__).parents[2])


def in_a_process(folder: Path, dag_id: str, **environment: str) -> str:
    """Run a Dag of a folder, and return all that the process prints."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), dag_id],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=470,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


if __name__ == "__main__":
    set_timing(WaitTiming(worker_polls=(0.0,), resume_after=0.0, least_interval=0.2, rate_limit_spread=0.1))
    DagRuns(Path(sys.argv[1])).run(sys.argv[2], {})
