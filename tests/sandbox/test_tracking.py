"""Tracking at the wire: pixel, links, unsubscribing, suppression, and the source of a message."""

from __future__ import annotations

import re
import sqlite3
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.tracking import tokens
from airflow_provider_fluxomail.sandbox.tracking.handlers import PIXEL

from .helpers import Api, each_value

if TYPE_CHECKING:
    from email.message import EmailMessage
    from pathlib import Path

REPORT = "https://example.org/report?run=1&part=2"
HTML = '<p><a href="https://example.org/report?run=1&amp;part=2">Report</a> <a href=mailto:ops@example.org>Mail</a></p>'
BROWSER = {"User-Agent": "Mozilla/5.0 (X11)", "Accept": "text/html"}


def record(api: Api, send_id: str) -> dict[str, Any]:
    (found,) = [message for message in api.get("messages")["messages"] if message["send_id"] == send_id]
    return dict(found)


def links(api: Api, send_id: str, kind: str) -> list[str]:
    """The paths of the links of a kind in the HTML that the recipient gets."""
    html = record(api, send_id)["delivered_html"]
    urls = re.findall(rf'"(http://[^"]*/api/{kind}\?token=[^"]+)"', html)
    assert all(url.startswith(f"{api.url}/api/") for url in urls)
    return [url.removeprefix(api.url) for url in urls]


def track(api: Api, send_id: str, kind: str) -> str:
    (url,) = links(api, send_id, kind)
    return url


def source(api: Api, send_id: str) -> EmailMessage:
    response = api.http.get(f"/_sandbox/messages/{send_id}/source")
    assert (response.status_code, response.headers["Content-Type"]) == (200, "application/octet-stream")
    return message_from_bytes(response.content, policy=policy.default)


def raw_source(api: Api, send_id: str) -> bytes:
    return api.http.get(f"/_sandbox/messages/{send_id}/source").content


def of_type(api: Api, send_id: str, kind: str) -> list[dict[str, Any]]:
    return [event for event in record(api, send_id)["events"] if event["type"] == kind]


# Pixel and links


def test_html_gets_a_pixel_and_tracked_links(api: Api) -> None:
    send_id = api.quiet(htmlContent=HTML)
    message = record(api, send_id)
    assert message["html_content"] == HTML
    opened, clicked = track(api, send_id, "track/open"), track(api, send_id, "track/click")
    html = message["delivered_html"]
    assert f'<img src="{api.url}{opened}" width="1" height="1"' in html
    assert html.startswith(f'<p><a href="{api.url}{clicked}">Report</a> <a href=mailto:ops@example.org>Mail</a></p>')
    assert source(api, send_id).get_body(("html",)).get_content().strip() == html.strip()  # type: ignore[union-attr]


@pytest.mark.parametrize("html", [None, ""])
def test_text_gets_nothing(api: Api, html: str | None) -> None:
    send_id = api.quiet(htmlContent=html)
    assert record(api, send_id)["delivered_html"] == html
    mail = source(api, send_id)
    assert mail.get_content_type() == "text/plain"
    assert mail.get_content() == "Loaded 20 rows.\r\n"


def test_unsubscribe_links_are_left_alone(api: Api) -> None:
    kept = [
        '<a href="https://example.org/Unsubscribe/7">Stop</a>',
        "<a href='https://example.org/u?7'><b>Unsubscribe</b> here</a>",
    ]
    send_id = api.quiet(htmlContent="".join(kept) + HTML)
    assert record(api, send_id)["delivered_html"].startswith("".join(kept))
    assert len(links(api, send_id, "track/click")) == 1


