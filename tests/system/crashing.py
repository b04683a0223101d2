"""Runs of the Dags in ``dags/crashes.py`` on an Airflow whose processes are killed, and the email that they sent."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from scripts.testbed.airflow_cluster import CELERY_WORKER, SCHEDULER, AirflowCluster, end
from scripts.testbed.airflow_runner import FINAL_STATES
from scripts.testbed.sandbox import SEND_PATH, Sandbox
from tests.system.clearing import LIMIT, Field, Run

TASK: Final = "send"
#: Where a task halts on its first try: before its request; when its message is stored and not answered; when it has
#: the answer, which is no XCom yet. How many messages are stored then.
POINTS: Final = {"before": 0, "stored": 1, "answered": 1}
#: A try that the test is to kill must not continue by itself.
_NEVER_SECONDS: Final = 900
#: How long a response takes in runs that are killed at random moments: as long as the rest of a try.
_SLOW_SECONDS: Final = 1.5
#: How many runs at a time are open to random kills.
_RUNS_AT_ONCE: Final = 8


class Scene(Field):
    """One Airflow that suffers, and one sandbox.

    :param signs: the folder for the signs between a task and its test.
    """

    def __init__(self, cluster: AirflowCluster, sandbox: Sandbox, signs: Path) -> None:
        super().__init__(cluster, sandbox)
        self.cluster = cluster
        self.signs = signs

    @property
    def celery(self) -> bool:
        """Whether tasks run in Celery workers."""
        return bool(self.cluster.names(CELERY_WORKER))

    def begin(self, name: str, dag_id: str = "crashes", *, halt: str | None = None) -> Crash:
        """Start a run that halts at one of :data:`POINTS`."""
        crash = Crash(self, dag_id, name, halt)
        if halt == "stored":
            crash.slow_responses(_NEVER_SECONDS, times=1)
        self.airflow.trigger(dag_id, name, conf={"halt": halt})
        return crash


class Crash(Run):
    """A run of one of the Dags."""

    def __init__(self, scene: Scene, dag_id: str, run_id: str, halt: str | None = None) -> None:
        super().__init__(scene, dag_id, run_id)
        self.scene, self.halt = scene, halt

    def slow_responses(self, seconds: float, *, times: int | None) -> None:
        """Let the sandbox store at once and respond late."""
        match = {"method": "POST", "path": SEND_PATH, "recipient": self.recipient(TASK)}
        fault = {"kind": "slow_first_byte", "seconds": seconds, "times": times, "match": match}
        self.scene.sandbox.control("POST", "faults", json=fault)

    def halted(self) -> psutil.Process:
        """Wait until the task has halted where it should, and return its process."""
        sign = self.scene.signs / f"{self.run_id}.halted"
        self.scene.until(f"{self.run_id} halts", lambda: self.stored == 1 if self.halt == "stored" else sign.exists())
        row = self.row
        assert (row["state"], row["try_number"], self.stored) == ("running", 1, POINTS[self.halt or ""])
        assert self.xcom("send_id") is None
        process: psutil.Process = self.scene.cluster.task_processes()[row["id"]]
        return process

    def go_on(self) -> None:
        """Let a halted task continue."""
        (self.scene.signs / f"{self.run_id}.go").touch()

    @property
    def row(self) -> dict[str, Any]:
        """The task instance as it is now."""
        (row,) = self.instances(TASK)
        return row

    @property
    def stored(self) -> int:
        """How many messages of it there are."""
        return len(self.messages(TASK))

    @property
    def was_stored(self) -> bool:
        """Whether the message is stored where the task halts."""
        return bool(POINTS[self.halt or ""])

    def xcom(self, key: str) -> Any:
        """A result of the task."""
        return self._xcom(TASK, key)

    def triggerer(self) -> str:
        """Wait until a triggerer runs its wait, and return which."""
        names: list[str] = []

        def taken() -> bool:
            job = self.row["triggerer_job"]
            name = self.scene.cluster.triggerer_of(job["id"]) if job else None
            names.extend([name] if name else [])
            return bool(names)

        self.scene.until(f"a triggerer has the wait of {self.run_id}", taken)
        return names[0]

    def ended(self) -> tuple[int, int, bool]:
        """Wait for the success, and return: how many messages, how many tries, whether the last one sent nothing."""
        self.ends()
        messages = self.messages(TASK)
        assert self.xcom("send_id") in {message["send_id"] for message in messages}
        return len(messages), self.row["try_number"], self.xcom("reused")


def gone(process: psutil.Process) -> bool:
    """Whether a process has ended; where no process collects orphans it stays listed."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


