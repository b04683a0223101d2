"""One Airflow for all tests of this folder: its start takes longer than what each of them checks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.airflows import RUNNER, home, servers, start
from tests.system.shared.scene import DAG_FILES, Scene, environment
from tests.system.shared.statsd import Statsd


@pytest.fixture(scope="session")
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Runs of all Dags, begun at once."""
    with home(request) as folder, servers(folder) as (sandbox, postgres), Statsd() as statsd:
        settings = environment(sandbox, statsd, folder, postgres.url)
        with RUNNER(folder / "airflow", dags=DAG_FILES, environment=settings) as airflow:
            start(airflow)
            scene = Scene(airflow, sandbox, statsd, folder)
            try:
                scene.begin()
                yield scene
            finally:
                scene.end()
