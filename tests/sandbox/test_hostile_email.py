"""Hostile email in a browser: it runs no script, and its document reaches no server and no control call."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer, app
from tests.support.chromium import chromium

from .helpers import Api, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Message, Receive, Scope, Send

    from scripts.testbed.browser import Browser, Tab

FOLLOWS = "'follows' in document.documentElement.dataset"


class Elsewhere(ThreadingHTTPServer):
    """The server of an attacker. It records connections too, because some elements only connect."""

    daemon_threads = True

    def __init__(self) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append(f"{self.command} {self.path}")
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_PUT = do_HEAD = do_OPTIONS = do_GET  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self) -> Any:
        request = super().get_request()
        self.seen.append("connection")
        return request


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


Requests = list[tuple[str, str, int]]


@pytest.fixture
def requests() -> Requests:
    """Method, path and status of each request that a browser has made to the sandbox."""
    return []


@pytest.fixture
def watched(requests: Requests, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A client of a sandbox whose requests are recorded beneath all of it."""
    build = app.build_app

    def build_watched(*arguments: Any) -> Any:
        inner = build(*arguments)

        async def watch(scope: Scope, receive: Receive, send: Send) -> None:
            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start" and b"Mozilla" in dict(scope["headers"])[b"user-agent"]:
                    requests.append((scope["method"], scope["path"], message["status"]))
                await send(message)

            await inner(scope, receive, watched_send)

        return watch

    monkeypatch.setattr(app, "build_app", build_watched)
    with SandboxServer(event_delay=0) as server, Api(server.url) as api:
        yield api


LINKS = (
    "stylesheet", "preload as=script", "preload as=style", "preload as=font crossorigin", "preload as=fetch",
    "preload as=image", "modulepreload", "prefetch", "prerender", "preconnect", "dns-prefetch", "icon", "manifest",
    "apple-touch-icon", "import", "alternate", "search", "serviceworker", "compression-dictionary",
)  # fmt: skip
STYLE = """
@import url({e}/import-1); @import "{e}/import-2" layer(x); @import url("{e}/import-3") screen; @namespace n
url({e}/namespace);
@font-face {{ font-family: f; src: url({e}/font) }}
@font-face {{ font-family: g; src: local(x), url({e}/font-2) format("woff") }}
@view-transition {{ navigation: auto }}
* {{ font-family: f, g }} body {{ background: url({e}/image-1); cursor: url({e}/image-2), auto; behavior:
url({e}/behavior) }}
p {{ background-image: image-set("{e}/image-3" 1x); mask: url({e}/image-mask); filter: url({e}/image-filter-css#f);
clip-path: url({e}/image-clip#c); shape-outside: url({e}/image-shape); float: left; border-image: url({e}/image-4) 1;
width: expression(top.evil=1); -moz-binding: url({e}/binding); offset-path: url({e}/offset.svg#p) }}
li {{ list-style: url({e}/image-5) }} p::before {{ content: url({e}/image-6) }}
a[href^=h] {{ background: url({e}/image-7) }}
"""
BODY = """
<base href="{e}/base/"><img src="image-base"><meta name=referrer content=unsafe-url>
<meta http-equiv=refresh content="0;url={e}/refresh">
<META HTTP-EQUIV="Refresh" CONTENT="0; URL={s}/_sandbox/messages?refresh">
<link http-equiv=refresh content="0;url={e}/refresh-link"><meta http-equiv=x-dns-prefetch-control content=on>
<meta http-equiv=Content-Security-Policy content="script-src *; report-uri {e}/csp">
<meta http-equiv=Link content="<{e}/link>;rel=preload;as=image">
<script>top.evil=1;fetch('{s}/_sandbox/reset',{{method:'POST'}})</script><script src={e}/script></script>
<script type=module src={e}/module></script>
<script type=speculationrules>{{"prefetch":[{{"source":"list","urls":["{e}/speculation"]}}]}}</script>
<svg onload=top.evil=1><script href={e}/svg-script></script><script>top.evil=1</script>
<style>@import url({e}/svg-import)</style>
<image href={e}/image-svg /><use href="{e}/use.svg#x"/>
<use href="data:image/svg+xml,<svg id='x' onload='top.evil=1'/>#x"/>
<filter id=f><feImage href={e}/image-filter /></filter><rect filter="url(#f)" width=9 height=9 />
<animate onbegin=top.evil=1 attributeName=x dur=1s /><set attributeName=href to=javascript:top.evil=1 />
<foreignObject><iframe src={e}/foreign></iframe><link rel=stylesheet href={e}/foreign-link></foreignObject></svg>
<math><mglyph src={e}/glyph /><annotation-xml encoding=text/html><iframe srcdoc="<script>top.evil=1</script>">
</iframe></annotation-xml></math>
<iframe src={e}/frame></iframe><IFRAME\nsrc={s}/_sandbox/messages?frame></IFRAME>
<iframe srcdoc="<script>top.evil=1</script><img src={e}/srcdoc>"></iframe>
<object data={e}/object type=text/html></object><object data={s}/_sandbox/messages?object></object>
<embed src={e}/embed type=text/html>
<applet code=x archive={e}/applet></applet><portal src={e}/portal></portal><fencedframe src={e}/fenced></fencedframe>
<video autoplay muted src={e}/video poster={e}/image-poster><track default src={e}/track></video>
<audio autoplay src={e}/audio></audio>
<picture><source srcset="{e}/image-source"><img src={e}/image-picture></picture>
<img srcset="{e}/image-set 1x" attributionsrc={e}/attribution>
<input type=image src={e}/image-input formaction={s}/_sandbox/reset><table background={e}/image-table><tr>
<td>x</table><bgsound src={e}/sound>
<img src=x onerror=top.evil=1><details open ontoggle=top.evil=1>d</details><input autofocus onfocus=top.evil=1>
<marquee onstart=top.evil=1>m</marquee>
<body onpageshow=top.evil=1 background={e}/image-body><form id=g action={s}/_sandbox/reset method=post>
<input name=x></form><isindex action={e}/isindex>
<template shadowrootmode=open><style>@import url({e}/shadow)</style><link rel=stylesheet href={e}/shadow-link>
</template>
<noscript><img src={e}/image-noscript><iframe src={e}/noscript></iframe></noscript>
<xss id=x style="animation: a 1s" onanimationstart=top.evil=1>
<img src="{s}/_sandbox/messages?image"><img src="{s}/inbox/delete?image"><p>text<ul><li>item</ul><!-->
<script>top.evil=1</script>-->
<textarea></textarea><title></title></body></html><script>top.evil=1</script><iframe src={e}/after></iframe><a href="
"""