def test_a_click_leads_to_the_link_and_is_recorded(api: Api) -> None:
    two = HTML + "<a href='https://é.example/ü x?q=\"%20&lt;é#f'>2</a>"
    send_id = api.quiet(htmlContent=two)
    first, second = links(api, send_id, "track/click")
    response = api.http.get(first, headers=BROWSER)
    assert (response.status_code, response.headers["Location"], response.content) == (302, REPORT, b"")
    assert "no-store" in response.headers["Cache-Control"]
    location = api.http.get(second).headers["Location"]
    assert location == "https://%C3%A9.example/%C3%BC%20x?q=%22%20%3C%C3%A9#f"
    events = of_type(api, send_id, "clicked")
    assert [event["url"] for event in events] == [REPORT, 'https://é.example/ü x?q="%20<é#f']
    assert (events[0]["userAgent"], events[0]["ip"]) == (BROWSER["User-Agent"], "127.0.0.1")
    assert api.types(send_id) == ["sent", "clicked", "clicked"]
    assert api.events(types="email.clicked").json()["events"][-1]["data"]["url"] == REPORT


def test_an_open_is_a_gif_that_is_never_cached(api: Api) -> None:
    send_id = api.quiet(htmlContent=HTML)
    response = api.http.get(track(api, send_id, "track/open"), headers=BROWSER)
    assert (response.status_code, response.headers["Content-Type"], response.content) == (200, "image/gif", PIXEL)
    assert PIXEL[:10] == b"GIF89a\x01\x00\x01\x00"
    assert "no-store" in response.headers["Cache-Control"]
    (event,) = of_type(api, send_id, "opened")
    assert event["userAgent"] == BROWSER["User-Agent"]


def test_only_tokens_of_the_sandbox_lead_anywhere(api: Api) -> None:
    send_id, other = api.quiet(htmlContent=HTML), api.quiet(htmlContent=HTML + HTML)
    paths = {kind: track(api, send_id, kind) for kind in ("track/open", "track/click", "unsubscribe")}
    made = {kind: path.partition("=")[2] for kind, path in paths.items()}
    assert len({*made.values(), *links(api, other, "track/click")}) == 5
    name, number, signature = made["track/click"].split(".")
    first, second = (link.partition("=")[2].split(".")[2] for link in links(api, other, "track/click"))
    forged = [
        *("", "x", "a.0.b", made["track/click"] + "x", f"{name}.{number}.{'0' * 32}", f"{name}.00.{signature}"),
        *(f"{name}.1.{signature}", f"{other}.0.{signature}", f"{name}.1.{second}", f"{name}.99999999999.{signature}"),
        *(f"{other}.1.{first}", f"{other}.0.{second}"),
        *("https://evil.example/", "é", "\0"),
    ]
    for kind in paths:
        for token in [*forged, *(token for of, token in made.items() if of != kind)]:
            response = api.http.get(f"/api/{kind}", params={"token": token, "url": "https://evil.example/"})
            assert (response.status_code, "Location" in response.headers) == (404, False), (kind, token)
        assert api.http.get(f"/api/{kind}").status_code == 404
    for token in (*forged, made["track/open"], made["track/click"]):
        assert api.http.post("/api/unsubscribe", data={"token": token}).status_code == 404
    # Nor does a further parameter of a good link.
    good = api.http.get(paths["track/click"] + "&url=https://evil.example/&u=https://evil.example/")
    assert good.headers["Location"] == REPORT
    assert api.types(other) == ["sent"]
    api.control("reset")
    assert api.http.get(paths["track/click"]).status_code == 404


@pytest.mark.parametrize(("value", "expected"), [("keep", 3), ("drop", 1)])
def test_repeats(api: Api, value: str, expected: int) -> None:
    api.control("settings", repeated_events=value)
    send_id = api.quiet(htmlContent=HTML)
    for kind in ("track/open", "track/click"):
        for _ in range(3):
            assert api.http.get(track(api, send_id, kind)).status_code in (200, 302)
    assert api.types(send_id) == ["sent", *["opened"] * expected, *["clicked"] * expected]


