"""What ``make demo`` does to be alone, to leave nothing running, and to stay on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import httpx
import psutil  # type: ignore[import-untyped]
import pytest

from scripts import demo
from scripts.demo_scenarios import SCENARIOS
from scripts.testbed import processes
from scripts.testbed.airflow2_runner import last_exception
from scripts.testbed.airflow_runner import AirflowError, Change, TaskTry
from scripts.testbed.exclusive import ExclusiveFolder, FolderInUseError
from scripts.testbed.processes import ManagedProcess, loopback_environment, record_in
from scripts.testbed.sandbox import API_KEY, SEND_PATH, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

PROXIES = ("ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "FTP_PROXY", "Ws_Proxy")
HOLD = """
import sys, time
from pathlib import Path
from scripts.testbed.exclusive import ExclusiveFolder
with ExclusiveFolder(Path(sys.argv[1])) as folder:
    folder.say("the first one")
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_record", None)


def test_the_sandbox_works_whatever_proxies_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "socks5h://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("PROXYLESS", "kept")
    kept = loopback_environment()
    assert {name: kept[name] for name in kept if "proxy" in name.lower()} == {
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PROXYLESS": "kept",
    }
    with Sandbox(tmp_path, event_delay=1) as sandbox:
        sandbox.start()
        assert sandbox.stored() == (0, [])
        assert sandbox.process.pid
        assert "ALL_PROXY" not in psutil.Process(sandbox.process.pid).environ()


class _Runs:
    """In place of an Airflow: one run, whose wait is deferred and then fails to end."""

    def follow(self, dag_id: str, run_id: str, *, timeout: float) -> Iterator[Change]:
        for state in ("running", "deferred", "deferred"):
            yield Change(0.0, TaskTry("wait", 1, state, None, None))
        raise AirflowError("the triggerer ended")


def test_a_run_that_is_followed_delivers_once_and_reports_an_airflow_that_broke(tmp_path: Path) -> None:
    scenario = SCENARIOS[0]
    message = {"to": scenario.to, "subject": "Hi", "content": "Text", "idempotencyKey": "one"}
    with Sandbox(tmp_path, event_delay=0) as sandbox:
        sandbox.start()
        headers = {"Authorization": f"Bearer {API_KEY}"}
        httpx.post(sandbox.url + SEND_PATH, json=message, headers=headers, trust_env=False).raise_for_status()
        followed = demo.FollowedRun(cast("Any", _Runs()), sandbox, scenario)
        changes = followed.changes()
        assert [next(changes).task.state for _ in range(3)] == ["running", "deferred", "deferred"]
        with pytest.raises(AirflowError, match="the triggerer ended"):
            next(changes)
        (stored,) = sandbox.stored(to=scenario.to)[1]
    assert [event["type"] for event in stored["events"]] == ["sent", "delivered"]


@contextlib.contextmanager
def held(folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def test_a_second_demo_names_the_first_and_touches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "HOME", tmp_path)
    (tmp_path / "airflow").mkdir()
    with held(tmp_path) as other:
        assert demo.main([]) == 1
        with pytest.raises(FolderInUseError, match="the first one"), ExclusiveFolder(tmp_path):
            pytest.fail("both have it")
    assert "Another demo is running: the first one." in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["airflow", "lock"]
    assert other.returncode == -signal.SIGKILL
    with ExclusiveFolder(tmp_path) as folder:
        folder.say("long" * 100)
        folder.say("short")
        assert (tmp_path / "lock").read_text() == "short", "what a killed program said is gone"
    monkeypatch.setattr(demo, "HOME", tmp_path / "lock")
    assert demo.main([]) == 1
    said = capsys.readouterr().out.replace("\n", "")
    assert "The demo could not run" in said
    assert f"has to be able to write to {tmp_path}" in said


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ManagedProcess]:
    """A process with a child in a process group of its own, as Airflow's tasks are."""
    child = "import subprocess, sys, time; subprocess.Popen(['sleep', '600'], process_group=0); time.sleep(600)"
    process = ManagedProcess("sleeper", [sys.executable, "-c", child], log=tmp_path / "log", environment=os.environ)
    yield process
    process.stop(grace=0)


def test_the_next_demo_stops_what_a_killed_one_left(tmp_path: Path, sleeper: ManagedProcess) -> None:
    record = tmp_path / "processes"
    record_in(record)
    sleeper.start()
    assert sleeper.pid
    deadline = time.monotonic() + 30
    while len(processes._session_pids(sleeper.pid)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    left = processes._session_pids(sleeper.pid)
    record_in(record)
    assert [pid for pid in left if psutil.pid_exists(pid) and processes._is_alive(pid)] == []
    assert record.read_text() == ""


def test_a_process_that_has_the_id_now_is_left_alone(tmp_path: Path, sleeper: ManagedProcess) -> None:
    record = tmp_path / "processes"
    sleeper.start()
    assert sleeper.pid
    created = psutil.Process(sleeper.pid).create_time()
    record.write_text(f"{sleeper.pid} {created - 3600}\n{2**22 + 1} {created}\n")
    record_in(record)
    assert sleeper.running


TWO_EXCEPTIONS = """Traceback (most recent call last):
  File "x.py", line 1
ValueError: first

During handling of the above exception, another exception occurred:

  File "y.py", line 2
package.errors.NoResponse: no response from 127.0.0.1:80: closed
[2026-11-27T01:16:45.005+0000] {x.py:1} INFO - Done: 1
"""


def test_the_last_exception_of_airflow_2s_logs() -> None:
    assert last_exception("[2026-11-27] {x.py:1} INFO - Done: 1\n") is None
    assert last_exception(TWO_EXCEPTIONS) == "no response from 127.0.0.1:80: closed"
