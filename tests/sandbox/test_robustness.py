"""What a hostile or unlucky client does must not take the sandbox down, stop others, or cost memory without bound."""

from __future__ import annotations

import json
import socket
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer, SandboxStartError
from airflow_provider_fluxomail.sandbox.api.remembered_errors import RememberedErrors
from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS

from .helpers import BASE, KEY, Api, wait_until

HEADERS = {"Authorization": f"Bearer {KEY}"}
HALF_PAIR = b"\xed\xa0\x80"


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(BASE).encode().replace(b"Nightly load", HALF_PAIR),
        json.dumps(BASE | {"other": "x"}).encode().replace(b'"x"', b'"' + HALF_PAIR + b'"'),
        json.dumps(BASE | {"subject": "\ud800"}, ensure_ascii=False).encode("utf-16-le", "surrogatepass"),
        json.dumps(BASE).encode("utf-16"),
        b'{"to": "a@example.org\xff"}',
    ],
    ids=["half a pair", "half a pair in another field", "half a pair in UTF-16", "UTF-16", "no encoding"],
)
def test_bodies_that_are_not_utf_8(api: Api, body: bytes) -> None:
    answer = api.http.post("/api/v1/emails/send", content=body, headers=HEADERS)
    assert (answer.status_code, answer.json()["message"]) == (400, "Invalid JSON body")
    send_id = api.send_id()
    poison = b'{"type": "bounced", "reason": "' + HALF_PAIR + b'"}'
    assert api.http.post(f"/_sandbox/messages/{send_id}/events", content=poison).status_code == 400
    fault = b'{"kind": "status", "status": 500, "body": "' + HALF_PAIR + b'"}'
    assert api.http.post("/_sandbox/faults", content=fault).status_code == 400
    assert api.get("faults")["count"] == 0
    assert api.events().status_code == api.timeline(send_id).status_code == 200


def test_a_byte_order_mark_is_passed_over(api: Api) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(BASE).encode()
    assert api.http.post("/api/v1/emails/send", content=body, headers=HEADERS).status_code == 200


@pytest.mark.parametrize("to", ["a" + " " * 200_000, '"' + "a" * 200_000, "a" * 200_000 + "<", " " * 200_000 + "<a@b"])
def test_a_long_address_is_read_in_one_go(api: Api, to: str) -> None:
    # Read back and forth, it would take hours.
    assert api.send(to=to).status_code == 400


def test_a_remembered_refusal_keeps_nothing_of_its_request() -> None:
    refusals = RememberedErrors(Bounds())
    try:
        try:
            raise ValueError("cause")
        except ValueError as cause:
            raise ApiError(400, "told", details={"fields": ["to"]}) from cause
    except ApiError as error:
        refusals.keep("org", "k", 5, error)
    first, second = refusals.find("org", "k", 4), refusals.find("org", "k", 4)
    assert first is not None
    assert first is not second
    assert (first.__cause__, first.__context__, first.__traceback__) == (None, None, None)
    assert (first.status, first.message, first.details) == (400, "told", {"fields": ["to"]})


def test_a_body_that_is_no_json_is_remembered_too(api: Api) -> None:
    api.control("settings", idempotency_errors=True)
    headers = HEADERS | {"Idempotency-Key": "k"}
    assert api.http.post("/api/v1/emails/send", content=b"{", headers=headers).status_code == 400
    assert api.send(idempotency_key="k").status_code == 400


