"""Both transports under one name, and servers that do not respond as Fluxomail does."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.settings import TEST_SERVER_VARIABLE, ClientSettings
from airflow_provider_fluxomail.client.sync import FluxomailClient

Handler = Callable[[socket.socket, bytes], None]


class Transport(Protocol):
    """Calls one method of a client and keeps what it slept."""

    naps: list[float]

    def __call__(self, settings: ClientSettings, method: str, *args: Any, **kwargs: Any) -> Any: ...


class SyncTransport:
    def __init__(self) -> None:
        self.naps: list[float] = []

    def __call__(self, settings: ClientSettings, method: str, *args: Any, **kwargs: Any) -> Any:
        with FluxomailClient(settings, sleep=self.naps.append) as client:
            return getattr(client, method)(*args, **kwargs)


class AsyncTransport:
    def __init__(self) -> None:
        self.naps: list[float] = []

    def __call__(self, settings: ClientSettings, method: str, *args: Any, **kwargs: Any) -> Any:
        async def nap(seconds: float) -> None:
            self.naps.append(seconds)

        async def call() -> Any:
            async with AsyncFluxomailClient(settings, sleep=nap) as client:
                return await getattr(client, method)(*args, **kwargs)

        return asyncio.run(call())


@pytest.fixture(params=[SyncTransport, AsyncTransport], ids=["requests", "httpx"])
def call(request: pytest.FixtureRequest) -> Transport:
    """``call(settings, "send", message, idempotency_key=...)``: every test runs with both transports."""
    transport: Transport = request.param()
    return transport


class RawServer:
    """Sends whatever bytes a test wants, or none, to each connection's first request."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler = handler
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.seen: list[bytes] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                try:
                    if self._tls:
                        connection = self._tls.wrap_socket(connection, server_side=True)
                    request = read_request(connection)
                    if request:
                        self.seen.append(request)
                        self._handler(connection, request)
                except OSError:
                    continue
                finally:
                    connection.close()

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        # A blocked accept() outlives close(); a shutdown wakes it.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(15)
        assert not self._thread.is_alive()


def read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RawServer]]:
    """Start a :class:`RawServer`; it ends with the test. Clients may use it beside the sandbox."""
    servers: list[RawServer] = []

    def start(handler: Handler, tls: ssl.SSLContext | None = None) -> RawServer:
        server = RawServer(handler, tls)
        servers.append(server)
        if test_servers := os.environ.get(TEST_SERVER_VARIABLE):
            monkeypatch.setenv(TEST_SERVER_VARIABLE, f"{test_servers} {server.url}")
        return server

    yield start
    for server in servers:
        server.close()
