"""One Airflow, one sandbox and one StatsD for all tests of this folder, and the runs that they check."""

from __future__ import annotations

import concurrent.futures
import itertools
from pathlib import Path
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from scripts.testbed.airflow_cluster import end
from scripts.testbed.airflow_runner import FINAL_STATES, AirflowRunner, TaskTry
from scripts.testbed.sandbox import SEND_PATH, Sandbox
from tests.system.airflows import AIRFLOW_2, DAGS, Processes, connection
from tests.system.shared.statsd import Statsd

#: Only a hang takes this long; nothing is measured by it.
LIMIT: Final = 300.0
RUN_ID: Final = "run"
#: Its run continues until a person responds.
UNENDING: Final = "alerts_late"
#: Each Dag runs once.
DAG_IDS: Final = (
    "alerts_dead", "endings", "retries", "alerts", "mails", "taskflow", "inbox",
    *(() if AIRFLOW_2 else ("fluxomail_retries", UNENDING)),
)  # fmt: skip
#: What the waits of ``dags/endings.py`` are.
WAITS: Final = frozenset({"send", "plain", "callback", "outlet", "bounced", "told"})
#: What those of ``dags/inbox.py`` are; each is named after the event that ends it.
INBOX_WAITS: Final = frozenset({"opened", "clicked", "bounced"})
#: Where the links in the mails of ``dags/inbox.py`` lead, on the sandbox: a page that is there without the internet.
REPORT_PATH: Final = "/_sandbox/health"
#: Seconds that a 429 asks for: more than a worker waits.
ASKED: Final = 3.0
DAG_FILES: Final = [
    *(DAGS / f"{name}.py" for name in ("alerts", "endings", "inbox", "mails", "retries", "taskflow")),
    *([] if AIRFLOW_2 else [Path(__file__).parents[3] / "example_dags" / "fluxomail_retries.py"]),
]
#: What requests to send meet, by recipient.
FAULTS: Final[dict[str, dict[str, Any]]] = {
    "ops@example.org": {"status": 429, "retry_after": ASKED, "times": 2},
    "data-team@example.org": {"status": 400, "times": None},
    "deferred@example.org": {"status": 429, "retry_after": ASKED, "times": 1},
    "retried@example.org": {"status": 429, "retry_after": ASKED, "times": 1},
    "refused@example.org": {"status": 400, "times": None},
    "refused-by-hand@example.org": {"status": 400, "times": None},
    "half-refused@example.org": {"status": 400, "times": None},
    "some-2@example.org": {"status": 503, "times": 1},
}
#: Airflow learns soon that a worker is dead.
TIMEOUTS: Final = {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
} | (
    {
        "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "8",
        "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "0.5",
    }
    if AIRFLOW_2
    else {
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
    }
)


