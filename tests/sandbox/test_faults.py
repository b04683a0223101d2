"""Injected faults: what the client sees, what was stored, what the log shows, what becomes of the connection.

Which requests meet a fault is in ``test_fault_queue``.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer, middleware
from airflow_provider_fluxomail.sandbox.app import build_app
from airflow_provider_fluxomail.sandbox.exchange import cut_connection
from airflow_provider_fluxomail.sandbox.faults.models import KINDS, CutBeforeStore
from airflow_provider_fluxomail.sandbox.limits import MAX_CLOCK_SECONDS
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches

from .helpers import BASE, KEY, Api, read_all, wait_until

# Each kind

LOST: dict[str, tuple[dict[str, Any], type[httpx.HTTPError], int, int | None]] = {
    "cut_before_store": ({}, httpx.RemoteProtocolError, 0, None),
    "response_lost_after_store": ({}, httpx.RemoteProtocolError, 1, None),
    "cut_in_body": ({}, httpx.RemoteProtocolError, 1, 200),
    "gzip_garbage": ({}, httpx.DecodingError, 1, 200),
    "delay": ({"seconds": 3600}, httpx.ReadTimeout, 0, None),
    "slow_first_byte": ({"seconds": 3600}, httpx.ReadTimeout, 1, None),
    "slow_body": ({"seconds": 36_000}, httpx.ReadTimeout, 1, 200),
}
"""Kinds that leave a client without a response: fields, error, messages stored, status in the log."""

WRONG: dict[str, tuple[dict[str, Any], int, int]] = {
    "status": ({"status": 503}, 503, 0),
    "proxy_error_page": ({}, 502, 0),
    "error_before_store": ({}, 500, 0),
    "error_after_store": ({}, 500, 1),
    "malformed_json": ({}, 200, 1),
    "missing_send_id": ({}, 200, 1),
}
"""Kinds with a wrong response: fields, status, messages stored."""


def test_every_kind_is_tested() -> None:
    assert {*LOST, *WRONG} == {kind for kind in KINDS if not kind.startswith("stream_")}


@pytest.mark.parametrize("kind", LOST)
def test_no_response(
    on_each_http: Api, kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    api = on_each_http
    fields, error, stored, status = LOST[kind]
    # The head of a slow body must come in time.
    timeout = {"slow_body": 1.0}.get(kind, 0.3) if fields else 10
    api.control("faults", kind=kind, times=2, **fields)
    with pytest.raises(error):
        api.send(idempotency_key="k", timeout=timeout)
    assert api.count() == stored
    assert api.get("requests")["requests"][0]["idempotency_key"] == "k"
    with pytest.raises(error):
        api.send(idempotency_key="k", timeout=timeout)
    assert api.log() == [("POST", status, kind)] * 2
    assert api.get("faults")["count"] == 0
    # The next try is a replay if the first one was stored.
    last = api.send(idempotency_key="k")
    assert (last.status_code, "Idempotency-Replayed" in last.headers) == (200, bool(stored))
    api.control("faults", kind=kind, **fields)
    with pytest.raises(error):
        api.timeline(last.json()["sendId"], timeout=timeout)
    assert api.log()[-1] == ("GET", status, kind)
    assert (api.timeline(last.json()["sendId"]).status_code, api.count()) == (200, 1)
    # The HTTP server must not think that the application forgot to respond.
    assert (caplog.text, capfd.readouterr().err) == ("", "")


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_response(on_each_http: Api, kind: str) -> None:
    api = on_each_http
    fields, status, stored = WRONG[kind]
    api.control("faults", kind=kind, **fields)
    seen = [api.send(idempotency_key="k")]
    assert (api.count(), api.log()) == (stored, [("POST", status, kind)])
    assert seen[0].headers.get("Idempotency-Key") == ("k" if stored else None)
    first = api.send(idempotency_key="k")
    assert ("Idempotency-Replayed" in first.headers) is bool(stored)
    send_id = first.json()["sendId"]
    if kind != "missing_send_id":
        # A replay, and a read.
        api.control("faults", kind=kind, times=2, **fields)
        seen.append(api.send(idempotency_key="k"))
        assert ("Idempotency-Replayed" in seen[1].headers) is (status == 200)
        seen.append(api.timeline(send_id))
        assert api.log()[-1] == ("GET", status, kind)
        whole = api.timeline(send_id)
        assert whole.json()["send"]["_id"] == send_id
        if kind == "malformed_json":
            assert seen[2].content == whole.content[: len(whole.content) // 2]
    for response in seen:
        assert response.status_code == status
        assert response.headers["X-Request-Id"]
        if kind == "proxy_error_page":
            assert response.headers["Content-Type"] == "text/html; charset=utf-8"
            assert b"<h1>502 Bad gateway</h1>" in response.content
            continue
        assert response.headers["Content-Type"] == "application/json"
        if kind == "malformed_json":
            with pytest.raises(ValueError):
                response.json()
        elif kind == "missing_send_id":
            assert set(response.json()) == {"status", "messageId"}
        else:
            assert response.json()["code"] == "internal_error"


def test_missing_send_id_is_for_sends_alone(api: Api) -> None:
    api.control("faults", kind="missing_send_id")
    reads = api.control("faults", kind="missing_send_id", match={"method": "GET"})["id"]
    assert set(api.send(idempotency_key="k").json()) == {"status", "messageId"}
    assert api.timeline(api.messages()[0]).status_code == 200
    assert [fault["id"] for fault in api.get("faults")["faults"]] == [reads]


# The connection afterwards


def test_a_body_is_cut_in_the_middle(on_each_http: Api) -> None:
    api = on_each_http
    send_id = api.quiet()
    # Larger than the buffers of a connection's two ends.
    for _ in range(6):
        api.add_event(send_id, "opened", note="x" * 900_000)
    whole = api.timeline(send_id).content
    api.control("faults", kind="cut_in_body")
    with api.raw(f"GET /api/v1/sends/{send_id}") as raw:
        head, _, body = read_all(raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"content-length: {len(whole)}".encode() in head.lower()
    assert 0 < len(body) <= len(whole) // 2
    assert whole.startswith(body)


@pytest.mark.parametrize("kind", [*WRONG, "gzip_garbage", "slow_body", "slow_first_byte", "delay"])
def test_the_connection_stays_open_after_a_response(on_each_http: Api, kind: str) -> None:
    api = on_each_http
    fields, status, _ = WRONG.get(kind, ({} if kind == "gzip_garbage" else {"seconds": 0.1}, 200, 1))
    url = api.http.base_url
    connection = http.client.HTTPConnection(url.host, url.port, timeout=10)
    connection.connect()
    connection.auto_open = 0  # a closed connection would be an error
    statuses = []
    for number in range(3):
        if number == 1:
            api.control("faults", kind=kind, **fields)
        connection.request("POST", "/api/v1/emails/send", json.dumps(BASE), {"x-api-key": KEY})
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    connection.close()
    assert statuses == [200, status, 200]
    assert api.get("faults")["count"] == 0


# Late responses


@pytest.mark.parametrize("kind", ["delay", "slow_first_byte", "slow_body"])
def test_a_late_response_is_a_whole_one(on_each_http: Api, kind: str) -> None:
    api = on_each_http
    api.control("faults", kind=kind, seconds=0.3)
    started = time.monotonic()
    response = api.send(idempotency_key="k")
    assert time.monotonic() - started >= 0.29
    assert response.json()["sendId"] == api.send_id(idempotency_key="k")
    assert api.log()[0] == ("POST", 200, kind)


@pytest.mark.parametrize("kind", ["slow_first_byte", "slow_body"])
def test_a_client_that_leaves_a_late_response(on_each_http: Api, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    api = on_each_http
    send_id = api.send_id()
    api.control("faults", kind=kind, seconds=0.6)
    with pytest.raises(httpx.ReadTimeout):
        api.timeline(send_id, timeout=0.05)
    # By the end of another one that is as late, the first has ended too.
    api.control("faults", kind=kind, seconds=0.8)
    assert api.send().status_code == 200
    assert caplog.text == ""


# After the send was stored

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


@pytest.mark.parametrize("kind", AFTER_STORE)
def test_after_store_waits_for_a_send_that_is_stored(api: Api, kind: str) -> None:
    api.control("faults", kind="delay", seconds=0, times=9)
    api.control("faults", kind=kind, **AFTER_STORE[kind])
    api.control("pause", paused=True)
    assert api.send().status_code == 403
    api.control("pause", paused=False)
    assert api.send(api_key="wrong").status_code == 401
    assert api.send(to=None).status_code == 400
    assert api.send(path="nowhere").status_code == 404
    pending = api.get("faults")["faults"][-1]
    assert (pending["kind"], pending["met"], pending["remaining"]) == (kind, 0, 1)
    assert api.log() == [("POST", status, "delay") for status in (403, 401, 400, 404)]
    try:
        api.send()
    except (httpx.RemoteProtocolError, httpx.DecodingError):
        assert kind in ("response_lost_after_store", "cut_in_body", "gzip_garbage")
    assert api.count() == 1
    assert api.log()[-1][2] == f"delay+{kind}"
    assert [fault["kind"] for fault in api.get("faults")["faults"]] == ["delay"]


def test_after_store_waits_for_a_read_that_succeeds(api: Api) -> None:
    send_id = api.send_id()
    api.control("faults", kind="error_after_store")
    statuses = [api.timeline(*each).status_code for each in (("unknown",), (send_id, "wrong"), (send_id,), (send_id,))]
    assert statuses == [404, 401, 500, 200]
    assert [fault for *_, fault in api.log()] == [None, None, None, "error_after_store", None]


def test_a_fault_is_released_although_others_were_added_meanwhile(api: Api) -> None:
    api.control("faults", kind="delay", seconds=1.5)
    api.control("faults", kind="error_after_store")
    caller = threading.Thread(target=api.send)
    api.control("pause", paused=True)
    caller.start()
    wait_until(lambda: bool(api.get("requests")["count"]))
    api.control("faults", kind="status", status=418)
    caller.join(10)
    api.control("pause", paused=False)
    assert [fault["kind"] for fault in api.get("faults")["faults"]] == ["error_after_store", "status"]
    assert [api.send().status_code for _ in range(3)] == [500, 418, 200]


@pytest.mark.parametrize("kind", ["status", "proxy_error_page"])
def test_a_replaced_response_before_or_after_the_send(api: Api, kind: str) -> None:
    for after_store in (False, True):
        api.control("faults", kind=kind, status=504, after_store=after_store)
        response = api.send(idempotency_key="k")
        assert (response.status_code, api.count()) == (504, int(after_store))
        assert response.headers["X-Request-Id"]
    # Nor does it say that it replaces a replay.
    api.control("faults", kind=kind, status=504, after_store=True)
    assert "Idempotency-Replayed" not in api.send(idempotency_key="k").headers


# The response of a fault


@pytest.mark.parametrize(
    ("given", "sent"),
    [(7, "7"), (0, "0"), (0.001, "0.001"), ("soon", "soon"), ("", ""), ("-1", "-1"), (None, None)],
)
def test_status_with_retry_after(on_each_http: Api, given: Any, sent: str | None) -> None:
    api = on_each_http
    for status, code in ((429, "rate_limited"), (503, "internal_error")):
        assert api.control("faults", kind="status", status=status, retry_after=given)["retry_after"] == given
        response = api.send()
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.headers.get("Retry-After") == sent


@pytest.mark.parametrize("seconds", [0, 90.5, -30])
def test_status_with_a_date_as_retry_after(api: Api, seconds: float) -> None:
    api.advance(10 * 86_400)
    api.control("faults", kind="status", status=429, retry_after={"http_date_in": seconds})
    headers = api.send().headers
    assert headers["Retry-After"].endswith(" GMT")
    wait = (parsedate_to_datetime(headers["Retry-After"]) - parsedate_to_datetime(headers["Date"])).total_seconds()
    # In whole seconds, never before the time that is meant.
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
        (204, None, None, ""),
        (599, None, "application/json", '{"code":"internal_error","message":"Error 599","error":"Error 599"}'),
    ],
)
def test_status_with_body(api: Api, status: int, body: Any, content_type: str | None, text: str) -> None:
    api.control("faults", kind="status", status=status, body=body)
    response = api.send()
    assert (response.status_code, response.headers.get("Content-Type"), response.text) == (status, content_type, text)


def test_status_with_headers(api: Api) -> None:
    headers = {"Content-Type": "text/html", "X-Request-Id": "theirs", "Location": "http://127.0.0.1:9/"}
    api.control("faults", kind="status", status=302, body="<p>", headers=headers)
    response = api.send()
    assert {name: response.headers.get_list(name) for name in headers} == {
        name: [value] for name, value in headers.items()
    }


@pytest.mark.parametrize("form", ["structured", "plain", "message", "spec", "text"])
def test_a_fault_has_the_form_of_the_apis_errors(api: Api, form: str) -> None:
    api.control("settings", error_form=form)
    responses = set()
    for kind in ({"kind": "status", "status": 500}, {"kind": "error_before_store"}, {"kind": "error_after_store"}):
        api.control("faults", **kind)
        response = api.send()
        responses.add((response.status_code, response.headers["Content-Type"], response.text))
    ((status, _, text),) = responses
    assert (status, "Internal server error" in text) == (500, True)


# Other ends


def test_a_client_that_leaves_during_a_delay_has_still_sent(api: Api) -> None:
    api.control("faults", kind="delay", seconds=1)
    api.control("faults", kind="delay", seconds=2)
    with pytest.raises(httpx.ReadTimeout):
        api.send(idempotencyKey="k", timeout=0.05)
    assert api.send().status_code == 200  # held back for longer than the first one
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
    api.control("faults", kind="delay", seconds=1)
    api.control("faults", kind="cut_before_store")
    with pytest.raises(httpx.ReadTimeout):
        api.timeline("x", timeout=0.05)
    api.control("faults", kind="delay", seconds=2)
    assert api.send().status_code == 200
    assert [row[1:] for row in api.log()] == [(None, "delay+cut_before_store"), (200, "delay")]
    assert caplog.text == ""


def test_a_stop_ends_a_delay() -> None:
    failures: list[Exception] = []
    with SandboxServer() as server, Api(server.url) as api:
        api.control("faults", kind="delay", seconds=3600)

        def call() -> None:
            # Whether the end of the connection is seen as one or as a reset is up to the operating system.
            try:
                api.send()
            except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                failures.append(error)

        caller = threading.Thread(target=call)
        caller.start()
        wait_until(lambda: bool(api.get("requests")["count"]))
        server.stop()
        caller.join(10)
    assert len(failures) == 1


def test_a_server_without_a_transport_is_named() -> None:
    """Under another ASGI server a cut is impossible: better an error than a wrong response."""
    sandbox = Sandbox("key", data=None, switches=Switches(), bounds=Bounds())
    sandbox.faults.add(CutBeforeStore(kind="cut_before_store"))

    async def call() -> None:
        transport = httpx.ASGITransport(app=build_app(sandbox))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/api/v1/sends/x")

    with pytest.raises(RuntimeError, match="cannot be cut"):
        asyncio.run(call())
    sandbox.close()
