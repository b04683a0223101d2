"""The guard of the control API: a page in a developer's browser must not drive it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer
from airflow_provider_fluxomail.sandbox.control.browser_guard import check_origin
from airflow_provider_fluxomail.sandbox.errors import ControlError
from airflow_provider_fluxomail.sandbox.exchange import read_body
from airflow_provider_fluxomail.sandbox.middleware import check_body

from .helpers import BASE, KEY, Api

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("sandbox", "mail.internal")

GOOD_HOSTS = [
    "127.0.0.1",
    "127.0.0.1:8026",
    "127.8.9.10:1",
    "[::1]",
    "[::1]:8026",
    "localhost",
    "localhost:8026",
    "LocalHost:8026",
    "localhost.:8026",
    "x.localhost:8026",
    "192.168.1.20:8026",
    "10.0.0.1",
    "0.0.0.0:8026",
    "[fe80::1]:8026",
    "[2001:DB8::1]:8026",
    "sandbox:8026",
    "Sandbox",
    "mail.internal",
]
BAD_HOSTS = [
    "",
    "evil.example",
    "evil.example:8026",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io:8026",
    "localhost.evil.example",
    "evillocalhost",
    "evil-localhost:8026",
    "internal",
    "x.mail.internal",
    "sandbox.evil.example",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:123456",
    "127.0.0.1:80:80",
    "127.0.0.1@evil.example",
    "evil.example@127.0.0.1",
    "127.0.0.1/x",
    "127.0.0.1 evil.example",
    "http://127.0.0.1",
    "::1",
    "[::1",
    "[evil.example]",
    "[::1]evil.example",
    "256.0.0.1",
    "2130706433",
    "0x7f.1",
    "127.0.0.1,evil.example",
]


def refusal(method: str, **headers: str) -> ControlError | None:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    try:
        check_origin(method, named, NAMES)
    except ControlError as error:
        return error if error.status == 403 else None
    return None


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_good_host(host: str, method: str) -> None:
    assert refusal(method, host=host) is None
    assert refusal(method, host=host, origin=f"http://{host}") is None
    assert refusal(method, host=host, origin=f"https://{host}".upper()) is None


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("host", BAD_HOSTS)
def test_bad_host(host: str, method: str) -> None:
    error = refusal(method, host=host)
    assert "use 127.0.0.1 or localhost, or start the sandbox with --allow-host" in str(error)
    assert repr(host) in str(error)
    # A page of that name, to which it would be the same origin.
    assert refusal(method, host=host, origin=f"http://{host}") is not None


def test_no_host() -> None:
    assert refusal("GET") is not None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://evil.example:8026",
        "http://127.0.0.1",
        "http://127.0.0.1:3000",
        "http://localhost:8026",
        "http://127.0.0.1:8026.evil.example",
        "http://127.0.0.1:8026/",
        "ftp://127.0.0.1:8026",
        "127.0.0.1:8026",
        "file://",
        "null",
        "",
        "http://127.0.0.1:8026 http://evil.example",
    ],
)
def test_origin(origin: str, method: str) -> None:
    assert "are refused" in str(refusal(method, host="127.0.0.1:8026", origin=origin))


@pytest.mark.parametrize(
    ("site", "posts"),
    [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False), ("x", False)],
)
def test_sec_fetch_site(site: str, posts: bool) -> None:
    assert (refusal("POST", host="localhost", sec_fetch_site=site) is None) is posts
    assert (refusal("DELETE", host="localhost", sec_fetch_site=site) is None) is posts
    # A link to a read may be followed; the page that it is on sees nothing of the answer.
    assert refusal("GET", host="localhost", sec_fetch_site=site) is None


# At the wire


@pytest.fixture(scope="module")
def named() -> Iterator[SandboxServer]:
    with SandboxServer(allow_hosts=["Sandbox"]) as server:
        yield server


def ask(
    server: SandboxServer, method: str, path: str, headers: dict[str, str | None], body: object = None
) -> tuple[int, Any]:
    """A request with exactly these headers and a Host of one's own; None leaves the Host out."""
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    content = b"" if body is None else json.dumps(body).encode()
    for name, value in ({"Content-Length": str(len(content))} | headers).items():
        if value is not None:
            connection.putheader(name, value.replace("{port}", str(server.port)))
    connection.endheaders(content)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text.startswith(b"{") else text


