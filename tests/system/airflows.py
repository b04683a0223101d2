"""One Airflow and one sandbox, as processes: what every test of a whole Airflow starts from."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from scripts.testbed.airflow2_runner import Airflow2Runner
from scripts.testbed.airflow_runner import AirflowRunner
from scripts.testbed.postgres import Postgres
from scripts.testbed.sandbox import API_KEY, Sandbox

#: Major and minor.
AIRFLOW: Final = tuple(map(int, importlib.metadata.version("apache-airflow").split(".")[:2]))
AIRFLOW_2: Final = AIRFLOW < (3, 0)
RUNNER: Final = Airflow2Runner if AIRFLOW_2 else AirflowRunner
DAGS: Final = Path(__file__).parent / "dags"
#: Airflow learns soon that a triggerer is dead.
TRIGGERER_TIMEOUTS: Final = {
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


class Processes:
    """One Airflow and one sandbox.

    :param limit: seconds to wait for anything; only a hang takes so long, nothing is measured by it.
    """

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox, *, limit: float = 300.0) -> None:
        self.airflow, self.sandbox, self.limit = airflow, sandbox, limit
        #: Set when the tests have ended: no thread of theirs waits any longer.
        self.over = threading.Event()

    def until(self, what: str, happened: Callable[[], object]) -> None:
        """Wait until something has happened."""
        deadline = time.monotonic() + self.limit
        while not happened():
            self.airflow.check()
            assert time.monotonic() < deadline, f"not within {self.limit:g} s: {what}; see {self.airflow.logs}"
            assert not self.over.wait(0.25), f"ended while waiting: {what}"

    def happens(self, send_id: str, event_type: str) -> None:
        """Let something happen to a message."""
        self.sandbox.control("POST", f"messages/{send_id}/events", json={"type": event_type})

    def logs_with(self, private: str) -> list[Path]:
        """The log files in which a text occurs."""
        logs = [path for path in self.airflow.logs.rglob("*.log") if path.is_file()]
        assert logs
        return [path for path in logs if private in path.read_text(errors="replace")]


@contextlib.contextmanager
def home(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder for what the processes write; it stays if a test failed."""
    # Not pytest's folders: PostgreSQL's user cannot enter them.
    folder = Path(tempfile.mkdtemp(prefix="fluxomail-system-"))
    folder.chmod(0o755)
    yield folder
    if not request.session.testsfailed:
        shutil.rmtree(folder)


@contextlib.contextmanager
def servers(folder: Path, **postgres_options: Any) -> Iterator[tuple[Sandbox, Postgres]]:
    """A sandbox to which nothing happens by itself, and a database."""
    with (
        Sandbox(folder / "sandbox", event_delay=0) as sandbox,
        Postgres(folder / "postgres", **postgres_options) as postgres,
    ):
        sandbox.start()
        postgres.start()
        yield sandbox, postgres


def connection(sandbox: Sandbox, key: str = API_KEY, **extra: Any) -> str:
    """A connection to the sandbox, as Airflow reads it from its environment."""
    return json.dumps({"conn_type": "fluxomail", "password": key, "host": sandbox.url, "extra": extra})


def start(airflow: AirflowRunner, *dag_ids: str) -> None:
    """Start an Airflow, and wait until it is healthy and knows the Dags."""
    airflow.prepare()
    airflow.start()
    airflow.wait_until_healthy()
    for dag_id in dag_ids:
        airflow.wait_for_dag(dag_id)
