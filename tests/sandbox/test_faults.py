"""Injected faults: what the client sees, what was stored, what the log shows, what becomes of the connection.

Which requests meet a fault is in ``test_fault_queue``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import threading
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest
import requests

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer, middleware
from airflow_provider_fluxomail.sandbox.app import build_app
from airflow_provider_fluxomail.sandbox.exchange import cut_connection
from airflow_provider_fluxomail.sandbox.faults.models import KINDS, CutBeforeStore
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches

from .helpers import BASE, KEY, Api

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = {"x-api-key": KEY, "Idempotency-Key": "k"}


@pytest.fixture(scope="module", params=["httptools", "h11"])
def each_http(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a sandbox on each HTTP implementation of uvicorn."""
    kind: Literal["httptools", "h11"] = request.param
    pytest.importorskip(kind)
    with SandboxServer(http=kind) as server:
        yield server.url


@pytest.fixture
def on_each_http(each_http: str) -> Iterator[Api]:
    """A client of each of them, just reset. What an earlier test left waiting in a fault waits on unseen."""
    client = Api(each_http)
    client.control("reset")
    yield client
    client.close()


def log(api: Api) -> list[tuple[Any, ...]]:
    return [(row["method"], row["status"], row["fault"]) for row in api.get("requests")["requests"]]


def url_of(api: Api) -> str:
    return str(api.http.base_url).rstrip("/")


@dataclass
class Seen:
    """What a client saw: the name of its exception, or the answer."""

    error: str | None = None
    status: int = 0
    body: bytes = b""
    content_type: str = ""


def call(client: str, url: str, send_id: str | None = None, timeout: float = 10) -> Seen:
    """Send with the key ``k``, or read a timeline, by one of the HTTP clients."""
    path = f"{url}/api/v1/emails/send" if send_id is None else f"{url}/api/v1/sends/{send_id}"
    method, sent = ("POST", BASE) if send_id is None else ("GET", None)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(timeout=timeout, verify=False, trust_env=False) as asker:
            return await asker.request(method, path, json=sent, headers=HEADERS)

    answer: httpx.Response | requests.Response
    try:
        if client == "requests":
            with requests.Session() as session:
                session.trust_env = False
                answer = session.request(method, path, json=sent, headers=HEADERS, timeout=timeout)
        elif client == "httpx":
            with httpx.Client(timeout=timeout, verify=False, trust_env=False) as http:
                answer = http.request(method, path, json=sent, headers=HEADERS)
        else:
            answer = asyncio.run(ask())
    except (httpx.HTTPError, requests.RequestException) as error:
        return Seen(error=type(error).__name__)
    return Seen(None, answer.status_code, answer.content, answer.headers.get("Content-Type", ""))


def long_timeline(api: Api) -> str:
    """A send whose timeline is larger than the buffers of a connection's two ends."""
    send_id = api.send_id(to="never@example.org")
    for _ in range(12):
        api.control(f"messages/{send_id}/events", type="opened", note="x" * 500_000)
    return send_id


# Each kind, by three clients

CUT = {"httpx": "RemoteProtocolError", "async": "RemoteProtocolError", "requests": "ConnectionError"}
CUT_IN_BODY = CUT | {"requests": "ChunkedEncodingError"}
GARBAGE = {"httpx": "DecodingError", "async": "DecodingError", "requests": "ContentDecodingError"}
LATE = {"httpx": "ReadTimeout", "async": "ReadTimeout", "requests": "ReadTimeout"}
LATE_IN_BODY = LATE | {"requests": "ConnectionError"}

BROKEN: dict[str, tuple[dict[str, Any], dict[str, str], int, int | None]] = {
    "cut_before_store": ({}, CUT, 0, None),
    "response_lost_after_store": ({}, CUT, 1, None),
    "cut_in_body": ({}, CUT_IN_BODY, 1, 200),
    "gzip_garbage": ({}, GARBAGE, 1, 200),
    "delay": ({"seconds": 3600}, LATE, 0, None),
    "slow_first_byte": ({"seconds": 3600}, LATE, 1, None),
    "slow_body": ({"seconds": 36_000}, LATE_IN_BODY, 1, 200),
}
"""Kinds that no client gets an answer from: fields, errors, messages stored, status in the log."""

