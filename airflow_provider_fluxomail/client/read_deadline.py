"""A ``requests`` session whose responses must begin within the timeout.

The timeout of a socket starts over with each byte, so a server that sends one byte of a header now and then would hold
a worker for days. Here all reads of a response's head together take no longer than one of them may.

Importing this module imports requests, which takes some 100 ms.
"""

from __future__ import annotations

import http.client
import io
import math
import time
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection


def session() -> requests.Session:
    """Return a session whose requests time out if the head of the response is not complete in time."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter())
    return made


class _SocketReader(io.RawIOBase):
    """Reads from a socket: with one deadline for all reads, until it is lifted.

    :param raw: what reads from ``sock``.
    :param sock: a socket, or what urllib3 wraps one in; has its timeout.
    """

    def __init__(self, raw: io.RawIOBase, sock: Any) -> None:
        self._raw = raw
        self._sock = sock
        self._seconds: float = sock.gettimeout()
        self._ends_at = time.monotonic() + self._seconds

    def lift_deadline(self) -> None:
        self._ends_at = math.inf

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise TimeoutError("the head of the response came too slowly")
        self._sock.settimeout(min(left, self._seconds))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self._reader = _SocketReader(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._reader)

    def begin(self) -> None:
        super().begin()
        self._reader.lift_deadline()


class _HTTPConnection(HTTPConnection):
    response_class = _Response


class _HTTPSConnection(HTTPSConnection):
    response_class = _Response


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS: Final = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