@each_value("inbox_opens", {False: [], True: ["opened", "opened"]})
def test_inbox_opens(api: Api, value: bool, expected: list[str]) -> None:
    api.control("settings", inbox_opens=value)
    send_id = api.quiet(htmlContent=HTML)
    path = f"/inbox/{send_id}"
    hint = "this counts as opened" if value else "this does not count as opened"
    assert hint in " ".join(api.http.get(path).text.split())
    # Without the frame, as a text mail is read, and as the page follows its timeline.
    for other in (path, f"{path}?view=text", f"{path}/text", f"{path}/mime"):
        assert api.http.get(other).status_code == 200
    assert api.http.head(f"{path}/html").status_code == 200
    # Its images would load the pixel.
    assert api.http.get(f"{path}/html?images=1").status_code == 200
    assert api.types(send_id) == ["sent"]
    for _ in range(2):
        response = api.http.get(f"{path}/html", headers={"User-Agent": "Browser"})
        assert response.status_code == 200
    assert api.types(send_id) == ["sent", *expected]
    if value:
        assert api.timeline(send_id).json()["events"][-1]["userAgent"] == "Browser"


def test_inbox_opens_needs_a_tracked_message(api: Api) -> None:
    api.control("settings", inbox_opens=True, send_global="short")
    text, untracked = api.quiet(), api.quiet(path="send-global", htmlContent=HTML)
    assert api.http.get(f"/inbox/{text}/text").status_code == 200
    assert api.http.get(f"/inbox/{untracked}/html").status_code == 200
    assert api.types(text) == api.types(untracked) == ["sent"]
    assert "counts as opened" not in api.http.get(f"/inbox/{untracked}").text


@each_value("tracking_prefetch", {False: [], True: ["opened", "clicked"] * 4})
def test_tracking_prefetch(api: Api, value: bool, expected: list[str]) -> None:
    api.control("settings", tracking_prefetch=value)
    send_id = api.quiet(htmlContent=HTML)
    paths = [track(api, send_id, kind) for kind in ("track/open", "track/click")]
    for method, headers in (
        ("HEAD", {}),
        ("GET", {"Purpose": "prefetch"}),
        ("GET", {"Sec-Purpose": "prefetch;prerender"}),
        ("GET", {"X-Purpose": "preview"}),
    ):
        for path in paths:
            response = api.http.request(method, path, headers=headers)
            whole = api.http.get(path, headers={"Purpose": "prefetch"})
            for name in ("Location", "Content-Type", "Content-Length"):
                assert response.headers.get(name) == whole.headers.get(name)
    seen = [kind for kind in api.types(send_id) if kind != "sent"]
    assert len(seen) == len(expected) * 2
    assert set(seen) == set(expected)


def test_a_message_with_too_many_events_still_redirects() -> None:
    with SandboxServer(bounds=Bounds(events=3)) as server, Api(server.url) as api:
        send_id = api.quiet(htmlContent=HTML)
        path = track(api, send_id, "track/click")
        assert [api.http.get(path).status_code for _ in range(4)] == [302] * 4
        assert api.types(send_id) == ["sent", "clicked", "clicked"]
        # And the recipient can still leave.
        assert api.http.post(track(api, send_id, "unsubscribe")).status_code == 200
        assert api.get("suppressions")["count"] == 1


def test_recipients_may_be_anywhere(api: Api) -> None:
    """Neither the name of the host nor the page with the link matters: webmail is another origin."""
    send_id = api.quiet(htmlContent=HTML)
    headers = {"Host": "mail.example", "Origin": "https://webmail.example", "Sec-Fetch-Site": "cross-site"}
    for kind, status in (("track/open", 200), ("track/click", 302), ("unsubscribe", 200)):
        assert api.http.get(track(api, send_id, kind), headers=headers).status_code == status
    one_click = api.http.post(
        track(api, send_id, "unsubscribe"), headers=headers, data={"List-Unsubscribe": "One-Click"}
    )
    assert one_click.status_code == 200
    # Other paths beside them are guarded as ever.
    assert api.http.get("/api/track/other", headers=headers).status_code == 403
    assert api.http.get("/api/track/other").status_code == 404
    refused = api.http.post("/api/track/open")
    assert (refused.status_code, refused.headers["Allow"]) in ((405, "GET, HEAD"), (405, "HEAD, GET"))
    assert api.http.post("/api/unsubscribe", content=b"x" * (1024 * 1024 + 1)).status_code == 413


