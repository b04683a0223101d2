"""The Dags of the migration guides: before, against stubs of the old services, and after, against the sandbox."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.airflow_facts import HAS_FAILURE_MAILS, NO_FAILURE_MAILS
from tests.support.airflow_runs import DagRuns
from tests.support.timing import quick_waits
from tests.wire.old_services import HttpStub, SmtpStub, running

EXAMPLES = Path(__file__).parents[2] / "example_dags"
REASON = "needs the dependency group migrating"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_waits(monkeypatch, least_interval=0.2)


@pytest.fixture
def smtp() -> Iterator[SmtpStub]:
    with running(SmtpStub()) as stub:
        yield stub


@pytest.fixture
def http() -> Iterator[HttpStub]:
    with running(HttpStub()) as stub:
        yield stub


def test_smtp_before(airflow_db: Path, smtp: SmtpStub, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.providers.smtp", reason=REASON)
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.org"}
    connection = {"conn_type": "smtp", "host": "127.0.0.1", "port": smtp.port, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
    # Airflow 2 sends failure emails by these.
    for name, value in {"HOST": "127.0.0.1", "PORT": smtp.port, "STARTTLS": False, "SSL": False}.items():
        monkeypatch.setenv(f"AIRFLOW__SMTP__SMTP_{name}", str(value))
    run = DagRuns(airflow_db).run("migrating_smtp_before", {})
    assert run.states == {"report": "success", "load": "failed", "check": "failed"}
    assert len(smtp.mails) == (3 if HAS_FAILURE_MAILS else 2), "one message each"
    mails = {str(mail.message["Subject"]): mail for mail in smtp.mails}
    report = mails[f"Report of {run.run_id}"]
    assert report.recipients == ["ada@example.org", "bob@example.org", "lead@example.org"]
    assert report.message["To"] == "ada@example.org, bob@example.org"
    assert (report.message["From"], report.message["Reply-To"]) == (
        "Reports <reports@example.org>",
        "data-team@example.org",
    )
    assert [part.get_filename() for part in report.message.walk() if part.get_filename()] == ["rows.csv"]
    assert mails["load failed"].recipients == ["ops@example.org", "dba@example.org"]


def test_smtp_after(airflow_db: Path, sandbox: FluxomailSandbox, backend: None) -> None:
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


def test_sendgrid_before(airflow_db: Path, http: HttpStub, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.providers.sendgrid", reason=REASON)
    library = importlib.import_module("sendgrid")
    monkeypatch.setenv("AIRFLOW_CONN_SENDGRID_DEFAULT", json.dumps({"conn_type": "email", "password": "SG.key"}))
    # The library has no setting for its address.
    monkeypatch.setattr(library, "SendGridAPIClient", functools.partial(library.SendGridAPIClient, host=http.url))
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", "airflow.providers.sendgrid.utils.emailer.send_email")
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "sendgrid_default")
    run = DagRuns(airflow_db).run("migrating_sendgrid_before", {})
    assert run.states == {"remind": "success", "check": "failed"}
    mails = {mail["subject"]: mail for mail in http.sendgrid}
    assert len(mails) == len(http.sendgrid) == 3
    reminder = mails.pop("Invoice 1001")
    assert reminder["personalizations"] == [
        {"to": [{"email": "ada@example.org"}], "bcc": [{"email": "archive@example.org"}]}
    ]
    assert reminder["from"] == {"email": "billing@example.org", "name": "Billing"}
    del mails["Invoice 1002"]
    (failure,) = mails.values()
    assert failure["personalizations"] == [{"to": [{"email": "ops@example.org"}, {"email": "dba@example.org"}]}]


def test_sendgrid_after(airflow_db: Path, sandbox: FluxomailSandbox, backend: None) -> None:
    run = DagRuns(airflow_db).run("migrating_sendgrid_after", {})
    assert run.states == {"remind": "success", "check": "failed"}
    sandbox.assert_sent(2 if NO_FAILURE_MAILS else 4)
    for person, invoice in (("ada@example.org", 1001), ("bob@example.org", 1002)):
        reminder = sandbox.message(person)
        assert (reminder.subject, reminder.content) == (f"Invoice {invoice}", f"Invoice {invoice} is overdue.")
        assert (reminder.cc, reminder.bcc) == ([], ["archive@example.org"])
    for to in () if NO_FAILURE_MAILS else ("ops@example.org", "dba@example.org"):
        assert "migrating_sendgrid_after.check" in sandbox.message(to).subject


def test_ses_before(airflow_db: Path, http: HttpStub, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow.providers.amazon.aws.operators.ses", reason=REASON)
    extra = {"region_name": "eu-central-1", "endpoint_url": http.url}
    connection = {"conn_type": "aws", "login": "AKIAEXAMPLE", "password": "secret", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    run = DagRuns(airflow_db).run("migrating_ses_before", {})
    assert run.states == {"report": "success", "load": "failed"}
    assert len(http.ses) == 2
    report, alert = sorted(http.ses, key=lambda mail: mail.sender, reverse=True)
    assert report.recipients == ["ada@example.org", "lead@example.org", "bob@example.org"]
    assert report.message["Reply-To"] == "data-team@example.org"
    assert (alert.message["Subject"], alert.recipients) == ("load failed", ["ops@example.org", "dba@example.org"])
    assert run.xcom("report")["MessageId"] == "0100-stub"


def test_ses_after(airflow_db: Path, sandbox: FluxomailSandbox) -> None:
    run = DagRuns(airflow_db).run("migrating_ses_after", {})
    assert run.states == {"report": "success", "load": "failed"}
    sandbox.assert_sent(3)
    report = sandbox.message("ada@example.org")
    assert (report.cc, report.extra_fields) == (
        ["lead@example.org", "bob@example.org"],
        {"replyTo": "data-team@example.org"},
    )
    assert run.xcom("report")["event"] == "delivered"
    for to in ("ops@example.org", "dba@example.org"):
        assert sandbox.message(to).subject == "load failed"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", "airflow_provider_fluxomail.email_backend.send_email")
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_CONN_ID", "fluxomail_default")


def find_path_from_directory() -> Any:
    """Airflow's own, which has moved."""
    for name in ("airflow._shared.module_loading.file_discovery", "airflow.utils.file"):
        with contextlib.suppress(ImportError, AttributeError):
            return importlib.import_module(name).find_path_from_directory
    raise AssertionError("Airflow looks for Dags in another place now")


def test_a_copy_of_the_examples_has_no_dag_of_another_provider(tmp_path: Path) -> None:
    """People copy the folder into their Dags, where the old providers need not be."""
    shutil.copytree(EXAMPLES, tmp_path / "dags")
    found = [Path(path).name for path in find_path_from_directory()(str(tmp_path / "dags"), ".airflowignore")]
    assert "smtp_after.py" in found
    assert "fluxomail_alerts.py" in found
    assert [name for name in found if "before" in name] == []
