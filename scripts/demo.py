"""``make demo``: a real Airflow sends, waits and retries against a local Fluxomail, and the sandbox counts the emails.

Exits with 0 only if the sandbox has stored what it should, and every task ended as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import httpx
from rich import box
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from scripts.demo_scenarios import LOST_RESPONSES, SCENARIOS, Account, Scenario
from scripts.testbed.airflow2_runner import Airflow2Runner
from scripts.testbed.airflow_runner import USER, AirflowError, AirflowRunner, Change, TaskTry
from scripts.testbed.exclusive import ExclusiveFolder, FolderInUseError
from scripts.testbed.processes import ProcessError, record_in
from scripts.testbed.sandbox import API_KEY, SEND_PATH, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".demo"
DAG_FILE: Final = ROOT / "example_dags" / "fluxomail_send_and_wait.py"
DAG_ID: Final = "fluxomail_send_and_wait"
#: Seconds from a send to its outcome: a worker polls for longer than that before it defers.
EVENT_DELAY: Final = 1.0
#: Seconds; a busy machine needs minutes for what takes 20 s elsewhere.
TIMEOUT: Final = 300.0
#: Seconds for Airflow to end by itself; its database is not used again.
GRACE: Final = 1.0
#: Airflow's scheduler looks for work more often than once a second, which is its default.
SETTINGS: Final = {"AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2"}

_STYLES: Final = {
    "success": "bold green",
    "failed": "bold red",
    "up_for_retry": "yellow",
    "deferred": "medium_purple1",
    "running": "cyan",
}
_QUIET: Final = frozenset({"scheduled", "queued"})
#: A line below the header, nothing else.
_UNDERLINED: Final = box.Box("    \n    \n ── \n    \n    \n    \n    \n    \n")
_POLLS: Final = f"a worker polls the timeline; deliveries take {EVENT_DELAY:g} s here"
_EVENT_STYLES: Final = {"delivered": "green", "bounced": "red"}


class FollowedRun:
    """A run of the Dag, followed in a thread of its own."""

    def __init__(self, airflow: AirflowRunner, sandbox: Sandbox, scenario: Scenario) -> None:
        self.scenario = scenario
        self._airflow = airflow
        self._sandbox = sandbox
        self._changes: queue.SimpleQueue[Change | BaseException | None] = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def changes(self) -> Iterator[Change]:
        """Yield each change of a task's state until the run has ended.

        :raises AirflowError: a component ended, or the run took too long.
        """
        while (change := self._changes.get()) is not None:
            if isinstance(change, BaseException):
                raise change
            yield change

    def _follow(self) -> None:
        delivered = False
        try:
            for change in self._airflow.follow(DAG_ID, self.scenario.run_id, timeout=TIMEOUT):
                self._changes.put(change)
                if change.task.state == "deferred" and not delivered:
                    self._deliver()
                    delivered = True
            self._changes.put(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the main thread raises it
            self._changes.put(error)

    def _deliver(self) -> None:
        """Let the sandbox deliver what it has stored for the recipient."""
        for message in self._sandbox.stored(to=self.scenario.to)[1]:
            self._sandbox.control("POST", f"messages/{message['send_id']}/events", json={"type": "delivered"})


class Demo:
    """Runs the scenarios and prints what happens."""

    def __init__(self, console: Console, sandbox: Sandbox, airflow: AirflowRunner, *, begin: float) -> None:
        self.console = console
        self.sandbox = sandbox
        self.airflow = airflow
        self.begin = begin
        self.started = begin

    def start_airflow(self) -> None:
        """Start Airflow and say what has come up."""
        self._ready("sandbox", f"a Fluxomail of your own; its inbox is at {self.sandbox.url}/inbox")
        with self._waiting("airflow db migrate: creates Airflow's tables"):
            self.airflow.prepare(timeout=TIMEOUT)
        self._ready("database", "SQLite, in .demo/airflow")
        remarks = {"api-server": self.airflow.url, "webserver": self.airflow.url}
        count = len(self.airflow.components)
        with self._waiting(f"starting Airflow's {count} programs: each takes some seconds to import Airflow"):
            self.airflow.start()
            self.airflow.wait_until_healthy(timeout=TIMEOUT, seen=lambda name: self._ready(name, remarks.get(name, "")))
        with self._waiting("Airflow reads the Dag's file"):
            self.airflow.wait_for_dag(DAG_ID)
        self._ready("Dag", f"send >> wait, from {DAG_FILE.relative_to(ROOT)}")
        self.started = time.monotonic()

    def begin_runs(self) -> list[FollowedRun]:
        """Start all runs of the Dag at once: while one waits, the others work."""
        for scenario in SCENARIOS:
            if scenario.lost_responses:
                match = {"method": "POST", "path": SEND_PATH, "recipient": scenario.to}
                fault = {"kind": "response_lost_after_store", "times": scenario.lost_responses, "match": match}
                self.sandbox.control("POST", "faults", json=fault)
            self.airflow.trigger(DAG_ID, scenario.run_id, conf={"to": scenario.to})
        return [FollowedRun(self.airflow, self.sandbox, scenario) for scenario in SCENARIOS]

    def tell(self, number: int, followed: FollowedRun) -> Account:
        """Print what happens in a run, until it has ended."""
        scenario = followed.scenario
        self.console.print()
        self.console.print(Rule(Text(f"{number}  {scenario.title}", "bold"), align="left", style="grey50"))
        self.console.print(Text(scenario.story, "grey62"))
        self.console.print()
        seen: dict[str, set[str]] = {}
        with self._waiting(f"run {scenario.run_id}, to {scenario.to}: the scheduler starts a worker for each task"):
            for change in followed.changes():
                states = seen.setdefault(change.task.task_id, set())
                self._tell(change, again="deferred" in states)
                states.add(str(change.task.state))
        account = self._collect(scenario, seen)
        self._show(account)
        return account

    def judge(self, accounts: Sequence[Account]) -> list[str]:
        """Return what is not as it should be, over all runs."""
        wrong = [f"run {one.scenario.run_id}: {text}" for one in accounts for text in one.differences()]
        total, _ = self.sandbox.stored()
        if total != len(accounts):
            wrong.append(f"the sandbox has stored {total} messages in all, not {len(accounts)}")
        if len({one.key for one in accounts}) != len(accounts):
            wrong.append("two runs had the same idempotency key")
        return wrong

    def conclude(self, wrong: Sequence[str]) -> None:
        """The last words."""
        now = time.monotonic()
        took = f"{now - self.begin:.0f} s"
        self.console.print()
        if wrong:
            lines = [Text(f"✗ {text}", "red") for text in wrong]
            lines.append(Text(f"\nLogs: {self.airflow.logs}, {self.sandbox.process.log}"))
            self.console.print(Panel(Group(*lines), title="Failed", border_style="red", box=box.ROUNDED))
            return
        text = Text()
        text.append(f"{len(SCENARIOS)} runs, {len(SCENARIOS)} emails", "bold green")
        starting, running = self.started - self.begin, now - self.started
        text.append(
            f" counted by the sandbox, in {took}: {starting:.0f} s to start Airflow, {running:.0f} s of runs.\n"
        )
        text.append("One logical message is one email, whatever is retried; a wait ends with what the timeline says.\n")
        text.append("Next: the same Dag with your own key (README.md), or ", "grey62")
        text.append("make demo KEEP=1", "bold")
        text.append(" to look around in Airflow's UI and in the inbox of the sandbox.", "grey62")
        self.console.print(Panel(text, border_style="green", box=box.ROUNDED))

    def keep(self) -> None:
        """Leave everything running until Ctrl-C."""
        self.console.print(f"\nAirflow is at {self.airflow.url} (user {USER}, password {self.airflow.password}).")
        self.console.print(f"The inbox of the sandbox is at {self.sandbox.url}/inbox. Ctrl-C ends both.")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.airflow.check()
                time.sleep(1.0)

    def end(self) -> None:
        """End Airflow; the sandbox ends last."""
        with self._waiting(f"stopping Airflow: {GRACE:g} s to stop by itself"):
            self.airflow.stop(grace=GRACE)

    def _collect(self, scenario: Scenario, seen: dict[str, set[str]]) -> Account:
        airflow, run = self.airflow, scenario.run_id
        key = str(airflow.xcom(DAG_ID, run, "send", "idempotency_key") or "")
        count, messages = self.sandbox.stored(idempotency_key=key)
        tasks = {task.task_id: task for task in airflow.tasks(DAG_ID, run)}
        tries = airflow.tries(DAG_ID, run, "send")
        failed = [one for one in tries if one.state != "success"]
        failed += [task for task in tasks.values() if task.task_id != "send" and task.state == "failed"]
        reasons = [
            (one.task_id, one.try_number, reason)
            for one in failed
            if (reason := airflow.exception(DAG_ID, run, one.task_id, one.try_number))
        ]
        return Account(
            scenario=scenario,
            tasks=tasks,
            tries=tries,
            seen=seen,
            key=key,
            reused=bool(airflow.xcom(DAG_ID, run, "send", "reused")),
            messages=messages,
            count=count,
            posts=self.sandbox.sends(key),
            reasons=reasons,
        )

    # What it looks like

    @contextlib.contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        if not self.console.is_terminal:
            self.console.print(Text(f"  … {what}", "grey62"))
            yield
            return
        with self.console.status(Text(f"{what} …", "grey62"), spinner="dots"):
            yield

    def _ready(self, name: str, remark: str) -> None:
        line = Text("  ✓ ", "green")
        line.append(f"{name:<14}", "bold")
        line.append(f"{time.monotonic() - self.begin:5.1f} s  ", "grey62")
        line.append(remark)
        self.console.print(line, soft_wrap=True)

    def _tell(self, change: Change, *, again: bool) -> None:
        task = change.task
        if task.state in _QUIET:
            return
        line = Text(f"  {change.after:5.1f} s  ", "grey62")
        line.append(f"{task.task_id:<6}", "bold")
        line.append(f"{task.state:<14}", _STYLES.get(str(task.state), ""))
        line.append(_remark(task, again=again), "grey62")
        self.console.print(line)

    def _indented(self, text: Text) -> None:
        self.console.print(Padding(text, (0, 0, 0, 2)))

    def _show(self, account: Account) -> None:
        both = Table.grid(padding=(0, 4))
        both.add_row(_task_table(account), _timeline_table(account))
        self.console.print(Padding(both, (1, 0, 1, 2)))
        for task_id, number, reason in account.reasons:
            self._indented(Text.assemble((f"{task_id}, try {number}: ", "bold"), (reason, "red")))
        if account.lost:
            text = f" reached the sandbox: {account.lost} lost their response, the last one got the first one's result."
            self._indented(Text.assemble((f"{len(account.posts)} requests to send", "bold"), text))
        wrong = list(account.differences())
        for text in wrong:
            self._indented(Text(f"✗ {text}", "red"))
        if not wrong:
            self._indented(
                Text.assemble(("✓ ", "green"), (f"{account.count} email stored", "bold green"), f", key {account.key}")
            )


def _remark(task: TaskTry, *, again: bool) -> str:
    number = f"try {task.try_number}"
    return {
        ("send", "running"): f"{number}: a worker loads the Dag and sends",
        ("send", "up_for_retry"): f"{number} got no response: sent or not? Pause: retry_delay, 1 s",
        ("send", "success"): f"{number}; the scheduler starts a worker for wait",
        ("wait", "running"): "back in a worker, with the outcome" if again else _POLLS,
        (
            "wait",
            "deferred",
        ): "the worker is free. Pause: the triggerer looks up its connection",
    }.get((task.task_id, str(task.state)), "")


def _task_table(account: Account) -> Table:
    table = _table("task", "try", "state", "took")
    last = {task_id: task for task_id, task in account.tasks.items() if task_id != "send"}
    for task in [*account.tries, *last.values()]:
        state = Text(str(task.state), _STYLES.get(str(task.state), ""))
        if "deferred" in account.seen.get(task.task_id, ()):
            state.append(", was deferred", "medium_purple1")
        table.add_row(task.task_id, str(task.try_number), state, f"{task.seconds:.1f} s" if task.seconds else "")
    return table


def _timeline_table(account: Account) -> Table:
    table = _table("timeline", "at", "after", "")
    for event in account.events:
        at = datetime.datetime.fromtimestamp(event["at"], datetime.UTC).astimezone()
        after = event["at"] - account.events[0]["at"]
        kind = Text(event["type"], _EVENT_STYLES.get(event["type"], ""))
        table.add_row(kind, f"{at:%H:%M:%S}", f"{after:.1f} s", event.get("reason", ""))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=_UNDERLINED, show_edge=False, padding=(0, 2, 0, 0), border_style="grey50")
    for column in columns:
        right = column in ("took", "after", "try")
        table.add_column(column, justify="right" if right else "left", header_style="grey62")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    :return: 0 if all is as it should be, 1 if not, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="make demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="leave Airflow and the sandbox running until Ctrl-C")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)
    version = importlib.metadata.version("apache-airflow")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    console.print()
    console.print(Text.assemble(("Fluxomail for Apache Airflow", "bold"), f": a demo with a real Airflow {version}"))
    console.print(Text("Everything runs on this machine and in .demo/; no email leaves it.\n", "grey62"))
    try:
        with ExclusiveFolder(HOME) as home:
            record_in(HOME / "processes")
            with Sandbox(HOME / "sandbox", event_delay=EVENT_DELAY) as sandbox:
                return _run(console, home, sandbox, airflow_2=version.startswith("2."), keep=options.keep)
    except KeyboardInterrupt:
        console.print("\nEnded: nothing is left running.")
        return 130
    except FolderInUseError as error:
        console.print(f"Another demo is running: {error}.", soft_wrap=True)
        console.print("Stop it (Ctrl-C where it runs, or kill and the process id), then run this one again.")
        return 1
    except (AirflowError, ProcessError, httpx.HTTPError, OSError) as error:
        console.print(Panel(Text(str(error)), title="The demo could not run", border_style="red", box=box.ROUNDED))
        hint = f"Logs: {HOME}"
        if isinstance(error, OSError):
            hint = f"The demo has to be able to write to {HOME}: remove what another user may have left there."
        console.print(hint, soft_wrap=True)
        return 1


def _run(console: Console, home: ExclusiveFolder, sandbox: Sandbox, *, airflow_2: bool, keep: bool) -> int:
    begin = time.monotonic()
    sandbox.start()
    extra = {"max_attempts": LOST_RESPONSES}
    connection = {"conn_type": "fluxomail", "password": API_KEY, "host": sandbox.url, "extra": extra}
    environment = SETTINGS | {"AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection)}
    runner = AirflowRunner
    if airflow_2:
        # All that it can with SQLite: one task at a time, which is enough here.
        runner, environment["AIRFLOW__CORE__EXECUTOR"] = Airflow2Runner, "SequentialExecutor"
    with runner(HOME / "airflow", dags=[DAG_FILE], environment=environment) as airflow:
        home.say(f"process {os.getpid()}, Airflow at {airflow.url}, the sandbox's inbox at {sandbox.url}/inbox")
        demo = Demo(console, sandbox, airflow, begin=begin)
        demo.start_airflow()
        console.print(f"\nAll {len(SCENARIOS)} runs of the Dag start now; times count from here.")
        accounts = [demo.tell(number, followed) for number, followed in enumerate(demo.begin_runs(), start=1)]
        wrong = demo.judge(accounts)
        demo.conclude(wrong)
        if keep:
            demo.keep()
        demo.end()
    return 1 if wrong else 0


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