ANSWERED: dict[str, tuple[dict[str, Any], int, int]] = {
    "status": ({"status": 503}, 503, 0),
    "proxy_error_page": ({}, 502, 0),
    "error_before_store": ({}, 500, 0),
    "error_after_store": ({}, 500, 1),
    "malformed_json": ({}, 200, 1),
    "missing_send_id": ({}, 200, 1),
}
"""Kinds that are an answer: fields, status, messages stored."""


def test_every_kind_is_tested() -> None:
    assert {*BROKEN, *ANSWERED} == {kind for kind in KINDS if not kind.startswith("stream_")}


@pytest.mark.parametrize("client", ["httpx", "requests", "async"])
@pytest.mark.parametrize("kind", BROKEN)
def test_no_answer_to_a_send(on_each_http: Api, kind: str, client: str) -> None:
    api = on_each_http
    fields, errors, stored, status = BROKEN[kind]
    api.control("faults", kind=kind, **fields)
    # The head of a slow body must come in time.
    timeout = {"slow_body": 1.0}.get(kind, 0.3) if fields else 10
    assert call(client, url_of(api), timeout=timeout).error == errors[client]
    assert api.count() == stored
    assert log(api) == [("POST", status, kind)]
    assert api.get("requests")["requests"][0]["idempotency_key"] == "k"
    assert api.get("faults")["count"] == 0
    # The next try is a replay if the first one was stored.
    again = call(client, url_of(api))
    assert (again.status, json.loads(again.body).get("reused", False)) == (200, bool(stored))
    assert api.count() == 1


@pytest.mark.parametrize("client", ["httpx", "requests", "async"])
@pytest.mark.parametrize("kind", BROKEN)
def test_no_answer_to_a_read(on_each_http: Api, kind: str, client: str) -> None:
    api = on_each_http
    fields, errors, _, status = BROKEN[kind]
    send_id = long_timeline(api) if kind == "cut_in_body" else api.send_id()
    api.control("faults", kind=kind, **fields)
    # The head of a slow body must come in time.
    timeout = {"slow_body": 1.0}.get(kind, 0.3) if fields else 10
    assert call(client, url_of(api), send_id, timeout=timeout).error == errors[client]
    assert log(api)[1:] == [("GET", status, kind)]
    again = call(client, url_of(api), send_id)
    assert json.loads(again.body)["send"]["_id"] == send_id


@pytest.mark.parametrize("client", ["httpx", "requests", "async"])
@pytest.mark.parametrize("kind", ANSWERED)
def test_wrong_answer_to_a_send(on_each_http: Api, kind: str, client: str) -> None:
    api = on_each_http
    fields, status, stored = ANSWERED[kind]
    api.control("faults", kind=kind, **fields)
    seen = call(client, url_of(api))
    assert (seen.error, seen.status) == (None, status)
    check_wrong_answer(kind, seen)
    assert api.count() == stored
    assert log(api) == [("POST", status, kind)]
    again = call(client, url_of(api))
    assert (again.status, json.loads(again.body).get("reused", False)) == (200, bool(stored))


@pytest.mark.parametrize("client", ["httpx", "requests", "async"])
@pytest.mark.parametrize("kind", sorted(set(ANSWERED) - {"missing_send_id"}))
def test_wrong_answer_to_a_read(on_each_http: Api, kind: str, client: str) -> None:
    api = on_each_http
    fields, status, _ = ANSWERED[kind]
    send_id = long_timeline(api) if kind == "malformed_json" else api.send_id()
    api.control("faults", kind=kind, **fields)
    seen = call(client, url_of(api), send_id)
    assert (seen.error, seen.status) == (None, status)
    check_wrong_answer(kind, seen)
    assert log(api)[1:] == [("GET", status, kind)]
    again = call(client, url_of(api), send_id)
    assert json.loads(again.body)["send"]["_id"] == send_id
    if kind == "malformed_json":
        assert len(seen.body) == len(again.body) // 2
        assert again.body.startswith(seen.body)


def check_wrong_answer(kind: str, seen: Seen) -> None:
    if kind == "proxy_error_page":
        assert seen.content_type == "text/html; charset=utf-8"
        assert b"<h1>502 Bad gateway</h1>" in seen.body
        return
    assert seen.content_type == "application/json"
    if kind == "malformed_json":
        with pytest.raises(ValueError):
            json.loads(seen.body)
    elif kind == "missing_send_id":
        assert set(json.loads(seen.body)) == {"status", "messageId"}
    else:
        assert json.loads(seen.body)["code"] == "internal_error"


