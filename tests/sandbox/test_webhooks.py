"""Signed webhooks, received by a real server."""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer, SandboxStartError
from airflow_provider_fluxomail.sandbox.webhooks.signature import sign

from .helpers import DEADLINE, Api, each_value, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "whsec_sandbox"
NAMES = ("x-fluxomail-signature", "fluxomail-signature")


class Received(NamedTuple):
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(self.body)
        return event


class Endpoint:
    """A server that receives webhooks.

    :param statuses: of its next responses, then 204; None for no response until the end of the test.
    """

    def __init__(self) -> None:
        self.statuses: list[int | None] = []
        self.received: queue.Queue[Received] = queue.Queue()
        self.ended = threading.Event()
        self.given_up = False
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = endpoint.statuses.pop(0) if endpoint.statuses else 204
                endpoint.received.put(Received({name.lower(): value for name, value in self.headers.items()}, body))
                if status is None:
                    endpoint.given_up = not endpoint.ended.wait(DEADLINE / 2)
                    return
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def take(self, count: int = 1) -> list[Received]:
        return [self.received.get(timeout=DEADLINE) for _ in range(count)]

    def types(self, count: int) -> list[str]:
        return sorted(one.event["type"] for one in self.take(count))


@contextmanager
def serving() -> Iterator[Endpoint]:
    endpoint = Endpoint()
    thread = threading.Thread(target=endpoint.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.ended.set()
        endpoint.server.shutdown()
        thread.join()
        endpoint.server.server_close()


@pytest.fixture
def endpoint(api: Api) -> Iterator[Endpoint]:
    """An endpoint that gets the events of the sandbox."""
    with serving() as endpoint:
        api.control("settings", webhook_url=endpoint.url, event_delay=0)
        yield endpoint
        api.control("reset")


def log(api: Api) -> list[dict[str, Any]]:
    return list(api.get("webhooks")["deliveries"])


def wait_for(api: Api, state: str, attempts: int = 1) -> dict[str, Any]:
    """The only delivery, once it is in a state and has a number of attempts."""
    wait_until(lambda: [(one["state"], len(one["attempts"])) for one in log(api)] == [(state, attempts)])
    return log(api)[0]


def test_the_contracts_vector() -> None:
    body = (
        b'{"id":"evt_demo1","type":"email.bounced","created":1767225612345,"organizationId":"org_demo",'
        b'"data":{"to":"ops@example.org","subject":"Nightly load","messageId":"0100-demo-000000"}}'
    )
    assert sign("whsec_demo", body) == "79de0e0ac4f40e7815475e986e1afce0f62f654e564812064501efd63174c345"


def test_an_event_is_sent(api: Api, endpoint: Endpoint) -> None:
    send_id = api.send_id(to="Ops <bounced@example.org>")
    message = api.get("messages")["messages"][0]
    found = {one.event["type"]: one for one in endpoint.take(2)}
    assert set(found) == {"email.sent", "email.bounced"}
    webhook = found["email.bounced"]
    event, (bounced,) = webhook.event, api.events(types="email.bounced").json()["events"]
    details = {name: value for name, value in bounced["data"].items() if name not in ("sendId", "providerMessageId")}
    assert event.pop("id").startswith("evt_")
    assert event == {
        "type": "email.bounced",
        "created": int(bounced["id"].rpartition(":")[2]),
        "organizationId": "org_sandbox",
        "data": details
        | {"to": "Ops <bounced@example.org>", "subject": "Nightly load", "messageId": message["message_id"]},
    }
    assert send_id not in webhook.body.decode()
    expected = hmac.new(SECRET.encode(), webhook.body, hashlib.sha256).hexdigest()
    assert [webhook.headers.get(name) for name in NAMES] == [expected, expected]
    assert webhook.headers["content-type"] == "application/json"
    wait_until(lambda: [one["state"] for one in log(api)] == ["delivered"] * 2)
    shown = log(api)[0]
    assert (shown["types"], shown["url"], shown["next_at"]) == (["email.sent"], endpoint.url, None)
    assert [one["status"] for one in shown["attempts"]] == [204]


def test_an_event_is_sent_when_it_happens_by_the_clock(api: Api, endpoint: Endpoint) -> None:
    api.control("settings", event_delay=3600)
    send_id = api.send_id()
    assert endpoint.types(1) == ["email.sent"]
    api.add_event(send_id, "opened")
    assert endpoint.types(1) == ["email.opened"]
    api.advance(3600)
    assert endpoint.types(1) == ["email.delivered"]


def test_only_what_happens_from_then_on(api: Api) -> None:
    api.control("settings", event_delay=0)
    api.send_id()
    with serving() as endpoint:
        api.control("settings", webhook_url=endpoint.url)
        api.quiet(subject="New")
        (webhook,) = endpoint.take()
        assert webhook.event["data"]["subject"] == "New"
        wait_for(api, "delivered")
        api.control("settings", webhook_url=None)
        api.send_id()
        api.control("settings", webhook_url=endpoint.url)
        api.quiet(subject="Newer")
        (webhook,) = endpoint.take()
        assert webhook.event["data"]["subject"] == "Newer"
        api.control("reset")
        assert log(api) == []


def test_another_organization_has_no_webhooks(api: Api, endpoint: Endpoint) -> None:
    api.control("keys", key="other", organization="org_other")
    api.send(api_key="other", subject="Other")
    api.quiet(subject="Own")
    assert endpoint.take()[0].event["data"]["subject"] == "Own"


def test_a_failure_is_retried_with_a_doubled_backoff(api: Api, endpoint: Endpoint) -> None:
    endpoint.statuses = [500, 404, 302, 429]
    api.quiet()
    (first,) = endpoint.take()
    backoffs = []
    for attempts in range(1, 5):
        shown = wait_for(api, "pending", attempts)
        backoffs.append(round(shown["next_at"] - shown["attempts"][-1]["at"], 3))
        # Not early: see the gaps below.
        api.advance(shown["next_at"] - api.advance(0) - 0.3)
        assert endpoint.take() == [Received(first.headers, first.body)]
    assert backoffs == [10, 20, 40, 80]
    shown = wait_for(api, "delivered", 5)
    assert [one["status"] for one in shown["attempts"]] == [500, 404, 302, 429, 204]
    gaps = [after["at"] - before["at"] for before, after in pairwise(shown["attempts"])]
    assert all(gap >= backoff for gap, backoff in zip(gaps, backoffs, strict=True))


def test_the_backoff_ends_at_an_hour(api: Api, endpoint: Endpoint) -> None:
    endpoint.statuses = [500] * 2
    api.control("settings", webhook_backoff=3_000)
    api.quiet()
    wait_for(api, "pending")
    api.advance(3_001)
    shown = wait_for(api, "pending", 2)
    assert shown["next_at"] - shown["attempts"][-1]["at"] == pytest.approx(3_600)


def test_no_connection_is_a_failure(api: Api) -> None:
    with serving() as endpoint:
        url = endpoint.url
    api.control("settings", webhook_url=url, webhook_attempts=1)
    api.quiet()
    shown = wait_for(api, "failed")
    assert (shown["attempts"][0]["status"], shown["next_at"]) == (None, None)
    assert "Connect" in shown["attempts"][0]["error"]


def test_redeliver(api: Api, endpoint: Endpoint) -> None:
    endpoint.statuses = [500]
    api.control("settings", webhook_attempts=1)
    api.quiet()
    (first,) = endpoint.take()
    number = wait_for(api, "failed")["id"]
    response = api.http.post(f"/_sandbox/webhooks/{number}/redeliver")
    assert response.json()["state"] == "pending"
    assert endpoint.take() == [first]
    wait_for(api, "delivered", 2)
    api.http.post(f"/_sandbox/webhooks/{number}/redeliver")
    assert endpoint.take() == [first]
    assert api.http.post("/_sandbox/webhooks/99/redeliver").status_code == 404


def test_the_test_button(api: Api, endpoint: Endpoint) -> None:
    planned = api.control("webhooks/test")
    (webhook,) = endpoint.take()
    assert (webhook.event["type"], [webhook.event["id"]]) == ("email.delivered", planned["event_ids"])
    assert webhook.headers[NAMES[0]] == sign(SECRET, webhook.body)
    api.control("settings", webhook_url=None)
    assert api.http.post("/_sandbox/webhooks/test").status_code == 409


@each_value("webhook_url", {None: 200, "http://127.0.0.1:9/hook": 200, "https://hooks.example.org": 200})
def test_good_urls(api: Api, value: str | None, expected: int) -> None:
    assert api.post("settings", webhook_url=value).status_code == expected
    api.control("reset")


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "http://a?b",
        "http://[::1]:65535/hook",
        "https://hooks.example.org:443/a/b;c?d=%20&e=%C3%B6",
    ],
)
def test_further_good_urls(api: Api, url: str) -> None:
    assert api.control("settings", webhook_url=url)["webhook_url"] == url


