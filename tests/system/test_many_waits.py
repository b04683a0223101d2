"""The triggerer is killed while it holds many waits, and another one ends them all, with few requests of a capped key.

40 waits; with ``make system-full``, 500.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.metadata
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from scripts.testbed.airflow2_runner import Airflow2Runner
from scripts.testbed.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.testbed.postgres import Postgres
from scripts.testbed.sandbox import API_KEY, SEND_PATH, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Only a hang takes so long; nothing is measured by it.
LIMIT: Final = 600.0

pytestmark = pytest.mark.timeout(3 * LIMIT)

AIRFLOW_2: Final = importlib.metadata.version("apache-airflow").startswith("2.")
DAGS: Final = Path(__file__).parent / "dags" / "many_waits.py"
KEY: Final = "fm_capped"
CAP: Final = 600
#: What the watcher may ask for besides a look at a part of the waits: a stream, lists, and their repetition.
FEW_REQUESTS: Final = 30
#: One of so many is read directly, at most: the slow reconciliation, should the test take its time.
READ_DIRECTLY: Final = 5
RUN: Final = ("many_waits", "run")
#: Airflow learns soon that a triggerer is dead.
TIMEOUTS: Final = {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
}


class Scene:
    """One Airflow with one run of many waits.

    :param sends: what the waits wait for, by map index.
    """

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox, sends: list[str]) -> None:
        self.airflow = airflow
        self.sandbox = sandbox
        self.sends = sends

    def states(self) -> list[str]:
        """The states of the waits, by map index."""
        path = f"dags/{RUN[0]}/dagRuns/{RUN[1]}/taskInstances"
        rows = self.airflow.call("GET", path, params={"limit": 1000})["task_instances"]
        return [str(row["state"]) for row in sorted(rows, key=lambda row: int(row["map_index"]))]

    def until(self, what: str, happened: Callable[[], object]) -> None:
        """Wait until something has happened."""
        deadline = time.monotonic() + LIMIT
        while not happened():
            self.airflow.check()
            assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}; {collections.Counter(self.states())}"
            time.sleep(0.5)

    def happens(self, outcomes: dict[int, str]) -> None:
        """Let something happen to the sends of waits."""
        with httpx.Client(base_url=self.sandbox.url, timeout=15.0, trust_env=False) as client:
            for number, event in outcomes.items():
                path = f"/_sandbox/messages/{self.sends[number]}/events"
                client.post(path, json={"type": event}).raise_for_status()

    def triggerer_runs_waits(self) -> bool:
        """Whether a living triggerer has them all."""
        path = f"dags/{RUN[0]}/dagRuns/{RUN[1]}/taskInstances"
        rows = self.airflow.call("GET", path, params={"limit": 1000})["task_instances"]
        jobs = {row["triggerer_job"] and row["triggerer_job"]["id"] for row in rows if row["state"] == "deferred"}
        return None not in jobs

    def reads(self) -> list[dict[str, Any]]:
        """The requests of all waits so far, of workers and triggerers."""
        rows: list[dict[str, Any]] = self.sandbox.control("GET", "requests", params={"method": "GET"})["requests"]
        return rows


def outcomes(numbers: range) -> dict[int, str]:
    """What happens to the sends of these waits: one of ten bounces."""
    return {number: "bounced" if number % 10 == 3 else "delivered" for number in numbers}


@pytest.fixture(params=[40, pytest.param(500, marks=pytest.mark.full)])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Waits that have been sent; what the processes wrote stays if a test failed."""
    count: int = request.param
    # Not pytest's folders: PostgreSQL's user cannot enter them.
    home = Path(tempfile.mkdtemp(prefix="fluxomail-waits-"))
    home.chmod(0o755)
    runner = Airflow2Runner if AIRFLOW_2 else AirflowRunner
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(home / "sandbox", event_delay=0))
        postgres = stack.enter_context(Postgres(home / "postgres"))
        sandbox.start()
        postgres.start()
        sends = send(sandbox, count)
        sandbox.control("POST", "keys", json={"key": KEY, "rate_limit_per_minute": CAP})
        (home / "sends.json").write_text(json.dumps(sends))
        connection = {"conn_type": "fluxomail", "password": KEY, "host": sandbox.url}
        environment = TIMEOUTS | {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection),
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "MANY_WAITS_SENDS": str(home / "sends.json"),
        }
        with runner(home / "airflow", dags=[DAGS], environment=environment) as airflow:
            airflow.prepare()
            airflow.start()
            airflow.wait_until_healthy()
            airflow.wait_for_dag(RUN[0])
            yield Scene(airflow, sandbox, sends)
    if not request.session.testsfailed:
        shutil.rmtree(home)


def send(sandbox: Sandbox, count: int) -> list[str]:
    """Send so many messages, to which nothing happens by itself."""
    body = {"to": "never@example.org", "subject": "Hello", "content": "Text"}
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, timeout=15.0, trust_env=False) as client:
        answers = [client.post(SEND_PATH, json=body | {"idempotencyKey": f"wait-{n}"}) for n in range(count)]
    return [answer.raise_for_status().json()["sendId"] for answer in answers]


def test_promise_3_and_4_another_triggerer_ends_all_waits_with_few_requests(scene: Scene) -> None:
    count = len(scene.sends)
    scene.airflow.trigger(*RUN)
    scene.until(
        "all waits are in a triggerer", lambda: set(scene.states()) == {"deferred"} and len(scene.states()) == count
    )
    scene.until("a triggerer has them", scene.triggerer_runs_waits)
    before = len(scene.reads())

    scene.airflow.component("triggerer").kill()
    # While nobody listens.
    first = outcomes(range(count // 2))
    scene.happens(first)
    assert set(scene.states()) == {"deferred"}
    scene.airflow.component("triggerer").start()
    scene.until(
        "what happened while no triggerer ran is known",
        lambda: set(scene.states()[: len(first)]) <= FINAL_STATES,
    )
    rest = outcomes(range(count // 2, count))
    scene.happens(rest)
    scene.until("all waits have ended", lambda: set(scene.states()) <= FINAL_STATES)

    meant = {"delivered": "success", "bounced": "failed"}
    assert scene.states() == [meant[event] for event in (first | rest).values()]
    reads = scene.reads()
    assert [row for row in reads if row["status"] == 429] == []
    assert len(reads) - before <= FEW_REQUESTS + count // READ_DIRECTLY