def test_missing_send_id_is_for_sends_alone(api: Api) -> None:
    api.control("faults", kind="missing_send_id")
    send_id = api.control("faults", kind="missing_send_id", match={"method": "GET"})["id"]
    assert api.timeline("x").status_code == 404
    assert set(api.send(idempotency_key="k").json()) == {"status", "messageId"}
    assert [fault["id"] for fault in api.get("faults")["faults"]] == [send_id]
    assert api.send(idempotency_key="k").json()["reused"] is True


# The connection afterwards


class Raw:
    """A connection of which every byte is seen."""

    def __init__(self, api: Api) -> None:
        url = api.http.base_url
        self.socket = socket.create_connection((url.host, url.port or 0), timeout=10)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *args: object) -> None:
        self.socket.close()

    def ask(self, path: str) -> None:
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {KEY}\r\n\r\n".encode())

    def rest(self) -> bytes:
        """Everything until the server closes."""
        received = b""
        while more := self.socket.recv(65536):
            received += more
        return received


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", ["cut_before_store", "response_lost_after_store", "cut_in_body"])
def test_a_cut_connection_is_closed(on_each_http: Api, kind: str, large: bool) -> None:
    api = on_each_http
    send_id = long_timeline(api) if large else api.send_id()
    whole = api.timeline(send_id).content
    api.control("faults", kind=kind)
    with Raw(api) as raw:
        raw.ask(f"/api/v1/sends/{send_id}")
        received = raw.rest()
    if kind != "cut_in_body":
        assert received == b""
        return
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert 0 < len(body) <= len(whole) // 2
    assert whole.startswith(body)


@pytest.mark.parametrize("kind", [*ANSWERED, "gzip_garbage", "slow_body", "slow_first_byte", "delay"])
def test_the_connection_goes_on_after_an_answer(on_each_http: Api, kind: str) -> None:
    api = on_each_http
    fields: dict[str, Any] = ANSWERED[kind][0] if kind in ANSWERED else {}
    if kind in ("slow_body", "slow_first_byte", "delay"):
        fields = {"seconds": 0.1}
    connection = http.client.HTTPConnection(api.http.base_url.host, api.http.base_url.port, timeout=10)
    connection.connect()
    connection.auto_open = 0  # a closed connection would be an error
    statuses = []
    for times in range(3):
        if times == 1:
            api.control("faults", kind=kind, **fields)
        connection.request("POST", "/api/v1/emails/send", json.dumps(BASE), HEADERS)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
    connection.close()
    assert statuses == [200, ANSWERED.get(kind, ({}, 200))[1], 200]
    assert api.get("faults")["count"] == 0


