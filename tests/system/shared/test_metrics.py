"""What the processes of an Airflow say by StatsD of what this package does."""

from __future__ import annotations

import pytest

from tests.system.airflows import AIRFLOW_2
from tests.system.shared.scene import DAG_IDS, INBOX_WAITS, LIMIT, UNENDING, WAITS, Scene

pytestmark = pytest.mark.timeout(3 * LIMIT)


def counted(scene: Scene, name: str) -> float:
    """The sum of a counter."""
    return sum(scene.statsd.values(f"airflow.fluxomail.{name}", "c"))


def gauge(scene: Scene) -> list[float]:
    """How many waits a triggerer has had, whenever it said so."""
    return scene.statsd.values("airflow.fluxomail.waits.open", "g")


def durations(scene: Scene) -> list[float]:
    """How long each wait took, in milliseconds."""
    return scene.statsd.values("airflow.fluxomail.wait.duration", "ms")


def all_have_ended(scene: Scene) -> None:
    """Let everything happen that is to happen."""
    assert scene.a_worker_has_died()
    assert scene.waits_have_ended()
    scene.inbox_has_ended()
    for dag_id in DAG_IDS:
        if dag_id != UNENDING:
            scene.ended(dag_id)
    late = () if AIRFLOW_2 else ("async@example.org", "sync@example.org", "boss@example.org")
    for to in ("oncall@example.org", "dba@example.org"):
        scene.until("the run's alert", lambda to=to: any("Dag failed" in one for one in scene.subjects(to)))  # type: ignore[misc]
    for to in late:
        scene.until("a late alert", lambda to=to: scene.mails(to))  # type: ignore[misc]


def test_every_email_is_counted_once_whatever_process_has_sent_it(scene: Scene) -> None:
    all_have_ended(scene)
    scene.until("all are counted", lambda: counted(scene, "sent") >= scene.sandbox.stored()[0])
    assert counted(scene, "sent") == scene.sandbox.stored()[0]
    # Those of the tasks that were tried again after all was sent.
    assert counted(scene, "replayed") > 0


def test_errors_and_caps_are_counted(scene: Scene) -> None:
    all_have_ended(scene)
    faults = scene.sandbox.control("GET", "requests", params={"method": "POST"})["requests"]
    refused = sum(row["status"] == 400 for row in faults)
    limited = sum(row["status"] == 429 for row in faults)
    failed = limited + sum(row["status"] == 503 for row in faults)
    assert limited == (2 if AIRFLOW_2 else 4)
    assert (counted(scene, "refused"), counted(scene, "failed")) == (refused, failed)
    assert counted(scene, "rate_limited") == limited


def test_a_triggerer_reports_its_waits(scene: Scene) -> None:
    all_have_ended(scene)
    waits = len(WAITS) + len(INBOX_WAITS)
    scene.until("nothing waits any longer", lambda: gauge(scene)[-1:] == [0])
    assert 1 <= max(gauge(scene)) <= waits
    assert any(name.startswith("airflow.fluxomail.waits.open.") for name in scene.statsd.names("airflow.fluxomail."))
    # The last metric of each wait.
    scene.until("all are counted", lambda: len(durations(scene)) >= waits)
    assert (counted(scene, "wait.reached"), counted(scene, "wait.failed")) == (waits - 2, 2)
    assert len(durations(scene)) == waits
    assert all(0 < milliseconds < 1000 * LIMIT for milliseconds in durations(scene))