def test_links_have_the_address_that_the_sender_uses(api: Api) -> None:
    # The default key is for addresses and localhost only.
    api.control("keys", key="own")
    for host, expected in (("sandbox.test:8026", "http://sandbox.test:8026"), ("[::1]:80", "http://[::1]:80")):
        send_id = api.quiet(api_key="own", htmlContent=HTML, headers={"Host": host})
        assert f'src="{expected}/api/track/open?' in record(api, send_id)["delivered_html"]
    send_id = api.quiet(api_key="own", htmlContent=HTML, headers={"Host": 'x"><script>'})
    assert f'src="{api.url}/api/track/open?' in record(api, send_id)["delivered_html"]


@each_value("tracking_url", {None: None, "https://mail.example/sandbox": "https://mail.example/sandbox"})
def test_tracking_url(api: Api, value: str | None, expected: str | None) -> None:
    api.control("settings", tracking_url=value)
    send_id = api.quiet(htmlContent=HTML)
    base = expected or api.url
    html = record(api, send_id)["delivered_html"]
    assert len(re.findall(rf'"{re.escape(base)}/api/(?:track/open|track/click|unsubscribe)\?token=', html)) == 3
    assert source(api, send_id)["List-Unsubscribe"].startswith(f"<{base}/api/unsubscribe?token=")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mail.example",
        "ftp://mail.example",
        "https://",
        "https://a/?x",
        "https://a/#x",
        "https://a/",
        "https://é.example",
        "https://a/b c",
        "https://a\r\nb",
        'http://a"',
        5,
    ],
)
def test_a_wrong_tracking_url_is_refused(api: Api, url: object) -> None:
    response = api.post("settings", tracking_url=url)
    assert (response.status_code, "tracking_url" in response.json()["error"]) == (400, True)
    assert api.get("settings")["tracking_url"] is None


@pytest.mark.parametrize(
    "html", ["<a href='https://a.example'", "<p", "<!-- ", "</body>", "\0<b>&#0;", "😀" * 1000, "<a " * 500]
)
def test_a_malformed_document_is_still_a_mail(api: Api, html: str) -> None:
    send_id = api.quiet(htmlContent=html)
    assert record(api, send_id)["html_content"] == html
    assert record(api, send_id)["delivered_html"].count("/api/track/open") == 1
    assert source(api, send_id).get_body(("html",)) is not None


def test_planned_clicks_are_on_the_first_tracked_link(api: Api) -> None:
    api.control("settings", event_delay=0)
    html = "<a href=https://example.org/unsubscribe>x</a><!-- <a href='https://no.example'> -->" + HTML
    (event,) = of_type(api, api.send_id(to="clicked@example.org", htmlContent=html), "clicked")
    assert event["url"] == REPORT


def test_short_send_global_is_not_tracked(api: Api) -> None:
    api.control("settings", send_global="short")
    delivered = record(api, api.quiet(path="send-global", htmlContent=HTML))["delivered_html"]
    assert "/api/track/" not in delivered
    assert delivered.startswith(HTML)
    assert "/api/unsubscribe" in delivered


def test_links_work_after_a_restart(tmp_path: Path) -> None:
    data = tmp_path / "sandbox.sqlite"
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        send_id = api.quiet(htmlContent=HTML)
        clicked, leave = track(api, send_id, "track/click"), track(api, send_id, "unsubscribe")
        api.http.post(leave)
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        assert api.http.get(clicked).headers["Location"] == REPORT
        assert api.types(send_id) == ["sent", "unsubscribed", "clicked"]
        assert api.get("suppressions")["suppressions"][0]["address"] == "never@example.org"


