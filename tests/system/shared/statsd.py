"""A StatsD of our own: it keeps what is sent to it."""

from __future__ import annotations

import socket
import threading
from typing import Final, Self

#: All that a few minutes of an Airflow say fits, should the thread not be run for a while.
_BUFFER: Final = 4 * 1024 * 1024


class Statsd:
    """Listens on loopback. A context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind(("127.0.0.1", 0))
        # So that the thread sees that it is to end.
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._listen)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    @property
    def environment(self) -> dict[str, str]:
        """What makes an Airflow send its metrics here."""
        host, port = self._socket.getsockname()
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
            # Airflow's own would fill the buffer of a system that allows but a small one.
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "fluxomail",
        }

    def values(self, name: str, kind: str) -> list[float]:
        """What was sent of a metric so far.

        :param name: with Airflow's prefix.
        :param kind: as StatsD writes it: ``c``, ``g`` or ``ms``.
        """
        found = []
        for line in list(self._lines):
            told, _, value = line.partition(":")
            if told == name and value.endswith(f"|{kind}"):
                found.append(float(value.removesuffix(f"|{kind}")))
        return found

    def names(self, prefix: str) -> set[str]:
        """The metrics whose names begin so."""
        return {name for name, _, _ in (line.partition(":") for line in list(self._lines)) if name.startswith(prefix)}

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                datagram = self._socket.recv(65536)
            except TimeoutError:
                continue
            self._lines.extend(datagram.decode().splitlines())
