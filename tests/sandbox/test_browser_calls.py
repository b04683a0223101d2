"""Pages of other origins, HEAD, OPTIONS and ``Allow``; endpoints that the sandbox does not imitate."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer
from airflow_provider_fluxomail.sandbox.api.not_imitated import NOT_IMITATED

from .helpers import BASE, KEY, Api

PAGE = "https://app.example.com"
API_PATHS = {
    "emails/send": "OPTIONS, POST",
    "sends/x": "GET, HEAD, OPTIONS",
    "events": "GET, HEAD, OPTIONS",
    "events/stream": "GET, HEAD, OPTIONS",
    "contacts/sync": "OPTIONS, POST",
    "preferences": "GET, HEAD, OPTIONS, POST",
    "metrics": "GET, HEAD, OPTIONS",
}


def preflight(api: Api, path: str, method: str, headers: str) -> httpx.Response:
    """What a browser sends before a call."""
    sent = {"Origin": PAGE, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return api.http.options(path, headers=sent)


def as_page(key: str, origin: str = PAGE) -> dict[str, str]:
    return {"Origin": origin, "Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(("path", "allowed"), API_PATHS.items())
def test_preflight(api: Api, path: str, allowed: str) -> None:
    headers = "authorization,content-type,fluxomail-version,idempotency-key"
    response = preflight(api, f"/api/v1/{path}", "POST", headers)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["Access-Control-Allow-Methods"] == response.headers["Allow"] == allowed
    shown = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert set(headers.split(",")) <= set(shown)


def test_a_preflight_meets_no_fault_and_needs_no_key(api: Api) -> None:
    api.control("faults", kind="status", status=503, match={"path": "/api/v1"})
    assert preflight(api, "/api/v1/emails/send", "POST", "authorization").status_code == 204
    assert api.send().status_code == 503
    assert [row[:2] for row in api.log()] == [("OPTIONS", 204), ("POST", 503)]


def test_a_page_reads_responses_errors_and_injected_ones(api: Api) -> None:
    api.control("keys", key="page")
    api.control("faults", kind="proxy_error_page", match={"method": "GET"})
    for response, status in (
        (api.http.post("/api/v1/emails/send", json=BASE, headers=as_page("page")), 200),
        (api.http.post("/api/v1/emails/send", json={}, headers=as_page("page")), 400),
        (api.http.get("/api/v1/metrics", headers=as_page("wrong")), 502),
        (api.http.get("/api/v1/metrics", headers=as_page("wrong")), 401),
        (api.http.get("/api/v1/nothing", headers=as_page("page")), 404),
    ):
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
        assert {"Fluxomail-Request-Id", "Retry-After", "Idempotency-Replayed"} <= set(exposed)
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_a_page_opens_a_stream(api: Api) -> None:
    api.control("keys", key="token", expires_in=60)
    with api.stream(api_key=None, headers={"Origin": PAGE}, token="token") as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (PAGE, 403),
        ("null", 403),
        ("http://192.0.2.1", 403),
        ("http://localhost.evil.example", 403),
        ("http://[", 403),
        ("http://localhost:3000", 200),
        ("http://app.localhost", 200),
        ("https://127.0.0.1:8443", 200),
        ("http://[::1]:3000", 200),
    ],
)
def test_the_key_that_everyone_knows_is_not_for_other_pages(api: Api, origin: str, status: int) -> None:
    """With CORS, any page that is open in a developer's browser could read the recipients."""
    response = api.http.get("/api/v1/events", headers=as_page(KEY, origin))
    assert response.status_code == status
    assert api.http.post("/api/v1/emails/send", json=BASE, headers=as_page(KEY, origin)).status_code == status
    api.control("keys", key="page")
    assert api.http.get("/api/v1/events", headers=as_page("page", origin)).status_code == 200


def test_own_pages_and_allowed_names_may_use_it() -> None:
    with SandboxServer(allow_hosts=["mail.test"]) as server, Api(server.url) as api:
        for origin in (server.url, "http://mail.test:3000"):
            assert api.http.get("/api/v1/events", headers=as_page(KEY, origin)).status_code == 200


