"""A success ends in the triggerer, unless something of it needs a worker; all else in a worker."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.system.airflows import AIRFLOW_2
from tests.system.shared.scene import LIMIT, RUN_ID, WAITS, Scene

DAG_ID: Final = "endings"

pytestmark = pytest.mark.timeout(3 * LIMIT)


def test_waits_end_with_their_results_wherever_they_end(scene: Scene) -> None:
    states = scene.waits_have_ended()
    assert states == {task: "failed" if task == "bounced" else "success" for task in states}
    assert set(states) > WAITS
    value = scene.xcom(DAG_ID, "plain")
    assert (value["event"], value["send_id"]) == ("delivered", scene.xcom(DAG_ID, "first")["send_id"])
    assert scene.xcom(DAG_ID, "note") == value
    sent = scene.xcom(DAG_ID, "send")
    assert sent["event"] == "delivered"
    assert sent["idempotency_key"].startswith("af1:endings.send:")
    assert scene.xcom(DAG_ID, "send", "send_id") == sent["send_id"]
    assert scene.xcom(DAG_ID, "note_part") == "delivered"
    calls = scene.folder / "calls"
    # Airflow 3 calls it after the task's state is stored.
    scene.until("the callback has ended", lambda: calls.exists() and calls.read_text())
    assert calls.read_text() == "called"


def test_a_task_leads_to_its_message_wherever_it_ended(scene: Scene) -> None:
    assert scene.waits_have_ended()
    inbox = f"{scene.sandbox.url}/inbox/{scene.xcom(DAG_ID, 'first')['send_id']}"
    # "plain" ended in the triggerer, which runs no link; "callback" in a worker, and so did "bounced", in red.
    assert scene.link(DAG_ID, "first") == scene.link(DAG_ID, "plain") == scene.link(DAG_ID, "callback") == inbox
    assert scene.link(DAG_ID, "send") == f"{scene.sandbox.url}/inbox/{scene.xcom(DAG_ID, 'send', 'send_id')}"
    assert str(scene.link(DAG_ID, "bounced")).startswith(f"{scene.sandbox.url}/inbox/")
    assert scene.link(DAG_ID, "note") is None


def test_outlets_say_which_message_it_was(scene: Scene) -> None:
    assert scene.waits_have_ended()
    kind = "dataset" if AIRFLOW_2 else "asset"
    changes: Any = scene.airflow.call("GET", f"{kind}s/events")[f"{kind}_events"]
    extras = {change["source_task_id"]: change["extra"] for change in changes if change["source_dag_id"] == DAG_ID}
    assert set(extras) == {"first", "outlet", "told"}
    for task in ("first", "told"):
        sent = scene.xcom(DAG_ID, task)
        assert extras[task].items() >= {"send_id": sent["send_id"], "message_id": sent["message_id"]}.items()


@pytest.mark.skipif(AIRFLOW_2, reason="a triggerer can end a task since Airflow 3.0")
def test_a_success_ends_without_a_worker_where_it_can(scene: Scene) -> None:
    assert scene.waits_have_ended()
    assert processes(scene) == {"send": 1, "plain": 1, "callback": 2, "outlet": 2, "bounced": 2, "told": 2}
    assert told(scene, "plain") == {"Waiting for send", "The message was delivered"}


def processes(scene: Scene) -> dict[str, int]:
    """How many processes each wait has taken: each says in the task's log that it has read the Dag."""
    folder = scene.airflow.logs / "tasks" / f"dag_id={DAG_ID}" / f"run_id={RUN_ID}"
    return {
        task: sum(
            log.read_text(errors="replace").count('"Worker startup parse complete"')
            for log in (folder / f"task_id={task}").glob("attempt=*.log")
        )
        for task in WAITS
    }


def told(scene: Scene, task: str) -> set[str]:
    """What the triggerer has written to the log of a wait, of what is looked for."""
    folder = scene.airflow.logs / "tasks" / f"dag_id={DAG_ID}" / f"run_id={RUN_ID}" / f"task_id={task}"
    text = "".join(log.read_text(errors="replace") for log in folder.glob("*trigger*"))
    return {line for line in ("Waiting for send", "The message was delivered", "cannot") if line in text}
