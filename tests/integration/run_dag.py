"""Runs one Dag to its end, in a process of its own whose log has the level that the environment names.

``python -m tests.integration.run_dag DAGS_FOLDER DAG_ID``
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from airflow_provider_fluxomail import delivery
from airflow_provider_fluxomail.client import waiting
from tests.integration.airflow_runs import DagRuns


def main(folder: str, dag_id: str) -> None:
    with (
        mock.patch.object(delivery, "WORKER_LOOKS", (0.0,)),
        mock.patch.object(delivery, "RESUME_AFTER", 0.0),
        mock.patch.object(waiting, "LEAST_INTERVAL", 0.2),
        mock.patch.object(delivery, "RATE_LIMIT_SPREAD", 0.1),
    ):
        DagRuns(Path(folder)).run(dag_id, {})


if __name__ == "__main__":
    main(*sys.argv[1:])
