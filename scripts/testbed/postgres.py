"""A PostgreSQL of its own: a new cluster in a folder, on loopback and a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final, Self

from scripts.testbed.processes import ManagedProcess, ProcessError, free_port

DATABASE: Final = "airflow"
_OWNER: Final = "airflow"
#: The server refuses to run as root.
_SERVICE_USER: Final = "postgres"


class Postgres:
    """Starts and stops a cluster. A context manager: its end ends the server.

    :param folder: for the data and the log; what is in there already is removed.
    :param idle_in_transaction: seconds after which the server ends a session that does nothing in the middle of a
        transaction. A scheduler that was killed may leave one, whose connection its workers have inherited: until they
        end, no other scheduler sees the runs that it holds.
    """

    def __init__(self, folder: Path, *, idle_in_transaction: float | None = None) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._port = free_port()
        self._prefix = ["runuser", "-u", _SERVICE_USER, "--"] if os.geteuid() == 0 else []
        # No durability: nothing of it is kept, and every commit would wait for the disk.
        options = ["-h", "127.0.0.1", "-p", str(self._port)]
        options += ["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"]
        options += ["-c", "max_connections=200", "-c", "unix_socket_directories="]
        if idle_in_transaction is not None:
            options += ["-c", f"idle_in_transaction_session_timeout={idle_in_transaction * 1000:.0f}"]
        self.process = ManagedProcess(
            "PostgreSQL",
            [*self._prefix, _program("postgres"), "-D", str(self._data), *options],
            log=self._folder / "postgres.log",
            environment=os.environ,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    @property
    def url(self) -> str:
        """The address for Airflow's ``[database] sql_alchemy_conn``."""
        return f"postgresql+psycopg2://{_OWNER}@127.0.0.1:{self._port}/{DATABASE}"

    def start(self, *, timeout: float = 60.0) -> None:
        """Make the cluster and the database, and wait until it takes connections.

        :raises ProcessError: it ended, or ``timeout`` seconds have passed.
        """
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        if self._prefix:
            shutil.chown(self._folder, _SERVICE_USER)
        self._run("initdb", "-D", str(self._data), "-U", _OWNER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.process.start()
        address = ["-h", "127.0.0.1", "-p", str(self._port), "-U", _OWNER]
        deadline = time.monotonic() + timeout
        while subprocess.run([_program("pg_isready"), "-q", *address], check=False).returncode:
            self.process.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"PostgreSQL was not ready within {timeout:g} s; see {self.process.log}")
            time.sleep(0.1)
        self._run("createdb", *address, DATABASE)

    def _run(self, name: str, *arguments: str) -> None:
        command = [*self._prefix, _program(name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder)
        if done.returncode:
            raise ProcessError(f"{name} failed:\n{done.stdout}{done.stderr}")


def _program(name: str) -> str:
    """Return the path of one of the server's programs, which Debian keeps off ``PATH``.

    :raises ProcessError: there is none. The client's library alone brings ``pg_config``, too.
    """
    folders = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    if config := shutil.which("pg_config"):
        told = subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True)
        folders.append(Path(told.stdout.strip()))
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / name).exists():
            return str(folder / name)
    raise ProcessError("PostgreSQL's server is not installed: on Debian, apt-get install postgresql")
