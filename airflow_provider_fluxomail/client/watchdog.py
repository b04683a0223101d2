"""Shuts a socket that is not done within its time: one thread for all requests of a process.

A thread for each request, as :class:`threading.Timer` is, would cost more than the rest of a send.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType


class Deadline:
    """Shuts a socket, unless the block of this context manager ends in time.

    :param sock: a socket, or what urllib3 puts around one.
    :param seconds: from when the block begins.
    :raises TimeoutError: at the end of the block, if it was late.
    """

    __slots__ = ("_seconds", "ends_at", "late", "sock")

    def __init__(self, sock: Any, seconds: float) -> None:
        self.sock = sock
        self.late = False
        self.ends_at = 0.0
        self._seconds = seconds

    def __enter__(self) -> None:
        self.ends_at = time.monotonic() + self._seconds
        _watchdog.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _watchdog.remove(self)
        # Half a head that ends counts as a whole one, so it does not take an error to be late.
        if self.late:
            raise TimeoutError("the head of the answer came too slowly")


class _Watchdog:
    """The thread, which is there only while it has something to wait for, and what it watches."""

    def __init__(self) -> None:
        self._earlier = threading.Condition(threading.Lock())
        self._watched: set[Deadline] = set()
        self._wakes_at = 0.0
        self._running = False

    def add(self, deadline: Deadline) -> None:
        with self._earlier:
            if not self._running:
                # A daemon: a process that ends does not wait for the deadlines of answers that nobody awaits.
                threading.Thread(target=self._run, name="fluxomail-watchdog", daemon=True).start()
                self._running = True
                self._wakes_at = deadline.ends_at
            elif deadline.ends_at < self._wakes_at:
                # The only time that a request wakes the thread: with one time-out for all, never.
                self._wakes_at = deadline.ends_at
                self._earlier.notify()
            self._watched.add(deadline)

    def remove(self, deadline: Deadline) -> None:
        """Return when ``deadline`` cannot shut its socket any more: the next request may use it."""
        with self._earlier:
            self._watched.discard(deadline)

    def _run(self) -> None:
        with self._earlier:
            while self._watched:
                now = time.monotonic()
                for deadline in [deadline for deadline in self._watched if deadline.ends_at <= now]:
                    deadline.late = True
                    self._watched.remove(deadline)
                    _shut(deadline.sock)
                if self._watched:
                    self._wakes_at = min(deadline.ends_at for deadline in self._watched)
                    self._earlier.wait(self._wakes_at - now)
            self._running = False


def _shut(sock: Any) -> None:
    # TLS within the TLS of a proxy is no socket, but has one.
    while not isinstance(sock, socket.socket):
        sock = sock.socket
    try:
        # The socket below TLS: a TLS shutdown would wait for the other side.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # Closed in this moment: its own time-out, or the other side, was as quick.


_watchdog = _Watchdog()


def _start_anew() -> None:
    """In the child of a fork there is no thread, and the lock may be held by one that is not there."""
    global _watchdog
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_start_anew)
