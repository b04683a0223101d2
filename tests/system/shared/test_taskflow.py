"""``@task.fluxomail_send``: a task that fails after it has sent, and is retried, has sent one email of each."""

from __future__ import annotations

from typing import Final

import pytest

from tests.system.shared.scene import LIMIT, RUN_ID, Scene

DAG_ID: Final = "taskflow"

pytestmark = pytest.mark.timeout(3 * LIMIT)


def test_promise_1_one_message_is_one_email(scene: Scene) -> None:
    assert scene.ended(DAG_ID) == "success"
    assert scene.last_tries(DAG_ID)["single"].try_number == 2
    (mail,) = scene.mails("single@example.org")
    assert mail["subject"] == f"Report of {RUN_ID}"
    assert scene.xcom(DAG_ID, "single", "send_id") == mail["send_id"]
    assert scene.xcom(DAG_ID, "single", "reused") is True


def test_promise_1_each_message_of_a_list_is_one_email(scene: Scene) -> None:
    scene.ended(DAG_ID)
    assert scene.last_tries(DAG_ID)["several"].try_number == 2
    stored = [scene.mails(f"several-{number}@example.org") for number in (3, 2, 1)]
    assert [len(mails) for mails in stored] == [1, 1, 1]
    results = scene.xcom(DAG_ID, "several")
    assert [result["send_id"] for result in results] == [mails[0]["send_id"] for mails in stored]
    assert all(result["reused"] for result in results)


def test_promise_1_each_of_mapped_tasks_sends_one_email(scene: Scene) -> None:
    scene.ended(DAG_ID)
    mapped = [task for task in scene.airflow.tasks(DAG_ID, RUN_ID) if task.task_id == "each"]
    assert [(task.state, task.try_number) for task in mapped] == [("success", 2)] * 3
    for index in range(3):
        (mail,) = scene.mails(f"each-{index}@example.org")
        assert scene.xcom(DAG_ID, "each", "send_id", map_index=index) == mail["send_id"]


def test_promise_1_the_next_try_sends_what_is_missing_of_a_list(scene: Scene) -> None:
    scene.ended(DAG_ID)
    assert scene.last_tries(DAG_ID)["some"].try_number == 2
    assert [len(scene.mails(f"some-{number}@example.org")) for number in (1, 2, 3)] == [1, 1, 1]
    assert [result["reused"] for result in scene.xcom(DAG_ID, "some")] == [True, False, True]
