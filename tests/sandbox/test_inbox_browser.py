"""The inbox in a browser: what its script does, and what email can not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer
from tests.support.chromium import chromium

from .helpers import Api
from .test_inbox import file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scripts.testbed.browser import Browser, Tab

FOLLOWS = "'follows' in document.documentElement.dataset"
SUBJECTS = "[...document.querySelectorAll('.mails .subject')].map(row => row.textContent)"
FOCUSED = "document.activeElement.textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    browser.events.clear()
    opened = browser.tab()
    yield opened
    for target in browser.targets():
        if target["url"] != "about:blank" or target["targetId"] == opened.target:
            browser.close(target["targetId"])


def test_what_happens_appears_without_a_reload(api: Api, tab: Tab) -> None:
    api.control("settings", event_delay=0.2)
    tab.open(f"{api.url}/inbox")
    tab.until(FOLLOWS)
    assert "No messages yet" in tab.value("document.body.innerText")
    tab.value("window.loaded = true")
    first = api.send_id(subject="The first")
    tab.until(f"{SUBJECTS}.join() === 'The first'")
    # The event becomes due by itself.
    tab.until("document.querySelector('.mails .badge').textContent === 'delivered'")
    api.send_id(subject="The second")
    tab.until(f"{SUBJECTS}.join() === 'The second,The first'")
    tab.until("document.getElementById('said').textContent === '1 new message'")
    api.send(to="nobody")
    tab.until("document.querySelector('#places .count')?.textContent === '1'")
    api.http.post(f"/inbox/{first}/delete")
    tab.until(f"{SUBJECTS}.join() === 'The second'")
    api.control("reset")
    tab.until("document.body.innerText.includes('No messages yet')")
    api.send_id(subject="After the reset")
    tab.until(f"{SUBJECTS}.join() === 'After the reset'")
    assert tab.value("window.loaded")
    assert tab.violations() == []


def test_a_message_page_follows_its_timeline(api: Api, tab: Tab) -> None:
    send_id = api.quiet(htmlContent="<p>Hello</p>")
    tab.open(f"{api.url}/inbox/{send_id}")
    tab.until(FOLLOWS)
    tab.value(
        "window.frame = document.querySelector('iframe').contentWindow; document.getElementById('reason').focus()"
    )
    tab.type("half a rea")
    api.add_event(send_id, "bounced")
    tab.until("document.querySelector('#state .badge').textContent === 'bounced'")
    tab.until("document.querySelector('#events').innerText.includes('bounced')")
    # What a person was typing and reading stays.
    assert tab.value("document.activeElement.value") == "half a rea"
    assert tab.value("window.frame === document.querySelector('iframe').contentWindow")
    api.http.post(f"/inbox/{send_id}/delete")
    tab.until("'gone' in document.documentElement.dataset")


def test_a_hidden_page_gives_its_connection_back(api: Api, browser: Browser, tab: Tab) -> None:
    tab.open(f"{api.url}/inbox")
    tab.until(FOLLOWS)
    tab.value("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    tab.value("document.dispatchEvent(new Event('visibilitychange'))")
    assert not tab.value(FOLLOWS)
    api.send_id(subject="Meanwhile")
    tab.value("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    tab.until(f"{SUBJECTS}.join() === 'Meanwhile'")


def until_shown(tab: Tab, title: str) -> None:
    """Wait for a page, and for its script."""
    tab.until(f"document.querySelector('h1').textContent === '{title}' && {FOLLOWS}")


def test_the_keyboard_is_enough(api: Api, tab: Tab) -> None:
    for number in range(3):
        api.send_id(subject=f"Number {number}", content="even" if number % 2 == 0 else "odd")
    tab.open(f"{api.url}/inbox")
    tab.until(FOLLOWS)
    focused = []
    for key in "jjjjkk":
        tab.press(key)
        focused.append(tab.value(FOCUSED))
    assert focused == [f"Number {number}" for number in (2, 1, 0, 0, 1, 2)]
    # New mail does not take the place away.
    api.send_id(subject="Number 3", content="odd")
    tab.until(f"{SUBJECTS}.length === 4")
    assert tab.value(FOCUSED) == "Number 2"
    tab.press("Enter")
    until_shown(tab, "Number 2")
    tab.press("j")
    until_shown(tab, "Number 1")
    tab.press("k")
    until_shown(tab, "Number 2")
    tab.press("/")
    assert tab.value("document.activeElement.id") == "q"
    tab.type("even j")
    tab.press("Escape")
    tab.press("u")
    until_shown(tab, "Inbox")
    tab.press("/")
    tab.type("even")
    tab.press("Enter")
    tab.until(f"location.search === '?q=even' && {SUBJECTS}.length === 2 && {FOLLOWS}")
    tab.press("j")
    tab.press("Enter")
    until_shown(tab, "Number 2")
    tab.press("j")
    until_shown(tab, "Number 0")


HOSTILE = """
<html><head><meta http-equiv="refresh" content="0; url={url}/inbox/evil-refresh">
<base href="{url}/evil-base/"><link rel=stylesheet href="{url}/evil-link"><link rel=preconnect href="{url}/">
<style>@import url({url}/evil-import); @font-face {{font-family: x; src: url({url}/evil-font)}}
body {{font-family: x; background: url({url}/evil-css)}} input[value^=a] {{background: url({url}/evil-leak)}}</style>
</head>
<body onload="fetch('{url}/_sandbox/reset', {{method: 'POST'}})">
<script>top.evil = 1; document.title = 'evil'; fetch('{url}/_sandbox/reset', {{method: 'POST'}})</script>
<script src="{url}/evil-script"></script>
<img src="{url}/evil-image" onerror="fetch('{url}/evil-onerror')"><img src="{url}/_sandbox/messages?evil">
<svg xmlns="http://www.w3.org/2000/svg" onload="fetch('{url}/evil-svg')"><script>fetch('{url}/evil-svg')</script>
<image href="{url}/evil-svg-image"/><use href="{url}/evil-use#x"/>
<foreignObject><iframe src="{url}/evil"></iframe></foreignObject></svg>
<form action="{url}/_sandbox/reset" method="post"><input value="abc"><button id="b" autofocus>x</button></form>
<iframe src="{url}/evil-frame" srcdoc="<script>top.evil=1</script>"></iframe>
<object data="{url}/evil-object"></object><embed src="{url}/evil-embed">
<video src="{url}/evil-video" poster="{url}/evil-poster"></video>
<a id="script" href="javascript:top.evil=1" style="position:fixed;inset:0">x</a>
<marquee onstart="top.evil=1">m</marquee><details open ontoggle="top.evil=1">d</details>
</body></html>
"""


@pytest.mark.parametrize("images", ["", "?images=1"])
def test_hostile_email_runs_and_reaches_nothing(api: Api, tab: Tab, images: str) -> None:
    hostile = "\"'><script>top.evil=1</script><img src=x onerror=top.evil=1>"
    html = HOSTILE.format(url=api.url)
    send_id = api.quiet(subject=hostile, content=hostile, htmlContent=html, attachments=[file(hostile, html.encode())])
    bad = api.send(to=hostile, subject=hostile)
    assert bad.status_code == 400
    before = api.get("messages")
    for path in (f"/inbox/{send_id}{images}", f"/inbox/{send_id}/html{images}", "/inbox", "/inbox/refused"):
        tab.open(f"{api.url}{path}")
        if not path.startswith(f"/inbox/{send_id}/html"):
            tab.until(FOLLOWS)
        for x, y in ((300, 300), (20, 400)):
            tab.click(x, y)
        assert tab.value("window.evil === undefined && !document.title.startsWith('evil')")
    # The last page loads its own text preview.
    tab.open(f"{api.url}/inbox/{send_id}{images}")
    tab.value("document.querySelector('.files details').open = true")
    tab.wait(lambda: any(url.endswith("/preview") for url in tab.requests()), "the preview")
    tab.until(FOLLOWS)
    evil = [url for url in tab.requests() if "evil" in url or "_sandbox" in url]
    # Nothing at all; with images those alone, and none of the sandbox's own.
    allowed = (
        ("evil-image", "evil-css", "evil-svg-image", "evil-poster", "evil-leak", "messages?evil") if images else ()
    )
    assert [url for url in evil if not url.endswith(allowed)] == []
    assert bool(evil) is bool(images)
    after = api.get("messages")
    assert after["count"] == before["count"] == 1
    types = {event["type"] for event in after["messages"][0]["events"]}
    assert types == ({"sent", "opened"} if images else {"sent"})
    assert tab.value("window.evil === undefined")


def test_an_image_in_email_reads_nothing_of_the_sandbox(api: Api) -> None:
    api.send_id(subject="A secret")
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    for path in ("/_sandbox/messages", "/_sandbox/health", "/inbox", "/inbox/changes", "/openapi.json"):
        response = api.http.get(path, headers=headers)
        assert response.status_code == 403, path
        assert "secret" not in response.text


def test_looking_is_no_open_images_are_and_a_link_is_a_click(api: Api, browser: Browser, tab: Tab) -> None:
    # As a sender in a container knows the sandbox: the browser does not.
    api.control("settings", tracking_url="http://sandbox.invalid:8026/mail")
    html = f'<a href="{api.url}/_sandbox/health" style="display:block;height:150px">Open the run</a>'
    send_id = api.quiet(htmlContent=html)
    tab.open(f"{api.url}/inbox/{send_id}")
    tab.until(FOLLOWS)
    assert "does not count as opened" in tab.value("document.body.innerText")
    assert api.types(send_id) == ["sent"]
    tab.act("document.querySelector('.hint a[href*=images]').click()")
    tab.until("location.search === '?images=1'")
    tab.until("document.querySelector('#state .badge')?.textContent === 'opened'")
    tab.until(FOLLOWS)
    assert api.types(send_id)[:2] == ["sent", "opened"]
    # From the frame on, by the keyboard.
    tab.value("document.querySelector('.frame iframe').focus()")
    tab.press("Tab")
    tab.press("Enter")
    tab.wait(lambda: [one for one in browser.targets() if one["url"] == f"{api.url}/_sandbox/health"], "the new tab")
    tab.call("Page.bringToFront")
    tab.until("document.querySelector('#state .badge').textContent === 'clicked'")
    assert api.timeline(send_id).json()["events"][-1]["url"] == f"{api.url}/_sandbox/health"


def test_without_scripts(api: Api, browser: Browser) -> None:
    send_id = api.send_id(subject="No script")
    tab = browser.tab(scripts=False)
    tab.open(f"{api.url}/inbox")
    assert "Refresh automatically" in tab.value("document.body.innerText")
    tab.click(*tab.center("#delete summary"))
    tab.click(*tab.center("#delete button"))
    tab.until("document.body.innerText.includes('No messages yet')")
    assert api.timeline(send_id).status_code == 404
    browser.close(tab.target)


@pytest.mark.parametrize("dark", [False, True])
def test_a_narrow_screen(api: Api, browser: Browser, dark: bool) -> None:
    long = "x" * 300
    send_id = api.send_id(to=f"{long}@example.org", subject=long, content=long, idempotency_key=long[:200])
    api.send(to=long)
    tab = browser.tab(width=360, height=740, dark=dark)
    for path in ("", f"/{send_id}", "/refused", "/nothing", "?q=nothing"):
        tab.open(f"{api.url}/inbox{path}")
        assert tab.value("document.documentElement.scrollWidth") <= 360, path
        assert tab.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(20, 23, 28)" if dark else "rgb(244, 245, 247)"
        )
    browser.close(tab.target)


def test_under_a_prefix(browser: Browser, tab: Tab) -> None:
    with SandboxServer(root_path="/tools/mail/", event_delay=0) as server, Api(server.url) as api:
        send_id = api.send_id(htmlContent="<p>Hello</p>", attachments=[file("a.txt", b"text")])
        tab.open(f"{api.url}/tools/mail/")
        tab.until(FOLLOWS)
        assert tab.value("location.pathname") == "/tools/mail/inbox"
        assert tab.value("document.querySelector('.where').textContent") == f"{api.url}/tools/mail"
        api.send_id(subject="It follows")
        tab.until(f"{SUBJECTS}.length === 2")
        tab.press("j")
        tab.press("j")
        tab.press("Enter")
        tab.until(f"location.pathname === '/tools/mail/inbox/{send_id}'")
        tab.until(FOLLOWS)
        tab.act("document.querySelector('button[value=bounced]').click()")
        tab.until("location.hash === '#timeline' && document.querySelector('#state .badge').textContent === 'bounced'")
        tab.value("document.querySelector('.files details').open = true")
        tab.wait(lambda: any(url.endswith("/preview") for url in tab.requests()), "the preview")
        own = [url for url in tab.requests() if url.startswith(api.url)]
        assert all(url.startswith(f"{api.url}/tools/mail/") for url in own), own
        assert tab.violations() == []