def test_a_link_that_the_message_does_not_hold(tmp_path: Path) -> None:
    """Not even with a good signature."""
    data = tmp_path / "sandbox.sqlite"
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        send_id, text_only = api.quiet(htmlContent=HTML), api.quiet()
    with sqlite3.connect(data) as db:
        (secret,) = db.execute("SELECT value FROM meta WHERE name = 'link_secret'").fetchone()
    db.close()
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        for name, link, status in ((send_id, 0, 302), (send_id, 1, 404), (text_only, 0, 404), ("sends_gone", 0, 404)):
            token = tokens.maker(secret, "click", name)(link)
            assert api.http.get("/api/track/click", params={"token": token}).status_code == status
        assert api.types(send_id) == ["sent", "clicked"]
        assert api.types(text_only) == ["sent"]


def test_a_data_file_from_before_tracking_is_used(tmp_path: Path) -> None:
    data = tmp_path / "sandbox.sqlite"
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        send_id = api.quiet(htmlContent=HTML)
    with sqlite3.connect(data) as db:
        for table in ("deliveries", "suppressions"):
            db.execute(f"DROP TABLE {table}")
        db.execute("DELETE FROM meta")
    db.close()
    with SandboxServer(data=data, port=0) as server, Api(server.url) as api:
        assert record(api, send_id)["delivered_html"] == HTML
        assert source(api, send_id)["List-Unsubscribe"] is None
        assert links(api, api.quiet(htmlContent=HTML), "track/click")


def test_delivered_html_counts_towards_the_bound() -> None:
    # The delivered HTML makes a message more than twice as large as its request.
    html = "<a href='https://example.org/'>x</a>" * 100
    with SandboxServer(bounds=Bounds(message_bytes=20_000)) as server, Api(server.url) as api:
        for _ in range(3):
            api.quiet(htmlContent=html)
        assert api.count() == 1


# Unsubscribing


@each_value("unsubscribe", {"header_and_footer": (True, True), "header": (True, False), "none": (False, False)})
def test_unsubscribe(api: Api, value: str, expected: tuple[bool, bool]) -> None:
    api.control("settings", unsubscribe=value)
    for html in (HTML, None):
        send_id = api.quiet(htmlContent=html)
        mail = source(api, send_id)
        footer = "/api/unsubscribe" in (record(api, send_id)["delivered_html"] or "")
        assert ("List-Unsubscribe" in mail, footer) == (expected[0], expected[1] and html is not None)
        if expected[0]:
            assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
            url = mail["List-Unsubscribe"]
            # In one line and not encoded, which mail programs would not take for a URL.
            assert f"\r\nList-Unsubscribe: {url}\r\n".encode() in raw_source(api, send_id)
            assert (url[0], url[-1]) == ("<", ">")
            if footer:
                assert url[1:-1] == api.url + track(api, send_id, "unsubscribe")


def leave_url(api: Api, send_id: str) -> str:
    url = urlsplit(source(api, send_id)["List-Unsubscribe"][1:-1])
    return f"{url.path}?{url.query}"


def test_one_click_suppresses_the_address(api: Api) -> None:
    api.control("settings", event_delay=0)
    send_id = api.send_id(to="Ops <Ops@example.org>")
    for _ in range(2):
        response = api.http.post(leave_url(api, send_id), data={"List-Unsubscribe": "One-Click"})
        assert (response.status_code, response.json()) == (200, {"ok": True})
    (event,) = of_type(api, send_id, "unsubscribed")
    assert event["method"] == "one-click"
    assert api.events(types="email.unsubscribed").json()["events"][0]["data"]["sendId"] == send_id
    later = api.send_id(to="ops@example.org")
    assert api.types(later) == ["sent", "dropped"]
    assert of_type(api, later, "dropped")[0]["reason"] == "recipient is on the suppression list: unsubscribed"
    # Neither another address nor another organization is concerned.
    api.control("keys", key="other", organization="org_other")
    assert api.types(api.send_id(to="ops2@example.org")) == ["sent", "delivered"]
    other = api.send_id(to="ops@example.org", api_key="other")
    assert api.timeline(other, "other").json()["events"][-1]["type"] == "delivered"
    # And it can be let in again.
    (row,) = api.get("suppressions")["suppressions"]
    assert (row["address"].lower(), row["reason"], row["organization"]) == (
        "ops@example.org",
        "unsubscribed",
        "org_sandbox",
    )
    assert api.http.delete("/_sandbox/suppressions/OPS@example.org").json()["lifted"] == 1
    assert api.http.delete("/_sandbox/suppressions/ops@example.org").status_code == 404
    assert api.types(api.send_id(to="ops@example.org")) == ["sent", "delivered"]


