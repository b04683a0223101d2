"""The inbox: pages for people, over what strangers have sent."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.inbox.handlers import EVENT_TYPES
from airflow_provider_fluxomail.sandbox.inbox.pages import TONES, ago, clip, exact, size, span
from airflow_provider_fluxomail.sandbox.limits import MAX_EPOCH_SECONDS

from .helpers import Api
from .test_guard import PAGES, request

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)></textarea></pre></title>{{ 7 * 7 }}"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


URLS = ("href", "src", "action", "data-stream")


class Page(HTMLParser):
    """A page as a browser understands it: its elements, and its text in one line."""

    def __init__(self, response: httpx.Response, *, urls: tuple[str, ...] = URLS) -> None:
        super().__init__()
        self.urls = urls
        self.status, self.headers, self.url = response.status_code, response.headers, response.url
        self.elements: list[tuple[str, dict[str, str]]] = []
        self._texts: list[str] = []
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        self.feed(response.text)
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.elements.append((tag, found | {name: self.absolute(found[name]) for name in self.urls if name in found}))
        if tag in ("dt", "dd", "td", "th"):
            self._texts.append(" ")

    def absolute(self, url: str) -> str:
        """The path that a browser makes of a URL, which must be relative: a proxy may add a prefix."""
        assert not urlsplit(url).netloc, url
        assert not url.startswith("/"), url
        if url.startswith("#"):
            return url
        joined = self.url.join(url)
        return joined.raw_path.decode() + (f"#{joined.fragment}" if joined.fragment else "")

    def foreign_scripts(self) -> list[dict[str, str]]:
        """The scripts that are not the inbox's own."""
        return [found for found in self.all("script") if not found.get("src", "").startswith("/inbox/static/inbox.js?")]

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key) == value for key, value in attributes.items())
        ]

    def links(self) -> list[str]:
        return [found["href"] for found in self.all("a")]

    def listed(self) -> list[str]:
        """The send ids of the list, in its order."""
        subjects = [found["href"] for found in self.all("a") if found.get("class") == "subject"]
        return [href.rpartition("/")[2].partition("?")[0] for href in subjects]


def show(api: Api, path: str = "", status: int = 200, **query: Any) -> Page:
    page = Page(api.http.get(f"/inbox{path}", params=query or None, headers=BROWSER))
    assert page.status == status, page.text
    return page


def assert_no_document(response: httpx.Response) -> None:
    """A browser does not run it as a page."""
    assert response.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def file(name: str = "a.txt", content: bytes = b"x", kind: str | None = None) -> dict[str, str]:
    item = {"filename": name, "contentBase64": base64.b64encode(content).decode()}
    return item | ({"contentType": kind} if kind else {})


# The list


def test_an_empty_inbox_says_how_to_send() -> None:
    # The curl line works with any key.
    key = "it's<b>\"$x"
    with SandboxServer(api_key=key) as server, Api(server.url) as api:
        page = show(api)
        assert "No messages yet" in page.text
        assert f"curl {api.url}/api/v1/emails/send" in page.text
        assert f"Authorization: Bearer {key}".replace("'", "'\"'\"'") in page.text
        assert f'"conn_type": "fluxomail", "host": "{api.url}", "password": ' in page.text
        assert not page.all("b")


def test_the_list_is_newest_first(api: Api) -> None:
    api.control("settings", event_delay=60)
    first = api.send_id(subject="The first", to="Ada <ada@example.org>", attachments=[file(), file()])
    second = api.send_id(subject="The second", path="send-global")
    api.add_event(first, "bounced")
    page = show(api)
    assert page.listed() == [second, first]
    assert "2 messages, from no-reply@sandbox.example" in page.text
    assert re.search(
        "State: sent To: ops@example.org The second Loaded 20 rows. global (just now|[1-9] s ago) "
        "State: bounced To: Ada <ada@example.org> The first Loaded 20 rows. Attachments: 2 (just now|[1-9] s ago)",
        page.text,
    )
    assert [found["class"] for found in page.all("span") if "badge" in found.get("class", "")] == [
        "badge neutral",
        "badge bad",
    ]
    assert api.url in page.text


