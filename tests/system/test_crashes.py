"""``kill -9`` on a real Airflow: after each one message, counted by the sandbox, and a task that ends without hands.

On LocalExecutor with one triggerer, and (``make system-full``) on Celery with two workers and two triggerers.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
from collections.abc import Iterator
from typing import Final

import pytest

from scripts.testbed.airflow_cluster import SCHEDULER, TRIGGERER, AirflowCluster, end
from scripts.testbed.redis import Redis
from tests.system.airflows import AIRFLOW_2, DAGS, TRIGGERER_TIMEOUTS, connection, home, servers, start
from tests.system.clearing import LIMIT
from tests.system.crashing import POINTS, Crash, RandomKills, Scene, gone

pytestmark = [
    pytest.mark.timeout(4 * LIMIT),
    pytest.mark.skipif(AIRFLOW_2, reason="the processes of Airflow 2 are others"),
]

SEED: Final = "CRASHES_SEED"
#: The runs of the first tests, all begun at once: each halts until its test kills it.
HALTED: Final = {
    **{f"task-{point}": ("crashes", point) for point in POINTS},
    **{f"last-{point}": ("crashes_no_retries", point) for point in POINTS},
    "triggerer": ("crashes_waiting", None),
}
#: All timeouts by which Airflow finds what is dead. The health check of the API server has the same thresholds.
TIMEOUTS: Final = TRIGGERER_TIMEOUTS | {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    # Messages of a killed Celery worker: taken out of the broker, and not begun.
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "300",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "50",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
}


@pytest.fixture(scope="module", params=["local", pytest.param("celery", marks=pytest.mark.full)])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A sandbox and an Airflow that sends to it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(home(request))
        signs = folder / "signs"
        signs.mkdir()
        # A killed scheduler may have been in the middle of a transaction.
        sandbox, postgres = stack.enter_context(servers(folder, idle_in_transaction=20))
        environment = TIMEOUTS | {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": connection(sandbox, timeout=1000),
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            "AIRFLOW__CORE__PARALLELISM": "12",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
            "CRASHES_FOLDER": str(signs),
        }
        counts = {}
        if request.param == "celery":
            redis = stack.enter_context(Redis(folder / "redis"))
            redis.start()
            environment |= {
                "AIRFLOW__CELERY__BROKER_URL": redis.url,
                "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{postgres.url}",
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            }
            counts = {"triggerers": 2, "celery_workers": 2, "slots": 6}
        dags = [DAGS / "crashes.py"]
        cluster = AirflowCluster(folder / "airflow", dags=dags, environment=environment, **counts)
        start(stack.enter_context(cluster), "crashes_often_waiting")
        cluster.wait_for_all()
        yield Scene(cluster, sandbox, signs)


@pytest.fixture(scope="module")
def crashes(scene: Scene) -> dict[str, Crash]:
    """The runs of :data:`HALTED`, begun."""
    return {name: scene.begin(name, dag_id, halt=halt) for name, (dag_id, halt) in HALTED.items()}


@pytest.mark.parametrize("point", POINTS)
def test_promise_1_a_task_process_is_killed(crashes: dict[str, Crash], point: str) -> None:
    crash = crashes[f"task-{point}"]
    assert end(crash.halted())
    assert crash.ended() == (1, 2, crash.was_stored)


@pytest.mark.parametrize("point", POINTS)
def test_promise_1_the_last_try_is_killed(crashes: dict[str, Crash], point: str) -> None:
    crash = crashes[f"last-{point}"]
    assert end(crash.halted())
    crash.reaches("failed", "send")
    assert (crash.stored, crash.row["try_number"]) == (POINTS[point], 1)


def test_promise_1_the_triggerer_is_killed_during_a_wait(scene: Scene, crashes: dict[str, Crash]) -> None:
    crash = crashes["triggerer"]
    crash.reaches("deferred", "send")
    waiting = crash.triggerer()
    assert crash.stored == 1
    scene.cluster.kill(waiting)
    crash.deliver()
    if not scene.celery:
        scene.cluster.replace(waiting)
    # Else the other one takes over.
    assert crash.ended() == (1, 1, False)
    assert crash.xcom("event") == "delivered"
    if scene.celery:
        assert scene.cluster.names(TRIGGERER) != [TRIGGERER, f"{TRIGGERER}-2"]
        scene.cluster.replace(waiting)


@pytest.mark.parametrize("point", ["before", "answered"])
def test_promise_1_a_worker_of_the_executor_is_killed(scene: Scene, point: str) -> None:
    crash = scene.begin(f"worker-{point}", halt=point)
    process = crash.halted()
    missing = scene.cluster.kill_worker_of(process)
    # The task of a LocalExecutor's worker outlives it; nothing watches it any more.
    assert gone(process) == scene.celery == bool(missing)
    for name in missing:
        scene.cluster.replace(name)
    assert crash.ended() == (1, 2, crash.was_stored)
    crash.go_on()
    scene.until("the abandoned attempt has ended", lambda: gone(process))
    assert crash.ended() == (1, 2, crash.was_stored)


def test_promise_1_the_scheduler_is_killed_while_a_task_runs(scene: Scene) -> None:
    crash = scene.begin("scheduler", halt="answered")
    process = crash.halted()
    scene.cluster.kill(SCHEDULER, alone=True)
    assert not gone(process)
    scene.cluster.replace(SCHEDULER)
    if scene.celery:
        # Its worker lives: the new scheduler lets the try continue, once it has found the old one dead.
        dead = {"job_type": "SchedulerJob", "job_state": "failed"}
        scene.until("the try is adopted", lambda: scene.cluster.call("GET", "jobs", params=dead)["total_entries"])
        assert crash.row["state"] == "running"
        crash.go_on()
        assert crash.ended() == (1, 1, False)
    else:
        # The new scheduler cannot have the workers of the old one: it tries again while the first try still runs.
        assert crash.ended() == (1, 2, True)
    scene.until("the first try has ended", lambda: gone(process))
    assert crash.stored == 1


def test_promise_1_twenty_kills_at_random_moments(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    seed = int(os.environ.get(SEED) or random.SystemRandom().randrange(10**6))
    with capsys.disabled():
        print(f"\n{SEED}={seed}")  # noqa: T201 - a test that passed shows its seed too
    counts = {"task": 8, "worker": 5, "triggerer": 4, "scheduler": 3} if scene.celery else {"task": 20}
    kills = RandomKills(scene, [kind for kind, count in counts.items() for _ in range(count)], seed=seed)
    kills.begin_waits(4)
    kills.run()
    kills.end()
    assert collections.Counter(kills.killed) == counts
    assert set(kills.stored) == {0, 1}
