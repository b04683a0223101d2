"""What ``make installs`` runs in an environment that has Airflow and the wheel, outside of the checkout.

Imports every module, asks Airflow for the provider, runs each example Dag with ``airflow dags test`` against a sandbox
and counts its messages, and lets a sensor defer to a running triggerer.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import pkgutil
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import airflow_provider_fluxomail
from scripts.testbed.airflow2_runner import Airflow2Runner
from scripts.testbed.airflow_runner import AirflowRunner
from scripts.testbed.sandbox import API_KEY, Sandbox

PACKAGE: Final = Path(airflow_provider_fluxomail.__file__).parent
PROVIDER: Final = "airflow-provider-fluxomail"
AIRFLOW: Final = tuple(int(number) for number in importlib.metadata.version("apache-airflow").split(".")[:3])


@dataclasses.dataclass(frozen=True)
class Example:
    """An example Dag, and what running it must come to.

    :param stored: messages by recipient.
    :param fails: the run is meant to fail.
    """

    name: str
    stored: dict[str, int]
    conf: dict[str, Any] = dataclasses.field(default_factory=dict)
    fails: bool = False


def main() -> None:
    """Do it all; the first thing that is wrong ends the program."""
    import_all()
    folder = Path.cwd()
    connection = {"conn_type": "fluxomail", "password": API_KEY}
    with Sandbox(folder, event_delay=1.0) as sandbox:
        sandbox.start()
        environment = {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": json.dumps(connection | {"host": sandbox.url}),
            "AIRFLOW__EMAIL__EMAIL_BACKEND": "airflow_provider_fluxomail.email_backend.send_email",
        }
        runner = AirflowRunner if AIRFLOW >= (3, 0) else Airflow2Runner
        if runner is Airflow2Runner:
            # All that it can with SQLite: one task at a time.
            environment["AIRFLOW__CORE__EXECUTOR"] = "SequentialExecutor"
        wait = PACKAGE / "example_dags" / "fluxomail_send_and_wait.py"
        with runner(folder / "airflow", dags=[wait], environment=environment) as airflow:
            airflow.prepare()
            provider_commands(airflow)
            examples(airflow)
            defer(airflow, sandbox)


def import_all() -> None:
    """Import every module of the wheel; without pytest, all but its plugin."""
    assert PACKAGE.is_relative_to(sys.prefix), f"{PACKAGE} is not in {sys.prefix}: that is the checkout, not the wheel"
    count = 0
    for module in pkgutil.walk_packages([str(PACKAGE)], f"{PACKAGE.name}."):
        name = module.name.removeprefix(f"{PACKAGE.name}.")
        if name == "sandbox.__main__" or name.startswith("example_dags"):
            continue
        if name == "sandbox.testing.plugin" and importlib.util.find_spec("pytest") is None:
            continue
        importlib.import_module(module.name)
        count += 1
    print(f"  {count} modules imported", flush=True)


def provider_commands(airflow: AirflowRunner) -> None:
    """Ask Airflow's command line for what the provider brings."""
    wanted = {
        ("providers", "get", PROVIDER): PROVIDER,
        ("providers", "hooks"): f"{PACKAGE.name}.hooks.FluxomailHook",
        ("providers", "notifications"): f"{PACKAGE.name}.notifications.FluxomailNotifier",
        ("providers", "configs"): "fluxomail",
    }
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        outputs = pool.map(lambda arguments: command(airflow, *arguments, "--output", "json"), wanted)
    for (arguments, text), output in zip(wanted.items(), outputs, strict=True):
        assert text in output, f"airflow {' '.join(arguments)} does not name {text}:\n{output}"
    print(f"  {len(wanted)} provider commands", flush=True)