def test_lost_response(on_each_http: Api, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    api = on_each_http
    api.control("faults", kind="response_lost_after_store", times=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            api.send(idempotency_key="k")
        assert api.count(idempotency_key="k") == 1
    answer = api.send(idempotency_key="k")
    assert answer.json()["reused"] is True
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert api.count() == 1
    lost = ("POST", None, "response_lost_after_store")
    assert log(api) == [lost, lost, ("POST", 200, None)]
    # The HTTP server must not think that the application forgot to answer.
    assert caplog.text == ""
    assert capfd.readouterr().err == ""


# Late answers


def test_slow_first_byte_is_stored_at_once_and_delay_is_not(on_each_http: Api) -> None:
    api = on_each_http
    for kind, stored in (("delay", 0), ("slow_first_byte", 1)):
        api.control("faults", kind=kind, seconds=3600)
        assert call("httpx", url_of(api), timeout=0.3).error == "ReadTimeout"
        assert api.count() == stored


@pytest.mark.parametrize("kind", ["delay", "slow_first_byte", "slow_body"])
def test_a_late_answer_is_a_whole_one(on_each_http: Api, kind: str) -> None:
    api = on_each_http
    api.control("faults", kind=kind, seconds=0.3)
    started = time.monotonic()
    answer = api.send(idempotency_key="k")
    assert time.monotonic() - started >= 0.29
    assert answer.json()["sendId"] == api.send_id(idempotency_key="k")
    assert log(api)[0] == ("POST", 200, kind)


def test_the_head_of_a_slow_body_comes_at_once(on_each_http: Api) -> None:
    api = on_each_http
    send_id = long_timeline(api)
    whole = api.timeline(send_id).content
    api.control("faults", kind="slow_body", seconds=36_000)
    with Raw(api) as raw:
        raw.ask(f"/api/v1/sends/{send_id}")
        received = b""
        while b"\r\n\r\n" not in received or not received.partition(b"\r\n\r\n")[2]:
            received += raw.socket.recv(1000)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert whole.startswith(body)


@pytest.mark.parametrize("client", ["httpx", "requests", "async"])
def test_a_slow_body_escapes_a_time_out_between_bytes(api: Api, client: str) -> None:
    """The trap that the kind is for: each piece is in time, and all of them together are not."""
    send_id = long_timeline(api)
    api.control("faults", kind="slow_body", seconds=1.5)
    started = time.monotonic()
    seen = call(client, url_of(api), send_id, timeout=1)
    assert (seen.error, seen.status) == (None, 200)
    assert time.monotonic() - started >= 1.4
    assert len(json.loads(seen.body)["events"]) == 13


@pytest.mark.parametrize("kind", ["slow_first_byte", "slow_body", "delay"])
def test_a_client_that_leaves_a_late_answer(on_each_http: Api, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    api = on_each_http
    send_id = long_timeline(api)
    api.control("faults", kind=kind, seconds=0.6)
    assert call("httpx", url_of(api), send_id, timeout=0.05).error == "ReadTimeout"
    # By the end of another one that is as late, the first has ended too.
    api.control("faults", kind=kind, seconds=0.8)
    assert api.send().status_code == 200
    assert caplog.text == ""


# After the send was stored


def test_error_after_store(api: Api) -> None:
    api.control("faults", kind="error_after_store", times=2)
    for _ in range(2):
        answer = api.send(idempotency_key="k")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "Idempotency-Replayed" not in answer.headers
        assert answer.headers["Idempotency-Key"] == "k"
        assert api.count() == 1
    assert api.send(idempotency_key="k").json()["reused"] is True
    assert log(api) == [("POST", 500, "error_after_store")] * 2 + [("POST", 200, None)]


AFTER_STORE: dict[str, dict[str, Any]] = {
    "error_after_store": {},
    "response_lost_after_store": {},
    "cut_in_body": {},
    "slow_first_byte": {"seconds": 0},
    "slow_body": {"seconds": 0},
    "malformed_json": {},
    "gzip_garbage": {},
    "missing_send_id": {},
    "status": {"status": 503, "after_store": True},
    "proxy_error_page": {"after_store": True},
}


@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("kind", AFTER_STORE)
def test_after_store_waits_for_a_send_that_is_stored(api: Api, kind: str, delayed: bool) -> None:
    if delayed:
        api.control("faults", kind="delay", seconds=0, times=9)
    api.control("faults", kind=kind, **AFTER_STORE[kind])
    before = "delay" if delayed else None
    api.control("pause", paused=True)
    assert api.send().status_code == 403
    api.control("pause", paused=False)
    assert api.send(api_key="wrong").status_code == 401
    assert api.send(to=None).status_code == 400
    assert api.send(path="nowhere").status_code == 404
    waiting = api.get("faults")["faults"][-1]
    assert (waiting["kind"], waiting["met"], waiting["remaining"]) == (kind, 0, 1)
    assert log(api) == [("POST", status, before) for status in (403, 401, 400, 404)]
    try:
        api.send()
    except (httpx.RemoteProtocolError, httpx.DecodingError):
        assert kind in ("response_lost_after_store", "cut_in_body", "gzip_garbage")
    assert api.count() == 1
    assert log(api)[-1][2] == (f"delay+{kind}" if delayed else kind)
    assert [fault["kind"] for fault in api.get("faults")["faults"]] == (["delay"] if delayed else [])


def test_a_fault_is_given_back_although_others_were_added_meanwhile(api: Api) -> None:
    api.control("faults", kind="delay", seconds=0.5)
    api.control("faults", kind="error_after_store")
    caller = threading.Thread(target=call, args=("httpx", url_of(api)))
    api.control("pause", paused=True)
    caller.start()
    deadline = time.monotonic() + 10
    while not api.get("requests")["count"]:
        assert time.monotonic() < deadline
    api.control("faults", kind="status", status=418)
    caller.join(10)
    api.control("pause", paused=False)
    assert [fault["kind"] for fault in api.get("faults")["faults"]] == ["error_after_store", "status"]
    assert [api.send().status_code for _ in range(3)] == [500, 418, 200]


@pytest.mark.parametrize("after_store", [False, True])
@pytest.mark.parametrize("kind", ["status", "proxy_error_page"])
def test_an_answer_of_ones_own_before_or_after_the_send(api: Api, kind: str, after_store: bool) -> None:
    api.control("faults", kind=kind, status=504, after_store=after_store)
    answer = api.send(idempotency_key="k")
    assert answer.status_code == 504
    assert answer.headers["X-Request-Id"]
    assert api.count() == int(after_store)
    assert api.send(idempotency_key="k").json().get("reused", False) is after_store


@pytest.mark.parametrize("kind", ["error_after_store", "status", "proxy_error_page"])
def test_no_answer_of_ones_own_tells_of_a_replay(api: Api, kind: str) -> None:
    api.send(idempotency_key="k")
    api.control("faults", kind=kind, **AFTER_STORE[kind])
    answer = api.send(idempotency_key="k")
    assert answer.status_code >= 500
    assert "Idempotency-Replayed" not in answer.headers


def test_error_after_store_of_a_read(api: Api) -> None:
    send_id = api.send_id()
    api.control("faults", kind="error_after_store")
    assert api.timeline("unknown").status_code == 404
    assert api.timeline(send_id).status_code == 500
    assert api.timeline(send_id).status_code == 200


# Answers of one's own


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (7, "7"),
        (0, "0"),
        (1.5, "1.5"),
        (0.001, "0.001"),
        ("soon", "soon"),
        ("", ""),
        ("-1", "-1"),
        ("1e3", "1e3"),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT"),
        (None, None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_status_with_retry_after(on_each_http: Api, given: Any, sent: str | None, status: int) -> None:
    api = on_each_http
    made = api.control("faults", kind="status", status=status, retry_after=given)
    assert made["retry_after"] == given
    answer = api.send()
    assert (answer.status_code, answer.json()["code"]) == (
        status,
        "rate_limited" if status == 429 else "internal_error",
    )
    assert answer.headers.get("Retry-After") == sent
    assert api.count() == 0
    assert api.send().status_code == 200


@pytest.mark.parametrize("seconds", [0, 5, 90.5, 86_400, -30, -1e9])
def test_status_with_a_date_as_retry_after(api: Api, seconds: float) -> None:
    api.advance(10 * 86_400)
    api.control("faults", kind="status", status=429, retry_after={"http_date_in": seconds})
    answer = api.send()
    assert answer.headers["Retry-After"].endswith(" GMT")
    wait = (
        parsedate_to_datetime(answer.headers["Retry-After"]) - parsedate_to_datetime(answer.headers["Date"])
    ).total_seconds()
    # In whole seconds, never before the time that was asked for.
    assert seconds - 1 <= wait <= seconds + 2


def test_a_date_after_the_end_of_time(api: Api) -> None:
    api.advance(MAX_CLOCK_SECONDS - 10 - api.get("health")["now"])
    api.control("faults", kind="status", status=429, retry_after={"http_date_in": 1e9})
    assert api.send().headers["Retry-After"] == "Fri, 31 Dec 9999 23:59:59 GMT"


@pytest.mark.parametrize(
    ("status", "body", "content_type", "text"),
    [
        (400, {"a": [1]}, "application/json", '{"a":[1]}'),
        (502, "<html>bad gateway</html>", "text/plain; charset=utf-8", "<html>bad gateway</html>"),
        (200, "", "text/plain; charset=utf-8", ""),
        (200, [], "application/json", "[]"),
        (204, None, None, ""),
        (
            599,
            None,
            "application/json",
            '{"code":"internal_error","message":"Error 599","error":"Error 599"}',
        ),
    ],
)
def test_status_with_body(api: Api, status: int, body: Any, content_type: str | None, text: str) -> None:
    api.control("faults", kind="status", status=status, body=body)
    answer = api.send()
    assert (answer.status_code, answer.headers.get("Content-Type"), answer.text) == (status, content_type, text)


def test_status_with_headers(api: Api) -> None:
    headers = {"Content-Type": "text/html", "X-Request-Id": "theirs", "Location": "http://127.0.0.1:9/"}
    api.control("faults", kind="status", status=302, body="<p>", headers=headers)
    answer = api.send()
    assert {name: answer.headers.get_list(name) for name in headers} == {
        name: [value] for name, value in headers.items()
    }


@pytest.mark.parametrize("form", ["structured", "plain", "message", "spec", "text"])
def test_status_in_the_words_of_the_api(api: Api, form: str) -> None:
    api.control("settings", error_form=form)
    texts = []
    for kind in ({"kind": "status", "status": 500}, {"kind": "error_before_store"}, {"kind": "error_after_store"}):
        api.control("faults", **kind)
        answer = api.send()
        assert answer.status_code == 500
        texts.append((answer.headers["Content-Type"], answer.text))
    assert len(set(texts)) == 1
    assert "Internal server error" in texts[0][1]


def test_a_fault_comes_before_the_key_is_checked(api: Api) -> None:
    api.control("faults", kind="status", status=503)
    assert api.send(api_key="wrong").status_code == 503


# Other ends


def test_a_client_that_gives_up_has_still_sent(api: Api) -> None:
    api.control("faults", kind="delay", seconds=0.2)
    api.control("faults", kind="delay", seconds=0.6)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post(
            "/api/v1/emails/send",
            json={"to": "a@example.org", "subject": "s", "content": "c", "idempotencyKey": "k"},
            headers={"x-api-key": "fm_sandbox"},
            timeout=0.05,
        )
    assert api.send(to="b@example.org").status_code == 200  # held back for longer than the first one
    assert api.count(idempotency_key="k") == 1


def test_a_cut_reaches_the_client_although_a_forked_process_holds_the_socket(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    async def fork_first(receive: Any, send: Any) -> None:
        # What a fork does to the socket, without its other effects.
        held.append(os.dup(send.__self__.transport.get_extra_info("socket").fileno()))
        await cut_connection(receive, send)

    monkeypatch.setattr(middleware, "cut_connection", fork_first)
    api.control("faults", kind="response_lost_after_store")
    with pytest.raises(httpx.RemoteProtocolError):
        api.send()
    os.close(held[0])


def test_a_cut_after_the_client_has_gone(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.control("faults", kind="delay", seconds=0.2)
    api.control("faults", kind="cut_before_store")
    with pytest.raises(httpx.ReadTimeout):
        api.http.get("/api/v1/sends/x", headers={"x-api-key": "fm_sandbox"}, timeout=0.05)
    api.control("faults", kind="delay", seconds=0.4)
    assert api.send().status_code == 200
    assert [row[1:] for row in log(api)] == [(None, "delay+cut_before_store"), (200, "delay")]
    assert caplog.text == ""


def test_a_stop_ends_a_delay() -> None:
    failures: list[Exception] = []
    with SandboxServer() as server:
        api = Api(server.url)
        api.control("faults", kind="delay", seconds=3600)

        def call() -> None:
            try:
                api.send()
            except httpx.HTTPError as error:
                failures.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        watcher = Api(server.url)
        deadline = time.monotonic() + 10
        while not watcher.get("requests")["count"]:
            assert time.monotonic() < deadline
        watcher.close()
    caller.join(10)
    api.close()
    # Whether the end of the connection is seen as one or as a reset is the operating system's to say.
    assert len(failures) == 1
    assert isinstance(failures[0], httpx.RemoteProtocolError | httpx.ReadError)


def test_a_server_without_a_transport_is_named() -> None:
    """Under another ASGI server a cut is impossible: better an error than a wrong answer."""
    sandbox = Sandbox("key", data=None, switches=Switches(), bounds=Bounds())
    sandbox.faults.add(CutBeforeStore(kind="cut_before_store"))

    async def call() -> None:
        transport = httpx.ASGITransport(app=build_app(sandbox))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/api/v1/sends/x")

    with pytest.raises(RuntimeError, match="cannot be cut"):
        asyncio.run(call())
    sandbox.close()