class RandomKills:
    """Kills at random moments while runs begin one after the other.

    :param kinds: what is killed: ``task``, ``worker``, ``triggerer``, ``scheduler``; in random order.
    """

    def __init__(self, scene: Scene, kinds: list[str], *, seed: int) -> None:
        self._scene = scene
        self._random = random.Random(seed)
        self._kinds = kinds
        self._random.shuffle(self._kinds)
        #: All runs, those that wait for a delivery first.
        self.runs: list[Crash] = []
        #: How many messages of the run were stored when its task was killed.
        self.stored: list[int] = []
        self.killed: list[str] = []

    def begin_waits(self, count: int) -> None:
        """Start runs that wait in a triggerer until they are delivered."""
        for number in range(count):
            self.runs.append(self._scene.begin(f"wait-{number}", "crashes_often_waiting"))

    def run(self) -> None:
        """Kill one after the other."""
        for kind in self._kinds:
            self._fill()
            time.sleep(self._random.uniform(0.0, 1.0))
            if kind in ("task", "worker"):
                self._kill_task(worker=kind == "worker")
            else:
                name = self._random.choice(self._scene.cluster.names(kind))
                self._scene.cluster.kill(name, alone=kind == SCHEDULER and self._random.random() < 0.5)
                self._scene.cluster.replace(name)
            self.killed.append(kind)

    def end(self) -> None:
        """Let everything end: one message of each run, or none of a task that was killed in all its tries."""
        for run in self.runs:
            if run.dag_id.endswith("waiting"):
                self._scene.until(f"{run.run_id} is sent", lambda run=run: run.stored)  # type: ignore[misc]
                run.deliver()
        for run in self.runs:
            if run.dag_id == "crashes_once_retried":
                self._scene.until(f"{run.run_id} has ended", lambda run=run: run.row["state"] in FINAL_STATES)  # type: ignore[misc]
            else:
                run.ends()
            state, stored = run.row["state"], run.stored
            assert stored == 1 or (state, stored) == ("failed", 0), f"{run.run_id} is {state}, {stored} messages"

    def _fill(self) -> None:
        since = time.monotonic()
        rows = {(row["dag_id"], row["dag_run_id"]): row["state"] for row in self._scene.rows(since=since)}
        plain = [run for run in self.runs if not run.dag_id.endswith("waiting")]
        open_ = [run for run in plain if rows.get((run.dag_id, run.run_id)) not in FINAL_STATES]
        for number in range(len(plain), len(plain) + _RUNS_AT_ONCE - len(open_)):
            # Some may use up their retries.
            dag_id = "crashes_often" if number % 4 else "crashes_once_retried"
            run = Crash(self._scene, dag_id, f"random-{number}")
            run.slow_responses(_SLOW_SECONDS, times=None)
            self._scene.airflow.trigger(run.dag_id, run.run_id)
            self.runs.append(run)

    def _kill_task(self, *, worker: bool) -> None:
        """Kill a task that runs, or its worker."""
        deadline = time.monotonic() + LIMIT
        while (found := self._halt_one()) is None:
            assert time.monotonic() < deadline, "no task runs"
            time.sleep(0.05)
        process, run = found
        self.stored.append(run.stored)
        if worker:
            # The halted task holds it in the middle of its work: an idle one would die with the lock of the queue.
            missing = self._scene.cluster.kill_worker_of(process)
            if not gone(process):
                process.resume()
            for name in missing:
                self._scene.cluster.replace(name)
        else:
            assert end(process)

    def _halt_one(self) -> tuple[psutil.Process, Crash] | None:
        """Stop the process of a task, so that it is known what dies."""
        processes = self._scene.cluster.task_processes()
        for identity in self._random.sample(sorted(processes), len(processes)):
            process = processes[identity]
            try:
                process.suspend()
            except psutil.NoSuchProcess:
                continue
            rows = {row["id"]: row["dag_run_id"] for row in self._scene.rows(since=time.monotonic())}
            for run in self.runs:
                if run.run_id == rows.get(identity) and not gone(process):
                    return process, run
            # What is left of an attempt that Airflow has given up already.
            if not gone(process):
                process.resume()
        return None