def test_a_state_is_what_has_happened_by_now(api: Api) -> None:
    api.control("settings", event_delay=60)
    send_id = api.send_id(to="bounced@example.org")
    assert "State: sent" in show(api).text
    planned = show(api, f"/{send_id}").text
    assert re.search("bounced planned in (5[0-9] s|1 min)", planned)
    api.advance(61)
    assert "State: bounced" in show(api).text
    assert "planned" not in show(api, f"/{send_id}").text


def test_pages(api: Api) -> None:
    subjects = ["odd" if number % 2 else "even & co" for number in range(101)]
    ids = [api.send_id(subject=subject) for subject in subjects][::-1]
    found: list[str] = []
    page = show(api)
    while True:
        found += page.listed()
        older = page.all("a", rel="next")
        if not older:
            break
        page = Page(api.http.get(older[0]["href"]))
    assert found == ids
    assert "Page 3 of 3" in page.text
    assert page.listed() == ids[100:]
    assert page.all("ol", start="101")
    newer = Page(api.http.get(page.all("a", rel="prev")[0]["href"]))
    assert newer.listed() == ids[50:100]
    assert newer.all("span", **{"aria-current": "page"})
    # A page that is full is the only one; a search has pages too.
    odd = show(api, q="odd")
    assert (odd.listed(), "Page" in odd.text, "/inbox" in odd.links()) == (ids[1::2], False, True)
    even = show(api, q="even & co")
    rest = Page(api.http.get(even.all("a", rel="next")[0]["href"]))
    assert even.listed() + rest.listed() == ids[::2]
    # A page that does not exist is the first or the last one.
    for number in ("0", "-1", "x", "", "1.5", "²", "٣", "9" * 50):
        assert show(api, page=number).listed() == ids[:50], number
    assert show(api, page="4").listed() == ids[100:]


def test_search(api: Api) -> None:
    ada = api.send_id(to="Ada <ada@example.org>", subject="Load 100% done")
    bob = api.send_id(to="bob_1@example.org", subject="Load done", idempotency_key="af1:Daily.send:77")
    message_id = api.get("messages", to="bob_1@example.org")["messages"][0]["message_id"]
    for query, expected in {
        "ada@": [ada],
        "ADA <": [ada],
        "load": [bob, ada],
        "100% done": [ada],
        "_": [bob, ada],  # Of the send ids.
        "b_1": [bob],
        "a_a@": [],
        "daily.SEND:7": [bob],
        bob[6:]: [bob],
        message_id: [bob],
        "  load  ": [bob, ada],
        "nothing like it": [],
        "lo\x00ad": [bob, ada],
        "'; DROP TABLE sends; --": [],
    }.items():
        assert show(api, q=query).listed() == expected, query
    assert "1 message matches “ada@”" in show(api, q="ada@").text
    nothing = show(api, q=HOSTILE)
    assert "Nothing found" in nothing.text
    assert HOSTILE in nothing.text
    assert nothing.all("input", value=HOSTILE)
    assert "curl" not in nothing.text
    assert show(api, q="x" * 5000).listed() == []


def test_refreshing_is_a_switch(api: Api) -> None:
    send_id = api.send_id(subject="A & B")
    for path, query in (("", {"q": "A & B"}), (f"/{send_id}", {"view": "text"})):
        page = show(api, path, 200, **query)
        assert not page.all("meta", **{"http-equiv": "refresh"})
        (switch,) = [found["href"] for found in page.all("a") if found.get("class") == "switch"]
        on = Page(api.http.get(switch))
        assert on.all("meta", **{"http-equiv": "refresh"}) == [{"http-equiv": "refresh", "content": "5"}]
        (switch,) = [found["href"] for found in on.all("a") if found.get("class") == "switch"]
        assert not Page(api.http.get(switch)).all("meta", **{"http-equiv": "refresh"})


# A message


def test_a_message(api: Api) -> None:
    send_id = api.send_id(
        to="Ada <ada@example.org>",
        cc=["bob@example.org", "eve@example.org"],
        bcc="dan@example.org",
        policyKey="alerts",
        replyTo="team@example.org",
        tags={"team": "data"},
        idempotency_key="af1:key",
    )
    stored = api.get("messages")["messages"][0]
    page = show(api, f"/{send_id}")
    (moment, *_) = page.all("time")
    assert datetime.fromisoformat(moment["datetime"]).timestamp() == pytest.approx(stored["created_at"])
    assert "Accepted " + moment["datetime"].replace("T", " ").replace("Z", " UTC") in page.text
    for shown in (
        "From no-reply@sandbox.example",
        "To Ada <ada@example.org>",
        "Cc bob@example.org, eve@example.org",
        "Bcc dan@example.org",
        "Reply-To team@example.org",
        'tags {"team": "data"}',
        f"Send id {send_id}",
        f"Message id {stored['message_id']}",
        "Idempotency key af1:key",
        "Policy key alerts",
        "Organization org_sandbox",
        "Sent by send",
        stored["content"],
    ):
        assert shown in page.text, shown
    assert "Sent by send-global global" in show(api, "/" + api.send_id(path="send-global")).text