@pytest.mark.parametrize("form", ["page", "json", "form", "multipart"])
def test_other_ways_to_unsubscribe(api: Api, form: str) -> None:
    send_id = api.send_id()
    path = leave_url(api, send_id)
    token = path.partition("=")[2]
    if form == "page":
        response = api.http.post(path, headers=BROWSER)
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "ops@example.org gets no more email" in response.text
    elif form == "json":
        response = api.http.post("/api/unsubscribe", json={"token": token, "email": "OPS@example.org"})
    elif form == "form":
        response = api.http.post("/api/unsubscribe", data={"token": token, "email": "ops@example.org"})
    else:
        response = api.http.post(path, files={"List-Unsubscribe": (None, "One-Click")})
    assert response.status_code == 200
    assert of_type(api, send_id, "unsubscribed")[0]["method"] == ("one-click" if form == "multipart" else "page")


@each_value("unsubscribe_get", {"confirm": [], "at_once": ["unsubscribed"]})
def test_unsubscribe_get(api: Api, value: str, expected: list[str]) -> None:
    api.control("settings", unsubscribe_get=value)
    send_id = api.quiet(to="<never+a&b@example.org>")
    path = leave_url(api, send_id)
    api.http.head(path)
    assert api.types(send_id) == ["sent"]
    response = api.http.get(path, headers=BROWSER)
    assert response.status_code == 200
    assert "never+a&amp;b@example.org" in response.text
    assert ('<form method="post">' in response.text) == (not expected)
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert api.types(send_id) == ["sent", *expected]


def test_an_address_beside_the_token_must_be_the_recipients(api: Api) -> None:
    path = leave_url(api, api.send_id())
    for method in ("GET", "POST"):
        assert api.http.request(method, path + "&email=ann@example.org").status_code == 404
        assert api.http.request(method, path + "&email=OPS@example.org").status_code == 200
    # Nor is an address enough.
    assert api.http.post("/api/unsubscribe", data={"email": "ops@example.org"}).status_code == 404


# Suppression


@each_value("suppression", {"drop": (200, "dropped"), "refuse": (400, None), "off": (200, "delivered")})
@pytest.mark.parametrize("kind", ["bounced", "complained", "unsubscribed"])
def test_suppression(api: Api, value: str, expected: tuple[int, str | None], kind: str) -> None:
    api.control("settings", suppression=value, event_delay=0)
    first = api.send_id(idempotency_key="k")
    api.add_event(first, kind)
    response = api.send(idempotency_key="other")
    assert response.status_code == expected[0]
    if expected[1] is None:
        error = response.json()
        assert (error["code"], error["message"]) == ("recipient_suppressed", "Recipient is suppressed")
        assert error["details"] == {"fields": ["to"], "reason": kind}
        assert api.count() == 1
    else:
        assert api.types(response.json()["sendId"]) == ["sent", expected[1]]
    # What was accepted before is not refused now.
    assert api.send(idempotency_key="k").json()["sendId"] == first


@pytest.mark.parametrize("kind", ["delivered", "delayed", "failed", "dropped", "opened"])
def test_other_events_suppress_nothing(api: Api, kind: str) -> None:
    api.add_event(api.quiet(to="ops@example.org"), kind)
    assert api.get("suppressions") == {"count": 0, "suppressions": []}


def test_a_soft_bounce_suppresses_nothing(api: Api) -> None:
    send_id = api.send_id()
    api.add_event(send_id, "bounced", bounceType="Transient")
    assert api.get("suppressions")["count"] == 0
    api.add_event(send_id, "bounced", bounceType="Permanent")
    assert api.get("suppressions")["count"] == 1


