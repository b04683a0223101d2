"""A ``requests`` session whose responses must begin within the timeout.

The timeout of a socket starts over with each byte, so a server that sends one byte of a header now and then would hold
a worker for days. Here one thread of the process, the watchdog, shuts the socket when the head as a whole is late. (A
thread for each request, as :class:`threading.Timer` is, would cost more than the rest of a send.)
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    import requests


def session(seconds: float) -> requests.Session:
    """Return a session whose requests time out if the head of the response is not complete ``seconds`` after them."""
    import requests

    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, _adapter()(seconds))
    return made


class Deadline:
    """Shuts a socket unless the block of this context manager ends in time.

    :param sock: a socket, or what urllib3 wraps one in.
    :param seconds: from the beginning of the block.
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
        # A head that is cut off looks complete to the HTTP library, so a late one need not have raised an error.
        if self.late:
            raise TimeoutError("the head of the response came too slowly")


class _Watchdog:
    """The thread, which runs only while there are deadlines, and these deadlines."""

    def __init__(self) -> None:
        self._earlier = threading.Condition(threading.Lock())
        self._watched: set[Deadline] = set()
        self._wakes_at = 0.0
        self._running = False

    def add(self, deadline: Deadline) -> None:
        with self._earlier:
            if not self._running:
                # A daemon: a process that ends does not wait for deadlines.
                threading.Thread(target=self._run, name="fluxomail-watchdog", daemon=True).start()
                self._running = True
                self._wakes_at = deadline.ends_at
            elif deadline.ends_at < self._wakes_at:
                # The only case in which a request wakes the thread; never, if all have the same timeout.
                self._wakes_at = deadline.ends_at
                self._earlier.notify()
            self._watched.add(deadline)

    def remove(self, deadline: Deadline) -> None:
        """Return once ``deadline`` can no longer shut its socket: the next request may use it."""
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
    # TLS within the TLS of a proxy is not a socket, but has one.
    while not isinstance(sock, socket.socket):
        sock = sock.socket
    try:
        # The socket below TLS: a TLS shutdown would wait for the other side.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass  # Closed in this moment, by its own timeout or the other side.


_watchdog = _Watchdog()


def _reset_after_fork() -> None:
    """The child of a fork has no watchdog thread, and its lock may be held by a thread that does not exist there."""
    global _watchdog
    _watchdog = _Watchdog()


os.register_at_fork(after_in_child=_reset_after_fork)


@functools.cache
def _adapter() -> Any:
    """Create the adapter's class, once: importing its base classes costs some 100 ms."""
    import urllib3
    from requests.adapters import HTTPAdapter
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Watched:
        sock: socket.socket
        head_seconds: float

        def getresponse(self) -> Any:
            with Deadline(self.sock, self.head_seconds):
                return super().getresponse()  # type: ignore[misc]

    @functools.lru_cache(maxsize=8)
    def pools(seconds: float) -> dict[str, type]:
        def pool(base: Any, connection: type) -> type:
            watched = type(f"Watched{connection.__name__}", (Watched, connection), {"head_seconds": seconds})
            return type(f"Watched{base.__name__}", (base,), {"ConnectionCls": watched})

        return {
            "http": pool(urllib3.HTTPConnectionPool, HTTPConnection),
            "https": pool(urllib3.HTTPSConnectionPool, HTTPSConnection),
        }

    class WatchedAdapter(HTTPAdapter):
        def __init__(self, seconds: float) -> None:
            self._pools = pools(seconds)
            super().__init__()

        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = self._pools

        def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
            manager = super().proxy_manager_for(*args, **kwargs)
            manager.pool_classes_by_scheme = self._pools
            return manager

    return WatchedAdapter