@pytest.mark.parametrize(
    "url",
    [
        *("", "hook", "ftp://a/b", "http://", "http://[", "http://a b/", "http://a:99999", "http://a:0", "http://a:"),
        *("http://user:secret@a/", "http://a/#b", "http://bücher.example/", "http://a/ö", "http://a\n", "http://[a", 5),
    ],
)
def test_bad_urls(api: Api, url: Any) -> None:
    response = api.post("settings", webhook_url=url)
    assert response.status_code == 400
    assert "webhook_url" in response.json()["error"]


@each_value("webhook_secret", {"whsec_sandbox": "whsec_sandbox", "whsec_demo": "whsec_demo"})
def test_secret(api: Api, endpoint: Endpoint, value: str, expected: str) -> None:
    api.control("settings", webhook_secret=value)
    api.quiet()
    (webhook,) = endpoint.take()
    assert webhook.headers[NAMES[0]] == sign(expected, webhook.body)


@each_value(
    "webhook_types",
    {("email.dropped",): ["email.dropped"], ("email.dropped", "email.sent"): ["email.dropped", "email.sent"]},
)
def test_types(api: Api, endpoint: Endpoint, value: tuple[str, ...], expected: list[str]) -> None:
    api.control("settings", webhook_types=list(value))
    send_id = api.quiet()
    for kind in ("opened", "dropped"):
        api.add_event(send_id, kind)
    assert endpoint.types(len(expected)) == expected