def test_a_bounce_suppresses_from_its_time_on(api: Api) -> None:
    api.control("settings", default_outcome="bounced", event_delay=60)
    first, second = api.send_id(), api.send_id()
    api.advance(60)
    third = api.send_id()
    api.advance(60)
    assert [api.types(send_id) for send_id in (first, second, third)] == [
        ["sent", "bounced"],
        ["sent", "bounced"],
        ["sent", "dropped"],
    ]


def test_the_first_bounce_counts(api: Api) -> None:
    send_id, now = api.quiet(to="ops@example.org"), api.advance(0)
    api.add_event(send_id, "bounced", now + 600)
    assert api.get("suppressions")["count"] == 0
    api.add_event(send_id, "bounced")
    assert api.get("suppressions")["count"] == 1


def test_an_address_that_names_its_outcome_keeps_it(api: Api) -> None:
    api.control("settings", event_delay=0)
    for _ in range(2):
        assert api.types(api.send_id(to="bounced@example.org")) == ["sent", "bounced"]
        assert api.types(api.send_id(to="ann+complained@example.org")) == ["sent", "delivered", "complained"]
    # Unless the recipient unsubscribes.
    api.http.post(leave_url(api, api.send_id(to="delivered@example.org")))
    assert api.types(api.send_id(to="delivered@example.org")) == ["sent", "dropped"]
    api.add_event(api.send_id(to="opened@example.org"), "unsubscribed")
    assert api.types(api.send_id(to="opened@example.org")) == ["sent", "dropped"]


def test_the_suppression_list_is_bounded() -> None:
    with SandboxServer(bounds=Bounds(messages=3, contacts=2)) as server, Api(server.url) as api:
        for number in range(8):
            api.add_event(api.send_id(to=f"ops{number}@example.org"), "bounced")
        kept = [row["address"] for row in api.get("suppressions")["suppressions"]]
        assert kept == [f"ops{number}@example.org" for number in range(3, 8)]


def test_delivered_events_have_code_and_host(api: Api) -> None:
    api.control("settings", event_delay=0)
    for to in ("ops@example.org", "Ann <ann@Example.NET>", "bounced@example.org"):
        api.send_id(to=to)

    def found(**query: str) -> list[tuple[str, str]]:
        events = api.events(types=["email.delivered", "email.bounced"], **query).json()["events"]
        return [(event["type"], event["data"]["mtaHost"]) for event in events]

    assert found(smtpCode="250") == [("email.delivered", "mx.example.net"), ("email.delivered", "mx.example.org")]
    assert found(mtaHost="mx.example.org") == [
        ("email.bounced", "mx.example.org"),
        ("email.delivered", "mx.example.org"),
    ]
    assert found(smtpCode="550", mtaHost="mx.example.net") == []


@pytest.mark.parametrize(
    ("kind", "given", "code", "host"),
    [
        ("delivered", {}, "250", "mx.example.net"),
        ("delivered", {"smtpCode": "251"}, "251", "mx.example.net"),
        ("delivered", {"mtaHost": "mx2.example.net"}, "250", "mx2.example.net"),
        ("bounced", {}, "550", "mx.example.net"),
        ("bounced", {"bounceType": "Transient"}, "450", "mx.example.net"),
        ("bounced", {"bounceType": "soft", "smtpCode": "452"}, "452", "mx.example.net"),
        ("opened", {}, None, None),
        ("dropped", {}, None, None),
    ],
)
def test_added_events_have_code_and_host(
    api: Api, kind: str, given: dict[str, Any], code: str | None, host: str | None
) -> None:
    send_id = api.quiet(to="Ann <never@Example.NET>")
    added = api.add_event(send_id, kind, **given)
    assert (added.get("smtpCode"), added.get("mtaHost")) == (code, host)
    row = api.timeline(send_id).json()["events"][-1]
    assert {name: row[name] for name in ("smtpCode", "mtaHost") if name in row} == (
        {} if code is None else {"smtpCode": code, "mtaHost": host}
    )
    if code is not None and host is not None:
        assert len(api.event_ids(smtpCode=code, mtaHost=host)) == 1
        assert api.event_ids(smtpCode=code, mtaHost="mx.example.org") == []


