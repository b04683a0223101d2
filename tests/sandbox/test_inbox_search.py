"""The search of the inbox, and what it decides: Newer and Older, and what is deleted."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer
from airflow_provider_fluxomail.sandbox.store import database
from airflow_provider_fluxomail.sandbox.store.search import Search, text_of

from .helpers import KEY, Api
from .test_inbox import file, show

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["index", "no index"])
def searched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """A sandbox whose SQLite has FTS5, and one whose SQLite has not."""
    indexed = request.param == "index"
    monkeypatch.setattr(database, "Search", lambda db: Search(db, indexed=indexed))
    with SandboxServer() as server, Api(server.url) as api:
        yield api


def test_each_field(searched: Api) -> None:
    api = searched
    ada = api.send_id(
        to="Ada <ada@example.org>",
        cc=["carl@example.org"],
        subject="Load 100% done",
        content="Loaded 20 rows into the warehouse.",
        attachments=[file("Weekly report.csv", b"x"), file("b.txt", b"y")],
        idempotency_key="af1:daily:1",
    )
    bob = api.send_id(
        to="bounced@example.org",
        bcc=["dora@example.org"],
        subject="Something else",
        content="ada, nothing to see",
        htmlContent="<style>.hidden{color:purple}</style><p class=fancy>Élan &amp; 1 < 2 <b>vital</b></p>",
    )
    api.advance(5)
    for query, expected in {
        "to:ada": [ada],
        "TO:carl@": [ada],
        "to:dora": [bob],
        "ada": [bob, ada],
        "body:ada": [bob],
        "subject:load": [ada],
        'subject:"100% done"': [ada],
        'subject:"done 100%"': [],
        "done load": [ada],
        "load else": [],
        "key:daily": [ada],
        "key:DAILY:1": [ada],
        "af1:daily": [ada],
        "file:report": [ada],
        "weekly b.txt": [ada],
        f"id:{bob}": [bob],
        f"id:{bob[8:20]}": [bob],
        "warehouse": [ada],
        "ware": [ada],
        "WAREHOUSE rows": [ada],
        '"20 rows"': [ada],
        '"rows 20"': [],
        "vital": [bob],
        "state:delivered": [ada],
        "State:BOUNCED": [bob],
        "state:bounced ada": [bob],
        "state:opened": [],
        "state:": [],
        'to:"ada <"': [ada],
        'to:"ada': [ada],
        '""': [bob, ada],
        "nowhere:ada": [],
        "body:(": [],
        "NOT AND OR": [],
    }.items():
        assert show(api, q=query).listed() == expected, query


@pytest.mark.parametrize(
    "query", ['"', '""" *', "body:*", "body:-x", "a" * 256, "a " * 128, "body:x " * 36, "body:ü", "^ { } :"]
)
def test_no_search_fails(searched: Api, query: str) -> None:
    searched.send_id(content='A "quoted" text')
    show(searched, q=query)


def test_words_of_the_html_are_found_and_its_tags_are_not(api: Api) -> None:
    html = "<style>.hidden{color:purple}</style><p class=fancy>Élan &amp; 1 < 2 <b>vital</b></p><script>x<y</script>end"
    found = api.send_id(htmlContent=html)
    for word, expected in {"elan": [found], "end": [found], "fancy": [], "purple": [], "script": []}.items():
        assert show(api, q=word).listed() == expected, word


def test_text_of_html() -> None:
    assert text_of("a<b>c</b>d").split() == ["a", "c", "d"]
    assert text_of("1 < 2 &lt; 3").split() == ["1", "2", "<", "3"]
    for hostile in ("<" * 200_000, "<style" * 30_000, "<!--" * 50_000, "<a " * 60_000, "&" * 200_000):
        began = time.process_time()
        text_of(hostile)
        assert time.process_time() - began < 2


def test_a_search_is_kept(api: Api) -> None:
    ids = [api.send_id(subject=f"{'odd' if number % 2 else 'even'} & co") for number in range(6)]
    listed = show(api, q="odd &")
    assert listed.listed() == ids[5::-2]
    page = show(api, f"/{ids[3]}", q="odd &")
    assert [found["href"] for found in page.all("a", rel="prev")] == [f"/inbox/{ids[5]}?q=odd+%26"]
    assert [found["href"] for found in page.all("a", rel="next")] == [f"/inbox/{ids[1]}?q=odd+%26"]
    assert page.all("input", name="q", value="odd &")
    assert page.all("a", **{"data-up": ""})[0]["href"] == "/inbox?q=odd+%26"
    assert "Messages for “odd &”" in page.text
    assert all("q=odd+%26" in found["href"] for found in page.all("a") if "view=" in found["href"])
    # Back to the page of the list that has the message.
    older = next(iter([api.send_id(subject="odd") for _ in range(51)]))
    assert show(api, f"/{older}", q="odd").all("a", **{"data-up": ""})[0]["href"] == "/inbox?q=odd&page=2"


