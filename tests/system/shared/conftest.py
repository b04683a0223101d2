"""One Airflow for all tests of this folder: its start takes longer than what each of them looks at."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.testbed.airflow2_runner import Airflow2Runner
from scripts.testbed.airflow_runner import AirflowRunner
from scripts.testbed.postgres import Postgres
from scripts.testbed.sandbox import Sandbox
from tests.system.shared.scene import AIRFLOW_2, DAGS, Scene, environment
from tests.system.shared.statsd import Statsd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Runs of all Dags, begun at once; what the processes wrote stays if a test failed."""
    # Not pytest's folders: PostgreSQL's user cannot enter them.
    home = Path(tempfile.mkdtemp(prefix="fluxomail-shared-"))
    home.chmod(0o755)
    runner = Airflow2Runner if AIRFLOW_2 else AirflowRunner
    with (
        Sandbox(home / "sandbox", event_delay=0) as sandbox,
        Postgres(home / "postgres") as postgres,
        Statsd() as stats,
    ):
        sandbox.start()
        postgres.start()
        settings = environment(sandbox, stats, home, postgres.url)
        with runner(home / "airflow", dags=DAGS, environment=settings) as airflow:
            airflow.prepare()
            airflow.start()
            airflow.wait_until_healthy()
            scene = Scene(airflow, sandbox, stats, home)
            try:
                scene.begin()
                yield scene
            finally:
                scene.end()
    if not request.session.testsfailed:
        shutil.rmtree(home)