def test_the_timeline_has_every_type_of_event(api: Api) -> None:
    assert set(TONES) == set(EVENT_TYPES)
    api.control("settings", default_outcome="never")
    send_id = api.send_id()
    for number, kind in enumerate(EVENT_TYPES):
        api.add_event(send_id, kind, reason=f"because {number}", list=[1, "a"])
    page = show(api, f"/{send_id}")
    for number, kind in enumerate(EVENT_TYPES):
        assert re.search(rf"{kind} \d\d:\d\d:\d\d\.\d{{3}} (after \d+ m?s )?reason because {number} ", page.text), kind
    assert 'list [1, "a"]' in page.text
    shown = [found["class"] for found in page.all("li") if found.get("class") in set(TONES.values())]
    assert shown == ["neutral", *(TONES[kind] for kind in EVENT_TYPES)]


def test_newer_and_older(api: Api) -> None:
    ids = [api.send_id() for _ in range(5)]
    for number, send_id in enumerate(ids):
        page = show(api, f"/{send_id}")
        newer, older = ([found["href"][7:] for found in page.all("a", rel=way)] for way in ("prev", "next"))
        assert newer == ids[number + 1 : number + 2]
        assert older == ids[max(0, number - 1) : number]


def test_forms_of_the_body(api: Api) -> None:
    send_id = api.send_id(content="Plain <text>", htmlContent="<p>Rich &amp; <b>bold</b></p>")
    page = show(api, f"/{send_id}")
    (frame,) = page.all("iframe")
    assert frame["src"] == f"/inbox/{send_id}/html"
    assert frame["sandbox"].split() == ["allow-popups", "allow-popups-to-escape-sandbox"]
    assert "Remote images are not loaded" in page.text
    assert "Rich" not in page.text
    text = show(api, f"/{send_id}", view="text")
    assert "Plain <text>" in text.text
    assert not text.all("iframe")
    assert [found["href"] for found in text.all("a", **{"aria-current": "page"})] == [
        f"/inbox/{send_id}?view=text#body"
    ]
    assert "<p>Rich &amp; <b>bold</b></p>" in show(api, f"/{send_id}", view="source").text
    assert show(api, f"/{send_id}", view="nonsense").all("iframe")


def test_a_message_without_html(api: Api) -> None:
    send_id = api.send_id(content="Only text")
    page = show(api, f"/{send_id}", view="html")
    assert "Only text" in page.text
    assert not page.all("iframe")
    for path in ("html", "source"):
        assert "text body only" in show(api, f"/{send_id}/{path}", 404).text


def test_a_long_body_is_cut_on_the_page_alone(api: Api) -> None:
    text, html = "long " * 100_000 + "the end", "<p>" + "x" * 300_000 + "</p>"
    send_id = api.send_id(content=text, htmlContent=html)
    page = show(api, f"/{send_id}", view="text")
    assert "the end" not in page.text
    assert "Only the beginning" in page.text
    assert f"/inbox/{send_id}/text" in page.links()
    assert f"/inbox/{send_id}/source" in show(api, f"/{send_id}", view="source").links()
    for path, whole in (("text", text), ("source", html)):
        response = api.http.get(f"/inbox/{send_id}/{path}")
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert_no_document(response)
        assert response.text == whole


def test_a_page_stays_small_whatever_a_message_has(api: Api) -> None:
    long = "y" * 200_000
    send_id = api.send_id(
        subject=long,
        content=long,
        cc=[f"{number}{'c' * 200}@example.org" for number in range(1000)],
        attachments=[file("n" * 100_000, kind=long)],
        **{f"extra{number}": long for number in range(60)},
    )
    fields: dict[str, Any] = {f"field{number}": long[:9000] for number in range(50)}
    for _ in range(3):
        api.add_event(send_id, "delayed", **fields)
    assert len(api.http.get("/inbox").content) < 10_000
    assert len(api.http.get(f"/inbox/{send_id}").content) < 450_000
    assert "and 950 more" in show(api, f"/{send_id}").text


