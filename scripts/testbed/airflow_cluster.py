"""A real Airflow whose parts are killed and replaced: more than one triggerer, and Celery workers if asked."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Final

import psutil  # type: ignore[import-untyped]

from scripts.testbed.airflow_runner import AirflowError, AirflowRunner
from scripts.testbed.processes import ManagedProcess, stop_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

SCHEDULER: Final = "scheduler"
TRIGGERER: Final = "triggerer"
CELERY_WORKER: Final = "celery-worker"
#: Airflow gives this title to the process of a task; the processes around it have longer ones.
_TASK_TITLE: Final = re.compile(r"airflow worker -- ([0-9a-f-]{36})")
_JOBS: Final = {SCHEDULER: "SchedulerJob", TRIGGERER: "TriggererJob"}
_LOOK_SECONDS: Final = 0.1


class AirflowCluster(AirflowRunner):
    """Adds further components to :class:`.AirflowRunner`, and kills any of them with ``SIGKILL``.

    The process of a component never comes back: another one takes its place. What a killed one has left behind, such as
    tasks that go on without their scheduler, lives until the end, as it would on a machine.

    :param triggerers: how many.
    :param celery_workers: how many; their broker and executor are part of ``environment``.
    :param slots: tasks at a time of one Celery worker.
    """

    def __init__(
        self,
        home: Path,
        *,
        dags: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        triggerers: int = 1,
        celery_workers: int = 0,
        slots: int = 4,
    ) -> None:
        super().__init__(home, dags=dags, environment=environment)
        self._arguments: dict[str, list[str]] = {
            SCHEDULER: [SCHEDULER, "--skip-serve-logs"],
            TRIGGERER: [TRIGGERER, "--skip-serve-logs"],
        }
        for number in range(2, triggerers + 1):
            self._arguments[f"{TRIGGERER}-{number}"] = [TRIGGERER, "--skip-serve-logs"]
        for number in range(1, celery_workers + 1):
            name = f"{CELERY_WORKER}-{number}"
            options = ["--celery-hostname", f"{name}@%h", "--pid", str(self.home / f"{name}.pid")]
            options += ["--concurrency", str(slots), "--without-mingle", "--skip-serve-logs"]
            self._arguments[name] = ["celery", "worker", *options]
        self._places = 0
        self._killed: list[ManagedProcess] = []
        for name in self._arguments.keys() - self._components.keys():
            self._put(name)

    def stop(self, *, grace: float = 4.0) -> None:
        """End all components, and what the killed ones have left behind."""
        stop_all([*self._components.values(), *self._killed], grace=grace)

    def names(self, kind: str) -> list[str]:
        """The components of a kind that there are now."""
        return sorted(name for name in self._components if name.startswith(kind))

    # Kills

    def kill(self, name: str, *, alone: bool = False) -> None:
        """Kill a component, which then is missing until :meth:`replace`.

        :param alone: only the process that leads it; what it has started goes on.
        """
        process = self._components.pop(name)
        self._killed.append(process)
        if alone:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            return
        process.kill()

    def replace(self, name: str, *, timeout: float = 120.0) -> None:
        """Start another one in the place of a killed component, and wait until it works."""
        kind = next(kind for kind in (SCHEDULER, TRIGGERER, CELERY_WORKER) if name.startswith(kind))
        before = self._jobs(kind)
        self._put(name).start()
        self._wait_until_it_works(name, kind, before + 1, timeout=timeout)

    def wait_for_all(self, *, timeout: float = 120.0) -> None:
        """Wait for the components that :meth:`wait_until_healthy` does not check."""
        for number, name in enumerate(self.names(TRIGGERER), start=1):
            self._wait_until_it_works(name, TRIGGERER, number, timeout=timeout)
        for name in self.names(CELERY_WORKER):
            self._wait_until_it_works(name, CELERY_WORKER, 0, timeout=timeout)

    def task_processes(self) -> dict[str, psutil.Process]:
        """The processes of running tasks by the id of their task instance, which each try has of its own."""
        sessions = {process.pid for process in (*self._components.values(), *self._killed) if process.pid}
        found = {}
        for process in _in_sessions(sessions):
            try:
                title = _TASK_TITLE.fullmatch(" ".join(process.cmdline()).strip())
            except psutil.Error:
                continue
            if title:
                found[title[1]] = process
        return found

    def kill_worker_of(self, task: psutil.Process) -> list[str]:
        """Kill the executor's worker that a task runs in: all of a Celery worker, or one process of the LocalExecutor.

        The LocalExecutor's own loses its supervisor, but nobody ends the task itself.

        :return: the components that are missing now.
        """
        leader = os.getsid(task.pid)
        for name in self.names(CELERY_WORKER):
            if self._components[name].pid == leader:
                self.kill(name)
                return [name]
        worker = task.parent()
        if worker is None or worker.pid == leader or "LocalExecutor" not in " ".join(worker.cmdline()):
            raise AirflowError(f"the process {task.pid} is no task that a worker runs")
        worker.kill()
        return []

    def triggerer_of(self, job_id: int) -> str | None:
        """The triggerer that runs as a job, known by the logs that it holds open; ``None`` as long as it has none."""
        for name in self.names(TRIGGERER):
            pid = self._components[name].pid
            for process in _in_sessions({pid} if pid else set()):
                try:
                    files = [file.path for file in process.open_files()]
                except psutil.Error:
                    continue
                if any(path.endswith(f".trigger.{job_id}.log") for path in files):
                    return name
        return None

    # Places

    def _put(self, name: str) -> ManagedProcess:
        self._places += 1
        log = self.logs / f"{name}.{self._places}.log"
        self._components[name] = process = self._process(name, *self._arguments[name], log=log)
        return process

    def _jobs(self, kind: str) -> int:
        if kind not in _JOBS:
            return 0
        return int(self.call("GET", "jobs", params={"job_type": _JOBS[kind], "limit": 1})["total_entries"])

    def _wait_until_it_works(self, name: str, kind: str, jobs: int, *, timeout: float) -> None:
        process = self._components[name]
        deadline = time.monotonic() + timeout
        while not (self._jobs(kind) >= jobs if kind in _JOBS else "ready." in process.log.read_text(errors="replace")):
            self.check()
            if time.monotonic() > deadline:
                raise AirflowError(f"{name} did not work within {timeout:g} s; see {process.log}")
            time.sleep(_LOOK_SECONDS)


def end(process: psutil.Process) -> bool:
    """Kill one process.

    :return: whether it was still running: ``False`` says that it had ended before.
    """
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Refuses if the id has gone to another process since.
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _in_sessions(leaders: set[int]) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        try:
            if os.getsid(pid) in leaders:
                yield psutil.Process(pid)
        except (OSError, psutil.Error):
            continue