def test_the_control_api_has_no_cors(api: Api) -> None:
    response = preflight(api, "/_sandbox/reset", "POST", "content-type")
    assert response.status_code == 403
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert api.http.options("/_sandbox/reset").status_code == 405


@pytest.mark.parametrize(
    ("path", "allowed"),
    [(f"/api/v1/{path}", allowed) for path, allowed in API_PATHS.items()]
    + [
        ("/_sandbox/settings", "GET, HEAD, POST"),
        ("/_sandbox/faults", "DELETE, GET, HEAD, POST"),
        ("/_sandbox/reset", "POST"),
        ("/openapi.json", "GET, HEAD"),
    ],
)
def test_allow_names_all_methods_of_a_path(api: Api, path: str, allowed: str) -> None:
    response = api.http.put(path)
    assert (response.status_code, response.headers["Allow"]) == (405, allowed)


def test_head_has_the_headers_of_get(on_each_http: Api) -> None:
    api = on_each_http
    paths = [f"/api/v1/sends/{api.send_id()}", "/api/v1/events", "/api/v1/metrics", "/_sandbox/health", "/openapi.json"]
    for path in (*paths, "/api/v1/sends/unknown", "/inbox", "/inbox/unknown", "/inbox/static/inbox.css"):
        headers = {"Authorization": f"Bearer {KEY}"}
        get, head = api.http.get(path, headers=headers), api.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (get.status_code, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        # The next response on the connection is not confused with a body.
        assert api.http.get("/_sandbox/health").status_code == 200
    assert ("HEAD", 404, None) in api.log()


@pytest.mark.parametrize("path", ["/api/v1/events/stream", "/inbox/changes"])
def test_the_head_of_a_stream_is_its_end(on_each_http: Api, path: str) -> None:
    api = on_each_http
    api.control("faults", kind="stream_drop")
    headers = {"Authorization": f"Bearer {KEY}"}
    for _ in range(2):
        head = api.http.head(path, headers=headers)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Type"].startswith("text/event-stream")
    # A stream that is open would hold up the connection; the fault is for one.
    assert api.get("faults")["count"] == 1
    assert api.http.head("/api/v1/events/stream").status_code == 401


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br, gzip", "x"])
def test_a_compressed_body_is_refused(api: Api, encoding: str) -> None:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Encoding": encoding}
    body = gzip.compress(json.dumps(BASE).encode())
    for path in ("/api/v1/emails/send", "/_sandbox/settings"):
        response = api.http.post(path, content=body, headers=headers)
        assert response.status_code == 415
        assert "send it without Content-Encoding" in response.json()["error"]
    assert (
        api.http.post("/api/v1/emails/send", content=body, headers=headers).json()["code"] == "unsupported_media_type"
    )
    # There is nothing to decompress.
    assert api.http.get("/api/v1/events", headers=headers).status_code == 200
    assert api.count() == 0


@pytest.mark.parametrize("encoding", ["identity", "", None])
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "nonsense", "", None])
def test_a_body_is_json_whatever_its_headers_say(api: Api, encoding: str | None, content_type: str | None) -> None:
    given = {"Authorization": f"Bearer {KEY}", "Content-Encoding": encoding, "Content-Type": content_type}
    headers = {name: value for name, value in given.items() if value is not None}
    assert api.http.post("/api/v1/emails/send", content=json.dumps(BASE), headers=headers).status_code == 200


@pytest.mark.parametrize("path", NOT_IMITATED)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_what_is_not_imitated_says_so(api: Api, path: str, method: str) -> None:
    response = api.http.request(method, path.format(id="welcome"))
    assert response.status_code == 501
    text = f"The sandbox does not imitate {method} {path}"
    assert response.json() == {"code": "not_implemented", "message": text, "error": text}


def test_an_unknown_path_is_not_an_unknown_contact(api: Api) -> None:
    for path in ("/api/v1/nothing", "/api/v1/", "/api/v1/preferences/"):
        response = api.http.get(path, headers={"Authorization": f"Bearer {KEY}"})
        assert (response.status_code, response.json()["message"]) == (404, f"Not found: the API has no GET {path}")
    assert api.http.get("/api/nothing").status_code == 404