def test_requested_three_times_sent_once(api: Api) -> None:
    key = "af1:[a-z]*"
    api.control("faults", kind="response_lost_after_store", match={"path": "/api/v1/emails/send"}, times=2)
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            api.send(idempotency_key=key)
    send_id = api.send_id(idempotency_key=key)
    other = api.send_id(idempotency_key="af1:b")
    text = show(api, f"/{send_id}").text
    assert "Requested 3 times, sent once with this idempotency key." in text
    statuses = re.findall(r"UTC (none response_lost_after_store|200)", text)
    assert statuses == ["none response_lost_after_store"] * 2 + ["200"]
    assert "Requested once, sent once" in show(api, f"/{other}").text
    assert "no idempotency key" in show(api, "/" + api.send_id()).text
    # After the life of the key it sends again.
    api.advance(86_401)
    assert "Requested 4 times, sent 2 times" in show(api, "/" + api.send_id(idempotency_key=key)).text


def test_many_requests_with_one_key(api: Api) -> None:
    (send_id,) = {api.send_id(idempotencyKey="in the body") for _ in range(25)}
    page = show(api, f"/{send_id}")
    assert "Requested 25 times, sent once" in page.text
    assert "The last 20 of 25." in page.text
    assert len(page.all("tr")) == 21


# Attachments


