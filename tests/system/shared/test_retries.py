"""A task is tried again when Fluxomail says, and not at all where no retry helps."""

from __future__ import annotations

from typing import Final

import pytest

from tests.system.airflows import AIRFLOW_2
from tests.system.shared.scene import ASKED, LIMIT, Scene

EXAMPLE: Final = "fluxomail_retries"
#: What the tasks of the example have, in seconds. A task that waited for it would be tried again after the test's end.
RETRY_DELAY: Final = 600.0

pytestmark = pytest.mark.timeout(3 * LIMIT)


@pytest.mark.skipif(AIRFLOW_2, reason="Airflow has retry policies since 3.3")
def test_retry_after_is_the_delay_and_a_permanent_error_ends_the_task(scene: Scene) -> None:
    scene.ended(EXAMPLE)
    assert scene.states(EXAMPLE) == {"by_operator": "success", "by_hand": "success", "refused": "failed"}
    assert scene.last_tries(EXAMPLE)["refused"].try_number == 1
    waited = scene.pauses(EXAMPLE, "by_operator") + scene.pauses(EXAMPLE, "by_hand")
    # Which of the two tasks met the faults is theirs to decide.
    assert len(waited) == 2
    assert all(ASKED <= seconds < RETRY_DELAY for seconds in waited), waited
    assert len(scene.mails("ops@example.org")) == 2
    assert scene.mails("data-team@example.org") == []


def test_promise_4_a_deferrable_task_waits_for_the_cap_without_a_retry_and_sends_once(scene: Scene) -> None:
    scene.ended("retries")
    task = scene.last_tries("retries")["deferred"]
    assert (task.state, task.try_number) == ("success", 1)
    first, second = sorted(row["at"] for row in scene.asked_by("retries", "deferred"))
    assert second - first >= ASKED
    assert len(scene.mails("deferred@example.org")) == 1


def test_a_task_that_is_retried_after_a_429_sends_once(scene: Scene) -> None:
    scene.ended("retries")
    task = scene.last_tries("retries")["retried"]
    assert (task.state, task.try_number) == ("success", 2)
    (waited,) = scene.pauses("retries", "retried")
    assert waited >= ASKED
    assert len(scene.asked_by("retries", "retried")) == 2
    assert len(scene.mails("retried@example.org")) == 1


@pytest.mark.parametrize("task_id", ["refused", "refused_by_hand"])
def test_a_permanent_error_ends_the_task_at_once_without_a_policy_too(scene: Scene, task_id: str) -> None:
    assert scene.ended("retries") == "failed"
    task = scene.last_tries("retries")[task_id]
    assert (task.state, task.try_number) == ("failed", 1)
    assert len(scene.asked_by("retries", task_id)) == 1
    assert scene.mails(f"{task_id.replace('_', '-')}@example.org") == []
