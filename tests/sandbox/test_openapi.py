"""The OpenAPI document: every route is in it, and every response that it describes is sent like that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from openapi_spec_validator.validation.exceptions import OpenAPIValidationError

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.api.not_imitated import NOT_IMITATED
from airflow_provider_fluxomail.sandbox.app import _build_routes, openapi_document
from airflow_provider_fluxomail.sandbox.state import Sandbox
from airflow_provider_fluxomail.sandbox.switches import Switches

from .helpers import BASE, KEY, Api

DOCUMENT = openapi_document()
OPERATIONS = [(method, path) for path, item in DOCUMENT["paths"].items() for method in item]
SEND, GLOBAL = ("post", "/api/v1/emails/send"), ("post", "/api/v1/emails/send-global")
TIMELINE, EVENTS = ("get", "/api/v1/sends/{send_id}"), ("get", "/api/v1/events")
STREAM = ("get", "/api/v1/events/stream")
SYNC, METRICS = ("post", "/api/v1/contacts/sync"), ("get", "/api/v1/metrics")
PREFERENCES, UPDATE = ("get", "/api/v1/preferences"), ("post", "/api/v1/preferences")
BODIES_OF_API: dict[tuple[str, str], dict[str, Any]] = {
    SEND: BASE,
    GLOBAL: BASE,
    SYNC: {"contacts": [{"email": "ops@example.org", "eventId": "e1"}, {"email": "nobody", "eventId": "e2"}]},
    UPDATE: {"email": BASE["to"], "subscriptions": [{"categoryKey": "marketing", "subscribed": False}]},
}
#: A body of this many bytes is too large for the server of these tests.
BODY_BYTES = 2_000


@pytest.fixture(scope="module")
def server() -> Iterator[SandboxServer]:
    with SandboxServer(event_delay=0, bounds=Bounds(body_bytes=BODY_BYTES)) as running:
        yield running


def check(operation: tuple[str, str], response: httpx.Response) -> None:
    """The response is one that the document describes."""
    described = DOCUMENT["paths"][operation[1]][operation[0]]["responses"]
    status = str(response.status_code)
    documented = described.get(status) or described[f"{status[0]}XX"]
    for name, header in documented.get("headers", {}).items():
        if name in response.headers:
            Draft202012Validator(header["schema"]).validate(response.headers[name])
    ((content_type, content),) = documented["content"].items()
    assert response.headers["Content-Type"].partition(";")[0] == content_type
    if content_type == "application/json":
        schema = {**content["schema"], "components": DOCUMENT["components"]}
        Draft202012Validator(schema).validate(response.json())


def test_the_served_document_is_the_one_of_the_docs(api: Api) -> None:
    assert api.http.get("/openapi.json").json() == DOCUMENT
    assert DOCUMENT["openapi"].startswith("3.1")


def test_every_reference_has_a_schema() -> None:
    used = set(re.findall(r"#/components/schemas/(\w+)", str(DOCUMENT)))
    assert "SendInput" in used
    assert used <= set(DOCUMENT["components"]["schemas"])


def test_every_route_is_described() -> None:
    sandbox = Sandbox("key", data=None, switches=Switches(), bounds=Bounds())
    try:
        routes: Any = _build_routes(sandbox)
        mounted = {
            (method.lower(), getattr(route, "path_format", route.path))
            for route in routes.routes
            for method in route.methods - {"HEAD"}
        }
    finally:
        sandbox.close()
    pages = {(method, path) for method, path in mounted if path in ("/", "/inbox") or path.startswith("/inbox/")}
    assert len(pages) == 18
    others = {(method, path) for method, path in mounted if path in NOT_IMITATED}
    assert len(others) == 5 * len(NOT_IMITATED)
    # What the links of a message lead to is no API.
    links = {("get", f"/api/{path}") for path in ("track/open", "track/click", "unsubscribe")}
    links.add(("post", "/api/unsubscribe"))
    assert mounted - pages - others - links - {("get", "/openapi.json")} == set(OPERATIONS)


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    del (broken := json.loads(json.dumps(DOCUMENT)))["paths"][TIMELINE[1]]["get"]["parameters"]
    with pytest.raises(OpenAPIValidationError, match="send_id"):
        OpenAPIV31SpecValidator(broken).validate()


def call(api: Api, operation: tuple[str, str], key: str = KEY, **options: Any) -> httpx.Response:
    """A good call of the API, unless the options spoil it."""
    method, path = operation
    options.setdefault("headers", {"Authorization": f"Bearer {key}"})
    if method == "post":
        options.setdefault("json", BODIES_OF_API[operation])
    if operation == PREFERENCES:
        options.setdefault("params", {"email": BASE["to"]})
    if "{send_id}" in path:
        path = path.format(send_id=options.pop("send_id", None) or api.send_id())
    if operation != STREAM:
        return api.http.request(method, path, **options)
    with api.http.stream(method, path, **options) as response:
        if response.status_code != 200:
            response.read()
    return response


def provoke(api: Api, operation: tuple[str, str], status: int) -> httpx.Response:
    """Make the API respond with a status."""
    if status == 400:
        api.control("settings", timeline_form="spec")
        bad: dict[Any, dict[str, Any]] = {SEND: {"json": {}}, GLOBAL: {"json": {}}, STREAM: {"params": {"since": "x"}}}
        bad |= {
            SYNC: {"json": {}},
            UPDATE: {"json": {}},
            PREFERENCES: {"params": {}},
            METRICS: {"params": {"since": "x"}},
        }
        return call(api, operation, **bad.get(operation, {"params": {"limit": "x"}}))
    if status == 401:
        return call(api, operation, "wrong")
    if status == 402:
        api.control("settings", attachments_in_plan=False, events_in_plan=False)
        files = [{"filename": "a", "contentBase64": "YQ=="}]
        body: dict[str, Any] = {"json": BASE | {"attachments": files}} if operation[0] == "post" else {}
        return call(api, operation, **body)
    if status == 403:
        api.control("keys", key="other", scopes=["templates_write"])
        return call(api, operation, "other")
    if status == 404 and operation in (PREFERENCES, UPDATE):
        return call(api, operation)
    if status == 404:
        return call(api, operation, send_id="unknown")
    if status == 409:
        api.control("settings", idempotency_conflict="conflict")
        headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": "k"}
        call(api, operation, headers=headers)
        return call(api, operation, headers=headers, json=BODIES_OF_API[operation] | {"subject": "Other"})
    if status == 413:
        return call(api, operation, json=BODIES_OF_API[operation] | {"content": "x" * BODY_BYTES})
    if status == 429:
        api.enter_window()
        api.control("keys", key="capped", rate_limit_per_minute=1)
        call(api, operation, "capped")
        return call(api, operation, "capped")
    if status == 200:
        api.send_id()
    if status == 500:
        api.control("faults", kind="error_before_store", match={"path": operation[1].partition("{")[0].rstrip("/")})
    return call(api, operation)


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        (operation, int(status))
        for operation in OPERATIONS
        if operation[1].startswith("/api/")
        for status in DOCUMENT["paths"][operation[1]][operation[0]]["responses"]
    ],
    ids=str,
)
def test_every_described_response_of_the_api_is_sent(api: Api, operation: tuple[str, str], status: int) -> None:
    response = provoke(api, operation, status)
    assert response.status_code == status, response.text
    check(operation, response)
    always = DOCUMENT["paths"][operation[1]][operation[0]]["responses"][str(status)]["headers"]
    assert {"X-Request-Id", "Fluxomail-Request-Id"} <= set(always)
    assert response.headers["X-Request-Id"] == response.headers["Fluxomail-Request-Id"]
    assert ("Retry-After" in response.headers) is (status == 429)


@pytest.mark.parametrize("form", ["docs", "spec", "raw"])
def test_both_forms_of_a_timeline_are_described(api: Api, form: str) -> None:
    api.control("settings", timeline_form=form)
    response = call(api, TIMELINE)
    assert response.status_code == 200
    check(TIMELINE, response)


def test_each_event_of_a_stream_is_described(api: Api) -> None:
    api.control("settings", event_delay=0)
    for to in ("clicked@example.org", "bounced@example.org"):
        api.send_id(to=to, htmlContent="<a href='https://example.org'>a</a>")
    content = DOCUMENT["paths"][STREAM[1]]["get"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    data = content["properties"]["data"]["contentSchema"] | {"components": DOCUMENT["components"]}
    with api.stream(since="0") as stream:
        check(STREAM, stream.response)
        blocks = [block for _ in range(7) if not (block := str(stream.block())).startswith(":")]
    assert len(blocks) == 6
    for block in blocks:
        event = dict(line.split(": ", 1) for line in block.splitlines())
        Draft202012Validator(content).validate(event)
        Draft202012Validator(data).validate(json.loads(event["data"]))


@pytest.mark.parametrize("form", ["structured", "plain", "message", "spec"])
def test_each_form_of_an_error_is_described(api: Api, form: str) -> None:
    api.control("settings", error_form=form)
    check(SEND, provoke(api, SEND, 402))


BODIES: dict[str, dict[str, Any]] = {
    "/_sandbox/keys": {"key": "k", "scopes": [], "expires_in": 5},
    "/_sandbox/pause": {"paused": True},
    "/_sandbox/settings": {"event_delay": 3},
    "/_sandbox/clock": {"advance_seconds": 1},
    "/_sandbox/messages/{send_id}/events": {"type": "opened", "ip": "192.0.2.1"},
    "/_sandbox/faults": {"kind": "status", "status": 500, "chance": 0.5},
}


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each[1].startswith("/_sandbox")], ids=str)
def test_every_described_response_of_the_control_api_is_sent(api: Api, operation: tuple[str, str]) -> None:
    files = [{"filename": "a.csv", "contentBase64": "YQ==", "contentType": "text/csv"}]
    send_id = api.send_id(attachments=files, idempotency_key="k", cc=["b@example.org"], custom=1)
    api.control("faults", kind="delay", seconds=0, times=2)
    api.add_event(send_id, "unsubscribed")
    # Nothing listens there.
    api.control("settings", webhook_url="http://127.0.0.1:9/")
    number = api.control("webhooks/test")["id"]
    named = {"send_id": send_id, "key": KEY, "position": 0, "address": BASE["to"], "number": number}
    method, path = operation[0], operation[1].format_map(named)
    response = api.http.request(method, path, json=BODIES.get(operation[1]) if method == "post" else None)
    assert response.status_code == 200, response.text
    check(operation, response)
    if method == "post" and operation[1] in BODIES:
        invalid = api.http.post(path, json={"type": 1, "nonsense": True})
        assert invalid.status_code == 400
        check(operation, invalid)
