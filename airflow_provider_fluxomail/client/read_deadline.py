"""A ``requests`` session whose answers must have begun within the time-out.

The time-out of a socket counts from each byte anew, so a server that sends one byte of a header now and then would hold
a worker for days. Here a watchdog shuts the socket once the head as a whole is late.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.client.watchdog import Deadline

if TYPE_CHECKING:
    import socket

    import requests


def session(seconds: float) -> requests.Session:
    """Return a session whose answers' heads arrive within ``seconds`` after the request is out, or time out."""
    import requests

    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, _adapter()(seconds))
    return made


@functools.cache
def _adapter() -> Any:
    """Make the adapter's class, once: importing what it derives from costs a Dag parse some 100 ms."""
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
        def watched(connection: type) -> type:
            return type(f"Watched{connection.__name__}", (Watched, connection), {"head_seconds": seconds})

        def pool(base: Any, connection: type) -> type:
            return type(f"Watched{base.__name__}", (base,), {"ConnectionCls": watched(connection)})

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
