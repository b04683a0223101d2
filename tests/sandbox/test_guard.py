"""The guard of the control API: a page in a developer's browser must not drive it."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.control.browser_guard import check_origin
from airflow_provider_fluxomail.sandbox.errors import ControlError
from airflow_provider_fluxomail.sandbox.intake import Intake, read_body
from airflow_provider_fluxomail.sandbox.middleware import check_body

from .helpers import BASE, KEY, Api, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("sandbox", "mail.internal")

GOOD_HOSTS = [
    "127.0.0.1",
    "[::1]:8026",
    "LocalHost:8026",
    "localhost.:8026",
    "x.localhost:8026",
    "192.168.1.20:8026",
    "[2001:DB8::1]:8026",
    "sandbox:8026",
    "mail.internal",
]
BAD_HOSTS = [
    "",
    "127.0.0.1.nip.io:8026",
    "localhost.evil.example",
    "evillocalhost",
    "internal",
    "x.mail.internal",
    "127.0.0.1:",
    "127.0.0.1:123456",
    "127.0.0.1@evil.example",
    "127.0.0.1/x",
    "127.0.0.1 evil.example",
    "http://127.0.0.1",
    "::1",
    "[::1",
    "[::1]evil.example",
    "256.0.0.1",
    "2130706433",
    "127.0.0.1,evil.example",
]


def refusal(method: str, **headers: str) -> ControlError | None:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    try:
        check_origin(method, named, NAMES)
    except ControlError as error:
        return error if error.status == 403 else None
    return None


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_good_host(host: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert refusal(method, host=host) is None
        assert refusal(method, host=host, origin=f"http://{host}") is None
        assert refusal(method, host=host, origin=f"https://{host}".upper()) is None


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_bad_host(host: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        error = refusal(method, host=host)
        assert "use 127.0.0.1 or localhost, or start the sandbox with --allow-host" in str(error)
        assert repr(host) in str(error)
        # A page of that name, to which it would be the same origin.
        assert refusal(method, host=host, origin=f"http://{host}") is not None


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example:8026",
        "http://localhost:8026",
        "http://127.0.0.1:8026.evil.example",
        "http://127.0.0.1:8026/",
        "ftp://127.0.0.1:8026",
        "null",
        "",
        "http://127.0.0.1:8026 http://evil.example",
    ],
)
def test_origin(origin: str) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE"):
        assert "are refused" in str(refusal(method, host="127.0.0.1:8026", origin=origin))


@pytest.mark.parametrize(
    ("site", "posts"),
    [("none", True), ("same-origin", True), ("same-site", False), ("cross-site", False), ("x", False)],
)
def test_sec_fetch_site(site: str, posts: bool) -> None:
    assert (refusal("POST", host="localhost", sec_fetch_site=site) is None) is posts
    assert (refusal("DELETE", host="localhost", sec_fetch_site=site) is None) is posts
    # A link to a read may be followed; the page that it is on sees nothing of the response.
    assert refusal("GET", host="localhost", sec_fetch_site=site) is None


@pytest.mark.parametrize("name", [b"host", b"origin", b"sec-fetch-site"])
def test_a_header_that_comes_twice(name: bytes) -> None:
    good = {b"host": b"localhost", b"origin": b"http://localhost", b"sec-fetch-site": b"same-origin"}
    headers = [(b"host", b"localhost"), (name, b"evil.example"), (name, good[name])]
    with pytest.raises(ControlError, match=f"more than one {name.decode()}"):
        check_origin("POST", headers, ())


# At the wire


@pytest.fixture(scope="module")
def named() -> Iterator[SandboxServer]:
    with SandboxServer(allow_hosts=["Sandbox"]) as server:
        yield server


def request(
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
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, json.loads(text) if text.startswith(b"{") else text


PAGES: dict[str, dict[str, str | None]] = {
    "rebinding": {"Host": "evil.example:{port}"},
    "rebinding with origin": {"Host": "evil.example:{port}", "Origin": "http://evil.example:{port}"},
    "foreign": {"Host": "127.0.0.1:{port}", "Origin": "https://evil.example"},
    "sandboxed frame": {"Host": "127.0.0.1:{port}", "Origin": "null"},
}
CALLS: list[tuple[str, str, object]] = [
    *(("GET", call, None) for call in ("messages", "requests", "settings", "faults", "health", "nowhere")),
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
    with Api(named.url) as api:
        api.control("reset")
        api.control("faults", kind="status", status=418, match={"path": "/none"})
        send_id = api.quiet()
        calls = [
            *CALLS,
            ("POST", f"messages/{send_id}/events", {"type": "bounced"}),
            ("GET", f"messages/{send_id}/attachments/0", None),
        ]

        def state() -> list[Any]:
            return [api.get(call) for call in ("settings", "faults", "requests", "messages")]

        before = state()
        for method, call, body in calls:
            status, response = request(named, method, f"/_sandbox/{call}", PAGES[page], body)
            assert (status, set(response)) == (403, {"error"}), (method, call)
        assert request(named, "GET", "/", PAGES[page])[0] == 403
        assert state() == before
        assert api.send().status_code == 200
        assert api.send(api_key="evil").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "localhost:{port}", "Origin": "http://localhost:{port}", "Sec-Fetch-Site": "same-origin"},
        {"Host": "[::1]:{port}"},
        {"Host": "SANDBOX", "Origin": "https://sandbox"},
        {"Host": "sandbox."},
        {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "none", "Content-Type": "text/plain"},
    ],
)
def test_an_allowed_call(named: SandboxServer, headers: dict[str, str | None]) -> None:
    status, response = request(named, "POST", "/_sandbox/keys", headers, {"key": "mine"})
    assert (status, response["key"]) == (200, "mine")
    assert request(named, "GET", "/_sandbox/settings", headers)[0] == 200
    assert request(named, "DELETE", "/_sandbox/keys/mine", headers)[0] == 200


@pytest.mark.parametrize("name", ["box:8026", "http://box", "a b", ""])
def test_allowed_hosts_are_names(name: str) -> None:
    with pytest.raises(ValueError, match="names without a port"):
        SandboxServer(allow_hosts=[name])


@pytest.mark.parametrize(
    "headers",
    [
        "",
        "Host: x y\r\n",
        "Host: {own}\r\nHost: {own}\r\n",
        "Host: {own}\r\nOrigin: http://x\r\nOrigin: http://{own}\r\n",
    ],
)
def test_a_host_or_origin_that_is_missing_wrong_or_repeated(server_on_each_http: SandboxServer, headers: str) -> None:
    server = server_on_each_http
    lines = headers.format(own=f"127.0.0.1:{server.port}")
    with socket.create_connection(server.address, timeout=10) as raw:
        raw.sendall(f"GET /_sandbox/messages HTTP/1.0\r\n{lines}\r\n".encode())
        received = read_all(raw)
    # The HTTP server may see to it first.
    assert received.split(b" ", 2)[1] in (b"403", b"400")
    assert b'"messages"' not in received


BY_NAME: dict[str, dict[str, str | None]] = {"as a program": {"Host": "evil.example"}, **PAGES}


@pytest.mark.parametrize("page", BY_NAME)
@pytest.mark.parametrize("key", [KEY, "own"])
def test_who_may_call_the_api_by_another_name(named: SandboxServer, page: str, key: str) -> None:
    """A program with a key of its own by any name, through any proxy; a page of another origin by the right one."""
    with Api(named.url) as api:
        api.control("reset")
        api.control("keys", key="own")
        send_id = api.send_id()
        browser = "Origin" in BY_NAME[page]
        good_host = str(BY_NAME[page]["Host"]).startswith("127.0.0.1")
        # Any page knows the default key.
        allowed = key == "own" and (good_host or not browser)
        code = "permission_denied" if good_host else "host_not_allowed"
        for sent in ({"x-api-key": key}, {"Authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key} "}):
            headers = BY_NAME[page] | sent
            status, response = request(named, "POST", "/api/v1/emails/send", headers, BASE)
            assert status == (200 if allowed else 403)
            if not allowed:
                assert response["code"] == code
                assert good_host or "start the sandbox with --allow-host" in response["message"]
            read = request(named, "GET", f"/api/v1/sends/{send_id}", headers)
            assert read[0] == (200 if allowed else 403)
            assert ("ops@example.org" in str(read[1])) is allowed
            if not allowed:
                assert request(named, "GET", "/api/v1/events", headers)[0] == 403
                assert request(named, "GET", "/api/v1/events/stream", headers)[0] == 403
        assert api.count() == (4 if allowed else 1)
        assert request(named, "POST", "/api/v1/emails/send", BY_NAME[page], BASE)[0] == (
            403 if browser and not good_host else 401
        )


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "sec-fetch-dest"])
def test_what_shows_that_a_browser_calls_the_api(named: SandboxServer, header: str) -> None:
    with Api(named.url) as api:
        api.control("reset")
        api.control("keys", key="own")
        api.control("faults", kind="status", status=418)
        headers: dict[str, str | None] = {"Host": "evil.example", "x-api-key": "own", header: "x"}
        assert request(named, "POST", "/api/v1/emails/send", headers, BASE)[0] == 403
        assert api.count() == 0
        assert api.get("faults")["faults"][0]["met"] == 0, "a fault is not for such a request"
        assert [row[1] for row in api.log()] == [403]
        for host in ("Sandbox:8026", "localhost", "[::1]:8026"):
            api.control("faults", kind="status", status=418)
            assert request(named, "POST", "/api/v1/emails/send", headers | {"Host": host}, BASE)[0] == 418


def test_a_call_that_ends_in_mid_body_is_not_made() -> None:
    async def read(*messages: dict[str, Any]) -> bytes:
        pending = iter(messages)

        async def receive() -> dict[str, Any]:
            return next(pending)

        return check_body(await read_body(receive, Intake(Bounds()), 100), is_json=True)

    assert asyncio.run(read({"type": "http.request"})) == b"{}"
    parts = ({"type": "http.request", "body": part, "more_body": part != b"}"} for part in (b"{", b"", b"}"))
    assert asyncio.run(read(*parts)) == b"{}"
    with pytest.raises(ControlError, match="ended in the middle"):
        asyncio.run(read({"type": "http.request", "body": b"", "more_body": True}, {"type": "http.disconnect"}))
    with pytest.raises(ControlError, match="at most 100 bytes") as caught:
        asyncio.run(read({"type": "http.request", "body": b" " * 101}))
    assert caught.value.status == 413