def test_a_renewed_token_keeps_its_stream_and_leaves_it_asleep(
    api: Api, server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server._sandbox is not None
    event_bus = server._sandbox.event_bus
    reads: list[None] = []
    read = event_bus.read

    def counted(*arguments: Any) -> Any:
        reads.append(None)
        return read(*arguments)

    monkeypatch.setattr(event_bus, "read", counted)
    api.control("settings", stream_heartbeat=0.2)
    api.control("keys", key="token", expires_in=0.5)
    with api.stream(api_key="token") as stream:
        api.control("keys", key="token", expires_in=1000)
        api.advance(10)
        for _ in range(3):
            while stream.block() != ": heartbeat":
                pass
        assert len(reads) < 50
        api.send()
        assert stream.take(1)[0]["type"] == "email.sent"


def test_a_reset_ends_a_stream_whose_client_does_not_read() -> None:
    with SandboxServer(event_delay=0, bounds=Bounds(streams=1)) as server:
        api = Api(server.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            client.sendall(
                b"GET /api/v1/events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer fm_sandbox\r\n\r\n"
            )
            assert server._sandbox is not None
            event_bus = server._sandbox.event_bus
            wait_until(lambda: event_bus.open == 1)
            send_id = api.send_id()
            for _ in range(12):
                api.add_event(send_id, "bounced", reason="x" * 900_000)
            api.control("reset")
            assert event_bus.open == 0
            with api.stream() as stream:
                api.send()
                assert stream.take(1)
        api.close()


@pytest.mark.parametrize("path", ["/api/v1/emails/send", "/_sandbox/reset"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_half_a_request_does_not_hold_up_the_stop(path: str, http: Any, capfd: pytest.CaptureFixture[str]) -> None:
    server = SandboxServer(http=http).start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        sandbox = server._sandbox
        assert sandbox is not None
        wait_until(lambda: len(sandbox.unread) == 1)
        server.stop()
        assert client.recv(100) == b""
    assert capfd.readouterr().err == ""
    assert not sandbox.unread


@pytest.mark.parametrize("position", [10**25, -1, "x"])
def test_a_position_that_no_attachment_has(api: Api, position: Any) -> None:
    answer = api.http.get(f"/_sandbox/messages/{api.send_id()}/attachments/{position}")
    assert answer.status_code == 400
    assert "position must" in answer.json()["error"]


def test_the_end_of_time(api: Api) -> None:
    api.control("settings", retry_after="http-date", event_delay=366 * 24 * 3600)
    api.control("keys", key="capped", rate_limit_per_minute=1)
    answer = api.post("clock", advance_seconds=MAX_CLOCK_SECONDS)
    assert answer.status_code == 400
    assert "where the clock ends" in answer.json()["error"]
    api.advance(MAX_CLOCK_SECONDS - api.advance(0) - 1)
    send_id = api.send_id(api_key="capped")
    assert api.send(api_key="capped").status_code == 429
    wait_until(lambda: api.get("health")["now"] == MAX_CLOCK_SECONDS)
    assert api.post("clock", advance_seconds=60).status_code == 400
    assert api.timeline(send_id).status_code == api.events().status_code == 200


def test_a_data_file_of_another_schema(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE keys (key TEXT)")
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(SandboxStartError, match="cannot use the data file"):
        SandboxServer(data=path).start()


def test_the_start_key_always_fits(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    with SandboxServer(data=path, bounds=Bounds(keys=2)) as server:
        api = Api(server.url)
        api.control("keys", key="fm_sandbox")
        api.control("keys", key="second")
        assert api.post("keys", key="third").status_code == 409
        api.close()
    with SandboxServer("new", data=path, bounds=Bounds(keys=2)) as server:
        api = Api(server.url)
        assert api.send(api_key="new").status_code == 200
        api.close()


def test_expired_tokens_make_room() -> None:
    with SandboxServer(bounds=Bounds(keys=3)) as server:
        api = Api(server.url)
        for number in range(10):
            api.control("keys", key=f"token{number}", expires_in=0)
        api.close()


def test_rate_windows_go_with_their_key(api: Api, server: SandboxServer) -> None:
    api.control("keys", key="k", rate_limit_per_minute=5)
    api.send(api_key="k")
    assert server._sandbox is not None
    assert len(server._sandbox.rates._counts) == 1
    assert api.http.delete("/_sandbox/keys/k").status_code == 200
    assert not server._sandbox.rates._counts


def test_an_empty_limit_counts_as_left_out(api: Api) -> None:
    api.send()
    assert len(api.events(limit="").json()["events"]) == 1


@pytest.mark.parametrize("name", ["Host", "Origin"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
def test_more_than_one_host_or_origin(name: str, http: Any) -> None:
    with SandboxServer(http=http) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        own = f"127.0.0.1:{server.port}"
        twice = {"Host": f"Host: {own}\r\n", "Origin": f"Origin: http://evil.example\r\nOrigin: http://{own}\r\n"}
        client.sendall(
            f"POST /_sandbox/reset HTTP/1.1\r\nHost: {own}\r\n{twice[name]}Content-Length: 0\r\n\r\n".encode()
        )
        assert client.recv(100)[9:12] in (b"403", b"400")


def test_secrets_in_other_headers_are_not_logged(api: Api) -> None:
    secret = {"Referer": "http://x/?token=s3cret", "Cookie": "a=s3cret", "Proxy-Authorization": "Basic s3cret"}
    api.http.get("/api/v1/sends/x", headers=secret)
    assert "s3cret" not in json.dumps(api.get("requests"))


@pytest.mark.parametrize("name", ["box:8026", "http://box", "a b", ""])
def test_allowed_hosts_are_names(name: str) -> None:
    with pytest.raises(ValueError, match="names without a port"):
        SandboxServer(allow_hosts=[name])


def test_an_allowed_name_may_have_a_dot_at_its_end() -> None:
    with SandboxServer(allow_hosts=["Box"]) as server:
        for host in ("box", "BOX.", f"box:{server.port}"):
            assert httpx.get(f"{server.url}/_sandbox/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("kind", ["error_after_store", "response_lost_after_store", "cut_in_body"])
def test_a_fault_after_the_store_waits_for_a_read_that_succeeds(api: Api, kind: str) -> None:
    send_id = api.send_id()
    api.control("faults", kind=kind)
    assert api.timeline("unknown").status_code == 404
    assert api.timeline(send_id, "wrong").status_code == 401
    assert api.get("faults")["count"] == 1
    try:
        assert api.timeline(send_id).status_code == 500
    except httpx.RemoteProtocolError:
        assert kind != "error_after_store"
    assert api.get("faults")["count"] == 0


def test_a_field_of_the_answer_is_no_field_of_an_event(api: Api) -> None:
    answer = api.post(f"messages/{api.send_id()}/events", type="opened", dropped=1)
    assert answer.status_code == 400
    assert "dropped is filled in" in answer.json()["error"]