# Delete


def delete(api: Api, path: str, status: int = 303, fields: dict[str, str] | None = None) -> str:
    origin = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    response = api.http.post(f"/inbox{path}", data=fields, headers=origin)
    assert response.status_code == status, response.text
    return str(response.url.join(response.headers["Location"]).raw_path.decode()) if status == 303 else response.text


def fields_of(api: Api, **query: Any) -> dict[str, str]:
    """The fields of the form that deletes what the list shows."""
    return {found["name"]: found["value"] for found in show(api, **query).all("input", type="hidden")}


def test_delete_one(api: Api) -> None:
    first, second = api.send_id(idempotency_key="k"), api.send_id()
    page = show(api, f"/{first}", q="load")
    (action,) = [found["action"] for found in page.all("form") if "delete" in found["action"]]
    assert delete(api, action.removeprefix("/inbox")) == "/inbox?q=load"
    assert api.messages() == [second]
    assert api.timeline(first).status_code == 404
    assert delete(api, f"/{first}/delete", 404)
    # Its idempotency record is gone too, as the page says.
    assert api.send_id(idempotency_key="k") != first


def test_delete_all_but_what_arrived_meanwhile(api: Api) -> None:
    for _ in range(3):
        api.send_id(content="gone")
    fields = fields_of(api)
    late = api.send_id()
    assert delete(api, "/delete", fields=fields) == "/inbox"
    assert api.messages() == show(api).listed() == [late]
    assert show(api, q="gone").listed() == []


def test_delete_what_a_search_found(api: Api) -> None:
    kept = api.send_id(subject="keep")
    for _ in range(60):
        api.send_id(subject="drop & forget")
    assert "Delete 60 messages" in show(api, q="drop &").text
    delete(api, "/delete", fields=fields_of(api, q="drop &"))
    assert api.messages() == [kept]


@pytest.mark.parametrize("fields", [{}, {"q": ""}, {"up_to": ""}, {"up_to": "-1"}, {"up_to": "x"}, {"up_to": "9" * 20}])
def test_a_form_without_a_limit_deletes_nothing(api: Api, fields: dict[str, str]) -> None:
    send_id = api.send_id()
    assert "Nothing was deleted" in delete(api, "/delete", 400, fields)
    assert api.messages() == [send_id]


def test_another_page_deletes_nothing(api: Api) -> None:
    send_id = api.send_id()
    for path in ("delete", f"{send_id}/delete"):
        response = api.http.post(f"/inbox/{path}", data={"up_to": "99"}, headers={"Origin": "https://evil.example"})
        assert response.status_code == 403
        assert api.http.get(f"/inbox/{path}").status_code in (404, 405)
    assert api.messages() == [send_id]


def test_what_is_deleted_makes_room() -> None:
    with SandboxServer(bounds=Bounds(messages=3)) as server, Api(server.url) as api:
        ids = [api.send_id() for _ in range(3)]
        delete(api, f"/{ids[1]}/delete")
        ids.append(api.send_id())
        assert api.messages() == [ids[0], *ids[2:]]
        ids.append(api.send_id(content="the fifth"))
        assert api.messages() == ids[2:]
        assert show(api, q="fifth").listed() == ids[4:]


# The data file


def test_a_data_file_is_indexed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data.sqlite"
    with SandboxServer(data=data) as server, Api(server.url) as api:
        kept, deleted = api.send_id(content="aardvark"), api.send_id(content="aardvark")
    with monkeypatch.context() as patch:
        # As another SQLite, which has no FTS5, would use the file.
        patch.setattr(database, "Search", lambda db: Search(db, indexed=False))
        with SandboxServer(data=data) as server, Api(server.url) as api:
            delete(api, f"/{deleted}/delete")
            added = api.send_id(content="aardvark")
            assert show(api, q="aardvark").listed() == [added, kept]
    with SandboxServer(data=data) as server, Api(server.url) as api:
        assert show(api, q="aardvark").listed() == [added, kept]
        assert show(api, q="ardvark").listed() == []
    with sqlite3.connect(data) as db:
        assert db.execute("SELECT rowid FROM bodies").fetchall() == db.execute("SELECT number FROM sends").fetchall()


def test_a_reset_forgets_the_bodies(api: Api) -> None:
    api.send_id(content="aardvark")
    api.control("reset")
    assert show(api, q="aardvark").listed() == []
    assert show(api, q="aardvark").listed() == [] == api.messages()
    assert api.send_id(content="aardvark", api_key=KEY) in show(api, q="aardvark").listed()
