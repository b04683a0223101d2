"""Dags that run when emails bounce, on a real Airflow 3.3: none is lost when the triggerer is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from scripts.testbed.sandbox import API_KEY, SEND_PATH
from tests.system.airflows import AIRFLOW, DAGS, RUNNER, TRIGGERER_TIMEOUTS, Processes, connection, home, servers, start

#: Only a hang takes this long; nothing is measured by it.
LIMIT: Final = 300.0

pytestmark = [
    pytest.mark.timeout(2 * LIMIT),
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="shared streams and asset state stores came with Airflow 3.3"),
]

DAG_FILES: Final = [
    DAGS / "event_driven.py",
    Path(__file__).parents[2] / "example_dags" / "fluxomail_suppression_list.py",
]
#: What each Dag is scheduled on.
ASSETS: Final = {"on_bounces": "bounces", "fluxomail_suppression_list": "fluxomail_undeliverable"}
SUPPRESSED: Final = "fluxomail_suppressed"
STREAM: Final = "/api/v1/events/stream"


class Scene(Processes):
    """One Airflow whose Dags wait for events, and one sandbox."""

    def send(self, to: str) -> str:
        """Send a message that nothing happens to by itself."""
        self.sandbox.control("POST", "settings", json={"default_outcome": "never"})
        body = {"to": to, "subject": "Hello", "content": "Text", "idempotencyKey": to}
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(base_url=self.sandbox.url, headers=headers, timeout=15.0, trust_env=False) as client:
            return str(client.post(SEND_PATH, json=body).raise_for_status().json()["sendId"])

    def streams(self) -> int:
        """How often the event stream was opened."""
        rows = self.sandbox.control("GET", "requests")["requests"]
        return len([row for row in rows if row["path"] == STREAM])

    def cursor(self, dag_id: str) -> dict[str, Any] | None:
        """What is stored of a Dag's asset."""
        assets = self.airflow.call("GET", "assets", params={"limit": 100})["assets"]
        (asset_id,) = [row["id"] for row in assets if row["name"] == ASSETS[dag_id]]
        rows = self.airflow.call("GET", f"assets/{asset_id}/state-store")["asset_state_store"]
        value = rows[0]["value"] if rows else None
        return json.loads(value) if isinstance(value, str) else value

    def events(self, dag_id: str) -> list[tuple[str, str]]:
        """What the changes of an asset say, oldest first: what happened to which send."""
        rows = self.airflow.call("GET", "assets/events", params={"limit": 100, "order_by": "timestamp"})["asset_events"]
        payloads = [row["extra"]["payload"] for row in rows if row["name"] == ASSETS[dag_id]]
        return [(event["type"], event["send_id"]) for payload in payloads for event in payload["events"]]

    def told(self, dag_id: str, task_id: str) -> list[Any]:
        """What the task of each successful run has returned."""
        runs = self.airflow.call("GET", f"dags/{dag_id}/dagRuns", params={"state": "success"})["dag_runs"]
        return [self.airflow.xcom(dag_id, run["dag_run_id"], task_id) for run in runs]

    def noted(self) -> set[str]:
        """The sends that successful runs of ``on_bounces`` were told of."""
        return {event["send_id"] for events in self.told("on_bounces", "note") for event in events or ()}

    def suppressed(self) -> list[str]:
        """The suppression list."""
        rows = self.airflow.call("GET", "variables")["variables"]
        return next((json.loads(row["value"]) for row in rows if row["key"] == SUPPRESSED), [])


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A sandbox and an Airflow that follows its events."""
    with home(request) as folder, servers(folder) as (sandbox, postgres):
        environment = TRIGGERER_TIMEOUTS | {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": connection(sandbox),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
        }
        with RUNNER(folder / "airflow", dags=DAG_FILES, environment=environment) as airflow:
            start(airflow, *ASSETS)
            yield Scene(airflow, sandbox, limit=LIMIT)


def test_dags_run_when_emails_bounce_and_a_killed_triggerer_loses_none(scene: Scene) -> None:
    first, second, third = (scene.send(f"{name}@example.org") for name in ("ada", "bob", "cyd"))
    scene.until("the triggers have their cursors", lambda: all(scene.cursor(dag_id) for dag_id in ASSETS))

    scene.happens(first, "bounced")
    scene.until("the Dag has run for it", lambda: scene.noted() == {first})
    scene.until("its recipient is suppressed", lambda: len(scene.suppressed()) == 1)
    for dag_id in ASSETS:
        scene.until("its cursor has moved", lambda dag_id=dag_id: (scene.cursor(dag_id) or {}).get("seen"))  # type: ignore[misc]
    assert scene.streams() == 1, "promise 4: one for both"

    scene.airflow.component("triggerer").kill()
    # While no triggerer runs.
    scene.happens(second, "bounced")
    scene.happens(third, "complained")
    scene.airflow.component("triggerer").start()
    scene.until("the Dag has run for what it missed", lambda: scene.noted() == {first, second})
    scene.until("all are suppressed", lambda: len(scene.suppressed()) == 3)

    # Each once: what was confirmed before the kill does not come again.
    assert scene.events("on_bounces") == [("bounced", first), ("bounced", second)]
    assert sorted(scene.events("fluxomail_suppression_list")) == sorted(
        [("bounced", first), ("bounced", second), ("complained", third)]
    )
    assert scene.streams() == 2
    promise_5(scene)


def promise_5(scene: Scene) -> None:
    """No recipient, no key: not in what Airflow keeps of the events, and in no log."""
    kept = json.dumps([scene.airflow.call("GET", path) for path in ("assets/events", "variables", "assets")])
    assert scene.logs_with("Trigger fired event")
    for private in ("ada@", "bob@", "cyd@", API_KEY):
        assert private not in kept
        assert scene.logs_with(private) == []