# The source


def test_the_source_is_a_mime_document(api: Api) -> None:
    files = [
        {"filename": "rows.csv", "contentBase64": "aWQKMQo=", "contentType": "text/csv"},
        {"filename": "ü\u2028.bin", "contentBase64": "AAEC"},
        {"filename": "m.eml", "contentBase64": "AAEC", "contentType": "message/rfc822"},
        {"filename": "x", "contentBase64": "AAEC", "contentType": "nonsense; \r\nBcc: evil@example.org"},
    ]
    api.advance(0)
    send_id = api.quiet(
        to="Añn <ann+never@example.org>",
        subject="Größe\u2028 and \x0b more",
        content="Ünïcode\n.\nFrom here\n",
        htmlContent=HTML,
        cc=["c@example.org", "Dee <d@example.org>"],
        bcc="secret@example.org",
        attachments=files,
    )
    mail, message = source(api, send_id), record(api, send_id)
    assert mail.defects == []
    assert (mail["From"], mail["To"]) == ("no-reply@sandbox.example", "Añn <ann+never@example.org>")
    assert mail["Cc"] == "c@example.org, Dee <d@example.org>"
    assert " ".join(mail["Subject"].split()) == "Größe and more"
    assert mail["Message-ID"] == f"<{message['message_id']}@sandbox.example>"
    assert mail["Date"].datetime.timestamp() == int(message["created_at"])
    assert "secret@example.org" not in mail.as_string()
    assert mail["Bcc"] is None
    assert mail.get_content_type() == "multipart/mixed"
    bodies, *attached = mail.iter_parts()
    assert bodies.get_content_type() == "multipart/alternative"
    text, html = bodies.iter_parts()
    assert (text.get_content_type(), html.get_content_type()) == ("text/plain", "text/html")
    assert text.get_content() == "Ünïcode\r\n.\r\nFrom here\r\n"
    assert [part.get_content_type() for part in attached] == ["text/csv", *["application/octet-stream"] * 3]
    assert attached[0].get_payload(decode=True) == b"id\n1\n"
    assert [part["Content-Transfer-Encoding"] for part in attached] == ["base64"] * 4
    assert [part.get_filename() for part in attached] == ["rows.csv", "ü .bin", "m.eml", "x"]
    raw = [api.http.get(f"/_sandbox/messages/{send_id}/source").content for _ in range(2)]
    assert raw[0] == raw[1]
    assert all(len(line) <= 998 for line in raw[0].split(b"\r\n"))


@pytest.mark.parametrize(
    "to", ["ü@example.org", "ops@exämple.org", '"a, b" <ops@example.org>', "x" * 300 + "@example.org"]
)
def test_any_recipient_and_body_have_a_source(api: Api, to: str) -> None:
    long = "é" * 3_000 + "\r\x00\x1b\u2028" + "x" * 200_000
    send_id = api.quiet(to=to, subject="s" * 2_000, content=long, htmlContent=f"<p>{long}")
    raw = api.http.get(f"/_sandbox/messages/{send_id}/source").content
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    mail = source(api, send_id)
    # Encoded words are no addresses (RFC 2047): beyond ASCII, an address is written as it is.
    assert to.isascii() or raw.count(f"\r\nTo: {to}\r\n".encode()) == 1
    (address,) = mail["To"].addresses
    assert address.addr_spec.encode(errors="surrogateescape").decode() == to.rpartition("<")[2].rstrip(">")
    assert mail["Subject"].replace(" ", "") == "s" * 2_000
    html = mail.get_body(("html",))
    assert html is not None
    assert html.get_content().count("x") > 200_000


def test_there_is_no_source_of_an_unknown_message(api: Api) -> None:
    response = httpx.get(f"{api.url}/_sandbox/messages/none/source")
    assert (response.status_code, response.json()["error"]) == (404, "no message has the send id 'none'")
