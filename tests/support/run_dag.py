"""Runs one Dag to its end, in a process of its own whose log has the level that the environment names.

``python -m tests.support.run_dag DAGS_FOLDER DAG_ID``
"""

from __future__ import annotations

import sys
from pathlib import Path

from airflow_provider_fluxomail.client.watching.wait import WaitTiming, set_timing
from tests.support.airflow_runs import DagRuns


def main(folder: str, dag_id: str) -> None:
    set_timing(WaitTiming(worker_polls=(0.0,), resume_after=0.0, least_interval=0.2, rate_limit_spread=0.1))
    DagRuns(Path(folder)).run(dag_id, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
