"""The server object, the data file and the command line."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer, SandboxStartError, cli

from .helpers import Api, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READY = "Fluxomail sandbox ready at http://"
COMMAND = [sys.executable, "-m", "airflow_provider_fluxomail.sandbox"]


class Command:
    """The command line in a process of its own, up to its ready line."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        self.api = Api(self.line.rsplit(" ", 1)[-1].strip())

    def end(self, number: int) -> tuple[int, str, str]:
        self.api.http.close()
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return self.process.returncode, out, err


@pytest.fixture
def command() -> Iterator[Any]:
    started: list[Command] = []

    def start(*options: str) -> Command:
        started.append(Command(*options))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.communicate()
        each.api.http.close()


def test_two_servers_are_apart(api: Api) -> None:
    with SandboxServer(api_key="second") as second, Api(second.url) as two:
        assert [api.send().status_code, two.send().status_code] == [200, 401]
        assert [two.send(api_key="second").status_code for _ in range(2)] == [200, 200]
        assert (api.count(), two.count()) == (1, 2)


def test_start_and_stop() -> None:
    server = SandboxServer()
    server.stop()
    with pytest.raises(RuntimeError, match="not started"):
        _ = server.url
    assert not server.running
    assert server.start() is server
    url = server.url
    assert url == f"http://127.0.0.1:{server.port}"
    assert server.start().url == url
    assert server.running
    assert httpx.get(f"{url}/_sandbox/health").status_code == 200
    server.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/_sandbox/health")
    assert [
        thread for thread in threading.enumerate() if "fluxomail-sandbox" in thread.name and url[-5:] in thread.name
    ] == []
    server.start()
    assert httpx.get(f"{server.url}/_sandbox/health").status_code == 200
    server.stop()


def test_the_port_can_be_taken_again_at_once() -> None:
    port = 0
    for _ in range(2):
        with SandboxServer(port=port) as server, Api(server.url) as api:
            assert port in (0, server.port)
            port = server.port
            assert api.send().status_code == 200


def test_ipv6() -> None:
    try:
        probe = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    probe.close()
    with SandboxServer(host="::1") as server, Api(server.url) as api:
        assert str(api.http.base_url).startswith("http://[::1]:")
        assert api.send().status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("api_key", ""), ("api_key", "a b"), ("event_delay", -0.1), ("event_delay", float("nan")), ("port", 65536)],
)
def test_bad_argument(name: str, value: Any) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=name):
        SandboxServer(**arguments)


def test_an_address_that_is_not_available(server: SandboxServer) -> None:
    with pytest.raises(SandboxStartError, match=f"cannot listen on 127.0.0.1 port {server.port}"):
        SandboxServer(port=server.port).start()
    with pytest.raises(SandboxStartError, match="unknown host"):
        SandboxServer(host="nowhere.invalid").start()


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match=r"pip install 'airflow-provider-fluxomail\[sandbox\]'"):
        SandboxServer().start()