class Scene(Processes):
    """What the tests share. What happens to it happens once, beside all else; each test waits for what it needs.

    :param folder: where Dags write their results.
    """

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox, statsd: Statsd, folder: Path) -> None:
        super().__init__(airflow, sandbox, limit=LIMIT)
        self.statsd, self.folder = statsd, folder
        self._pool = concurrent.futures.ThreadPoolExecutor(2)

    def begin(self) -> None:
        """Start a run of every Dag."""
        for recipient, fault in FAULTS.items():
            match = {"method": "POST", "path": SEND_PATH, "recipient": recipient}
            self.sandbox.control("POST", "faults", json={"kind": "status", **fault, "match": match})
        for dag_id in DAG_IDS:
            self.airflow.wait_for_dag(dag_id)
            self.airflow.trigger(dag_id, RUN_ID)
        self._kill = self._pool.submit(self._kill_a_worker)
        self._end = self._pool.submit(self._end_waits)

    def end(self) -> None:
        """Stop all waiting."""
        self.over.set()
        self._pool.shutdown(cancel_futures=True)

    # What happens

    def a_worker_has_died(self) -> bool:
        """Wait until a task's process and the worker that supervises it are killed; whether they still ran."""
        return self._kill.result()

    def waits_have_ended(self) -> dict[str, str]:
        """Wait until ``endings`` has ended, whose waits all waited at the same time; the states of its tasks."""
        return self._end.result()

    def inbox_waits(self) -> None:
        """Wait until the waits of ``inbox`` wait, or have ended."""
        wait_or_ended = {"deferred", "success", "failed"}
        self.until(
            "the inbox's wait", lambda: {self.states("inbox").get(task, "") for task in INBOX_WAITS} <= wait_or_ended
        )

    def inbox_has_ended(self) -> None:
        """Let happen to the messages of ``inbox`` what no browser has done, and wait until it has ended."""
        self.inbox_waits()
        for task, state in self.states("inbox").items():
            if task in INBOX_WAITS and state == "deferred":
                self.happens(self.inbox_mail(task)["send_id"], task)
        self.ended("inbox")

    def _kill_a_worker(self) -> bool:
        sign = self.folder / "dying"
        self.until("the task runs that is to die", lambda: sign.exists() and sign.read_text())
        process = psutil.Process(int(sign.read_text()))
        process.suspend()
        supervisor = process.parent()
        assert supervisor is not None
        assert "airflow" in " ".join(supervisor.cmdline())
        return end(supervisor) and end(process)

    def _end_waits(self) -> dict[str, str]:
        self.until("all wait", lambda: {self.states("endings").get(task) for task in WAITS} == {"deferred"})
        for message in self.sandbox.control("GET", "messages")["messages"]:
            if message["to"].startswith("never+"):
                self.happens(message["send_id"], "bounced" if message["to"].startswith("never+3") else "delivered")
        self.ended("endings")
        return self.states("endings")

    # What Airflow says

    def ended(self, dag_id: str) -> str:
        """Wait until a Dag's run has ended, and return how."""
        self.until(f"{dag_id} ends", lambda: self.airflow.run_state(dag_id, RUN_ID) in FINAL_STATES)
        return self.airflow.run_state(dag_id, RUN_ID)

    def states(self, dag_id: str) -> dict[str, str]:
        """The states of a run's tasks."""
        return {task.task_id: str(task.state) for task in self.airflow.tasks(dag_id, RUN_ID)}

    def last_tries(self, dag_id: str) -> dict[str, TaskTry]:
        """The tasks of a run, as they are now."""
        return {task.task_id: task for task in self.airflow.tasks(dag_id, RUN_ID)}

    def pauses(self, dag_id: str, task_id: str) -> list[float]:
        """The seconds from the end of each try of a task to the start of the next one."""
        tries = self.airflow.tries(dag_id, RUN_ID, task_id)
        found = []
        for first, again in itertools.pairwise(tries):
            assert first.ended
            assert again.started
            found.append((again.started - first.ended).total_seconds())
        return found

    def xcom(self, dag_id: str, task_id: str, key: str = "return_value", *, map_index: int = -1) -> Any:
        """A result of a task."""
        return self.airflow.xcom(dag_id, RUN_ID, task_id, key, map_index=map_index)

    def link(self, dag_id: str, task_id: str) -> str | None:
        """A task's link to its message, as Airflow's UI requests it."""
        answer: Any = self.airflow.call("GET", f"dags/{dag_id}/dagRuns/{RUN_ID}/taskInstances/{task_id}/links")
        found: str | None = answer.get("extra_links", answer).get("Fluxomail timeline")
        return found

    # What the sandbox says

    def mails(self, to: str) -> list[dict[str, Any]]:
        """All emails to one recipient."""
        return self.sandbox.stored(to=to)[1]

    def inbox_mail(self, task: str) -> dict[str, Any]:
        """The email that a wait of ``inbox`` waits for."""
        (mail,) = self.mails(f"{task}-in-the-inbox+never@example.org")
        return mail

    def subjects(self, to: str) -> list[str]:
        """The subjects of all emails to one recipient, in alphabetical order."""
        return sorted(row["subject"] for row in self.mails(to))

    def asked_by(self, dag_id: str, task_id: str) -> list[dict[str, Any]]:
        """The requests to send that a task has made."""
        rows: list[dict[str, Any]] = self.sandbox.control("GET", "requests", params={"method": "POST"})["requests"]
        return [row for row in rows if str(row["idempotency_key"]).startswith(f"af1:{dag_id}.{task_id}:")]


def environment(sandbox: Sandbox, statsd: Statsd, folder: Path, database: str) -> dict[str, str]:
    """What the Dags of all tests need."""

    # One request in each try, so that a fault decides how the try ends.
    extra: dict[str, Any] = {"max_attempts": 1, "max_wait": 2}
    guards: dict[str, Any] = {"redirect_to": "staging@example.org", "allowed_recipient_domains": "example.org"}
    return {
        **TIMEOUTS,
        **statsd.environment,
        "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": connection(sandbox, **extra),
        "AIRFLOW_CONN_FLUXOMAIL_GUARDED": connection(sandbox, **extra, **guards),
        "AIRFLOW__CORE__PARALLELISM": "6",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__EMAIL__EMAIL_BACKEND": "airflow_provider_fluxomail.email_backend.send_email",
        "AIRFLOW__EMAIL__EMAIL_CONN_ID": "fluxomail_guarded",
        "ALERTS_SIGN": str(folder / "dying"),
        "ENDINGS_CALLS": str(folder / "calls"),
        "INBOX_REPORT": sandbox.url + REPORT_PATH,
    }
