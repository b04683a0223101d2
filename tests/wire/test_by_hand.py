"""Operators, batches and the decorator run by other code than Airflow's (promise 1), in whole Dags."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.idempotency_key import derive_key
from tests.support.airflow_runs import DagRuns


@pytest.mark.filterwarnings("ignore:.*cannot be called outside.*")
def test_each_message_has_a_key_of_its_own_and_keeps_it(dags: DagRuns, sandbox: Sandbox) -> None:
    run = dags.run("by_hand", {})
    assert set(run.states.values()) == {"success"}, run.states
    sent = Counter(mail.content for mail in sandbox.messages())
    in_task = [f"operator {n}" for n in range(3)] + [f"hand {n}" for n in range(2)] + ["decorator", "hook"]
    assert {text: sent[text] for text in in_task} == dict.fromkeys(in_task, 1), "in both tries together"
    assert [sent[f"batch {n}"] for n in range(2)] == [2, 2], "two batches with the same rows"
    assert [sent[f"subclass {n}"] for n in range(2)] == [1, 1]
    assert [sent[f"mapped {n}"] for n in range(2)] == [1, 1]
    # hand and twice start twice, are retried once; hand has a callback of its success, too.
    callbacks = {text: count for text, count in sent.items() if text.startswith("callback")}
    assert callbacks == {
        **{f"callback {n}, try 1, no error": 4 for n in range(3)},
        **{f"callback {n}, try 1, failed": 2 for n in range(3)},
        **{f"callback {n}, try 2, no error": 3 for n in range(3)},
    }


def test_what_a_task_sends_itself_keeps_its_key(dags: DagRuns, sandbox: Sandbox) -> None:
    run = dags.run("by_hand", {})
    keys = {mail.content: mail.idempotency_key for mail in sandbox.messages()}
    identity: dict[str, Any] = {"namespace": "", "dag_id": "by_hand", "run_id": run.run_id}
    assert keys["subclass 0"] == derive_key(**identity, task_id="twice")
    assert [keys[f"mapped {n}"] for n in range(2)] == [
        derive_key(**identity, task_id="mapped", map_index=n) for n in range(2)
    ]
