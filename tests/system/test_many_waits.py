"""The triggerer is killed while it holds many waits, and another one ends them all, with few requests of a capped key.

40 waits; with ``make system-full``, 500.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from scripts.testbed.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.testbed.sandbox import API_KEY, SEND_PATH, Sandbox
from tests.system.airflows import DAGS, RUNNER, TRIGGERER_TIMEOUTS, Processes, connection, home, servers, start

#: Only a hang takes this long; nothing is measured by it.
LIMIT: Final = 600.0

pytestmark = pytest.mark.timeout(3 * LIMIT)

KEY: Final = "fm_capped"
CAP: Final = 600
#: What the watcher may request besides polling a part of the waits: a stream, lists, and their repetition.
FEW_REQUESTS: Final = 30
#: One of so many is read directly, at most: the slow reconciliation, should the test take its time.
READ_DIRECTLY: Final = 5
RUN: Final = ("many_waits", "run")
#: Airflow learns soon what is dead.
TIMEOUTS: Final = TRIGGERER_TIMEOUTS | {"AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2"}


class Scene(Processes):
    """One Airflow with one run of many waits.

    :param sends: what the waits wait for, by map index.
    """

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox, sends: list[str]) -> None:
        super().__init__(airflow, sandbox, limit=LIMIT)
        self.sends = sends

    def rows(self) -> list[dict[str, Any]]:
        """The task instances of the waits, by map index."""
        path = f"dags/{RUN[0]}/dagRuns/{RUN[1]}/taskInstances"
        rows = self.airflow.call("GET", path, params={"limit": 1000})["task_instances"]
        return sorted(rows, key=lambda row: int(row["map_index"]))

    def states(self) -> list[str]:
        """The states of the waits, by map index."""
        return [str(row["state"]) for row in self.rows()]

    def end_some(self, numbers: range) -> list[str]:
        """Let something happen to the sends of these waits, one of ten bounces; return the states that must follow."""
        for number in numbers:
            self.happens(self.sends[number], "bounced" if number % 10 == 3 else "delivered")
        return ["failed" if number % 10 == 3 else "success" for number in numbers]

    def triggerer_runs_waits(self) -> bool:
        """Whether a living triggerer has them all."""
        deferred = [row for row in self.rows() if row["state"] == "deferred"]
        return all(row["triggerer_job"] and row["triggerer_job"]["id"] for row in deferred)

    def reads(self) -> list[dict[str, Any]]:
        """The requests of all waits so far, of workers and triggerers."""
        rows: list[dict[str, Any]] = self.sandbox.control("GET", "requests", params={"method": "GET"})["requests"]
        return rows


@pytest.fixture(params=[40, pytest.param(500, marks=pytest.mark.full)])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Waits whose messages have been sent."""
    with home(request) as folder, servers(folder) as (sandbox, postgres):
        sends = send(sandbox, request.param)
        sandbox.control("POST", "keys", json={"key": KEY, "rate_limit_per_minute": CAP})
        (folder / "sends.json").write_text(json.dumps(sends))
        environment = TIMEOUTS | {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": connection(sandbox, KEY),
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "MANY_WAITS_SENDS": str(folder / "sends.json"),
        }
        with RUNNER(folder / "airflow", dags=[DAGS / "many_waits.py"], environment=environment) as airflow:
            start(airflow, RUN[0])
            yield Scene(airflow, sandbox, sends)


def send(sandbox: Sandbox, count: int) -> list[str]:
    """Send this many messages, to which nothing happens by itself."""
    body = {"to": "never@example.org", "subject": "Hello", "content": "Text"}
    headers = {"Authorization": f"Bearer {API_KEY}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, timeout=15.0, trust_env=False) as client:
        responses = [client.post(SEND_PATH, json=body | {"idempotencyKey": f"wait-{n}"}) for n in range(count)]
    return [response.raise_for_status().json()["sendId"] for response in responses]


def test_promise_3_and_4_another_triggerer_ends_all_waits_with_few_requests(scene: Scene) -> None:
    count = len(scene.sends)
    scene.airflow.trigger(*RUN)
    scene.until(
        "all waits are in a triggerer", lambda: set(scene.states()) == {"deferred"} and len(scene.states()) == count
    )
    scene.until("a triggerer has them", scene.triggerer_runs_waits)
    before = len(scene.reads())

    scene.airflow.component("triggerer").kill()
    # While no triggerer runs.
    wanted = scene.end_some(range(count // 2))
    assert set(scene.states()) == {"deferred"}
    scene.airflow.component("triggerer").start()
    scene.until(
        "what happened while no triggerer ran is known", lambda: set(scene.states()[: count // 2]) <= FINAL_STATES
    )
    wanted += scene.end_some(range(count // 2, count))
    scene.until("all waits have ended", lambda: set(scene.states()) <= FINAL_STATES)
    assert scene.states() == wanted

    reads = scene.reads()
    assert [row for row in reads if row["status"] == 429] == []
    assert len(reads) - before <= FEW_REQUESTS + count // READ_DIRECTLY
