"""Nothing grows without end, and what is dropped is dropped whole."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_fluxomail.sandbox import Bounds, SandboxServer

from .helpers import Api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def bounded(bounds: Bounds) -> Iterator[Api]:
    with SandboxServer(bounds=bounds) as server:
        api = Api(server.url)
        yield api
        api.close()


def test_count_of_messages() -> None:
    with bounded(Bounds(messages=3)) as api:
        ids = [api.send_id(idempotency_key=f"k{n}") for n in range(5)]
        assert [message["send_id"] for message in api.get("messages")["messages"]] == ids[2:]
        assert api.timeline(ids[0]).status_code == 404
        assert api.timeline(ids[2]).status_code == 200
        # Its idempotency record went with it; the others are still there.
        assert api.send(idempotency_key="k4").json()["reused"] is True
        assert "reused" not in api.send(idempotency_key="k0").json()
        api.control("reset")
        assert [api.send().status_code for _ in range(4)] == [200] * 4
        assert api.count() == 3


def test_nothing_is_left_of_a_dropped_message(tmp_path: Path) -> None:
    data = tmp_path / "state.sqlite"
    with SandboxServer(data=data, bounds=Bounds(messages=2)) as server:
        api = Api(server.url)
        for number in range(5):
            attachment = {"filename": "a", "contentBase64": "eA=="}
            assert api.send(idempotency_key=f"k{number}", attachments=[attachment]).status_code == 200
        api.close()
    database = sqlite3.connect(data)
    rows = {
        table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("sends", "events", "idempotency", "attachments")
    }
    database.close()
    assert rows == {"sends": 2, "events": 4, "idempotency": 2, "attachments": 2}


def test_bytes_of_messages() -> None:
    with bounded(Bounds(message_bytes=10_000)) as api:
        ids = [api.send_id(content="x" * 4_000) for _ in range(4)]
        assert [message["send_id"] for message in api.get("messages")["messages"]] == ids[2:]
        # One that is larger than the bound still is accepted, alone.
        large = api.send_id(content="x" * 20_000)
        assert [message["send_id"] for message in api.get("messages")["messages"]] == [large]
        api.control("reset")
        ids = [api.send_id(content="x" * 4_000) for _ in range(2)]
        api.control(f"messages/{ids[1]}/events", type="delivered", note="x" * 4_000)
        assert [message["send_id"] for message in api.get("messages")["messages"]] == ids[1:]


def test_request_log() -> None:
    with bounded(Bounds(requests=3)) as api:
        for number in range(5):
            api.timeline(f"s{number}")
        assert [row["path"][-2:] for row in api.get("requests")["requests"]] == ["s2", "s3", "s4"]
    with bounded(Bounds(request_bytes=10_000)) as api:
        for _ in range(20):
            api.http.get("/api/v1/sends/x", headers={"X-Long": "x" * 5_000})
        rows = api.get("requests")["requests"]
        assert 3 <= len(rows) <= 4
        assert len(rows[0]["headers"]["x-long"]) == 2_000


def test_keys_and_pauses() -> None:
    with bounded(Bounds(keys=3)) as api:
        assert [api.post("keys", key=f"k{n}").status_code for n in range(3)] == [200, 200, 409]
        assert api.post("keys", key="k0", scopes=[]).status_code == 200
        paused = [api.post("pause", paused=True, organization=f"o{n}").status_code for n in range(4)]
        assert paused == [200, 200, 200, 409]
        assert "at most 3" in api.post("pause", paused=True, organization="o9").json()["error"]


def test_faults_and_events() -> None:
    with bounded(Bounds(faults=2, events=3)) as api:
        assert [api.post("faults", kind="status", status=503).status_code for _ in range(3)] == [200, 200, 409]
        assert [api.send().status_code for _ in range(2)] == [503, 503]
        assert api.post("faults", kind="status", status=503).status_code == 200  # those that were met have gone
        api.http.delete("/_sandbox/faults")
        send_id = api.send_id()
        statuses = [api.post(f"messages/{send_id}/events", type="opened").status_code for _ in range(2)]
        assert statuses == [200, 409]
