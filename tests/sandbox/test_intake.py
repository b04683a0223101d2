"""What is accepted of requests that are not complete: in bytes, together and in time."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer

from .helpers import BASE, KEY, Api, read_all, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024 * 1024
SEND = "POST /api/v1/emails/send HTTP/1.1\r\nHost: 127.0.0.1\r\n"
ANY_HTTP: pytest.MarkDecorator = pytest.mark.parametrize("http", ["httptools", "h11"])


@contextmanager
def serving(http: Any = "auto", **bounds: int) -> Iterator[SandboxServer]:
    with SandboxServer(http=http, bounds=Bounds(**bounds)) as server:
        yield server


def connect(server: SandboxServer | tuple[str, int]) -> socket.socket:
    address = server.address if isinstance(server, SandboxServer) else server
    return socket.create_connection(address, timeout=10)


def pour(raw: socket.socket, data: bytes, most: int) -> int:
    """Send the same again and again until the server stops reading; return how much it accepted."""
    sent = 0
    try:
        while sent < most:
            raw.sendall(data)
            sent += len(data)
    except OSError:
        pass
    return sent


def status_of(raw: socket.socket) -> int:
    return int(read_all(raw).split(b" ", 2)[1])


def used(server: SandboxServer) -> int:
    assert server._sandbox is not None
    return server._sandbox.intake.used


def test_memory_of_half_sent_requests() -> None:
    """60 bodies without a key, 40 with one and a head without an end, at a sandbox of its own."""
    command = [sys.executable, "-m", "airflow_provider_fluxomail.sandbox", "--port", "0"]
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        stack.callback(process.terminate)
        assert process.stdout is not None
        port = int(process.stdout.readline().strip().rpartition(":")[2])

        def peak() -> int:
            status = Path(f"/proc/{process.pid}/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) * 1024

        before = peak()
        size = 8 * MIB
        for number in range(100):
            raw = stack.enter_context(connect(("127.0.0.1", port)))
            key = f"x-api-key: {KEY}\r\n" if number >= 60 else ""
            raw.sendall(f"{SEND}{key}Content-Length: {size + 1}\r\n\r\n".encode())
            raw.sendall(b"x" * size)
        raw = stack.enter_context(connect(("127.0.0.1", port)))
        raw.sendall(SEND.encode())
        accepted = pour(raw, b"x-more: " + b"x" * 60_000 + b"\r\n", 600 * MIB)
        with Api(f"http://127.0.0.1:{port}") as api:
            assert api.http.get("/_sandbox/health").status_code == 200
        # 128 MiB of bodies and what Python and malloc need for them; 800 MiB were sent.
        assert peak() - before < 200 * MIB
        assert accepted < 20 * MIB


@ANY_HTTP
@pytest.mark.parametrize("many", [True, False], ids=["many", "one"])
def test_headers_without_an_end(http: Any, many: bool) -> None:
    with serving(http, header_bytes=10_000) as server, connect(server) as raw:
        raw.sendall(SEND.encode())
        accepted = pour(raw, b"x-more: 1\r\n" * 1_000 if many else b"x" * 10_000, 600 * MIB)
        # The kernel's buffers on both sides come on top of what the sandbox reads.
        assert accepted < 20 * MIB
        wait_until(lambda: used(server) == 0)
        with Api(server.url) as api:
            assert api.send().status_code == 200


@ANY_HTTP
@pytest.mark.parametrize("rest", ["", "\r\n\r\n"], ids=["incomplete", "at once"])
@pytest.mark.parametrize("line", ["GET /api/v1/sends/{}", "GET /{}", "GET /inbox?q={}", "GET /_sandbox/health"])
def test_headers_that_are_too_long(http: Any, rest: str, line: str) -> None:
    long = "x" * 12_000
    with serving(http, header_bytes=10_000) as server, connect(server) as raw:
        raw.sendall(f"{line.format(long)} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-long: {long}{rest}".encode())
        response = read_all_or_one(raw)
        assert response.startswith(b"HTTP/1.1 431 ")
        assert b"eaders must be at most 10000 bytes" in response
        wait_until(lambda: used(server) == 0)


def read_all_or_one(raw: socket.socket) -> bytes:
    """A response, of a connection that may stay open."""
    received = b""
    while b"\r\n\r\n" not in received or len(received) < received.index(b"\r\n\r\n") + 4 + length(received):
        more = raw.recv(65536)
        assert more, received
        received += more
    return received


def length(received: bytes) -> int:
    head = received.partition(b"\r\n\r\n")[0].lower()
    return int(head.split(b"content-length:")[1].split()[0])


@ANY_HTTP
def test_headers_within_the_bound_in_many_parts(http: Any) -> None:
    with serving(http, header_bytes=10_000) as server, connect(server) as raw:
        for _ in range(3):
            for part in (
                f"{SEND}x-api-key: {KEY}\r\n",
                "x-long: ",
                *["x" * 1_000] * 8,
                "\r\nContent-Length: 2\r\n\r\n{",
                "}",
            ):
                raw.sendall(part.encode())
            assert read_all_or_one(raw).startswith(b"HTTP/1.1 400 ")
        wait_until(lambda: used(server) == 0)


@ANY_HTTP
def test_trailers_without_an_end(http: Any) -> None:
    with serving(http, header_bytes=10_000) as server, connect(server) as raw:
        raw.sendall(f"{SEND}x-api-key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n".encode())
        assert pour(raw, b"x-more: 1\r\n" * 1_000, 600 * MIB) < 20 * MIB
        wait_until(lambda: used(server) == 0)


@ANY_HTTP
def test_a_body_in_tiny_chunks_is_no_head(http: Any) -> None:
    body = json.dumps(BASE).encode()
    with serving(http, header_bytes=300) as server, connect(server) as raw:
        raw.sendall(f"{SEND}x-api-key: {KEY}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for number in range(len(body)):
            raw.sendall(b"000001\r\n" + body[number : number + 1] + b"\r\n")
        raw.sendall(b"0\r\n\r\n")
        assert status_of(raw) == 200


def test_bodies_together() -> None:
    with serving(body_bytes=1 * MIB, in_flight_bytes=2 * MIB) as server, Api(server.url) as api, ExitStack() as stack:
        head = f"{SEND}x-api-key: {KEY}\r\nContent-Length: {MIB - 1_000}\r\nConnection: close\r\n\r\n"
        half = [stack.enter_context(connect(server)) for _ in range(2)]
        for raw in half:
            raw.sendall(head.encode() + b" " * (MIB - 2_000))
        wait_until(lambda: used(server) > 2 * MIB - 5_000)
        response = api.send(content="x" * 10_000)
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert "retry later" in response.json()["message"]
        assert api.post("settings", **{"x" * 9_000: 1}).status_code == 503
        for raw in half:
            raw.sendall(b" " * 1_000)
            assert status_of(raw) == 400
        wait_until(lambda: used(server) == 0)
        assert api.send(content="x" * 10_000).status_code == 200
        wait_until(lambda: used(server) == 0)
        assert [row[1] for row in api.log()] == [400, 400, 503, 200]


def test_heads_count_among_them() -> None:
    with serving(body_bytes=50_000, in_flight_bytes=50_000, header_bytes=20_000) as server, ExitStack() as stack:
        for _ in range(3):
            raw = stack.enter_context(connect(server))
            raw.sendall(SEND.encode() + b"x-long: " + b"x" * 15_000)
        wait_until(lambda: used(server) > 45_000)
        last = stack.enter_context(connect(server))
        last.sendall(SEND.encode() + b"x-long: " + b"x" * 15_000)
        assert status_of(last) == 503


def test_a_client_that_goes_leaves_nothing() -> None:
    with serving() as server:
        with connect(server) as raw, connect(server) as other:
            raw.sendall(f"{SEND}x-api-key: {KEY}\r\nContent-Length: 90000\r\n\r\n".encode() + b"x" * 80_000)
            other.sendall(b"GET /x HTTP/1.1\r\nx-long: " + b"x" * 5_000)
            wait_until(lambda: used(server) > 85_000)
        wait_until(lambda: used(server) == 0)


def test_a_body_without_a_key() -> None:
    with serving(keyless_body_bytes=1_000) as server, Api(server.url) as api:
        api.control("keys", key="token", expires_in=60)
        assert api.send(api_key="token", content="x" * 2_000).status_code == 200
        api.advance(61)
        for key in ("token", "unknown"):
            response = api.send(api_key=key, content="x" * 2_000)
            assert (response.status_code, response.json()["error"]) == (401, "Invalid API key")
        assert api.send(content="x" * 2_000).status_code == 200


@ANY_HTTP
def test_a_request_that_takes_too_long(http: Any, caplog: pytest.LogCaptureFixture) -> None:
    with serving(http, read_seconds=3) as server, Api(server.url) as api, ExitStack() as stack:
        head, silent, body, control = (stack.enter_context(connect(server)) for _ in range(4))
        head.sendall(SEND.encode())
        body.sendall(f"{SEND}x-api-key: {KEY}\r\nContent-Length: 9\r\n\r\n{{".encode())
        control.sendall(b"POST /_sandbox/reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        received = read_all_or_one(body)
        assert received.startswith(b"HTTP/1.1 408 ")
        assert json.loads(received.rpartition(b"\r\n")[2])["code"] == "request_timeout"
        assert read_all_or_one(control).startswith(b"HTTP/1.1 408 ")
        assert status_of(head) == 408
        assert read_all(silent) == b"", "nothing was sent, as by a browser that connects ahead"
        assert [row[1] for row in api.log()] == [408]
        # A request that is complete may take longer.
        api.control("faults", kind="delay", seconds=3.5)
        assert api.send().status_code == 200
        wait_until(lambda: used(server) == 0)
    assert caplog.records == []


def test_a_stream_outlives_the_time_for_its_request() -> None:
    with serving(read_seconds=3) as server, Api(server.url) as api, api.stream() as stream:
        api.control("faults", kind="delay", seconds=3.5)
        send_id = api.quiet()
        assert stream.send_ids(1) == [send_id]