PAGES: dict[str, dict[str, str | None]] = {
    "rebinding": {"Host": "evil.example:{port}"},
    "rebinding with origin": {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
    "foreign": {"Host": "127.0.0.1:{port}", "Origin": "https://evil.example"},
    "other port": {"Host": "localhost:{port}", "Origin": "http://localhost:3000"},
    "sandboxed frame": {"Host": "127.0.0.1:{port}", "Origin": "null"},
}
CALLS: list[tuple[str, str, object]] = [
    ("GET", "messages", None),
    ("GET", "requests", None),
    ("GET", "settings", None),
    ("GET", "faults", None),
    ("GET", "health", None),
    ("POST", "keys", {"key": "evil"}),
    ("POST", "pause", {"paused": True}),
    ("POST", "settings", {"event_delay": 9}),
    ("POST", "clock", {"advance_seconds": 86_400}),
    ("POST", "faults", {"kind": "status", "status": 503}),
    ("POST", "reset", None),
    ("DELETE", "keys/fm_sandbox", None),
    ("DELETE", "faults", None),
]


@pytest.mark.parametrize("page", PAGES)
def test_a_refused_call_changes_nothing(named: SandboxServer, page: str) -> None:
    api = Api(named.url)
    api.control("reset")
    api.control("faults", kind="status", status=418, match={"path": "/none"})
    send_id = api.send_id()
    calls = [
        *CALLS,
        ("POST", f"messages/{send_id}/events", {"type": "bounced"}),
        ("GET", f"messages/{send_id}/attachments/0", None),
        ("GET", "nowhere", None),
    ]

    def state() -> list[Any]:
        return [api.get(call) for call in ("settings", "faults", "requests", "messages")]

    before = state()
    for method, call, body in calls:
        status, answer = ask(named, method, f"/_sandbox/{call}", PAGES[page], body)
        assert (status, set(answer)) == (403, {"error"}), (method, call)
    assert ask(named, "GET", "/", PAGES[page])[0] == 403
    assert state() == before
    assert api.send().status_code == 200
    assert api.send(api_key="evil").status_code == 401
    api.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "127.0.0.1:{port}"},
        {"Host": "localhost:{port}", "Origin": "http://localhost:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "[::1]:{port}"},
        {"Host": "my.localhost"},
        {"Host": "192.168.7.7:{port}"},
        {"Host": "sandbox:{port}"},
        {"Host": "SANDBOX", "Origin": "https://sandbox"},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "none", "Content-Type": "text/plain"},
    ],
)
def test_a_call_of_ones_own(named: SandboxServer, headers: dict[str, str | None]) -> None:
    status, answer = ask(named, "POST", "/_sandbox/keys", headers, {"key": "mine"})
    assert (status, answer["key"]) == (200, "mine")
    assert ask(named, "GET", "/_sandbox/settings", headers)[0] == 200
    assert ask(named, "DELETE", "/_sandbox/keys/mine", headers)[0] == 200


def test_names_are_of_this_sandbox_alone(server: SandboxServer) -> None:
    status, answer = ask(server, "GET", "/_sandbox/health", {"Host": "sandbox"})
    assert status == 403
    assert "--allow-host" in answer["error"]


@pytest.mark.parametrize("name", [b"host", b"origin", b"sec-fetch-site"])
def test_a_header_that_comes_twice(name: bytes) -> None:
    good = {b"host": b"localhost", b"origin": b"http://localhost", b"sec-fetch-site": b"same-origin"}
    headers = [(b"host", b"localhost"), (name, b"evil.example"), (name, good[name])]
    with pytest.raises(ControlError, match=f"more than one {name.decode()}"):
        check_origin("POST", headers, ())


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_of_another_site(named: SandboxServer, site: str) -> None:
    headers: dict[str, str | None] = {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": site, "Content-Type": "text/plain"}
    assert ask(named, "POST", "/_sandbox/reset", headers)[0] == 403


@pytest.mark.parametrize("host", [None, "", "x y", "evil.example"])
def test_a_host_that_is_missing_or_no_name(named: SandboxServer, host: str | None) -> None:
    line = "" if host is None else f"Host: {host}\r\n"
    with socket.create_connection(named.address, timeout=10) as raw:
        raw.sendall(f"GET /_sandbox/messages HTTP/1.0\r\n{line}\r\n".encode())
        received = b""
        while more := raw.recv(65536):
            received += more
    # The HTTP server may see to it first.
    assert received.split(b" ", 2)[1] in (b"403", b"400")
    assert b'"messages"' not in received


@pytest.mark.parametrize("page", PAGES)
def test_the_api_needs_its_key_and_nothing_else(named: SandboxServer, page: str) -> None:
    """A client may reach it by any name, through any proxy."""
    headers = PAGES[page] | {"x-api-key": KEY}
    status, answer = ask(named, "POST", "/api/v1/emails/send", headers, BASE)
    assert status == 200
    assert ask(named, "GET", f"/api/v1/sends/{answer['sendId']}", headers)[0] == 200
    assert ask(named, "POST", "/api/v1/emails/send", PAGES[page], BASE)[0] == 401


def test_a_call_that_ends_in_mid_body_is_not_made() -> None:
    async def read(*messages: dict[str, Any]) -> bytes:
        waiting = iter(messages)

        async def receive() -> dict[str, Any]:
            return next(waiting)

        return check_body(await read_body(receive, 100), 100, is_json=True)

    assert asyncio.run(read({"type": "http.request"})) == b"{}"
    parts = ({"type": "http.request", "body": part, "more_body": part != b"}"} for part in (b"{", b"", b"}"))
    assert asyncio.run(read(*parts)) == b"{}"
    with pytest.raises(ControlError, match="ended in the middle"):
        asyncio.run(read({"type": "http.request", "body": b"", "more_body": True}, {"type": "http.disconnect"}))
    with pytest.raises(ControlError, match="at most 100 bytes") as caught:
        asyncio.run(read({"type": "http.request", "body": b" " * 101}))
    assert caught.value.status == 413


def test_a_client_that_leaves_in_mid_call(api: Api) -> None:
    api.send_id()
    url = api.http.base_url
    with socket.create_connection((url.host, url.port or 0), timeout=5) as raw:
        raw.sendall(b"POST /_sandbox/reset HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n")
    # The server reads connections in turn: by these answers it has seen that one end.
    assert [api.count() for _ in range(20)] == [1] * 20
