"""Runs of the Dags in ``dags/clears.py`` on a real Airflow, many at a time, and the email that they sent."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

from scripts.testbed.airflow_runner import FINAL_STATES, AirflowRunner
from scripts.testbed.sandbox import SEND_PATH, Sandbox
from tests.system.airflows import Processes

#: The tasks of each Dag: with the default, and with ``resend_on_clear=True``.
TASKS: Final = ("send", "resend")
#: Only a hang takes this long; nothing is measured by it.
LIMIT: Final = 240.0
#: The client makes this many requests in one try of a task.
ATTEMPTS: Final = 2
_LOOK_SECONDS: Final = 0.5


class Field(Processes):
    """One Airflow and one sandbox, shared by the threads in which the cases run."""

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox) -> None:
        super().__init__(airflow, sandbox, limit=LIMIT)
        self._lock = threading.Lock()
        self._rows: list[dict[str, Any]] = []
        self._taken = 0.0

    def run(self, case: str, dag_id: str = "clears", **faults: Any) -> Run:
        """Start a run of a Dag, named after the case.

        :param faults: what the first requests of both tasks meet, see :meth:`Run.fail`.
        """
        run = Run(self, dag_id, case)
        if faults:
            run.fail(**faults)
        self.airflow.trigger(dag_id, case)
        return run

    def rows(self, *, since: float) -> list[dict[str, Any]]:
        """All task instances, as they were at ``since`` or later: one question for all who wait."""
        with self._lock:
            now = time.monotonic()
            if self._taken < max(since, now - _LOOK_SECONDS):
                self.airflow.check()
                everything = self.airflow.call("GET", "dags/~/dagRuns/~/taskInstances", params={"limit": 1000})
                self._rows = everything["task_instances"]
                self._taken = now
            return self._rows


class Run:
    """A run of one of the Dags."""

    def __init__(self, field: Field, dag_id: str, run_id: str) -> None:
        self.field, self.dag_id, self.run_id = field, dag_id, run_id

    # What people do

    def clear(self, *tasks: str, **options: Any) -> None:
        """Clear tasks, by default both, as a person does."""
        self.field.airflow.clear(self.dag_id, self.run_id, *(tasks or TASKS), **options)

    # What goes wrong

    def fail(self, *, long_429: int = 0, lost_responses: int = 0, slow_responses: int = 0) -> None:
        """Let the next requests of both tasks fail, in this order.

        :param long_429: responses that ask for a longer wait than a worker makes.
        :param lost_responses: of how many tries the messages are stored, but all responses lost.
        :param slow_responses: messages that are stored at once, with a response after minutes.
        """
        for task in TASKS:
            self._fault(task, long_429, kind="status", status=429, retry_after=5)
            self._fault(task, lost_responses * ATTEMPTS, kind="response_lost_after_store")
            self._fault(task, slow_responses, kind="slow_first_byte", seconds=200)

    def _fault(self, task: str, times: int, **fault: Any) -> None:
        if times:
            match = {"method": "POST", "path": SEND_PATH, "recipient": self.recipient(task)}
            self.field.sandbox.control("POST", "faults", json=fault | {"times": times, "match": match})

    # What becomes of it

    def ends(self) -> None:
        """Wait until both tasks, and with them the run, have succeeded.

        The run as well: a clear just before the scheduler ends the run is lost, the tasks then never run again.
        """
        self.reaches("success")
        self.field.until(
            f"{self.dag_id}, run {self.run_id} has ended",
            lambda: self.field.airflow.run_state(self.dag_id, self.run_id) == "success",
        )

    def reaches(self, state: str, *tasks: str) -> None:
        """Wait until tasks, by default both, are in a state."""
        since = time.monotonic()

        def reached() -> bool:
            rows = [row for task in tasks or TASKS for row in self.instances(task, since=since)]
            states = {row["state"] for row in rows}
            wrong = states & FINAL_STATES - {state}
            assert not wrong, f"{self.dag_id}, run {self.run_id}: {wrong} instead of {state}; {self._reasons(rows)}"
            return bool(rows) and states == {state}

        self.field.until(f"{self.dag_id}, run {self.run_id} is {state}", reached)

    def instances(self, task: str, *, since: float | None = None) -> list[dict[str, Any]]:
        """The instances of a task, by map index."""
        rows = self.field.rows(since=time.monotonic() if since is None else since)
        mine = [row for row in rows if (row["dag_id"], row["dag_run_id"], row["task_id"]) == self._identity(task)]
        return sorted(mine, key=lambda row: int(row["map_index"]))

    def tries(self) -> list[int]:
        """The number of the last try of both tasks."""
        return [row["try_number"] for task in TASKS for row in self.instances(task)]

    def reused(self) -> list[bool]:
        """Whether both tasks say that they have sent no further email."""
        return [self._xcom(task, "reused") for task in TASKS]

    def explained(self, task: str) -> list[int]:
        """The tries of a task whose log says that it was cleared and sends nothing again."""
        folder = self.field.airflow.logs / "tasks" / f"dag_id={self.dag_id}" / f"run_id={self.run_id}"
        logs = {int(file.stem.partition("=")[2]): file for file in folder.glob(f"task_id={task}/attempt=*.log")}
        assert logs, folder
        return sorted(number for number, file in logs.items() if "set resend_on_clear=True" in file.read_text("utf-8"))

    def mails(self) -> list[int]:
        """How many messages the sandbox has stored of each of the tasks."""
        return [len(self.messages(task)) for task in TASKS]

    def messages(self, task: str, index: int | str = "") -> list[dict[str, Any]]:
        """The stored messages of a task."""
        count, messages = self.field.sandbox.stored(to=self.recipient(task, index))
        assert count == len(messages)
        return messages

    def recipient(self, task: str, index: int | str = "") -> str:
        """The address that ``dags/clears.py`` gives to a task."""
        return f"never+{task}{index}.{re.sub('[^A-Za-z0-9]', '-', self.run_id)}@example.org"

    def deliver(self) -> None:
        """Let every message of it be delivered, those that were before left out."""
        for task in TASKS:
            for message in self.messages(task):
                if all(event["type"] != "delivered" for event in message["events"]):
                    self.field.happens(message["send_id"], "delivered")

    def _identity(self, task: str) -> tuple[str, str, str]:
        return self.dag_id, self.run_id, task

    def _xcom(self, task: str, key: str) -> Any:
        return self.field.airflow.xcom(self.dag_id, self.run_id, task, key)

    def _reasons(self, rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, int]]:
        return [(row["task_id"], row["state"], row["try_number"]) for row in rows]
