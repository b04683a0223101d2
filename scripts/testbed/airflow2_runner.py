"""A real Airflow 2.11 of its own, with the methods that :class:`.AirflowRunner` has for Airflow 3.

Its scheduler parses the Dags itself. With SQLite it runs one task at a time (SequentialExecutor), so give it a server's
database by ``AIRFLOW__DATABASE__SQL_ALCHEMY_CONN``.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import httpx

from scripts.testbed.airflow_runner import USER, AirflowError, AirflowRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: As the command line calls them -> as the health report calls them.
COMPONENTS: Final = {"webserver": "metadatabase", "scheduler": "scheduler", "triggerer": "triggerer"}
#: Log servers listen on every address and on fixed ports; all logs are on this machine's disk anyway.
_ARGUMENTS: Final = {
    "webserver": ("--workers", "1"),
    "scheduler": ("--skip-serve-logs",),
    "triggerer": ("--skip-serve-logs",),
}
#: Lets a script log in and clear tasks as the UI does.
_WEBSERVER_CONFIG: Final = "WTF_CSRF_ENABLED = False\n"
_LOOK_SECONDS: Final = 0.25
#: What a traceback ends with: the name of the class, and the text.
_EXCEPTION: Final = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*: (.+)$", re.MULTILINE)


def last_exception(log: str) -> str | None:
    """The text of the last exception in a log of lines, ``None`` when there is none."""
    found = _EXCEPTION.findall(log)
    return str(found[-1]) if found else None


class Airflow2Runner(AirflowRunner):
    """Starts and stops the components of an Airflow 2.11. A context manager: its end ends them all."""

    _api = "/api/v1"
    _marking: ClassVar[dict[str, bool]] = {"dry_run": False}

    def __init__(self, home: Path, *, dags: Sequence[Path] = (), environment: Mapping[str, str] | None = None) -> None:
        super().__init__(home, dags=dags, environment=environment)
        self._components = {
            name: self._process(name, name, *_ARGUMENTS[name], log=self.logs / f"{name}.log") for name in COMPONENTS
        }
        self._client.auth = (USER, self.password)
        self._browser = httpx.Client(base_url=self.url, timeout=60.0, trust_env=False)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._browser.close()

    def prepare(self, *, timeout: float = 180.0) -> None:
        """Make the folder again, with the Dags, a migrated database and a user."""
        super().prepare(timeout=timeout)
        (self.home / "webserver_config.py").write_text(_WEBSERVER_CONFIG)
        name = ["--username", USER, "--firstname", USER, "--lastname", USER, "--email", "admin@example.org"]
        self.command("users", "create", *name, "--role", "Admin", "--password", self.password, timeout=timeout)

    def wait_until_healthy(self, *, timeout: float = 180.0, seen: Callable[[str], None] | None = None) -> None:
        """Wait until the health report names all components healthy."""
        deadline = time.monotonic() + timeout
        healthy: set[str] = set()
        while len(healthy) < len(COMPONENTS):
            self.check()
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(COMPONENTS.keys() - healthy))
                raise AirflowError(f"Airflow was not healthy within {timeout:g} s: {missing} missing; see {self.logs}")
            time.sleep(_LOOK_SECONDS)
            now = self._healthy()
            for name in sorted(now - healthy):
                healthy.add(name)
                if seen:
                    seen(name)
        # Once: logins have a rate limit.
        self._browser.post("/login/", data={"username": USER, "password": self.password})

    def trigger(self, dag_id: str, run_id: str, *, conf: Mapping[str, object] | None = None) -> None:
        """Start a run of a Dag."""
        self.call("POST", f"dags/{dag_id}/dagRuns", json={"dag_run_id": run_id, "conf": dict(conf or {})})

    def clear(self, dag_id: str, run_id: str, *task_ids: str, map_index: int | None = None, **options: bool) -> None:
        """Clear tasks as the UI does, one after the other.

        Not by the REST API: on 2.11 it can't clear one of mapped tasks, and leaves running ones as they are.
        """
        date = self.call("GET", f"dags/{dag_id}/dagRuns/{run_id}")["execution_date"]
        which = {"dag_id": dag_id, "execution_date": date, "confirmed": "true"}
        if map_index is not None:
            which["map_index"] = str(map_index)
        which |= {name.removeprefix("include_"): str(value).lower() for name, value in options.items()}
        for task_id in task_ids:
            form, accept = which | {"task_id": task_id}, {"Accept": "application/json"}
            answer = self._browser.post("/clear", data=form, headers=accept)
            self._json(answer)
            # Its text begins with how many it has cleared.
            if answer.text.startswith("0 "):
                raise AirflowError(f"Airflow had nothing to clear: {dag_id}, {run_id}, {task_id}")

    def backfill(self, dag_id: str, first: str, last: str, *, again: bool = False, timeout: float) -> None:
        """Run a Dag for past dates, and wait until that has ended.

        :param again: also the runs that have succeeded already.
        """
        dates = ["--start-date", first, "--end-date", last]
        options = ["--reset-dagruns"] if again else []
        self.command("dags", "backfill", *dates, *options, "--yes", dag_id, timeout=timeout)

    def exception(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> str | None:
        """The text of the last exception in a try's log, ``None`` when there is none."""
        path = f"{self._api}/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        answer = self._client.get(path, params={"full_content": True}, headers={"Accept": "text/plain"})
        if not answer.is_success:
            return None
        return last_exception(answer.text)

    def _healthy(self) -> set[str]:
        try:
            report = self._client.get("/health").json()
        except (httpx.HTTPError, ValueError):
            return set()
        return {name for name, key in COMPONENTS.items() if report.get(key, {}).get("status") == "healthy"}

    def _settings(self) -> dict[str, str]:
        port = self.url.rpartition(":")[2]
        settings = super()._settings()
        return settings | {
            # Executors start tasks as the command airflow.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), settings.get("PATH", os.defpath)]),
            "AIRFLOW__API__AUTH_BACKENDS": "airflow.api.auth.backend.basic_auth",
            "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__DAG_DIR_LIST_INTERVAL": "5",
            "AIRFLOW__WEBSERVER__BASE_URL": self.url,
            "AIRFLOW__WEBSERVER__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__WEBSERVER__WEB_SERVER_HOST": "127.0.0.1",
            "AIRFLOW__WEBSERVER__WEB_SERVER_PORT": port,
        }
