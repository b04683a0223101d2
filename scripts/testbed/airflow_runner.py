"""A real Airflow of its own: scheduler, Dag processor, API server and triggerer, on loopback and free ports.

The metadata is an SQLite file in a folder; nothing of the machine's other Airflows is read or touched.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import json
import os
import secrets
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import httpx

from scripts.testbed.processes import ManagedProcess, ProcessError, free_port, loopback_environment, stop_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


API_SERVER: Final = "api-server"
#: As the command line calls them -> as the health report calls them.
COMPONENTS: Final = {
    API_SERVER: "metadatabase",
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
}
#: Log servers listen on every address and on fixed ports; all logs are on this machine's disk anyway.
_ARGUMENTS: Final = {"scheduler": ("--skip-serve-logs",), "triggerer": ("--skip-serve-logs",)}
USER: Final = "admin"
ROOT: Final = Path(__file__).resolve().parents[2]
FINAL_STATES: Final = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_LOOK_SECONDS: Final = 0.25


class AirflowError(Exception):
    """Airflow did not start, refused a call, or did not come to an end in time."""


@dataclasses.dataclass(frozen=True)
class TaskTry:
    """A task instance as it is or, from the history, as one of its tries ended."""

    task_id: str
    try_number: int
    state: str | None
    started: datetime.datetime | None
    ended: datetime.datetime | None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Read one from a response of the REST API."""
        started, ended = _time(fields["start_date"]), _time(fields["end_date"])
        return cls(fields["task_id"], fields["try_number"], fields["state"], started, ended)

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return (self.ended - self.started).total_seconds() if self.started and self.ended else None


@dataclasses.dataclass(frozen=True)
class Change:
    """A task that has come to another state (or another try), as :meth:`AirflowRunner.follow` saw it."""

    after: float
    task: TaskTry


