"""Child processes that leave nothing behind: each in a session of its own, ended as a whole."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_GRACE_SECONDS: Final = 10.0
#: A killed process lives until the kernel has taken its memory.
_DEATH_SECONDS: Final = 30.0
_SHOWN_LINES: Final = 15
_STARTED: Final[list[ManagedProcess]] = []
_LEFT_GRACE_SECONDS: Final = 4.0
_CLOCK_SECONDS: Final = 5.0
_LOOPBACK: Final = "127.0.0.1,localhost"
_record: Path | None = None


class ProcessError(Exception):
    """A process ended by itself or was not ready in time. The message ends with what it printed last."""


class ManagedProcess:
    """A process whose output goes to a file, and which ends together with all that it has started.

    It leads a session. Airflow puts every task into a process group of its own, so ending the group would leave
    running tasks behind; the session holds them too.

    :param name: what messages call it.
    :param command: program and arguments.
    :param log: the file for its output; a restart appends to it.
    :param environment: the whole environment.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The leader's process id, ``None`` when it was not started."""
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        """Whether the leader runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """What it ended with, ``None`` while it runs."""
        return self._process.poll() if self._process else None

    @property
    def alive(self) -> bool:
        """Whether anything of it runs, the leader or what it has started."""
        return bool(self._session())

    def start(self) -> None:
        """Start it; the end of this program ends it too."""
        if self.running:
            raise ProcessError(f"{self.name} runs already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        _STARTED.append(self)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
            )
        if _record is not None:
            with _record.open("a") as lines:
                lines.write(f"{self._process.pid} {_created(self._process.pid)!r}\n")

    def check(self) -> None:
        """Raise if it ended.

        :raises ProcessError: it did, with the end of its log.
        """
        if not self.running:
            raise ProcessError(
                f"{self.name} ended (exit code {self.exit_code}); {self.log} ends with:\n{self.last_lines()}"
            )

    def last_lines(self) -> str:
        """What it printed last."""
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]) or "(nothing)"

    def wait_for_line(self, start: str, *, timeout: float) -> str:
        """Wait until it has printed a line that begins with ``start``, and return the rest of that line.

        :raises ProcessError: it ended, or ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            for line in self.log.read_text(errors="replace").splitlines():
                if line.startswith(start):
                    return line.removeprefix(start).strip()
            self.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} was not ready within {timeout:g} s; see {self.log}")
            time.sleep(0.05)

    def stop(self, *, grace: float = _GRACE_SECONDS) -> None:
        """End it and everything in its session: asked first, forced after ``grace`` seconds."""
        stop_all([self], grace=grace)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to everything in its session, with no grace; wait for the end if it is ``SIGKILL``.

        :raises ProcessError: something of it has survived :data:`signal.SIGKILL` for long.
        """
        deadline = time.monotonic() + _DEATH_SECONDS
        while pids := self._session():
            for pid in pids:
                _send(pid, number)
            if number != signal.SIGKILL:
                return
            if time.monotonic() > deadline:
                raise ProcessError(f"{self.name} did not die within {_DEATH_SECONDS:g} s")
            # Repeated: a process that was being forked is not in the list.
            time.sleep(0.01)
        if self._process is not None and number == signal.SIGKILL:
            self._process.wait()

    def _session(self) -> list[int]:
        if self._process is None:
            return []
        # Reaps the leader if it has ended; its id stays taken as long as anything in its session lives.
        self._process.poll()
        return _session_pids(self._process.pid)


def stop_all(processes: Iterable[ManagedProcess], *, grace: float = _GRACE_SECONDS) -> None:
    """End several at once, which takes no longer than the slowest."""
    left = [process for process in processes if process.pid is not None]
    for process in left:
        process.kill(signal.SIGTERM)
    deadline = time.monotonic() + grace
    while left and time.monotonic() < deadline:
        left = [process for process in left if process.alive]
        time.sleep(0.05)
    for process in left:
        process.kill()


def loopback_environment() -> dict[str, str]:
    """This program's environment for processes that only talk to each other on this machine: without its proxies.

    ``NO_PROXY`` alone is not enough: httpx refuses to start with a SOCKS proxy that it lacks a package for, whether or
    not it would use it.
    """
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return kept | {"NO_PROXY": _LOOPBACK, "no_proxy": _LOOPBACK}


def record_in(file: Path) -> None:
    """Stop what an earlier, killed program has left running, and record in its place what this program starts.

    :param file: one line for each process that leads a session: its id and when it was created.
    """
    global _record
    if file.exists():
        for line in file.read_text().splitlines():
            pid, _, created = line.partition(" ")
            # The id may be another process's by now; the time moves a little when the machine's clock is set.
            if abs(_created(int(pid)) - float(created)) < _CLOCK_SECONDS:
                _end_session(int(pid))
    file.write_text("")
    _record = file


def _end_session(leader: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _session_pids(leader):
            _send(pid, number)
        deadline = time.monotonic() + _LEFT_GRACE_SECONDS
        while _session_pids(leader) and time.monotonic() < deadline:
            time.sleep(0.05)


def _created(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def free_port() -> int:
    """Return a TCP port of the loopback address that no process uses.

    Not one of those that the system gives to connections: one of them could take it before the server is up.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def _session_pids(leader: int) -> list[int]:
    return [pid for pid in psutil.pids() if _session_of(pid) == leader and _is_alive(pid)]


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def _is_alive(pid: int) -> bool:
    # Where no process collects orphans, as in many containers, the ended ones stay listed.
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@atexit.register
def _end_what_is_left() -> None:
    """The last resort, say after an impatient second Ctrl-C; a third one must not stop this."""
    if left := [process for process in _STARTED if process.alive]:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stop_all(left, grace=2.0)
