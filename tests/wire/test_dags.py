"""Whole Dags, run by Airflow (``dag.test()``) against the sandbox, the example Dags among them."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION, HAS_RETRY_POLICIES
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.airflow_facts import CALLBACKS_SEE_THE_EXCEPTION
from tests.support.airflow_runs import DagRunResult, DagRuns
from tests.support.whole_dags import quick_whole_dags

__all__ = ["quick_whole_dags"]
pytestmark = pytest.mark.usefixtures("quick_whole_dags")


def test_the_example_sends_once_and_waits(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    sandbox.settings(event_delay=0.5)
    run = dags.run("fluxomail_send_and_wait", {"to": "ada@example.org"})
    assert run.states == {"send": "success", "wait": "success"}
    (mail,) = sandbox.messages()
    assert mail.to == "ada@example.org"
    assert mail.content == f"Run {run.run_id} has loaded its rows."
    assert run.xcom("send", "send_id") == mail.send_id, "results are XComs of their own"
    assert run.xcom("send")["idempotency_key"] == mail.idempotency_key
    assert run.xcom("wait")["event"] == "delivered"


def test_the_mapped_example_sends_one_each_and_waits_for_all(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    people = ["ada@example.org", "bob@example.org", "bounced@example.org"]
    run = dags.run("fluxomail_send_to_many", {"people": people})
    assert run.states == {
        "people": "success",
        **{f"send[{n}]": "success" for n in range(3)},
        "wait[0]": "success",
        "wait[1]": "success",
        "wait[2]": "failed",
    }
    mails = sandbox.messages()
    assert sorted(mail.to for mail in mails) == people
    assert len({mail.idempotency_key for mail in mails}) == 3


def test_the_example_of_options(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    run = dags.run("fluxomail_send_options", {})
    assert set(run.states.values()) == {"success"}
    mails = {mail.subject: mail for mail in sandbox.messages()}
    assert len(mails) == 4
    report = mails[f"Report of {run.run_id}"]
    assert report.content.startswith("Report\n\nRun ")
    assert f"<b>{run.run_id}</b>" in str(report.html_content)
    assert [item.filename for item in report.attachments] == ["rows.csv", "note.txt"]
    assert report.extra_fields == {"replyTo": "data-team@example.org"}
    assert mails["Your code"].content == "Your code is 123456."
    assert re.fullmatch(r"daily-summary-\d{4}-\d\d-\d\d:g0", str(mails["Summary of the day"].idempotency_key))
    stored = dags.rendered_fields(run)
    assert "report.txt" not in stored["from_template_files"], "files are rendered"
    assert "123456" not in stored["body_that_airflow_does_not_store"], "promise 5"
    assert "***" in stored["body_that_airflow_does_not_store"]


def test_the_example_by_hand_sends_one_each_over_retries(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("response_lost_after_store", to="bob@example.org")
    dag = dags.load("fluxomail_send_by_hand")
    dag.get_task("remind").retry_delay = timedelta(0)
    run = DagRunResult(dags, dag.dag_id, dag.test().run_id)
    assert run.states == {"remind": "success"}
    assert run.tries("remind") == 2
    mails = {mail.subject: mail for mail in sandbox.assert_sent(2)}
    assert run.xcom("remind") == [mails[f"Invoice {number}"].send_id for number in (1001, 1002)]


def test_the_example_of_batches(dags: DagRuns, sandbox: FluxomailSandbox, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    run = dags.run("fluxomail_send_batch", {"report": str(report)})
    assert set(run.states.values()) == {"success"}, run.states
    assert run.xcom("remind")["sent"] == 2
    counts = {"total": 2, "sent": 2, "replayed": 0, "rejected": 0, "unknown": 0}
    assert run.xcom("newsletter") == {**counts, "report": str(report)}
    subjects = {mail.subject for mail in sandbox.assert_sent(4)}
    assert subjects == {"Invoice 1001", "Invoice 1002", f"News of {run.run_id}"}
    assert len(report.read_text().splitlines()) == 2


def test_the_example_of_alerts(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    run = dags.run("fluxomail_alerts", {"fail": True})
    assert run.states == {"load": "failed", "report": "success"}
    name = "fluxomail_alerts.load"
    for to in ("ops@example.org", "dba@example.org"):
        assert [mail.subject for mail in sandbox.messages(to)] == [
            f"[Airflow] up for retry: {name} (try 1 of 2)",
            f"[Airflow] failed: {name} (try 2 of 2)",
        ]
        for mail in sandbox.messages(to):
            named = "\nValueError: the warehouse has no rows of today\n" in mail.content
            assert named is CALLBACKS_SEE_THE_EXCEPTION
    whole = sandbox.message("lead@example.org")
    assert whole.subject == f"[Airflow] Dag failed: fluxomail_alerts ({run.run_id})"
    own = sandbox.message("data-team@example.org")
    assert own.subject == "report is done, at try 1"
    assert f"<b>fluxomail_alerts.report</b> succeeded in run {run.run_id}." in str(own.html_content)
    assert own.extra_fields == {"replyTo": "ops@example.org"}


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 0), reason="Airflow 2 has no asset watchers")
def test_the_example_of_a_suppression_list(
    dags: DagRuns, sandbox: FluxomailSandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The task of it; ``dag.test()`` has no asset events. The whole on a real Airflow: ``test_event_driven.py``."""
    caplog.set_level(logging.INFO)
    dag = dags.load("fluxomail_suppression_list")
    suppress = dag.get_task("suppress").python_callable
    example = suppress.__globals__
    kept: dict[str, Any] = {}
    variables = SimpleNamespace(
        get=lambda key, default, deserialize_json: kept.get(key, default),
        set=lambda key, value, serialize_json: kept.update({key: value}),
    )
    monkeypatch.setitem(example, "Variable", variables)
    hook = FluxomailHook()
    people = ("Ada@example.org", "Bob <bob@example.org>")
    sends = [hook.send({"to": to, "subject": "Hi", "content": "x"}, idempotency_key=to[:3]).send_id for to in people]
    hook.close()
    changes = [
        SimpleNamespace(extra={"payload": {"events": [{"send_id": send_id} for send_id in ids]}})
        for ids in (sends, sends[:1])
    ]

    class Triggering:
        """As Airflow's: an asset of 3.0 cannot be the key of a dict."""

        def __getitem__(self, asset: object) -> list[SimpleNamespace]:
            assert asset == example["undeliverable"]
            return changes

    assert suppress(triggering_asset_events=Triggering()) == 2
    assert kept == {"fluxomail_suppressed": sorted(map(example["digest"], ("ada@example.org", "bob@example.org")))}
    assert suppress(triggering_asset_events=Triggering()) == 0
    assert "example.org" not in caplog.text + str(kept), "promise 5"


@pytest.mark.skipif(not HAS_RETRY_POLICIES, reason="Airflow has retry policies since 3.3")
def test_the_example_of_the_retry_policy(dags: DagRuns, sandbox: FluxomailSandbox) -> None:
    """With ``dag.test()`` nothing waits for a delay: the system test sees it obeyed."""
    sandbox.connect(max_wait=0.5)
    sandbox.fail_next(429, to="ops@example.org", retry_after=3, times=2)
    sandbox.fail_next(400, to="data-team@example.org", times=None)
    run = dags.run("fluxomail_retries", {})
    assert run.states == {"by_operator": "success", "by_hand": "success", "refused": "failed"}
    assert (run.tries("by_operator") + run.tries("by_hand"), run.tries("refused")) == (4, 1)
    sandbox.assert_sent(2)
