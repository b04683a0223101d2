"""The head of a response must come in time, from a server or a proxy, and so must the rest."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import requests

from airflow_provider_fluxomail.client import read_deadline
from tests.support.bad_servers import head
from tests.wire.conftest import Handler, RawServer

#: Seconds. The servers send a part after 0.6 of it.
TIMEOUT = 2.0
Connect = Callable[[Handler], RawServer]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with contextlib.ExitStack() as servers:
        yield lambda handler: servers.enter_context(contextlib.closing(RawServer(handler)))


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with read_deadline.session() as session:
        yield session


def in_parts(*parts: bytes, pauses: Sequence[float] = (0.6,) * 3) -> Handler:
    """Send each part after a pause, as a part of :data:`TIMEOUT`."""

    def send(connection: socket.socket, request: bytes) -> None:
        for part, pause in zip(parts, pauses, strict=False):
            time.sleep(pause * TIMEOUT)  # the server's pace, not a wait of the test
            connection.sendall(part)

    return send


def test_a_head_in_parts_is_late_although_each_part_is_in_time(connect: Connect, session: requests.Session) -> None:
    server = connect(in_parts(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 0\r\n", b"\r\n"))
    with pytest.raises(requests.exceptions.ReadTimeout):
        session.get(server.url, timeout=TIMEOUT)


def test_a_body_has_its_own_timeout_even_if_each_part_is_in_time(connect: Connect, session: requests.Session) -> None:
    assert session.get(connect(in_parts(head(Content_Length=1), b"a")).url, timeout=TIMEOUT).content == b"a"
    with pytest.raises(requests.exceptions.ConnectionError, match="timed out"):
        session.get(connect(in_parts(head(Content_Length=3), b"a", b"b", b"c")).url, timeout=TIMEOUT)


def test_a_head_that_stops_ends_with_the_time_that_is_left(connect: Connect, session: requests.Session) -> None:
    server = connect(in_parts(b"HTTP/1.1 200 OK\r\n", b"", pauses=(0.8, 2.0)))
    began = time.monotonic()
    with pytest.raises(requests.exceptions.ReadTimeout):
        session.get(server.url, timeout=TIMEOUT)
    assert time.monotonic() - began < 1.5 * TIMEOUT


def test_what_a_head_took_is_not_missing_for_the_body(connect: Connect, session: requests.Session) -> None:
    parts = in_parts(b"HTTP/1.1 200 OK\r\n", b"Content-Length: 1\r\n\r\n", b"a", pauses=(0.6, 0.2, 0.7))
    assert session.get(connect(parts).url, timeout=TIMEOUT).content == b"a"


def test_a_proxy_that_opens_a_tunnel_must_be_in_time_too(connect: Connect, session: requests.Session) -> None:
    proxy = connect(in_parts(b"HTTP/1.1 200 Established\r\n", b"X-Proxy: 1\r\n", b"\r\n"))
    with pytest.raises(requests.exceptions.ReadTimeout):
        session.get("https://fluxomail.test", timeout=TIMEOUT, proxies={"https": proxy.url})
    assert proxy.seen[0].startswith(b"CONNECT fluxomail.test:443 ")


def test_a_connection_is_used_again_with_its_whole_timeout(session: requests.Session) -> None:
    """The first head comes late in its time, which must not leave less for the next one."""
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                for body in (b"a", b"b"):
                    connection.recv(65536)
                    in_parts(one, body)(connection, b"")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert [session.get(url, timeout=TIMEOUT).content for _ in range(2)] == [b"a", b"b"]
        thread.join(10)


def test_a_small_request_is_sent_at_once_and_no_large_one_is_copied(
    connect: Connect, session: requests.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces: list[bytes] = []
    send = http.client.HTTPConnection.send

    def record(connection: http.client.HTTPConnection, data: bytes) -> None:
        pieces.append(data)
        send(connection, data)

    monkeypatch.setattr(http.client.HTTPConnection, "send", record)
    server = connect(lambda connection, request: connection.sendall(head(Content_Length=0)))
    large = b"a" * read_deadline.MAX_JOINED_BYTES
    for body in (b"small", large):
        assert session.post(server.url, data=body, timeout=10).status_code == 200
    assert [piece.partition(b"\r\n\r\n")[2] for piece in pieces[:2]] == [b"small", b""]
    assert pieces[2:] == [large]
    assert [request.partition(b"\r\n\r\n")[2] for request in server.seen] == [b"small", large]
