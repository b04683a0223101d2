"""Refused requests, source and previews of a message, and the inbox under a prefix, as HTTP."""

from __future__ import annotations

import email
import email.policy

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer

from .helpers import Api
from .test_inbox import Page, assert_no_document, file, show

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def test_refused_requests(api: Api) -> None:
    assert "No request was refused" in show(api, "/refused").text
    api.send(subject=None, content="what was refused <b>")
    api.send(api_key="fm_secret_key")
    api.control("keys", key="reader", scopes=["read_sends"])
    api.send(api_key="reader", idempotency_key="af1:refused")
    api.control("faults", kind="status", status=429, retry_after=3)
    api.send(content="x" * 100_000)
    api.send_id()
    page = show(api, "/refused")
    for shown in (
        "400 Missing required fields: subject POST /api/v1/emails/send",
        '"content": "what was refused <b>"',
        "401 Invalid API key",
        "403 Forbidden: missing scope send_email",
        "af1:refused",
        "429 Rate limit exceeded",
        "The beginning of 97.7 KiB",
        "4 requests got an error.",
    ):
        assert shown in page.text, shown
    assert "fm_secret_key" not in page.text
    assert page.text.index("429 Rate") < page.text.index("400 Missing")
    assert "Refused requests 4" in show(api).text
    only = show(api, "/refused?status=401")
    assert "1 request got the response 401." in only.text
    assert "Missing required" not in only.text
    assert "4 requests" in show(api, "/refused?status=x").text
    api.control("reset")
    assert "No request was refused" in show(api, "/refused").text


@pytest.mark.parametrize("form", ["structured", "plain", "message", "spec", "text"])
def test_a_reason_in_each_form_of_errors(api: Api, form: str) -> None:
    api.control("settings", error_form=form)
    api.send(to="nobody")
    assert "400 Invalid request: to must be exactly one email address POST" in show(api, "/refused").text


def test_source_and_headers(api: Api) -> None:
    send_id = api.send_id(subject="Übersicht", htmlContent="<p>Rich</p>", bcc="dan@example.org", attachments=[file()])
    response = api.http.get(f"/inbox/{send_id}/message.eml")
    assert response.headers["Content-Type"] == "message/rfc822"
    assert f'filename="{send_id}.eml"' in response.headers["Content-Disposition"]
    assert_no_document(response)
    message = email.message_from_bytes(response.content, policy=email.policy.default)
    assert message["Subject"] == "Übersicht"
    assert "dan@" not in response.text
    assert [part.get_content_type() for part in message.walk() if not part.is_multipart()][:2] == [
        "text/plain",
        "text/html",
    ]
    page = show(api, f"/{send_id}", view="headers")
    assert "Message-ID: <" in page.text
    assert "Loaded 20 rows" not in page.text.partition("Message-ID")[2].partition("Attachments")[0]
    assert "Loaded 20 rows" in show(api, f"/{send_id}", view="mime").text
    for form in ("headers", "mime"):
        assert_no_document(api.http.get(f"/inbox/{send_id}/{form}"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"id,name\n1,Ada\n", "text/plain; charset=utf-8"),
        (("ü" * 1000).encode(), "text/plain; charset=utf-8"),
        (b"<script>alert(1)</script>", "text/plain; charset=utf-8"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "text/plain; charset=utf-8"),
        (b"%PDF-1.7\n", None),
        (b"\0\1\2", None),
        (b"\xfftext", None),
        (b"", None),
    ],
    ids=str,
)
def test_previews(api: Api, content: bytes, kind: str | None) -> None:
    send_id = api.send_id(attachments=[file("a.html", content, "text/html")])
    response = api.http.get(f"/inbox/{send_id}/attachments/0/preview")
    page = show(api, f"/{send_id}")
    if kind is None:
        assert response.status_code == 404
        assert not page.all("img")
        assert not page.all("iframe")
        return
    assert response.headers["Content-Type"] == kind
    assert response.content == content
    assert_no_document(response)
    assert bool(page.all("img")) is kind.startswith("image/")
    assert bool(page.all("iframe", sandbox="")) is kind.startswith("text/")


def test_a_proxy_that_leaves_the_prefix_out(api: Api) -> None:
    headers = {"X-Forwarded-Prefix": "/tools/mail/", "Accept": "text/html"}
    send_id = api.send_id()
    for path in ("/inbox", f"/inbox/{send_id}", "/inbox/refused", "/inbox/nothing/at/all"):
        # The links of Page are relative, or it fails.
        page = Page(api.http.get(path, headers=headers))
        assert f"{api.url}/tools/mail" in page.text
    assert api.http.get("/", headers=headers).headers["Location"] == "./inbox"
    for wrong in ("//evil.example", "/a/../b", "javascript:x", "/a b", "/" + "x" * 300, "/<b>"):
        assert "evil" not in show_with(api, wrong)


def show_with(api: Api, prefix: str) -> str:
    page = Page(api.http.get("/inbox", headers={"X-Forwarded-Prefix": prefix}))
    assert f"{api.url} Inbox" in page.text
    return page.text


@pytest.mark.parametrize("root_path", ["mail", "/a b", "//x", "/a/../b", "http://x", "/ü"])
def test_a_wrong_root_path(root_path: str) -> None:
    with pytest.raises(ValueError, match="root_path must be a path such as /mail"):
        SandboxServer(root_path=root_path)


def test_requests_with_and_without_the_root_path() -> None:
    with SandboxServer(root_path="/inbox") as server, Api(server.url) as api:
        for prefix in ("", "/inbox"):
            response = api.http.post(
                f"{prefix}/api/v1/emails/send",
                json={"to": "a@example.org", "subject": "s", "content": "c"},
                headers={"x-api-key": "fm_sandbox"},
            )
            assert response.status_code == 200
        assert api.http.get("/inbox/inbox").status_code == 200
        assert api.http.get("/inbox/_sandbox/messages").json()["count"] == 2


def test_pages_that_follow_are_no_streams_and_are_bounded(api: Api) -> None:
    with api.http.stream("GET", "/inbox/changes") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        chunks = response.iter_text()
        assert "data: changed" in next(chunks)
        api.send_id(subject="A secret")
        notice = next(chunks)
        assert notice == "data: changed\n\n"
    foreign = {"Origin": "https://evil.example"}
    assert api.http.get("/inbox/changes", headers=foreign).status_code == 403
    with pytest.raises(httpx.ReadTimeout), api.http.stream("GET", "/inbox/changes", timeout=1) as response:
        response.read()
