"""A ``requests`` session whose responses are bounded in time and size, from their first byte to their last.

It leaves out what requests does again for each request, which takes a third of the time of a send.

The timeout of a socket starts over with each byte, so a server that sends one byte of a header or a trailer now and
then would hold a worker for days. Here the timeout limits all reads of a response's head together, and all
reads of its body together.

Importing this module imports requests, which takes some 100 ms.
"""

from __future__ import annotations

import functools
import http.client
import http.cookiejar
import io
import socket
import ssl
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HeaderParsingError
from urllib3.util.response import assert_header_parsing

from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.proxies import Proxy
from airflow_provider_fluxomail.client.wire import MAX_RESPONSE_BYTES

#: Largest head of a response, interim responses included. As in httpcore.
MAX_HEAD_BYTES: Final = 100 * 1024
#: Largest request that is copied to be sent at once.
MAX_JOINED_BYTES: Final = 64 * 1024


class ResponseTooLargeError(Exception):
    """The head of a response, or the rest of it, is larger than allowed."""


def session(proxy: Proxy | None = None) -> requests.Session:
    """Return a session whose requests fail if the response is too large, or not complete in time.

    It reads no environment, keeps no cookies, and treats a redirect as any other response.
    """
    made = _Session()
    # requests would read the environment's proxy for each request, which takes a tenth of the time of a send, and would
    # prefer an entry of ~/.netrc to the API key.
    made.trust_env = False
    made.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=()))
    adapter = _Adapter()
    if proxy:
        made.proxies, adapter.own_headers = {"all": proxy.url}, proxy.headers
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    return made


def prepared(method: str, url: str, headers: dict[str, str], content: bytes | None) -> requests.PreparedRequest:
    """Return a request for :func:`session`, as ``requests.Request(...).prepare()`` does, in a tenth of the time."""
    request = requests.PreparedRequest()
    request.method, request.url, request.body = method, _prepared_url(url), content
    request.headers = CaseInsensitiveDict(headers)
    if content is not None:
        request.headers["Content-Length"] = str(len(content))
    return request


@functools.lru_cache(maxsize=64)
def _prepared_url(url: str) -> str | None:
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return no target: requests reads the whole body of a redirect, even if it may not follow it."""


class _SocketReader(io.RawIOBase):
    """Reads a response from a socket: its head, then its body, each with one deadline and a maximum size.

    :param raw: reads from ``sock``.
    :param sock: a socket, or what urllib3 wraps one in; has its timeout.
    """

    def __init__(self, raw: io.RawIOBase, sock: Any) -> None:
        self._raw = raw
        self._sock = sock
        self._seconds: float = sock.gettimeout()
        self.allow(MAX_HEAD_BYTES)

    def allow(self, size: int) -> None:
        """Allow ``size`` more bytes, within the timeout."""
        self._left = size
        self._ends_at = time.monotonic() + self._seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        seconds = self._ends_at - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the response came too slowly")
        seconds = min(seconds, self._seconds)
        # Each change is a system call, which the first read of a head and of a body seldom needs.
        if abs(self._sock.gettimeout() - seconds) > 0.01 * seconds:
            self._sock.settimeout(seconds)
        count = self._raw.readinto(buffer) or 0
        self._left -= count
        if self._left < 0:
            raise ResponseTooLargeError
        return count

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
        lengths = ",".join(self.headers.get_all("Content-Length", ())).replace(" ", "")
        if len(set(lengths.split(","))) > 1:
            # Here, because urllib3 raises an error that leaves the connection open.
            raise http.client.HTTPException("the response has several lengths")
        try:
            assert_header_parsing(self.headers)
        except HeaderParsingError:
            # urllib3 only logs a warning that quotes the lines, and ignores the headers after them.
            raise http.client.HTTPException("the response has lines that are no headers") from None
        self._reader.allow(MAX_RESPONSE_BYTES)

    def _read_status(self) -> tuple[str, int, str]:
        """Read a status line, that of an interim response such as 103 as 100 Continue: http.client skips no other."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, http.client.CONTINUE if 101 < status < 200 else status, reason


class _HTTPConnection(HTTPConnection):
    response_class = _Response
    _was_connected = False
    _held: list[bytes] | None = None

    @private
    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a head and a small body at once: two packets cost both sides more than the request itself."""
        parts: list[bytes] = []
        self._held = parts
        try:
            super().request(*args, **kwargs)
        finally:
            self._held = None
        for part in [b"".join(parts)] if sum(len(part) for part in parts) <= MAX_JOINED_BYTES else parts:
            self.send(part)

    @private
    def send(self, data: Any) -> None:
        if self._held is None:
            super().send(data)
        else:
            self._held.append(data)

    def connect(self) -> None:
        self._was_connected = False
        super().connect()
        self._was_connected = True

    @property
    def has_connected_to_proxy(self) -> bool:
        """Whether a proxy was reached. urllib3 forgets it when the connection closes: a request whose response does not
        come would count as one that the proxy never got, and the message as not sent.
        """
        return self._was_connected or super().has_connected_to_proxy

    @property
    def is_connected(self) -> bool:
        """Whether the connection can be used again: not if TLS has received more than the response, which does not show
        on the socket. TLS within that of a proxy does not tell.
        """
        known = isinstance(self.sock, socket.socket)
        more = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0
        return known and not more and super().is_connected


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    pass


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


_POOLS: Final = {"http": _HTTPPool, "https": _HTTPSPool}


class _Adapter(HTTPAdapter):
    own_headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()
        self._pools: dict[object, Any] = {}

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """Return the pool of a server. requests finds it with the whole URL, and checks the certificates each time."""
        key = (*urlsplit(request.url)[:2], verify, *(proxies or {}).items())
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = super().get_connection_with_tls_context(request, verify, proxies, cert)
        return pool

    def close(self) -> None:
        self._pools.clear()
        super().close()

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        return dict(self.own_headers)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