def test_importing_is_cheap() -> None:
    code = (
        "import sys, airflow_provider_fluxomail.sandbox, airflow_provider_fluxomail.sandbox.cli\n"
        "bad = {'airflow', 'fastapi', 'starlette', 'uvicorn', 'requests', 'httpx'} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_failure_of_the_server_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*args: object) -> None:
        raise OSError("no more sockets")

    monkeypatch.setattr("uvicorn.Server.startup", fail)
    server = SandboxServer()
    with pytest.raises(SandboxStartError, match="no more sockets"):
        server.start()
    assert not server.running


def test_a_thread_that_hangs_is_reported() -> None:
    server = SandboxServer().start()
    thread, loop, released = server._thread, server._loop, threading.Event()
    assert thread is not None
    assert loop is not None
    loop.call_soon_threadsafe(released.wait)
    with pytest.raises(TimeoutError, match="did not stop within 0"):
        server.stop(timeout=0)
    released.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("path", ["/api/v1/emails/send", "/_sandbox/reset"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_half_a_request_does_not_hold_up_the_stop(path: str, http: Any, capfd: pytest.CaptureFixture[str]) -> None:
    server = SandboxServer(http=http).start()
    with Api(server.url) as api, api.raw(f"POST {path}", "Content-Length: 100", body="{") as raw:
        sandbox = server._sandbox
        assert sandbox is not None
        wait_until(lambda: len(sandbox.unread) == 1)
        server.stop()
        assert raw.recv(100) == b""
    assert capfd.readouterr().err == ""
    assert not sandbox.unread


# The data file


@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_connections_that_come_while_it_stops_are_closed(http: Any) -> None:
    connections: list[socket.socket] = []

    def connect(address: tuple[str, int]) -> None:
        with suppress(OSError):
            while len(connections) < 5_000:
                connections.append(socket.create_connection(address, timeout=5))

    try:
        with SandboxServer(http=http) as server:
            thread = threading.Thread(target=connect, args=[server.address])
            thread.start()
            wait_until(lambda: len(connections) > 20)
        thread.join()
        for connection in connections:
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
    finally:
        for connection in connections:
            connection.close()


def test_a_client_that_does_not_read_is_disconnected_at_the_stop() -> None:
    with SandboxServer() as server, Api(server.url) as api:
        send_id = api.send_id(htmlContent="x" * 900_000)
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(5)
            connection.connect(server.address)
            request = f"GET /_sandbox/messages/{send_id}/source HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            # More than the kernel and the server buffer.
            connection.sendall(request.encode() * 20)
            assert connection.recv(9) == b"HTTP/1.1 "
            server.stop()
            with suppress(ConnectionError):
                while connection.recv(1 << 20):
                    pass


def test_a_reset_survives_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "state.sqlite"
    with SandboxServer(data=data) as server, Api(server.url) as api:
        api.control("keys", key="made")
        send_id = api.send_id(idempotency_key="k")
        api.advance(86_400)
    with SandboxServer(data=data) as server, Api(server.url) as api:
        assert api.messages() == [send_id]
        assert api.get("health")["now"] >= time.time() + 86_000
        api.control("reset")
    with SandboxServer(data=data) as server, Api(server.url) as api:
        assert api.count() == 0
        assert api.timeline(send_id).status_code == 404
        assert api.send(api_key="made").status_code == 401
        assert abs(api.get("health")["now"] - time.time()) < 60
        assert "reused" not in api.send(idempotency_key="k").json()


def test_the_start_key_is_the_one_of_this_start(tmp_path: Path) -> None:
    data = tmp_path / "state.sqlite"
    with SandboxServer(data=data, api_key="one") as server, Api(server.url) as api:
        assert api.send(api_key="one").status_code == 200
    with SandboxServer(data=data, api_key="two") as server, Api(server.url) as api:
        assert api.send(api_key="one").status_code == 401
        assert api.send(api_key="two").status_code == 200
        api.control("keys", key="two", scopes=["read_sends"])
    with SandboxServer(data=data, api_key="two") as server, Api(server.url) as api:
        assert api.send(api_key="two").status_code == 403


def test_unusable_data_file(tmp_path: Path) -> None:
    with pytest.raises(SandboxStartError, match="cannot use the data file"):
        SandboxServer(data=tmp_path / "none" / "state.sqlite").start()
    text = tmp_path / "notes.txt"
    text.write_text("not a database, " * 100)
    with pytest.raises(SandboxStartError, match="cannot use the data file"):
        SandboxServer(data=text).start()
    for name, statement, message in (
        ("other", "CREATE TABLE t (a)", "of another program"),
        ("newer", "PRAGMA user_version = 9", "has format 9"),
        ("same format", "CREATE TABLE keys (key TEXT); PRAGMA user_version = 2", "cannot use the data file"),
    ):
        database = sqlite3.connect(tmp_path / name)
        database.executescript(statement)
        database.close()
        with pytest.raises(SandboxStartError, match=message):
            SandboxServer(data=tmp_path / name).start()


def test_a_failed_write_leaves_nothing_behind(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("airflow_provider_fluxomail.sandbox.store.database.Store._make_room", full)
        assert api.send(idempotency_key="k").status_code == 500
        assert api.timeline("x").status_code == 404
    assert api.count() == 0
    assert "reused" not in api.send(idempotency_key="k").json()


# The command line


def test_nothing_that_was_acknowledged_is_lost_by_a_kill(command: Any, tmp_path: Path) -> None:
    data = str(tmp_path / "state.sqlite")
    first = command("--data", data, "--event-delay", "0")
    assert first.line.startswith(READY + "127.0.0.1:")
    api = first.api
    api.control("keys", key="made", scopes=["send_email"], rate_limit_per_minute=7, organization="org_2")
    api.control("keys", key="revoked")
    assert api.http.delete("/_sandbox/keys/revoked").status_code == 200
    api.control("keys", key="token", expires_in=5000)
    api.control("keys", key="expired", expires_in=100)
    api.control("pause", paused=True, organization="org_2")
    api.control("pause", paused=True, organization="org_3")
    api.control("pause", paused=False, organization="org_3")
    files = [{"filename": "a.csv", "contentBase64": "eHl6"}]
    fields = {"to": "Ann <ann@example.org>", "attachments": files, "cc": ["c@example.org"], "replyTo": "r@example.org"}
    send_id = api.send_id(idempotency_key="k", **fields)
    old = api.send_id(idempotency_key="old")
    api.advance(1000)
    event_at = api.get("health")["now"] + 500
    api.add_event(send_id, "opened", ip="192.0.2.7")
    api.add_event(send_id, "bounced", event_at, reason="late")
    before, timeline = api.get("messages"), api.timeline(send_id).json()
    # The last that is acknowledged before the end.
    now = api.advance(1)
    done = subprocess.run(
        [*COMMAND, "--port", "0", "--data", data], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"fluxomail-sandbox: error: the data file {data} is in use by another sandbox\n"
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    # A process that was killed does not hold it any more.
    second = command("--data", data, "--event-delay", "0")
    api = second.api
    assert api.get("health")["now"] >= now
    assert api.get("messages") == before
    assert api.timeline(send_id).json() == timeline
    assert api.http.get(f"/_sandbox/messages/{send_id}/attachments/0").content == b"xyz"
    assert api.send(idempotency_key="k").json() == {
        "sendId": send_id,
        "status": "sent",
        "messageId": before["messages"][0]["message_id"],
        "reused": True,
    }
    refused = api.send(api_key="made")
    assert (refused.json()["code"], refused.headers["X-RateLimit-Limit"]) == ("tenant_paused", "7")
    assert api.timeline(send_id, "made").json()["code"] == "missing_scope"
    statuses = {key: api.timeline(send_id, key).status_code for key in ("revoked", "expired", "token")}
    assert statuses == {"revoked": 401, "expired": 401, "token": 200}
    # What was still to come comes: an event, the end of a key, the end of an idempotency record.
    api.advance(500)
    assert api.types(send_id) == ["sent", "delivered", "opened", "bounced"]
    api.advance(3500)
    assert api.timeline(send_id, "token").status_code == 401
    api.advance(86_400)
    assert api.send_id(idempotency_key="old") != old
    # Only the ready line, no log; and an open connection does not hold up the end.
    assert second.end(signal.SIGTERM) == (0, "", "")


def test_every_send_with_a_response_survives_a_kill(command: Any, tmp_path: Path) -> None:
    """Every response that a client has seen holds; a request without one may have gone either way."""
    data = str(tmp_path / "state.sqlite")
    options = ("--data", data, "--api-key", "mine")
    first = command(*options)
    seen: list[dict[str, str]] = [{} for _ in range(3)]

    def send_on(number: int) -> None:
        with Api(first.api.url) as api, suppress(httpx.HTTPError):
            for count in range(100_000):
                key = f"k{number}-{count}"
                seen[number][key] = api.send_id(idempotency_key=key, api_key="mine")

    callers = [threading.Thread(target=send_on, args=(number,)) for number in range(len(seen))]
    for caller in callers:
        caller.start()
    wait_until(lambda: min(map(len, seen)) >= 10)
    first.process.kill()
    for caller in callers:
        caller.join(30)
    api = command(*options).api
    stored: dict[str, str] = {}
    while page := api.get("messages", limit=1000, offset=len(stored))["messages"]:
        stored |= {message["idempotency_key"]: message["send_id"] for message in page}
    for each in seen:
        assert each.items() <= stored.items()
        key, send_id = next(reversed(each.items()))
        assert api.send_id(idempotency_key=key, api_key="mine") == send_id
    # At most the one request of each caller that was under way.
    assert len(stored) - sum(map(len, seen)) <= len(seen)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--event-delay", "-1"], "--event-delay must be between 0"),
        (["--event-delay", "soon"], "--event-delay: invalid float value"),
        (["--port", "70000"], "--port must be between 0 and 65535"),
        (["--port", "0", "--data", "/nonexistent/state.sqlite"], "cannot use the data file /nonexistent/state.sqlite"),
        (["--port", "0", "--host", "nowhere.invalid"], "unknown host 'nowhere.invalid'"),
        (["--port", "{used}"], "cannot listen on 127.0.0.1 port "),
        (["--api-key", ""], "--api-key must be"),
        (["--max-messages", "0"], "--max-messages must be at least 1"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_command_with_invalid_options(
    options: list[str], text: str, server: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: object = cli.main([option.format(used=server.port) for option in options])
    except SystemExit as exit_:
        code = exit_.code
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith("fluxomail-sandbox: error: ")
    assert captured.err.count("\n") == 1
    assert text in captured.err


class Terminal:
    """A stdout that calls back when the ready line is written."""

    def __init__(self, then: Any) -> None:
        self.text = ""
        self._then = then

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        self._then(self.text)


def test_main_until_a_signal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def check_and_end(text: str) -> None:
        assert text.startswith(READY + "127.0.0.1:")
        ready, inbox = text.splitlines()
        assert httpx.get(ready.split()[-1] + "/_sandbox/health").status_code == 200
        assert inbox == f"Inbox: {ready.split()[-1]}/inbox"
        assert "No messages yet" in httpx.get(inbox.split()[-1]).text
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "stdout", Terminal(check_and_end))
    assert cli.main(["--port", "0"]) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == ""


def test_main_warns_when_others_can_reach_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal(lambda text: os.kill(os.getpid(), signal.SIGINT)))
    assert cli.main(["--port", "0", "--host", "0.0.0.0"]) == 0
    assert "WARNING: listening on 0.0.0.0" in capsys.readouterr().err


def test_main_when_the_server_ends_by_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers: list[SandboxServer] = []
    start = SandboxServer.start

    def remember(self: SandboxServer) -> SandboxServer:
        servers.append(self)
        return start(self)

    monkeypatch.setattr(SandboxServer, "start", remember)
    monkeypatch.setattr(sys, "stdout", Terminal(lambda text: servers[0].stop()))
    assert cli.main(["--port", "0"]) == 1
    assert "stopped unexpectedly" in capsys.readouterr().err
