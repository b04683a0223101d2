"""A Redis of its own: in memory, on loopback and a free port."""

from __future__ import annotations

import os
import shutil
import socket
import time
from typing import TYPE_CHECKING, Self

from scripts.testbed.processes import ManagedProcess, ProcessError, free_port

if TYPE_CHECKING:
    from pathlib import Path


class Redis:
    """Starts and stops a server. A context manager: its end ends the server.

    :param folder: for the log.
    :raises ProcessError: Redis is not installed.
    """

    def __init__(self, folder: Path) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ProcessError("Redis is not installed: apt-get install redis-server")
        self._port = free_port()
        # Nothing of it is kept.
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = ManagedProcess(
            "Redis", [program, *options], log=folder.resolve() / "redis.log", environment=os.environ
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    @property
    def url(self) -> str:
        """The address for ``[celery] broker_url``."""
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self, *, timeout: float = 30.0) -> None:
        """Start it and wait until it responds.

        :raises ProcessError: it ended, or ``timeout`` seconds have passed.
        """
        self.process.start()
        deadline = time.monotonic() + timeout
        while not self._responds():
            self.process.check()
            if time.monotonic() > deadline:
                raise ProcessError(f"Redis was not ready within {timeout:g} s; see {self.process.log}")
            time.sleep(0.05)

    def _responds(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