@pytest.mark.parametrize(
    ("name", "saved"),
    [
        ("Übersicht der Woche.pdf", "Übersicht der Woche.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ('a"; filename="evil.html', "a_; filename=_evil.html"),
        ("a\r\nSet-Cookie: x=1", "a__Set-Cookie_ x=1"),
        ("C:\\x\u202efdp.exe", "C__x_fdp.exe"),
        ("...", "attachment"),
        ("z" * 1000, "z" * 200),
        (HOSTILE, None),
    ],
)
def test_an_attachment_is_saved_never_shown(api: Api, name: str, saved: str | None) -> None:
    content = b"<script>alert(1)</script>"
    send_id = api.send_id(attachments=[file("first"), file(name, content, "text/html")])
    page = show(api, f"/{send_id}")
    assert "25 bytes, text/html" in page.text
    assert not page.foreign_scripts()
    assert page.all("a", href=f"/inbox/{send_id}/attachments/1")
    response = api.http.get(f"/inbox/{send_id}/attachments/1")
    assert response.content == content
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert_no_document(response)
    assert "Set-Cookie" not in response.headers
    match = re.fullmatch(
        r"attachment; filename=\"([^\"\\]+)\"; filename\*=UTF-8''([\w%.~-]+)", response.headers["Content-Disposition"]
    )
    assert match is not None
    assert saved is None or unquote(match[2]) == saved
    assert not set(unquote(match[2])) & set('/\\"<>:\r\n')


# Events by the form


def form(api: Api, send_id: str, headers: dict[str, str] | None = None, **fields: str) -> httpx.Response:
    """Press a button of the page, as a browser of this origin does."""
    origin = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    return api.http.post(f"/inbox/{send_id}/events", data=fields, headers=origin | (headers or {}))


def test_a_button_adds_an_event(api: Api) -> None:
    api.control("settings", default_outcome="never", suppression="off")
    buttons = show(api, "/" + api.send_id()).all("button")
    buttons = buttons[buttons.index({"disabled": "", "hidden": ""}) :][: 1 + len(EVENT_TYPES)]
    # Enter in the field would press the first one: it does nothing.
    assert buttons[0] == {"disabled": "", "hidden": ""}
    assert [button["value"] for button in buttons[1:]] == list(EVENT_TYPES)
    reasons = {
        "bounced": "550 5.1.1 no such user",
        "dropped": "recipient is on the suppression list",
        "failed": "the provider refused the message",
    }
    for kind in EVENT_TYPES:
        send_id = api.send_id(htmlContent='<a href="https://example.org/x">x</a>')
        page = show(api, f"/{send_id}")
        assert page.all("form", action=f"/inbox/{send_id}/events", method="post")
        assert page.all("button", name="type", value=kind)
        response = form(api, send_id, type=kind, reason="")
        assert (response.status_code, response.headers["Location"]) == (303, f"../../inbox/{send_id}#timeline")
        assert api.types(send_id) == ["sent", kind]
        event = api.timeline(send_id).json()["events"][-1]
        assert event.get("reason") == reasons.get(kind)
        assert event.get("url") == ("https://example.org/x" if kind == "clicked" else None)


def test_a_reason(api: Api) -> None:
    send_id = api.quiet()
    assert form(api, send_id, type="bounced", reason=f" {HOSTILE} ü " + "z" * 600).status_code == 303
    reason = api.get("messages")["messages"][0]["events"][-1]["reason"]
    assert reason.startswith(f"{HOSTILE} ü z")
    assert len(reason) == 500


def test_a_form_that_adds_nothing() -> None:
    with (
        SandboxServer(event_delay=0, bounds=Bounds(events=3, control_body_bytes=100)) as server,
        Api(server.url) as api,
    ):
        send_id = api.send_id()
        for kind in ("", "Bounced", "email.bounced"):
            response = form(api, send_id, type=kind, reason="x")
            assert response.status_code == 400
            assert "The type of an event is one of sent, delivered" in Page(response).text
        assert api.http.post(f"/inbox/{send_id}/events", content=b"\xff\x00%zz&=&&").status_code == 400
        assert api.http.post(f"/inbox/{send_id}/events", json={"type": "bounced"}).status_code == 400
        assert form(api, send_id, type="bounced", reason="x" * 101).status_code == 413
        api.control("settings", repeated_events="drop")
        assert form(api, send_id, type="bounced").headers["Location"] == f"../../inbox/{send_id}#timeline"
        response = form(api, send_id, type="bounced")
        left_out = api.http.get(response.url.join(response.headers["Location"]))
        assert "Left out: the message is bounced already" in Page(left_out).text
        assert "Left out" not in show(api, f"/{send_id}", left_out="anything").text
        response = form(api, send_id, type="opened")
        assert response.status_code == 409
        assert "Not added: a message keeps at most 3 events." in Page(response).text
        assert api.types(send_id) == ["sent", "delivered", "bounced"]


@pytest.mark.parametrize("headers", [{"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}, {"Host": "evil.example"}])
def test_a_form_of_another_page_is_refused(api: Api, headers: dict[str, str]) -> None:
    api.control("settings", default_outcome="never")
    send_id = api.send_id()
    response = form(api, send_id, headers, type="bounced")
    assert response.status_code == 403
    page = Page(response)
    assert re.search(r"Refused (Control calls from|Host )", page.text)
    assert not page.all("a", href="/inbox")
    assert api.types(send_id) == ["sent"]


# What is not there


def test_an_unknown_message(api: Api) -> None:
    known = api.send_id()
    for path in ("", "/html", "/source", "/text", "/attachments/0"):
        page = show(api, f"/{known[:-1]}x{path}", 404)
        assert f"The sandbox has no message {known[:-1]}x" in page.text
        assert "/inbox" in page.links()
    response = form(api, "sends_nothing", type="bounced")
    assert response.status_code == 404
    assert "The sandbox has no message sends_nothing" in Page(response).text
    for path in ("%3Cscript%3Ealert(1)%3C%2Fscript%3E%FF", "%3Cscript%3E"):
        hostile = show(api, f"/{path}" + "x" * 900, 404)
        assert not hostile.foreign_scripts()
        assert len(hostile.text) < 600
    assert "no message <script>xxx" in hostile.text
    api.control("reset")
    show(api, f"/{known}", 404)


def test_a_data_file(tmp_path: Path) -> None:
    data = tmp_path / "data.sqlite"
    with SandboxServer(data=data) as server, Api(server.url) as api:
        send_id = api.send_id(subject="It stays", idempotency_key="k", attachments=[file("a.txt", b"kept")])
    with SandboxServer(data=data) as server, Api(server.url) as api:
        assert show(api).listed() == show(api, q="stays").listed() == [send_id]
        assert "The request log no longer has the request" in show(api, f"/{send_id}").text
        assert api.http.get(f"/inbox/{send_id}/attachments/0").content == b"kept"
        assert form(api, send_id, type="opened").status_code == 303


def test_an_unknown_page_or_attachment(api: Api) -> None:
    send_id = api.send_id(attachments=[file()])
    for position in ("1", "9" * 24, "x", "-1"):
        assert "/inbox" in show(api, f"/{send_id}/attachments/{position}", 404).links()
    for path in ("/x/y", "/static/x", "/static/..%2Fpages.py", "/static/", "/x/html/y"):
        assert "/inbox" in show(api, path, 404).links()


def test_a_wrong_method(api: Api) -> None:
    for method, path in (("GET", "/x/events"), ("POST", ""), ("DELETE", "/x")):
        response = api.http.request(method, f"/inbox{path}")
        assert (response.status_code, "Allow" in response.headers) == (405, True)
        assert "Method not allowed" in Page(response).text


# The way there


def test_a_browser_is_led_to_the_inbox(api: Api) -> None:
    for path, location in {"/": "./inbox", "/inbox/": "../inbox"}.items():
        response = api.http.get(path, headers=BROWSER)
        assert response.status_code == 302
        assert (response.headers["Location"], response.headers["Vary"]) == (location, "Accept")
    response = api.http.get("/")
    assert (response.status_code, response.json()) == (404, {"error": "Not found: GET /"})
    response = api.http.post("/", headers=BROWSER, json={})
    assert response.status_code == 405
    assert "error" in response.json()


def test_a_page_is_no_request_of_the_api(api: Api) -> None:
    send_id = api.send_id()
    show(api)
    show(api, f"/{send_id}")
    assert api.get("requests")["count"] == 1


# Security


def test_everything_is_escaped(api: Api) -> None:
    send_id = api.send_id(
        to=f'"{HOSTILE.replace(chr(34), "")}" <ops@example.org>',
        subject=HOSTILE,
        content=HOSTILE,
        htmlContent=HOSTILE,
        cc=[f"{HOSTILE}@example.org"],
        bcc=[f"{HOSTILE}@example.org"],
        policyKey=HOSTILE,
        attachments=[file(HOSTILE, kind=HOSTILE)],
        idempotency_key="<script>key</script>'\"",
        replyTo=HOSTILE,
        **{HOSTILE: HOSTILE},
    )
    fields: dict[str, Any] = {"reason": HOSTILE, f"{HOSTILE} field": {HOSTILE: HOSTILE}}
    api.add_event(send_id, "bounced", **fields)
    views = [show(api, f"/{send_id}", view=view) for view in ("html", "text", "source")]
    for page in (show(api), show(api, q="<script>"), *views):
        assert HOSTILE in page.text
        assert not page.foreign_scripts()
        assert not page.all("img")
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on") or name == "style"], (tag, attributes)
        assert all(link.startswith(("/", "#")) and "script" not in link for link in page.links() if "q=" not in link)


def test_a_page_may_load_nothing_but_its_own_style_and_script(api: Api) -> None:
    send_id = api.send_id(htmlContent="<b>x</b>")
    for path in ("", f"/{send_id}", "/nothing"):
        response = api.http.get(f"/inbox{path}")
        policy = dict(part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";"))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "connect-src": "'self'",
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
            "style-src": "'self'",
            "img-src": "'self'",
            "frame-src": "'self'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "same-origin"
        assert response.headers["Cache-Control"] == "no-store"
        page = Page(response)
        assert not page.foreign_scripts()
        assert not page.all("style")
        for _, attributes in page.elements:
            assert "style" not in attributes


def test_the_html_of_a_message_has_no_origin_and_loads_nothing(api: Api) -> None:
    html = (
        "<html><head><LINK rel=preconnect href=https://evil.example><link rel=stylesheet href=//evil.example/x>"
        "<iframe src=https://evil.example></iframe><frameset><FRAME src=//evil.example></frameset>"
        '<title>a link < linked</title></head><body style="color:red"><p>linked <b>text</b> 1 < 2</p></body></html>'
    )
    response = api.http.get(f"/inbox/{api.send_id(htmlContent=html)}/html")
    policy = response.headers["Content-Security-Policy"]
    assert policy == (
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["X-DNS-Prefetch-Control"] == "off"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.text.startswith('<!DOCTYPE html><base target="_blank">')
    page = Page(response, urls=())
    for tag in ("link", "iframe", "frame"):
        assert not page.all(tag)
    assert "linked text 1 < 2" in page.text
    assert page.all("body", style="color:red")
    untouched = "<p>Ünï <b>x</b> < y</p>"
    assert untouched in api.http.get(f"/inbox/{api.send_id(htmlContent=untouched)}/html").text


def test_style_script_and_icon(api: Api) -> None:
    page = show(api)
    types = {}
    for found in [*page.all("link"), {"rel": "script", "href": page.all("script")[0]["src"]}]:
        response = api.http.get(found["href"])
        assert response.status_code == 200
        assert "immutable" in response.headers["Cache-Control"]
        types[found["rel"]] = response.headers["Content-Type"].partition(";")[0]
        assert re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", response.text) is None
    assert types == {"icon": "image/svg+xml", "stylesheet": "text/css", "script": "text/javascript"}


@pytest.mark.parametrize("name", PAGES)
def test_a_foreign_page_sees_nothing(server: SandboxServer, api: Api, name: str) -> None:
    send_id = api.send_id(subject="A secret subject", htmlContent="A secret subject", attachments=[file()])
    for path in ("", "?q=secret", f"/{send_id}", f"/{send_id}/html", f"/{send_id}/attachments/0", "/static/inbox.css"):
        status, response = request(server, "GET", f"/inbox{path}", PAGES[name])
        assert status == 403, path
        assert b"secret" not in response
        assert b"Refused" in response
    assert request(server, "GET", "/", PAGES[name])[0] == 403


def test_a_link_from_airflow_may_be_followed(server: SandboxServer, api: Api) -> None:
    send_id = api.send_id()
    status, response = request(
        server, "GET", f"/inbox/{send_id}", {"Host": "127.0.0.1:{port}", "Sec-Fetch-Site": "cross-site"}
    )
    assert (status, send_id.encode() in response) == (200, True)


def test_the_address_that_is_shown_is_that_of_the_request(server: SandboxServer, api: Api) -> None:
    _, response = request(server, "GET", "/inbox", {"Host": "mail.localhost:{port}"})
    assert f"http://mail.localhost:{server.port}".encode() in response


# Words


def test_words() -> None:
    now = 1_764_153_535_123
    assert [ago(now - ms, now) for ms in (0, 999, 1000, 59_999, 60_000, 3_600_000, 86_400_000, 7 * 86_400_000)] == [
        *("just now", "just now", "1 s ago", "59 s ago", "1 min ago", "1 h ago", "1 d ago", "2025-11-19"),
    ]
    assert [ago(now + ms, now) for ms in (500, 90_000, 86_400_000 * 400)] == ["now", "in 1 min", "2026-12-31"]
    assert exact(now) == "2025-11-26 10:38:55.123 UTC"
    assert [span(ms) for ms in (0, 999, 1500, 7_200_000)] == ["0 ms", "999 ms", "1 s", "2 h"]
    assert [size(count) for count in (0, 1, 1023, 1024, 5_500_000)] == [
        *("0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "5.2 MiB"),
    ]
    assert [clip("abc", 3), clip("abcd", 3), clip({"a": "ü"}, 20), clip(None, 9)] == [
        "abc",
        "abc…",
        '{"a": "ü"}',
        "null",
    ]


def test_the_end_of_time(api: Api) -> None:
    send_id = api.send_id()
    api.add_event(send_id, "opened", MAX_EPOCH_SECONDS)
    assert "opened planned 9999-12-31" in show(api, f"/{send_id}").text
    api.control("clock", advance_seconds=200_000_000_000)
    assert show(api).listed() == [send_id]
    show(api, f"/{send_id}")


def luminance(colour: str) -> float:
    full = colour if len(colour) == 7 else "#" + "".join(digit * 2 for digit in colour[1:])
    parts = [int(full[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(api: Api, scheme: str) -> None:
    """WCAG AA: a contrast of 4.5 to 1."""
    style = api.http.get(show(api).all("link", rel="stylesheet")[0]["href"]).text
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", dark if scheme == "dark" else light))
    grounds = ("page", "card", "hover", "field", "button", "code")
    pairs = [(text, ground) for text in ("text", "quiet") for ground in grounds]
    pairs += [("link", ground) for ground in ("page", "card")]
    pairs += [(tone, f"{tone}-back") for tone in ("good", "bad", "warning", "neutral")]
    for text, ground in pairs:
        one, two = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (one + 0.05) / (two + 0.05) >= 4.5, (text, ground)
