"""Nothing grows without end, and what is dropped is dropped whole."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer

from .helpers import Api

if TYPE_CHECKING:
    from pathlib import Path


def test_count_of_messages() -> None:
    with SandboxServer(bounds=Bounds(messages=3)) as server, Api(server.url) as api:
        ids = [api.send_id(idempotency_key=f"k{n}") for n in range(5)]
        assert api.messages() == ids[2:]
        assert [api.timeline(ids[number]).status_code for number in (0, 2)] == [404, 200]
        # Its idempotency record went with it; the others are still there.
        assert api.send(idempotency_key="k4").json()["reused"] is True
        assert "reused" not in api.send(idempotency_key="k0").json()
        api.control("reset")
        assert [api.send().status_code for _ in range(4)] == [200] * 4
        assert api.count() == 3


def test_nothing_is_left_of_a_dropped_message(tmp_path: Path) -> None:
    data = tmp_path / "state.sqlite"
    with SandboxServer(data=data, bounds=Bounds(messages=2)) as server, Api(server.url) as api:
        for number in range(5):
            attachment = {"filename": "a", "contentBase64": "eA=="}
            assert api.send(idempotency_key=f"k{number}", attachments=[attachment]).status_code == 200
    database = sqlite3.connect(data)
    rows = {
        table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("sends", "events", "idempotency", "attachments")
    }
    database.close()
    assert rows == {"sends": 2, "events": 4, "idempotency": 2, "attachments": 2}


def test_bytes_of_messages() -> None:
    with SandboxServer(bounds=Bounds(message_bytes=10_000)) as server, Api(server.url) as api:
        ids = [api.send_id(content="x" * 4_000) for _ in range(4)]
        assert api.messages() == ids[2:]
        # One that is larger than the bound still is accepted, alone.
        large = api.send_id(content="x" * 20_000)
        assert api.messages() == [large]
        api.control("reset")
        ids = [api.send_id(content="x" * 4_000) for _ in range(2)]
        api.add_event(ids[1], "delivered", note="x" * 4_000)
        assert api.messages() == ids[1:]


def test_request_log() -> None:
    with SandboxServer(bounds=Bounds(requests=3)) as server, Api(server.url) as api:
        for number in range(5):
            api.timeline(f"s{number}")
        assert [row["path"][-2:] for row in api.get("requests")["requests"]] == ["s2", "s3", "s4"]
    with SandboxServer(bounds=Bounds(request_bytes=10_000)) as server, Api(server.url) as api:
        for _ in range(20):
            api.http.get("/api/v1/sends/x", headers={"X-Long": "x" * 5_000})
        rows = api.get("requests")["requests"]
        assert 3 <= len(rows) <= 4
        assert len(rows[0]["headers"]["x-long"]) == 2_000


def test_keys_pauses_faults_and_events() -> None:
    bounds = Bounds(keys=3, faults=2, events=3)
    with SandboxServer(bounds=bounds) as server, Api(server.url) as api:
        assert [api.post("keys", key=f"k{n}").status_code for n in range(3)] == [200, 200, 409]
        assert api.post("keys", key="k0", scopes=[]).status_code == 200
        paused = [api.post("pause", paused=True, organization=f"o{n}").status_code for n in range(4)]
        assert paused == [200, 200, 200, 409]
        assert "at most 3" in api.post("pause", paused=True, organization="o9").json()["error"]
        assert [api.post("faults", kind="status", status=503).status_code for _ in range(3)] == [200, 200, 409]
        assert [api.send().status_code for _ in range(2)] == [503, 503]
        assert api.post("faults", kind="status", status=503).status_code == 200  # those that were met have gone
        api.http.delete("/_sandbox/faults")
        send_id = api.send_id()
        assert [api.post(f"messages/{send_id}/events", type="opened").status_code for _ in range(2)] == [200, 409]


def test_expired_tokens_make_room() -> None:
    with SandboxServer(bounds=Bounds(keys=3)) as server, Api(server.url) as api:
        for number in range(10):
            api.control("keys", key=f"token{number}", expires_in=0)


def test_the_start_key_always_fits(tmp_path: Path) -> None:
    path = tmp_path / "mail.db"
    with SandboxServer(data=path, bounds=Bounds(keys=2)) as server, Api(server.url) as api:
        assert [api.post("keys", key=key).status_code for key in ("fm_sandbox", "second", "third")] == [200, 200, 409]
    with SandboxServer("new", data=path, bounds=Bounds(keys=2)) as server, Api(server.url) as api:
        assert api.send(api_key="new").status_code == 200


def test_rate_windows_go_with_their_key(api: Api, server: SandboxServer) -> None:
    api.control("keys", key="k", rate_limit_per_minute=5)
    api.send(api_key="k")
    assert server._sandbox is not None
    assert len(server._sandbox.rates._counts) == 1
    assert api.http.delete("/_sandbox/keys/k").status_code == 200
    assert not server._sandbox.rates._counts
