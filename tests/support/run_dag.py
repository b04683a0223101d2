"""Runs one Dag to its end, in a process of its own whose log has the level that the environment names.

``python -m tests.support.run_dag DAGS_FOLDER DAG_ID``
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.waiting import worker
from tests.support.airflow_runs import DagRuns


def main(folder: str, dag_id: str) -> None:
    with (
        mock.patch.object(worker, "WORKER_LOOKS", (0.0,)),
        mock.patch.object(worker, "RESUME_AFTER", 0.0),
        mock.patch.object(wait, "LEAST_INTERVAL", 0.2),
        mock.patch.object(worker, "RATE_LIMIT_SPREAD", 0.1),
    ):
        DagRuns(Path(folder)).run(dag_id, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
