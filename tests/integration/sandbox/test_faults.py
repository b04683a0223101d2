"""Injected faults: what the client sees, what was stored, which requests meet them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer, gate
from airflow_provider_fluxomail.sandbox.app import build_app
from airflow_provider_fluxomail.sandbox.config import Settings
from airflow_provider_fluxomail.sandbox.faults import Fault
from airflow_provider_fluxomail.sandbox.state import Sandbox

from .helpers import Api

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["httptools", "h11"])
def on_each_http(request: pytest.FixtureRequest) -> Iterator[Api]:
    """A sandbox on each HTTP implementation of uvicorn."""
    kind: Literal["httptools", "h11"] = request.param
    pytest.importorskip(kind)
    with SandboxServer(http=kind) as server:
        client = Api(server.url)
        yield client
        client.close()


def log(api: Api) -> list[tuple[Any, ...]]:
    return [(row["method"], row["status"], row["fault"]) for row in api.get("requests")["requests"]]


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


def test_lost_response_to_a_read(on_each_http: Api) -> None:
    api = on_each_http
    api.control("faults", kind="response_lost_after_store", match={"method": "get"})
    send_id = api.send_id()
    with pytest.raises(httpx.RemoteProtocolError):
        api.timeline(send_id)
    assert api.timeline(send_id).status_code == 200


def test_error_before_store(api: Api) -> None:
    api.control("faults", kind="error_before_store")
    answer = api.send(idempotency_key="k")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["X-Request-Id"]
    assert api.count() == 0
    assert "reused" not in api.send(idempotency_key="k").json()


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


@pytest.mark.parametrize("kind", ["error_after_store", "response_lost_after_store"])
def test_after_store_waits_for_a_send_that_is_stored(api: Api, kind: str) -> None:
    api.control("faults", kind=kind)
    assert api.send(api_key="wrong").status_code == 401
    assert api.send(to=None).status_code == 400
    assert api.get("faults")["faults"][0]["remaining"] == 1
    assert log(api) == [("POST", 401, None), ("POST", 400, None)]
    if kind == "error_after_store":
        assert api.send().status_code == 500
    else:
        with pytest.raises(httpx.RemoteProtocolError):
            api.send()
    assert api.count() == 1
    assert api.get("faults") == {"count": 0, "faults": []}


def test_error_after_store_of_a_read(api: Api) -> None:
    api.control("faults", kind="error_after_store")
    assert api.timeline("unknown").status_code == 500
    assert api.timeline("unknown").status_code == 404


@pytest.mark.parametrize(
    ("given", "sent"), [(7, "7"), (1.5, "1.5"), ("soon", "soon"), ("", ""), ("-1", "-1"), (None, None)]
)
def test_status_with_retry_after(api: Api, given: Any, sent: str | None) -> None:
    api.control("faults", kind="status", status=429, retry_after=given)
    answer = api.send()
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers.get("Retry-After") == sent
    assert api.count() == 0
    assert api.send().status_code == 200


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


def test_a_fault_comes_before_the_key_is_checked(api: Api) -> None:
    api.control("faults", kind="status", status=503)
    assert api.send(api_key="wrong").status_code == 503


@pytest.mark.parametrize(
    ("match", "meets"),
    [
        ({}, ["send", "send-global", "timeline"]),
        ({"method": "POST"}, ["send", "send-global"]),
        ({"path": "/api/v1/emails/send"}, ["send"]),
        ({"path": "/api/v1/emails"}, ["send", "send-global"]),
        ({"path": "/api/v1/emails/"}, ["send", "send-global"]),
        ({"path": "/api/v1/sends/*"}, ["timeline"]),
        ({"path": "*/send?global"}, ["send-global"]),
        ({"path": "/api/v1/sends", "method": "POST"}, []),
        ({"path": None, "method": None}, ["send", "send-global", "timeline"]),
        ({"path": "/api/v1/em"}, []),
    ],
)
def test_match(api: Api, match: dict[str, Any], meets: list[str]) -> None:
    api.control("faults", kind="status", status=503, times=9, match=match)
    answers = {
        "send": api.send(),
        "send-global": api.send(path="send-global"),
        "timeline": api.timeline("unknown"),
    }
    assert [name for name, answer in answers.items() if answer.status_code == 503] == meets


def test_faults_are_met_in_order(api: Api) -> None:
    api.control("faults", kind="status", status=501, times=2)
    api.control("faults", kind="status", status=502, match={"method": "GET"})
    made = api.control("faults", kind="status", status=503)
    assert (made["id"], made["remaining"]) == (3, 1)
    assert [api.send().status_code for _ in range(4)] == [501, 501, 503, 200]
    waiting = api.get("faults")
    assert waiting["count"] == 1
    assert waiting["faults"][0] == {
        "id": 2,
        "kind": "status",
        "times": 1,
        "remaining": 1,
        "match": {"method": "GET", "path": None},
        "status": 502,
        "retry_after": None,
        "body": None,
        "headers": {},
    }
    assert api.http.delete("/_sandbox/faults").json() == {"count": 0, "faults": []}
    assert api.timeline("x").status_code == 404


def test_delay(api: Api) -> None:
    made = api.control("faults", kind="delay", seconds=0.2)
    assert made["seconds"] == 0.2
    answer = api.send()
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() >= 0.2
    assert log(api) == [("POST", 200, "delay")]


def test_a_delay_combines_with_the_next_fault(api: Api) -> None:
    api.control("faults", kind="delay", seconds=0.1, times=2)
    api.control("faults", kind="delay", seconds=0)
    api.control("faults", kind="status", status=503)
    first = api.send()
    assert first.status_code == 503
    assert first.elapsed.total_seconds() >= 0.1
    assert [api.send().status_code for _ in range(3)] == [200, 200, 200]
    assert [row[2] for row in log(api)] == ["delay+status", "delay", "delay", None]


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
    cut = gate._cut

    async def fork_first(receive: Any, send: Any) -> None:
        # What a fork does to the socket, without its other effects.
        held.append(os.dup(send.__self__.transport.get_extra_info("socket").fileno()))
        await cut(receive, send)

    monkeypatch.setattr(gate, "_cut", fork_first)
    api.control("faults", kind="response_lost_after_store")
    with pytest.raises(httpx.RemoteProtocolError):
        api.send()
    os.close(held[0])


def test_a_cut_after_the_client_has_gone(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.control("faults", kind="delay", seconds=0.2)
    api.control("faults", kind="response_lost_after_store")
    with pytest.raises(httpx.ReadTimeout):
        api.http.get("/api/v1/sends/x", headers={"x-api-key": "fm_sandbox"}, timeout=0.05)
    api.control("faults", kind="delay", seconds=0.4)
    assert api.send().status_code == 200
    assert [row[1:] for row in log(api)] == [(None, "delay+response_lost_after_store"), (200, "delay")]
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
    assert [type(error) for error in failures] == [httpx.RemoteProtocolError]


def test_a_server_without_a_transport_is_named() -> None:
    """Under another ASGI server a cut is impossible: better an error than a wrong answer."""
    sandbox = Sandbox("key", data=None, settings=Settings(), bounds=Bounds())
    sandbox.faults.add(Fault(0, "response_lost_after_store"))

    async def call() -> None:
        transport = httpx.ASGITransport(app=build_app(sandbox))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get("/api/v1/sends/x")

    with pytest.raises(RuntimeError, match="can't be cut"):
        asyncio.run(call())
    sandbox.close()
