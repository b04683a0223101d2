"""The Dags of the migration guides, as they are afterwards, against the sandbox."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.airflow_facts import NO_FAILURE_MAILS
from tests.support.airflow_runs import DagRuns
from tests.support.timing import quick_waits

EXAMPLES = Path(__file__).parents[2] / "example_dags"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_waits(monkeypatch, least_interval=0.2)
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", "airflow_provider_fluxomail.email_backend.send_email")
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "fluxomail_default")


def test_smtp(airflow_db: Path, sandbox: FluxomailSandbox) -> None:
    run = DagRuns(airflow_db).run("migrating_smtp_after", {})
    assert run.states == {"report[0]": "success", "report[1]": "success", "load": "failed", "check": "failed"}
    sandbox.assert_sent(4 if NO_FAILURE_MAILS else 6)
    ada, bob = (sandbox.message(to) for to in ("ada@example.org", "bob@example.org"))
    assert (ada.cc, bob.cc) == (["lead@example.org"], [])
    for report in (ada, bob):
        assert report.subject == f"Report of {run.run_id}"
        assert report.content == f"All rows of {run.run_id} are loaded."
        assert report.extra_fields == {"replyTo": "data-team@example.org"}
        assert [file.filename for file in report.attachments] == ["rows.csv"]
    for to in ("ops@example.org", "dba@example.org"):
        assert [mail.subject == "load failed" for mail in sandbox.messages(to)].count(True) == 1
        if NO_FAILURE_MAILS:
            continue
        (failure,) = [mail for mail in sandbox.messages(to) if mail.subject != "load failed"]
        assert "migrating_smtp_after.check" in failure.subject
        assert "the rows are too few" in failure.content


def test_sendgrid(airflow_db: Path, sandbox: FluxomailSandbox) -> None:
    run = DagRuns(airflow_db).run("migrating_sendgrid_after", {})
    assert run.states == {"remind": "success", "check": "failed"}
    sandbox.assert_sent(2 if NO_FAILURE_MAILS else 4)
    for person, invoice in (("ada@example.org", 1001), ("bob@example.org", 1002)):
        reminder = sandbox.message(person)
        assert (reminder.subject, reminder.content) == (f"Invoice {invoice}", f"Invoice {invoice} is overdue.")
        assert (reminder.cc, reminder.bcc) == ([], ["archive@example.org"])
    for to in () if NO_FAILURE_MAILS else ("ops@example.org", "dba@example.org"):
        assert "migrating_sendgrid_after.check" in sandbox.message(to).subject


def test_ses(airflow_db: Path, sandbox: FluxomailSandbox) -> None:
    run = DagRuns(airflow_db).run("migrating_ses_after", {})
    assert run.states == {"report": "success", "load": "failed"}
    sandbox.assert_sent(3)
    report = sandbox.message("ada@example.org")
    assert report.cc == ["lead@example.org", "bob@example.org"]
    assert report.extra_fields == {"replyTo": "data-team@example.org"}
    assert run.xcom("report")["event"] == "delivered"
    for to in ("ops@example.org", "dba@example.org"):
        assert sandbox.message(to).subject == "load failed"


def test_the_dags_of_before_can_be_parsed(airflow_db: Path) -> None:
    dags = DagRuns(airflow_db)
    for name in ("smtp", "sendgrid", "ses"):
        if (airflow_db / "migrating" / f"{name}_before.py").exists():
            assert dags.load(f"migrating_{name}_before").tasks


def find_path_from_directory() -> Any:
    """Airflow's own, which has moved."""
    for name in ("airflow._shared.module_loading.file_discovery", "airflow.utils.file"):
        with contextlib.suppress(ImportError, AttributeError):
            return importlib.import_module(name).find_path_from_directory
    raise AssertionError("Airflow finds Dags in another place now")


def test_a_copy_of_the_examples_has_no_dag_of_another_provider(tmp_path: Path) -> None:
    """People copy the folder into their Dags, where the old providers need not be."""
    shutil.copytree(EXAMPLES, tmp_path / "dags")
    found = [Path(path).name for path in find_path_from_directory()(str(tmp_path / "dags"), ".airflowignore")]
    assert {"smtp_after.py", "fluxomail_alerts.py"} < set(found)
    assert [name for name in found if "before" in name] == []
