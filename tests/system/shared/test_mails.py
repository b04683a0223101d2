"""``[email] email_backend``: the emails that Airflow sends itself, and a connection that keeps email from strangers."""

from __future__ import annotations

from typing import Final

import pytest

from tests.system.airflows import AIRFLOW_2
from tests.system.shared.scene import LIMIT, RUN_ID, Scene

DAG_ID: Final = "mails"
STAGING: Final = "staging@example.org"

pytestmark = pytest.mark.timeout(3 * LIMIT)


def alert(task_id: str, state: str, try_number: int, *, dag_id: str = DAG_ID) -> str:
    """Airflow's default subject, as it arrives."""
    if AIRFLOW_2:
        return f"Airflow alert: <TaskInstance: {dag_id}.{task_id} {RUN_ID} [{state}]>"
    return f"Airflow alert: {dag_id}.{task_id} {RUN_ID} [{state}] try {try_number}"


def test_failure_and_retry_are_one_email_each_to_each_recipient(scene: Scene) -> None:
    scene.ended(DAG_ID)
    wanted = [alert("fails", "failed", 2), alert("fails", "up_for_retry", 1)]
    assert scene.subjects("owner@example.org") == wanted
    for number, mail in enumerate(sorted(scene.mails("owner@example.org"), key=lambda row: row["created_at"]), 1):
        assert f"Try {number} out of 2" in mail["content"]
        assert "no rows" in mail["content"]
    # The other one is a stranger, for whom [email] email_conn_id has another address.
    redirected = [row for row in scene.mails(STAGING) if row["subject"] in wanted]
    assert sorted(row["subject"] for row in redirected) == wanted
    for mail in redirected:
        for body in (mail["content"], mail["html_content"]):
            assert "[redirected by Airflow; was for to: owner@customer.example]" in body
    assert scene.mails("owner@customer.example") == []


def test_promise_1_a_task_that_crashed_sends_one_email_although_airflow_2_requests_more(scene: Scene) -> None:
    assert scene.a_worker_has_died()
    # By then Airflow 2 has requested it several times, unless the machine is very busy.
    scene.ended("alerts_dead")
    scene.until("the alert is sent", lambda: scene.mails("crashes@example.org"))
    (mail,) = scene.mails("crashes@example.org")
    # The Dag processor of Airflow 3 names no state.
    assert mail["subject"] in (
        alert("dies", "up_for_retry", 1, dag_id="alerts_dead"),
        f"Airflow alert: alerts_dead.dies {RUN_ID} try 1",
    )


def test_a_retry_with_email_on_retry_off_sends_nothing(scene: Scene) -> None:
    scene.ended(DAG_ID)
    assert scene.last_tries(DAG_ID)["recovers"].try_number == 2
    assert scene.mails("quiet@example.org") == []


def test_a_refused_recipient_does_not_keep_the_email_from_the_others(scene: Scene) -> None:
    scene.ended(DAG_ID)
    # Airflow 2 treats the error as a template error, and calls the backend again with another text.
    (mail,) = scene.mails("half@example.org")
    assert mail["subject"] == alert("half", "failed", 1)
    assert "no rows" in mail["content"]
    assert scene.mails("half-refused@example.org") == []


def test_promise_1_equal_emails_of_a_retried_task_are_sent_once_each(scene: Scene) -> None:
    scene.ended(DAG_ID)
    assert scene.last_tries(DAG_ID)["tells"].try_number == 2
    for to in ("told-1@example.org", "told-2@example.org"):
        assert scene.subjects(to) == ["Told", "Told"]
    redirected = [row for row in scene.mails(STAGING) if row["subject"] == "Told"]
    assert len(redirected) == 2
    assert all("was for to: told@customer.example]\n\nRows: 7" in row["content"] for row in redirected)


def test_a_guarded_connection_redirects_and_names_the_original_recipients(scene: Scene) -> None:
    scene.ended(DAG_ID)
    (mail,) = [row for row in scene.mails(STAGING) if row["subject"] == "Invoice"]
    assert mail["content"] == "[redirected by Airflow; was for to: guarded@customer.example]\n\nText"
    assert mail["html_content"].startswith("<p>[redirected by Airflow; was for to: guarded@customer.example]</p>")
    assert scene.mails("guarded@customer.example") == []


@pytest.mark.skipif(not AIRFLOW_2, reason="Airflow's own EmailOperator ended with Airflow 2")
def test_airflows_own_operator_sends_by_the_backend(scene: Scene) -> None:
    scene.ended(DAG_ID)
    (mail,) = scene.mails("operator@example.org")
    assert (mail["subject"], mail["content"].strip()) == (f"Run {RUN_ID}", "Hello")
    assert mail["cc"] == ["copy@example.org"]