def mail(elsewhere: Elsewhere, api: Api) -> str:
    links = "".join(f"<link rel={rel} href={elsewhere.url}/link-{number}>" for number, rel in enumerate(LINKS))
    links += f"<LINK\nREL=preconnect HREF={elsewhere.url}><link/rel=stylesheet/href={elsewhere.url}/link-slash>"
    style = STYLE.format(e=elsewhere.url)
    return f"<html><head>{links}<style>{style}</style></head>" + BODY.format(e=elsewhere.url, s=api.url)


FRAMES = "<frameset rows='*,*'><frame src={e}/frame-1><FRAME\tsrc={s}/_sandbox/messages?frame></frameset>"


def until_idle(tab: Tab, browser: Browser, elsewhere: Elsewhere) -> None:
    """Whatever the page began to load is on its way once a page that was opened after it has been loaded."""
    tab.until("document.readyState === 'complete'")
    last = browser.tab()
    last.open(f"{elsewhere.url}/end")
    browser.close(last.target)
    wait_until(lambda: "GET /end" in elsewhere.seen)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("path", ["", "/html"])
def test_a_hostile_document_loads_images_at_most(
    watched: Api, requests: Requests, elsewhere: Elsewhere, browser: Browser, path: str, images: bool
) -> None:
    api = watched
    everything = [
        api.quiet(htmlContent=html) for html in (mail(elsewhere, api), FRAMES.format(e=elsewhere.url, s=api.url))
    ]
    settings = api.get("settings")
    for send_id in everything:
        tab = browser.tab()
        tab.open(f"{api.url}/inbox/{send_id}{path}{'?images=1' if images else ''}")
        if not path:
            tab.until(FOLLOWS)
        assert tab.value("top.evil === undefined")
        until_idle(tab, browser, elsewhere)
        assert tab.value("location.pathname") == f"/inbox/{send_id}{path}"
        assert tab.value("top.evil === undefined")
        browser.close(tab.target)
    loaded = {one for one in elsewhere.seen if one not in ("GET /end", "GET /favicon.ico", "connection")}
    if images:
        assert all(re.fullmatch(r"GET /(base/)?image-[\w-]+", one) for one in loaded), loaded
        assert {"GET /image-1", "GET /image-6", "GET /image-svg", "GET /image-source"} <= loaded
    else:
        assert loaded == set()
        # The page that the test opens, and what Chromium opens ahead for it, come last.
        assert elsewhere.seen[0] == "connection"
        assert elsewhere.seen[: elsewhere.seen.index("GET /end")].count("connection") <= 2
    assert {method for method, _, _ in requests} == {"GET"}
    control = {(one, status) for _, one, status in requests if one.startswith("/_sandbox") or one == "/inbox/delete"}
    # As an image, which reads nothing.
    assert control == ({("/_sandbox/messages", 403), ("/inbox/delete", 403)} if images else set())
    assert api.get("settings") == settings
    assert api.messages() == everything


