"""The list of events: order, pages, filters, who may read it, and what it costs."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_fluxomail.sandbox import Bounds
from airflow_provider_fluxomail.sandbox.message import Message
from airflow_provider_fluxomail.sandbox.outcomes import PlannedEvent
from airflow_provider_fluxomail.sandbox.store.database import Store
from airflow_provider_fluxomail.sandbox.store.event_log import Cursor, EventFilter, Moment
from airflow_provider_fluxomail.sandbox.store.records import Position

if TYPE_CHECKING:
    from .helpers import Api

T = 1_700_000_000
"""A moment before any send, in seconds since the epoch."""


def row(api: Api, count: int) -> tuple[str, list[str]]:
    """A message with some events before its ``sent``, a second apart, and their ids, oldest first."""
    send_id = api.quiet()
    for number in range(count):
        api.add_event(send_id, "opened", T + number)
    return send_id, [f"{send_id}:{(T + number) * 1000}" for number in range(count)]


def assert_refused(api: Api, **query: Any) -> None:
    """A parameter is refused by its name."""
    response = api.events(**query)
    assert (response.status_code, response.json()["details"]) == (400, {"fields": list(query)})


def test_an_envelope(api: Api) -> None:
    send_id = api.quiet()
    api.add_event(send_id, "delivered", T + 12.345, smtpCode="250", mtaHost="mx.example.org")
    message_id = api.get("messages")["messages"][0]["message_id"]
    assert api.events(types="email.delivered").json() == {
        "events": [
            {
                "id": f"{send_id}:1700000012345",
                "type": "email.delivered",
                "created": "2023-11-14T22:13:32.345Z",
                "data": {
                    "smtpCode": "250",
                    "mtaHost": "mx.example.org",
                    "sendId": send_id,
                    "providerMessageId": message_id,
                },
            }
        ],
        "nextCursor": None,
    }


def test_newest_first(api: Api) -> None:
    first, second = api.quiet(), api.quiet()
    api.add_event(first, "opened", T + 5)
    api.add_event(second, "opened", T + 7)
    api.add_event(first, "clicked", T + 6)
    found = api.events(types=["email.opened", "email.clicked"]).json()["events"]
    assert [(event["type"], event["created"][17:19]) for event in found] == [
        ("email.opened", "27"),
        ("email.clicked", "26"),
        ("email.opened", "25"),
    ]


def test_only_what_has_happened_by_the_clock(api: Api) -> None:
    api.control("settings", event_delay=100)
    send_id = api.send_id()
    assert [event["type"] for event in api.events().json()["events"]] == ["email.sent"]
    api.advance(50)
    assert len(api.event_ids()) == 1
    api.advance(51)
    events = api.events().json()["events"]
    assert [event["type"] for event in events] == ["email.delivered", "email.sent"]
    assert {event["data"]["sendId"] for event in events} == {send_id}
    delivered, sent = (datetime.fromisoformat(event["created"]) for event in events)
    assert delivered - sent == timedelta(seconds=100)


def test_only_those_of_the_organization(api: Api) -> None:
    api.control("keys", key="other", organization="org_other")
    mine, theirs = api.quiet(), api.quiet(api_key="other")
    assert [name.split(":")[0] for name in api.event_ids()] == [mine]
    assert [name.split(":")[0] for name in api.event_ids(api_key="other")] == [theirs]


def test_limit(api: Api) -> None:
    _, rows = row(api, 4)
    assert [len(api.event_ids(limit=limit)) for limit in (2, "")] == [2, 5]
    assert api.events(limit=0).json() == {"events": [], "nextCursor": None}
    api.control("settings", page_size=3)
    assert len(api.event_ids()) == len(api.event_ids(limit=1000)) == 3
    assert api.event_ids(limit=2, since=T * 1000)[1:] == [rows[-1]]
    for limit in ("-1", "ten", "1.5", " 1"):
        assert_refused(api, limit=limit)


def test_pages_miss_nothing_and_repeat_nothing(api: Api) -> None:
    send_id = api.quiet()
    for number in range(9):
        # Three of them share each millisecond, so that pages end between such.
        api.add_event(send_id, "opened", T + number // 3, number=number)
    seen: list[int] = []
    cursor: str | None = ""
    for _ in range(5):
        response = api.events(types="email.opened", limit=2, cursor=cursor).json()
        seen += [event["data"]["number"] for event in response["events"]]
        cursor = response["nextCursor"]
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1, 0]
    assert cursor is None


def test_a_cursor(api: Api) -> None:
    send_id, rows = row(api, 4)
    assert api.event_ids(cursor=str((T + 2) * 1000)) == [rows[1], rows[0]]
    assert api.event_ids(cursor="2023-11-14T22:13:21Z") == [rows[0]]
    assert_refused(api, cursor="next")
    # There is no next page if nothing is older, and a page stays the same while events come in.
    assert api.events(types="email.opened", limit=4).json()["nextCursor"] is None
    cursor = api.events(types="email.opened", limit=2).json()["nextCursor"]
    api.add_event(send_id, "opened", T + 100)
    assert api.event_ids(types="email.opened", cursor=cursor) == [rows[1], rows[0]]


def test_types(api: Api) -> None:
    send_id = api.quiet()
    for kind in ("opened", "clicked", "bounced"):
        api.add_event(send_id, kind)
    everything = {"sent", "opened", "clicked", "bounced"}
    expected: list[tuple[list[str], set[str]]] = [
        ([], everything),
        ([""], everything),
        (["email.opened", "email.bounced"], {"opened", "bounced"}),
        (["email.*"], everything),
        (["*ed"], {"opened", "clicked", "bounced"}),
        *(([wrong], set()) for wrong in ("email.opened,email.bounced", "opened", "EMAIL.SENT", "email")),
        # No other wildcards of a glob.
        *(([wrong], set()) for wrong in ("email.?ent", "email.[s]ent", "email.[!x]*", "email.sent]")),
    ]
    for types, kinds in expected:
        found = api.events(types=types).json()["events"]
        assert {event["type"].removeprefix("email.") for event in found} == kinds, types
    many = [f"email.{number}" for number in range(101)]
    assert api.events(types=many[:100]).status_code == 200
    assert api.events(types="x" * 100).status_code == 200
    assert_refused(api, types=many)
    assert_refused(api, types="x" * 101)


@pytest.mark.parametrize(("rule", "first"), [("inclusive", 1), ("exclusive", 2)])
def test_since(api: Api, rule: str, first: int) -> None:
    _, rows = row(api, 4)
    api.control("settings", list_since=rule)
    for since in (
        "1700000001000",
        "2023-11-14T22:13:21Z",
        "2023-11-14T22:13:21.000+00:00",
        "2023-11-14T23:13:21 01:00",
    ):
        assert api.event_ids(types="email.opened", since=since) == rows[: first - 1 : -1]
        # The same on every page.
        assert api.event_ids(types="email.opened", since=since, limit=1, cursor=(T + 3) * 1000) == [rows[2]]
    for since in ("yesterday", "-1", "12:34"):
        assert_refused(api, since=since)


def test_since_an_event_id(api: Api) -> None:
    _, rows = row(api, 3)
    assert_refused(api, since=rows[1])
    api.control("settings", list_since_event_id=True)
    assert api.event_ids(types="email.opened", since=rows[1]) == [rows[2], rows[1]]
    assert api.event_ids(types="email.opened", since="gone:1700000001000") == [rows[2], rows[1]]
    assert_refused(api, since="gone")
    api.control("settings", list_since="exclusive")
    assert api.event_ids(types="email.opened", since=rows[1]) == [rows[2]]


def test_domain(api: Api) -> None:
    first, named, below = (
        api.quiet(to=to) for to in ("never@example.org", "Ann <never@Example.ORG>", "never@sub.example.org")
    )
    for domain, expected in (
        ("EXAMPLE.org", [named, first]),
        ("sub.example.org", [below]),
        ("ample.org", []),
        ("%", []),
        ("never@example.org", []),
    ):
        assert [name.split(":")[0] for name in api.event_ids(domain=domain)] == expected, domain


def test_smtp_code_and_host(api: Api) -> None:
    send_id = api.quiet()
    api.add_event(send_id, "delivered", T, smtpCode="250", mtaHost="mx1.example.org")
    api.add_event(send_id, "bounced", T + 1, smtpCode=550, mtaHost="mx1.example.org")
    api.add_event(send_id, "bounced", T + 2, smtpCode="550", mtaHost="mx2.example.org")

    def found(**query: str) -> list[int]:
        return [int(name.split(":")[1]) // 1000 - T for name in api.event_ids(**query)]

    assert found(smtpCode="250") == [0]
    assert found(smtpCode="550") == [2, 1]
    assert found(smtpCode="55") == []
    assert found(mtaHost="mx1.example.org") == [1, 0]
    assert found(mtaHost="mx1.example.org", smtpCode="550", types="email.b*", domain="example.org") == [1]


@pytest.mark.parametrize("form", ["events", "items"])
def test_list_form(api: Api, form: str) -> None:
    api.quiet()
    api.control("settings", list_form=form)
    response = api.events().json()
    assert set(response) == {form, "nextCursor"}
    assert len(response[form]) == 1


def test_who_may_read(api: Api) -> None:
    assert api.events(api_key="wrong").status_code == 401
    assert api.http.get("/api/v1/events").status_code == 401
    assert api.http.get("/api/v1/events", headers={"x-api-key": "fm_sandbox"}).status_code == 200
    # The documentation names no scope for the events.
    api.control("keys", key="token", scopes=[], expires_in=60)
    assert api.events(api_key="token").status_code == 200
    # A token of the query is for streams.
    assert api.http.get("/api/v1/events", params={"token": "token"}).status_code == 401
    api.advance(61)
    assert api.events(api_key="token").status_code == 401
    api.enter_window()
    # Reads count against the rate limit.
    api.control("keys", key="capped", rate_limit_per_minute=1)
    assert api.events(api_key="capped").headers["X-RateLimit-Remaining"] == "0"
    most = api.rest_of_window()
    response = api.events(api_key="capped")
    assert response.status_code == 429
    assert api.rest_of_window() <= int(response.headers["Retry-After"]) <= most <= 48
    api.control("settings", events_in_plan=False)
    response = api.events()
    assert (response.status_code, response.json()["code"]) == (402, "plan_required")
    assert response.json()["preview"]["feature"] == "events"
    assert api.events(api_key="wrong").status_code == 401


@pytest.fixture
def store() -> Any:
    store = Store(None, Bounds())
    yield store
    store.close()


def fill(store: Store, count: int, name: str = "s") -> None:
    for number in range(count):
        message = Message(
            recipient="a@example.org", address="a@example.org", subject="s", content="c", html=None, cc=[], bcc=[],
            policy_key=None, attachments=[], idempotency_key=None, fingerprint="f", extra={}, size=1,
        )  # fmt: skip
        events = [PlannedEvent("sent", number), PlannedEvent("delivered", number + 5)]
        store.add_send(
            message,
            send_id=f"{name}{number}",
            message_id="m",
            organization="org",
            endpoint="send",
            created_ms=number,
            events=events,
        )


@pytest.mark.parametrize("size", [1_000_000, 10])
@pytest.mark.parametrize("passed_ms", [0, 50, 103, 10_000])
def test_a_cursor_has_everything_once(store: Store, passed_ms: int, size: int) -> None:
    """More than one batch holds, of events before and behind the cursor, while others are stored."""
    log = store.event_log
    cursor, more, got = Cursor(Position(passed_ms, 0), 0), True, []
    for count, name in ((60, "a"), (50, "b")):
        fill(store, count, name)
        moment, more = Moment(10_000, log.newest()), True
        while more:
            events, cursor, more = log.after(cursor, EventFilter("org"), moment, 7, size)
            assert events == sorted(events, key=lambda event: event.position)
            got += [event.number for event in events]
    assert sorted(got) == list(range(1, 221))
    assert log.after(cursor, EventFilter("org"), moment, 7, size) == ([], cursor, False)


def test_a_page_reads_no_more_than_it_shows(store: Store) -> None:
    """The work is measured: SQLite's own count of steps must not grow with what is stored."""
    log = store.event_log
    wanted = EventFilter("org")

    def steps(run: Any) -> int:
        count = itertools.count()
        store._db.set_progress_handler(lambda: next(count) and 0, 1)
        run()
        store._db.set_progress_handler(None, 0)
        return next(count)

    def work() -> list[int]:
        newest = log.newest()
        moment = Moment(10_000, newest)
        return [
            steps(lambda: log.page(wanted, before=None, since_ms=0, now_ms=10_000, limit=10)),
            steps(lambda: log.page(wanted, before=Position(50, 40), since_ms=0, now_ms=10_000, limit=10)),
            steps(lambda: log.after(Cursor(Position(20, 0), newest), wanted, moment, 10, 1000)),
            steps(lambda: log.after(Cursor(Position(10_000, newest), newest - 2), wanted, moment, 10, 1000)),
            steps(lambda: log.find("org", "s7", 7)),
            steps(lambda: log.next_after(30)),
            steps(log.newest),
        ]

    fill(store, 100)
    few = work()
    store.clear()
    fill(store, 2000)
    assert [now <= before * 1.2 for now, before in zip(work(), few, strict=True)] == [True] * len(few)
