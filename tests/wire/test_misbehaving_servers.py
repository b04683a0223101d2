"""A table of misbehaviour, over both transports, sending and reading: bounded in time and memory, and a typed error."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import re
import socket
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import httpx  # noqa: F401 - or the first row would pay for it
import pytest
import requests  # noqa: F401

from airflow_provider_fluxomail.client.errors import FluxomailError
from tests.support.bad_servers import MESSAGE, Serve, answers, settings
from tests.wire.conftest import Handler, Transport

GOOD = b'{"sendId": "s1", "events": []}'
CHUNKED = b"Transfer-Encoding: chunked"
OK, RESPONSE, CONNECTION, SERVER = "", "FluxomailResponseError", "FluxomailConnectionError", "FluxomailServerError"
EITHER = f"{RESPONSE}|{CONNECTION}"


def reply(body: bytes, *lines: bytes, status: str = "200 OK") -> bytes:
    # Closed by the server: a client that used the connection again would fail by chance.
    return b"\r\n".join([f"HTTP/1.1 {status}".encode(), *lines, b"Connection: close", b"", body])


def whole(body: bytes = GOOD, *lines: bytes, status: str = "200 OK") -> bytes:
    return reply(body, b"Content-Length: %d" % len(body), *lines, status=status)


def holding(**fields: Any) -> bytes:
    return whole(json.dumps({"sendId": "s1", "events": [], **fields}).encode())


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def endless(start: bytes, piece: bytes) -> Handler:
    """Send at most 256 MiB."""

    def flood(connection: socket.socket, request: bytes) -> None:
        connection.sendall(start)
        with contextlib.suppress(OSError):
            for _ in range(2**28 // len(piece)):
                connection.sendall(piece)

    return flood


def trickle(start: bytes, piece: bytes) -> Handler:
    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(start)
        with contextlib.suppress(OSError):
            for _ in range(300):
                connection.sendall(piece)
                time.sleep(0.1)  # the server's pace, not a wait of the test

    return drip


def reset(connection: socket.socket, request: bytes) -> None:
    """Close in the middle of a body, with a reset."""
    connection.sendall(reply(b"{", b"Content-Length: 100"))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


FOUND = (b"Location: http://x.example/", b"Content-Length: 999999999999")
LAST = reply(chunk(GOOD) + b"0\r\n", CHUNKED)
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
BLOCK = b"x" * 65536
TYPES = b"".join(b'{"type":"x%d","reason":"y"},' % number for number in range(100_000))

ARGUMENTS: dict[str, Any] = {"send": MESSAGE, "get_timeline": "s1"}

#: By name: what the server sends, and the error: of both calls, or of sending and of reading.
ROWS: dict[str, tuple[bytes | Handler, str | tuple[str, str]]] = {
    "endless redirect": (endless(reply(b"", *FOUND, status="302 Found"), BLOCK), RESPONSE),
    "endless redirect in chunks": (endless(reply(b"", FOUND[0], CHUNKED, status="302 Found"), chunk(BLOCK)), RESPONSE),
    "endless redirect without a length": (endless(reply(b"", FOUND[0], status="308 X"), BLOCK), RESPONSE),
    "trickling redirect": (trickle(reply(b"", *FOUND, status="302 Found"), b"x"), CONNECTION),
    "endless error": (endless(reply(b"", status="500 X"), BLOCK), RESPONSE),
    "endless trailers": (endless(LAST, b"X-A: b\r\n" * 8192), EITHER),
    "trickling trailers": (trickle(LAST, b"X-A: b\r\n"), CONNECTION),
    "a trailer that never ends": (endless(LAST + b"X-A: ", BLOCK), EITHER),
    "one trailer": (LAST + b"X-A: b\r\n\r\n", OK),
    "no last chunk": (reply(chunk(GOOD), CHUNKED), CONNECTION),
    "endless small chunks": (endless(reply(b"", CHUNKED), chunk(b"x") * 8192), EITHER),
    "endless chunk extension": (endless(reply(b"5;", CHUNKED), BLOCK), CONNECTION),
    "huge chunk size": (reply(b"f" * 40 + b"\r\n" + GOOD, CHUNKED), CONNECTION),
    "negative chunk size": (reply(b"-5\r\n" + GOOD, CHUNKED), CONNECTION),
    "reset in the body": (reset, CONNECTION),
    "gzip": (whole(gzip.compress(GOOD), b"Content-Encoding: gzip"), RESPONSE),
    "gzip bomb": (whole(gzip.compress(b"0" * 2**27), b"Content-Encoding: gzip"), RESPONSE),
    "gzip within gzip": (whole(gzip.compress(gzip.compress(b"0" * 2**27)), b"Content-Encoding: gzip, gzip"), RESPONSE),
    "two encodings": (whole(GOOD, b"Content-Encoding: identity", b"Content-Encoding: gzip"), RESPONSE),
    "deflate": (whole(zlib.compress(GOOD), b"Content-Encoding: deflate"), RESPONSE),
    "unknown encoding": (whole(GOOD, b"Content-Encoding: x-own"), RESPONSE),
    "identity": (whole(GOOD, b"Content-Encoding: Identity"), OK),
    "transfer encoding gzip": (reply(chunk(gzip.compress(GOOD)), b"Transfer-Encoding: gzip, chunked"), EITHER),
    "encoded 429": (whole(b"x", b"Content-Encoding: gzip", status="429 X"), "FluxomailRateLimitError"),
    "encoded 503": (whole(b"x", b"Content-Encoding: br", status="503 X"), SERVER),
    "two lengths": (whole(GOOD, b"Content-Length: 5"), CONNECTION),
    "two equal lengths": (whole(GOOD, b"Content-Length: %d" % len(GOOD)), OK),
    "list of lengths": (reply(GOOD, b"Content-Length: 5, 30"), CONNECTION),
    "length too short": (reply(GOOD, b"Content-Length: 4"), RESPONSE),
    "interim responses": (b"HTTP/1.1 102 Processing\r\n\r\n" + HINTS + whole(), OK),
    "100 and an unknown interim response": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 199 X\r\n\r\n" + whole(), OK),
    "only an interim response": (HINTS, CONNECTION),
    "endless interim responses": (endless(b"", HINTS * 2048), EITHER),
    "trickling interim responses": (trickle(b"", HINTS), CONNECTION),
    "another protocol": (reply(GOOD, b"Upgrade: x", b"Connection: upgrade", status="101 X"), EITHER),
    "endless headers": (endless(reply(b""), b"X-A: bbbbbbbb\r\n" * 4096), EITHER),
    "endless header": (endless(b"HTTP/1.1 200 OK\r\nX-A: ", BLOCK), CONNECTION),
    "a line that is no header": (whole(GOOD, b"no ops@example.org \x1b[31m" + b"z" * 9000), CONNECTION),
    "a header that begins with a blank": (reply(GOOD, b" X: ops@example.org", b"Content-Length: 30"), CONNECTION),
    "endless NUL": (endless(b"", bytes(65536)), CONNECTION),
    "status 99": (whole(status="99 X"), CONNECTION),
    "status 999": (whole(status="999 X"), SERVER),
    "status that is no number": (whole(status="abc X"), CONNECTION),
    "HTTP/0.9": (GOOD, CONNECTION),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n" + GOOD, CONNECTION),
    "TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", CONNECTION),
    "escapes in the reason": (whole(b"", status="500 \x1b[31mred"), SERVER),
    "300 to no URL": (whole(b"", b"Location: http://[", status="300 X"), RESPONSE),
    "302 to no URL": (whole(b"", b"Location: http://[", status="302 X"), RESPONSE),
    "redirect to bytes": (whole(b"", b"Location: \xff\xfe", status="307 X"), RESPONSE),
    "redirect to escapes": (whole(b"", b"Location: http://\x1b[31mred\xe2\x80\xae/", status="302 X"), EITHER),
    "redirect to a long host": (whole(b"", b"Location: http://" + b"h" * 60_000, status="302 X"), RESPONSE),
    "redirect to nowhere": (whole(b"", status="303 X"), RESPONSE),
    "304": (reply(b"", status="304 X"), RESPONSE),
    "request id of escapes": (whole(b"{}", b"X-Request-Id: \x1b[31m" + b"r" * 60_000), EITHER),
    "request id of bytes": (whole(b"{}", b"X-Request-Id: \xe2\x80\xae\xff"), RESPONSE),
    "send id of megabytes": (holding(sendId="s" * 2_000_000), (RESPONSE, OK)),
    "send id with escapes": (holding(sendId="s\x1b[31m"), (RESPONSE, OK)),
    "send id with a line break": (holding(sendId="s\r\nX: y"), (RESPONSE, OK)),
    "send id with half a character": (holding(sendId="\ud800"), (RESPONSE, OK)),
    "status and message id of megabytes": (holding(status="\x1b" * 300_000, messageId="m" * 1_000_000), OK),
    "cursor with half a character": (holding(nextCursor="\ud800"), (OK, RESPONSE)),
    "cursor of megabytes": (holding(nextCursor="c" * 2_000_000), (OK, RESPONSE)),
    "event type and id of megabytes": (holding(events=[{"type": "t" * 10**6, "id": "i" * 10**6}] * 2), OK),
    "reason of megabytes": (holding(events=[{"type": "bounced", "ts": 1, "reason": "\x1b" * 500_000}]), OK),
    "too many events": (whole(b'{"sendId":"s1","events":[' + TYPES + b"1]}"), (OK, RESPONSE)),
    "deep JSON": (whole(b"[" * 1_000_000), RESPONSE),
    "number of 5,000 digits": (whole(b'{"sendId":"s1","events":[],"n":' + b"9" * 5000 + b"}"), RESPONSE),
    "page of titles": (whole(b"<html>" + b"<title" * 500_000, status="502 X"), SERVER),
    "page titled with escapes": (whole(b"<html><title>\x1b[31m\xe2\x80\xae</title>", status="502 X"), SERVER),
    "error with escapes": (
        whole(b'{"error":"\\u001b[31m\\u202e\\u009b\\u0000","code":"\\u001b"}', status="502 X"),
        SERVER,
    ),
    "error of megabytes": (whole(b'{"error":"' + b"e" * 3_000_000 + b'"}', status="502 X"), SERVER),
    "send id of an error": (whole(b'{"error":"x","sendId":"\\u001b' + b"s" * 10**6 + b'"}', status="502 X"), SERVER),
    "a date that is none": (whole(b"", b"Date: " + b"9" * 50_000, b"Retry-After: Mon, 99", status="503 X"), SERVER),
}


@pytest.mark.parametrize("method", ARGUMENTS)
@pytest.mark.parametrize("name", ROWS)
def test_misbehaviour(call: Transport, serve: Serve, caplog: pytest.LogCaptureFixture, name: str, method: str) -> None:
    data, expected = ROWS[name]
    if isinstance(expected, tuple):
        expected = expected[method != "send"]
    server = serve(answers(data) if isinstance(data, bytes) else data)
    key = {"idempotency_key": "k1"} if method == "send" else {}
    timeout = 0.5 if name.startswith(("trickling", "endless small", "endless interim")) else 10
    caplog.set_level(logging.INFO)
    tracemalloc.start()
    began = time.monotonic()
    outcome = outcome_of(lambda: call(settings(server.url, timeout=timeout), method, ARGUMENTS[method], **key))
    seconds, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < 15, "half of what a trickle takes"
    assert peak < 48 * 2**20
    if isinstance(outcome, FluxomailError):
        assert re.fullmatch(expected, type(outcome).__name__), outcome
        assert not outcome.permanent
        assert outcome.ambiguous or outcome.status == 429
        assert outcome.idempotency_key == key.get("idempotency_key")
    else:
        assert (expected, outcome.send_id, outcome.status) == (OK, "s1", None)
    shown = f"{outcome!r} {outcome} {caplog.text}".replace("\n", "")
    assert shown.isprintable()
    assert len(shown) < 4000
    assert "ops@example.org" not in shown


def outcome_of(act: Callable[[], Any]) -> Any:
    try:
        return act()
    except FluxomailError as error:
        return error


def test_no_cookie_is_kept(call: Transport, serve: Serve) -> None:
    bad = whole(b"", b"Set-Cookie: a=b; Path=/", b"Set-Cookie: c=d; Domain=127.0.0.1", status="503 X")
    server = serve(answers(bad))
    with pytest.raises(FluxomailError):
        call(settings(server.url, max_attempts=3, timeout=10), "send", MESSAGE, idempotency_key="k1")
    assert [b"cookie" in request.lower() for request in server.seen] == [False] * 3