def examples(airflow: AirflowRunner) -> None:
    """Run the example Dags with ``airflow dags test``, each in a home of its own with a sandbox of its own."""
    # Airflow 3.2.0 to 3.3.0 know no email backend for failing tasks; this Dag's tasks send their own.
    cases = [
        Example("fluxomail_send_and_wait", {"ops@example.org": 1}),
        Example("fluxomail_send_options", {"ops@example.org": 3, "ada@example.org": 1}),
        Example("fluxomail_send_to_many", {"ada@example.org": 1, "bob@example.org": 1}),
        Example("fluxomail_taskflow", {"ops@example.org": 2, "ada@example.org": 2, "bob@example.org": 2}),
        Example("fluxomail_send_batch", {"ada@example.org": 2, "bob@example.org": 2}),
        Example(
            "fluxomail_alerts",
            {"ops@example.org": 2, "dba@example.org": 2, "lead@example.org": 1, "data-team@example.org": 1},
            {"fail": True},
            fails=True,
        ),
        Example("fluxomail_email_backend", {"ops@example.org": 1, "data-team@example.org": 1}, {"rows": 20}),
        Example("fluxomail_send_by_hand", {"ada@example.org": 1, "bob@example.org": 1}),
    ]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda case: example(airflow, case), cases))


def example(airflow: AirflowRunner, case: Example) -> None:
    """Run one example and count."""
    began = time.monotonic()
    home = airflow.home.parent / case.name
    home.mkdir()
    shutil.copytree(PACKAGE / "example_dags" / "templates", home / "dags" / "templates")
    shutil.copy(PACKAGE / "example_dags" / f"{case.name}.py", home / "dags")
    shutil.copy(airflow.home / "airflow.db", home)
    with Sandbox(home, event_delay=1.0) as sandbox:
        sandbox.start()
        connection = {"conn_type": "fluxomail", "password": API_KEY, "host": sandbox.url}
        output = command(
            airflow, "dags", "test", "--conf", json.dumps(case.conf), case.name,
            AIRFLOW_HOME=str(home),
            AIRFLOW__CORE__DAGS_FOLDER=str(home / "dags"),
            AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{home}/airflow.db",
            AIRFLOW_CONN_FLUXOMAIL_DEFAULT=json.dumps(connection),
            may_fail=case.fails,
        )  # fmt: skip
        _, messages = sandbox.stored(limit="1000")
    stored: dict[str, int] = {}
    for message in messages:
        recipient = message["to"].rpartition("<")[2].rstrip(">")
        stored[recipient] = stored.get(recipient, 0) + 1
    assert stored == case.stored, f"{case.name}: {stored} instead of {case.stored}:\n{output[-8000:]}"
    assert ("state=failed" in output or "state:failed" in output) == case.fails, f"{case.name}:\n{output[-8000:]}"
    print(f"  {case.name}: {len(messages)} messages, {time.monotonic() - began:.0f} s", flush=True)


def defer(airflow: AirflowRunner, sandbox: Sandbox) -> None:
    """Let the sensor defer, deliver only then, and see it end on the running triggerer."""
    dag, run = "fluxomail_send_and_wait", "deferred"
    began = time.monotonic()
    sandbox.control("POST", "settings", json={"default_outcome": "never"})
    airflow.start()
    airflow.wait_until_healthy()
    airflow.wait_for_dag(dag)
    airflow.trigger(dag, run)
    states: list[str | None] = []
    for change in airflow.follow(dag, run, timeout=240.0):
        if change.task.task_id == "wait":
            states.append(change.task.state)
            if change.task.state == "deferred":
                _, (message,) = sandbox.stored()
                sandbox.control("POST", f"messages/{message['send_id']}/events", json={"type": "delivered"})
    assert "deferred" in states, f"the sensor was never deferred: {states}"
    assert states[-1] == "success", f"the sensor ended as {states[-1]}: {states}"
    assert sandbox.stored()[0] == 1
    print(f"  deferred and ended on a running triggerer: {time.monotonic() - began:.0f} s", flush=True)


def command(airflow: AirflowRunner, *arguments: str, may_fail: bool = False, **environment: str) -> str:
    """Run an Airflow command, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=airflow.environment | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode and not may_fail:
        raise SystemExit(f"airflow {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-8000:]}")
    return done.stdout


if __name__ == "__main__":
    os.environ["COLUMNS"] = "300"
    # Importing Airflow sets the level of all loggers.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    main()