class AirflowRunner:
    """Starts and stops the components, and speaks with the REST API. A context manager: its end ends them all.

    :param home: the folder for everything of it; what is in there already is removed.
    :param dags: Dag files, copied into the Dags folder.
    :param environment: further environment, such as ``AIRFLOW_CONN_...`` and ``AIRFLOW__SECTION__KEY``.
    """

    _api: ClassVar = "/api/v2"
    _marking: ClassVar[dict[str, bool]] = {}

    def __init__(self, home: Path, *, dags: Sequence[Path] = (), environment: Mapping[str, str] | None = None) -> None:
        self.home = home.resolve()
        self.logs = self.home / "logs"
        self.dags_folder = self.home / "dags"
        self.url = f"http://127.0.0.1:{free_port()}"
        # Hexadecimal: an argument of a command must not begin with "-".
        self.password = secrets.token_hex(12)
        self._dags = list(dags)
        self.environment = self._settings() | dict(environment or {})
        self._client = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)
        self._components = {
            name: self._process(name, name, *_ARGUMENTS.get(name, ()), log=self.logs / f"{name}.log")
            for name in COMPONENTS
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._client.close()

    # Life

    def prepare(self, *, timeout: float = 180.0) -> None:
        """Make the folder again, with the Dags and a migrated database.

        The API server starts meanwhile: it needs some seconds of CPU time before it needs the database.
        """
        shutil.rmtree(self.home, ignore_errors=True)
        self.dags_folder.mkdir(parents=True)
        for dag in self._dags:
            shutil.copy(dag, self.dags_folder)
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({USER: self.password}))
        if API_SERVER in self._components:
            self._components[API_SERVER].start()
        self.command("db", "migrate", timeout=timeout)

    def start(self) -> None:
        """Start all components that do not run yet; :meth:`wait_until_healthy` waits until they respond."""
        for process in self._components.values():
            if not process.running:
                process.start()

    def stop(self, *, grace: float = 4.0) -> None:
        """End all components: asked first, forced after ``grace`` seconds, for the scheduler takes its time."""
        stop_all(self._components.values(), grace=grace)

    @property
    def components(self) -> list[str]:
        """The names of all components."""
        return list(self._components)

    def component(self, name: str) -> ManagedProcess:
        """One of :data:`COMPONENTS`, to stop, kill or start it alone."""
        return self._components[name]

    def check(self) -> None:
        """Raise if a component has ended.

        :raises AirflowError: one has, with the end of its log.
        """
        for process in self._components.values():
            try:
                process.check()
            except ProcessError as error:
                raise AirflowError(f"Airflow's {error}") from error

    def wait_until_healthy(self, *, timeout: float = 180.0, seen: Callable[[str], None] | None = None) -> None:
        """Wait until the health report names all components healthy, and workers can be served.

        :param seen: called with each name of :data:`COMPONENTS` as soon as it is healthy.
        :raises AirflowError: a component ended, or ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        healthy: set[str] = set()
        warming: threading.Thread | None = None
        while len(healthy) < len(COMPONENTS):
            self.check()
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(COMPONENTS.keys() - healthy))
                raise AirflowError(f"Airflow was not healthy within {timeout:g} s: {missing} missing; see {self.logs}")
            time.sleep(_LOOK_SECONDS)
            now = self._healthy()
            if now and warming is None:
                warming = threading.Thread(target=self._warm_up, args=(timeout,), daemon=True)
                warming.start()
            for name in [one for one in COMPONENTS if one in now - healthy]:
                healthy.add(name)
                if seen:
                    seen(name)
        if warming is not None:
            warming.join(max(0.0, deadline - time.monotonic()))
        answer = self._client.post("/auth/token", json={"username": USER, "password": self.password})
        self._client.headers["Authorization"] = f"Bearer {self._json(answer)['access_token']}"

    def _warm_up(self, timeout: float) -> None:
        """Let the API server prepare its responses to workers: the first of them takes it some seconds."""
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{self.url}/execution/health", timeout=timeout, trust_env=False)

    def _healthy(self) -> set[str]:
        try:
            report = self._client.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return set()
        return {name for name, key in COMPONENTS.items() if report.get(key, {}).get("status") == "healthy"}

    # REST

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Make one call of the REST API and return its response.

        :param path: below ``/api/v2`` (``/api/v1`` on Airflow 2).
        :param options: further arguments of ``httpx.Client.request``.
        :raises AirflowError: any answer that is no success.
        """
        return self._json(self._client.request(method, f"{self._api}/{path.lstrip('/')}", **options))

    def wait_for_dag(self, dag_id: str, *, timeout: float = 120.0) -> None:
        """Wait until a Dag can be run.

        :raises AirflowError: its file cannot be imported, or ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while dag_id not in {dag["dag_id"] for dag in self.call("GET", "dags")["dags"]}:
            self.check()
            if errors := self.call("GET", "importErrors")["import_errors"]:
                raise AirflowError(f"{errors[0]['filename']} cannot be imported:\n{errors[0]['stack_trace']}")
            if time.monotonic() > deadline:
                raise AirflowError(f"Airflow did not find the Dag {dag_id} within {timeout:g} s; see {self.logs}")
            time.sleep(_LOOK_SECONDS)

    def trigger(self, dag_id: str, run_id: str, *, conf: Mapping[str, Any] | None = None) -> None:
        """Start a run of a Dag."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf or {})}
        self.call("POST", f"dags/{dag_id}/dagRuns", json=body)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of a run."""
        return str(self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def tasks(self, dag_id: str, run_id: str) -> list[TaskTry]:
        """All task instances of a run as they are now."""
        rows = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return [TaskTry.of(row) for row in rows]

    def tries(self, dag_id: str, run_id: str, task_id: str) -> list[TaskTry]:
        """All tries of a task, the first one first."""
        rows = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/tries")["task_instances"]
        return sorted((TaskTry.of(row) for row in rows), key=lambda one: one.try_number)

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """A result of a task, ``None`` when there is none of that name."""
        path = f"{self._api}/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self._client.get(path, params={"deserialize": False, "stringify": False, "map_index": map_index})
        return None if answer.status_code == 404 else self._json(answer)["value"]

    def clear(self, dag_id: str, run_id: str, *task_ids: str, map_index: int | None = None, **options: bool) -> None:
        """Clear tasks, as a person does who wants them to run again.

        :param map_index: only this one of mapped tasks.
        :param options: such as ``include_downstream``.
        """
        which = task_ids if map_index is None else [(task_id, map_index) for task_id in task_ids]
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": list(which), "only_failed": False, **options}
        self.call("POST", f"dags/{dag_id}/clearTaskInstances", json=body)

    def clear_run(self, dag_id: str, run_id: str) -> None:
        """Clear a whole run."""
        self.call("POST", f"dags/{dag_id}/dagRuns/{run_id}/clear", json={"dry_run": False})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run with all that Airflow knows of it."""
        self.call("DELETE", f"dags/{dag_id}/dagRuns/{run_id}")

    def mark_failed(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Mark a task as failed."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self.call("PATCH", path, json=self._marking | {"new_state": "failed"})

    def backfill(self, dag_id: str, first: str, last: str, *, again: bool = False, timeout: float) -> None:
        """Run a Dag for past dates, and wait until that has ended.

        :param again: also the runs that have succeeded already.
        """
        body = {"dag_id": dag_id, "from_date": f"{first}T00:00:00Z", "to_date": f"{last}T00:00:00Z"}
        asked = self.call("POST", "backfills", json=body | {"reprocess_behavior": "completed" if again else "none"})
        deadline = time.monotonic() + timeout
        while not self.call("GET", f"backfills/{asked['id']}")["completed_at"]:
            self.check()
            if time.monotonic() > deadline:
                raise AirflowError(f"the backfill of {dag_id} did not end within {timeout:g} s; see {self.logs}")
            time.sleep(_LOOK_SECONDS)

    def command(self, *arguments: str, timeout: float) -> None:
        """Run a command of Airflow's command line to its end.

        :raises AirflowError: it failed, or ``timeout`` seconds have passed.
        """
        name = " ".join(["airflow", *arguments[:2]])
        process = self._process(name, *arguments, log=self.logs / f"command-{time.monotonic_ns()}.log")
        process.start()
        deadline = time.monotonic() + timeout
        try:
            while process.running:
                if time.monotonic() > deadline:
                    raise AirflowError(f"{name} took more than {timeout:g} s; see {process.log}")
                time.sleep(0.05)
        finally:
            process.stop()
        if process.exit_code != 0:
            raise AirflowError(f"{name} failed; {process.log} ends with:\n{process.last_lines()}")

    def exception(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str | None:
        """The text of the last exception in a try's log, ``None`` when there is none."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        log = self.call("GET", path, params={"full_content": True}, headers={"Accept": "application/json"})
        for event in reversed(log["content"]):
            details = event.get("error_detail") if isinstance(event, dict) else None
            if details:
                # The first is what was raised, the others are its causes.
                return str(details[0].get("exc_value") or details[0].get("exc_type"))
        return None

    def follow(self, dag_id: str, run_id: str, *, timeout: float) -> Iterator[Change]:
        """Yield each change of a task's state until the run has ended.

        :raises AirflowError: a component ended, or ``timeout`` seconds have passed.
        """
        begin = time.monotonic()
        known: dict[str, tuple[int, str | None]] = {}
        ended = False
        while not ended:
            self.check()
            # Asked before the tasks: their last states must not be missed.
            ended = self.run_state(dag_id, run_id) in FINAL_STATES
            for task in sorted(self.tasks(dag_id, run_id), key=lambda one: (one.ended is None, one.ended or 0)):
                now = (task.try_number, task.state)
                if task.state is not None and known.get(task.task_id) != now:
                    known[task.task_id] = now
                    yield Change(time.monotonic() - begin, task)
            if ended:
                return
            if time.monotonic() - begin > timeout:
                raise AirflowError(f"the run {run_id} did not end within {timeout:g} s; see {self.logs}")
            time.sleep(_LOOK_SECONDS)

    def _json(self, answer: httpx.Response) -> Any:
        if not answer.is_success:
            raise AirflowError(
                f"{answer.request.method} {answer.request.url.path} was answered with {answer.status_code}: "
                f"{answer.text[:500]}"
            )
        with contextlib.suppress(ValueError):
            return answer.json()
        return None

    # Settings

    def _process(self, name: str, *arguments: str, log: Path) -> ManagedProcess:
        command = [sys.executable, "-m", "airflow", *arguments]
        return ManagedProcess(name, command, log=log, environment=self.environment)

    def _settings(self) -> dict[str, str]:
        inherited = {name: value for name, value in loopback_environment().items() if not name.startswith("AIRFLOW_")}
        return inherited | {
            # Test Dags import from tests/support.
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": self.url.rpartition(":")[2],
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.dags_folder),
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:{USER}",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.logs / "tasks"),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "PYTHONUNBUFFERED": "1",
        }


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
