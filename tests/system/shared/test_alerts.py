"""What each callback sends, from a worker, the Dag processor, the triggerer and an executor."""

from __future__ import annotations

from typing import Final

import pytest

from scripts.testbed.sandbox import API_KEY
from tests.system.airflows import AIRFLOW, AIRFLOW_2
from tests.system.shared.scene import LIMIT, RUN_ID, UNENDING, Scene

EVERYBODY: Final = ("oncall@example.org", "dba@example.org")

pytestmark = pytest.mark.timeout(3 * LIMIT)


def test_promise_1_a_callback_that_fires_twice_sends_one_email(scene: Scene) -> None:
    assert scene.a_worker_has_died()
    subject = "[Airflow] up for retry: alerts_dead.dies (try 1 of 2)"
    scene.until("the alert", lambda: subject in scene.subjects(EVERYBODY[0]))
    # By then Airflow has fired the callback several times, unless the machine is very busy.
    assert scene.ended("alerts_dead") == "success"
    for to in EVERYBODY:
        assert [one for one in scene.subjects(to) if "alerts_dead" in one] == [subject]


def test_callbacks_of_tasks_and_runs_send_one_email_to_each_recipient(scene: Scene) -> None:
    scene.ended("alerts")
    wanted = [
        f"[Airflow] Dag failed: alerts ({RUN_ID})",
        "[Airflow] failed: alerts.bad",
        "[Airflow] succeeded: alerts.well",
        "[Airflow] up for retry: alerts.flaky (try 1 of 2)",
    ]
    for to in EVERYBODY:
        scene.until("all alerts", lambda to=to: set(wanted) <= set(scene.subjects(to)))  # type: ignore[misc]
        assert [one for one in scene.subjects(to) if "alerts_dead" not in one] == wanted
    mails = {row["subject"]: row for row in scene.mails(EVERYBODY[0])}
    failed = mails["[Airflow] failed: alerts.bad"]["content"]
    assert "\nValueError: no rows for <address>\n" in failed
    assert f"\nOpen the log: {scene.airflow.url}/dags/alerts/" in failed
    assert f"\nOpen the run: {scene.airflow.url}/dags/alerts/" in mails[wanted[0]]["content"]
    # Airflow 3.0 does not pass it to its Dag processor.
    named = AIRFLOW != (3, 0)
    assert ("\nFailed tasks: bad\n" in mails[wanted[0]]["content"]) is named


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow has deadlines, and questions to people, since 3.1")
def test_deadlines_and_questions_send_one_email(scene: Scene) -> None:
    for to in ("async@example.org", "sync@example.org"):
        scene.until("the deadline's alert", lambda to=to: scene.subjects(to))  # type: ignore[misc]
        assert scene.subjects(to) == [f"[Airflow] deadline missed: {UNENDING} ({RUN_ID})"]
    scene.until("the question", lambda: scene.subjects("boss@example.org"))
    assert scene.subjects("boss@example.org") == [f"[Airflow] input needed: {UNENDING}.approve: Publish {RUN_ID}?"]


def test_promise_5_processes_that_run_callbacks_log_no_recipient(scene: Scene) -> None:
    scene.ended("alerts")
    assert scene.logs_with("Fluxomail accepted the alert")
    for private in (*EVERYBODY, "async@example.org", "sync@example.org", "boss@example.org", API_KEY):
        assert scene.logs_with(private) == []