CLICKS = (
    ('<a href="{s}/inbox/refused">x</a>', "/inbox/refused"),
    # What is clicked; what opens in a new tab, where anything does.
    ('<a href="{s}/_sandbox/reset">x</a>', "/_sandbox/reset"),
    ('<a href="{s}/_sandbox/health" ping="{e}/ping {s}/_sandbox/reset">x</a>', "/_sandbox/health"),
    ('<a href="{s}/inbox/delete" target=named rel=opener>x</a>', "/inbox/delete"),
    ('<a href="{s}/_sandbox/messages" target=_top>x</a>', None),
    ('<a href="{e}/parent" target=_parent>x</a>', None),
    ('<a href="{s}/_sandbox/requests" download>x</a>', "/_sandbox/requests"),
    ('<a href="javascript:top.evil=1">x</a>', None),
    ('<a href="javascript:top.evil=1" target=_top>x</a>', None),
    ('<a href="data:text/html,<script>opener.top.evil=1</script>" rel=opener target=a>x</a>', None),
    ('<a href="view-source:{s}/_sandbox/suppressions">x</a>', None),
    ('<a href="file:///etc/hostname">x</a>', None),
    (
        '<svg viewBox="0 0 9 9" preserveAspectRatio=none><a xlink:href="javascript:top.evil=1"><rect width=9 height=9>',
        None,
    ),
    ('<math><mtext href="javascript:top.evil=1">x</mtext></math>', None),
    ('<form action="{s}/_sandbox/reset" method=post target=_blank><button>x</button></form>', None),
    ('<form action="{s}/_sandbox/faults"><button>x</button></form>', None),
    ('<button form=g formaction="{e}/formaction" formmethod=post formtarget=_top>x</button><form id=g></form>', None),
    ('<form action="{s}/inbox/delete" method=post><input type=submit><input name=up_to value=999999></form>', None),
    # These leave the frame empty.
    ('<a href="{e}/self" target=_self>x</a>', None),
)  # fmt: skip


def test_what_a_reader_clicks_reaches_nothing_but_pages(
    watched: Api, requests: Requests, elsewhere: Elsewhere, browser: Browser
) -> None:
    api = watched
    cell = "<div class=c style='position:fixed;left:0;width:300px;height:28px;overflow:hidden;top:{}px'>{}</div>"
    html = "<style>.c * {display: block; width: 300px; height: 28px; margin: 0}</style>" + "".join(
        cell.format(30 * number, html.format(e=elsewhere.url, s=api.url)) for number, (html, _) in enumerate(CLICKS)
    )
    api.control("settings", unsubscribe="header")
    send_id = api.quiet(htmlContent=html)
    settings = api.get("settings")
    tab = browser.tab()
    tab.open(f"{api.url}/inbox/{send_id}")
    tab.until(FOLLOWS)
    left, top = tab.value(
        "(() => { const e = document.querySelector('.frame iframe'); e.scrollIntoView();"
        " const b = e.getBoundingClientRect(); return [b.x, b.y] })()"
    )
    for number, (_, opens) in enumerate(CLICKS):

        def clicked(number: int = number, opens: str | None = opens) -> bool:
            if opens in {path for _, path, _ in requests}:
                return True
            tab.call("Page.bringToFront")
            tab.click(left + 100, top + 30 * number + 14)
            return opens is None

        tab.wait(clicked, f"{opens} in a new tab")
    until_idle(tab, browser, elsewhere)
    assert tab.value("top.evil === undefined && location.pathname") == f"/inbox/{send_id}"
    assert [one for one in elsewhere.seen if one not in ("connection", "GET /end", "GET /favicon.ico")] == []
    assert {method for method, _, _ in requests} == {"GET"}
    control = {(one, status) for _, one, status in requests if one.startswith("/_sandbox") or one == "/inbox/delete"}
    # A reader may follow a link to what is only read; nothing can be changed by GET.
    read = {("/_sandbox/health", 200), ("/_sandbox/requests", 200)}
    assert control == read | {("/_sandbox/reset", 405), ("/inbox/delete", 404)}
    assert api.get("settings") == settings
    assert api.messages() == [send_id]
    for target in browser.targets():
        browser.close(target["targetId"])
