"""Dags that run in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.airflow_runs import DagRuns
from tests.support.timing import quick_waits


@pytest.fixture
def quick_whole_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_waits(monkeypatch, least_interval=0.2, not_found_grace=1.0)


@pytest.fixture
def dag(airflow_db: Path) -> Any:
    return DagRuns(airflow_db).load("fluxomail_send_and_wait")