@each_value("webhook_body", {"event": (), "list": (0,), "events": ("events", 0)})
def test_body(api: Api, endpoint: Endpoint, value: str, expected: tuple[Any, ...]) -> None:
    api.control("settings", webhook_body=value)
    api.quiet()
    content = json.loads(endpoint.take()[0].body)
    for step in expected:
        assert len(content) == 1
        content = content[step]
    assert content["type"] == "email.sent"


@each_value("webhook_send_id", {False: False, True: True})
def test_send_id(api: Api, endpoint: Endpoint, value: bool, expected: bool) -> None:
    api.control("settings", webhook_send_id=value)
    send_id = api.quiet()
    data = endpoint.take()[0].event["data"]
    assert (data.get("sendId") == send_id) is expected
    assert ("sendId" in data) is expected


@each_value("webhook_signature_header", {"both": NAMES, **{name: (name,) for name in NAMES}})
def test_signature_header(api: Api, endpoint: Endpoint, value: str, expected: tuple[str, ...]) -> None:
    api.control("settings", webhook_signature_header=value)
    api.quiet()
    (webhook,) = endpoint.take()
    assert tuple(name for name in NAMES if name in webhook.headers) == expected


@each_value("webhook_signature_form", {"hex": "", "sha256": "sha256="})
def test_signature_form(api: Api, endpoint: Endpoint, value: str, expected: str) -> None:
    api.control("settings", webhook_signature_form=value)
    api.quiet()
    (webhook,) = endpoint.take()
    assert webhook.headers[NAMES[0]] == expected + sign(SECRET, webhook.body)


@each_value("webhook_attempts", {5: "pending", 1: "failed"})
def test_attempts(api: Api, endpoint: Endpoint, value: int, expected: str) -> None:
    endpoint.statuses = [500]
    api.control("settings", webhook_attempts=value)
    api.quiet()
    wait_for(api, expected)


@each_value("webhook_backoff", {10.0: 10, 0.0: 0, 60.0: 60})
def test_backoff(api: Api, endpoint: Endpoint, value: float, expected: float) -> None:
    endpoint.statuses = [500]
    api.control("settings", webhook_backoff=value)
    api.quiet()
    if not expected:
        wait_for(api, "delivered", 2)
        return
    shown = wait_for(api, "pending")
    assert shown["next_at"] - shown["attempts"][0]["at"] == pytest.approx(expected)


@each_value("webhook_timeout", {10.0: None, 0.1: "no response within 0.1 s"})
def test_timeout(api: Api, endpoint: Endpoint, value: float, expected: str | None) -> None:
    endpoint.statuses = [None] if expected else []
    api.control("settings", webhook_timeout=value)
    api.quiet()
    shown = wait_for(api, "pending" if expected else "delivered")
    assert shown["attempts"][0]["error"] == expected


def test_a_slow_endpoint_loses_no_event() -> None:
    with serving() as endpoint, SandboxServer(bounds=Bounds(deliveries=3), webhook_url=endpoint.url) as server:
        endpoint.statuses = [500] * 3
        with Api(server.url) as api:
            for number in range(8):
                api.quiet(subject=str(number))
            wait_until(lambda: len(log(api)) == 3 and all(one["attempts"] for one in log(api)))
            endpoint.take(3)
            api.advance(11)
            assert sorted(one.event["data"]["subject"] for one in endpoint.take(8)) == [str(n) for n in range(8)]
            wait_until(lambda: {one["state"] for one in log(api)} == {"delivered"})
            assert len(log(api)) == 3


def test_arguments_of_the_server() -> None:
    with (
        serving() as endpoint,
        SandboxServer(event_delay=0, webhook_url=endpoint.url, webhook_secret="whsec_demo") as server,
        Api(server.url) as api,
    ):
        for _ in range(2):
            api.quiet()
            (webhook,) = endpoint.take()
            assert webhook.headers[NAMES[0]] == sign("whsec_demo", webhook.body)
            # A fresh start has them too.
            api.control("reset")
    with pytest.raises(SandboxStartError, match="webhook_url must be"):
        SandboxServer(webhook_url="hook").start()


def test_stopping_the_server_does_not_wait_for_the_endpoint() -> None:
    with serving() as endpoint:
        endpoint.statuses = [None]
        with SandboxServer(webhook_url=endpoint.url) as server, Api(server.url) as api:
            api.quiet()
            endpoint.take()
        assert not endpoint.given_up
