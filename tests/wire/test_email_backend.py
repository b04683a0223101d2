"""The email backend, called as Airflow calls it: by ``airflow.utils.email``, and for tasks that fail."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path
from typing import Any, Final

import pytest

from airflow_provider_fluxomail import email_backend
from airflow_provider_fluxomail.airflow_compat import AirflowNotFoundException
from airflow_provider_fluxomail.client.errors import (
    FluxomailAuthError,
    FluxomailConnectionError,
    FluxomailError,
    FluxomailServerError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import idempotency_key
from tests.support.airflow_facts import NO_FAILURE_MAILS
from tests.support.airflow_runs import DagRuns
from tests.support.emails import PEOPLE, airflows_send_email, backend_emails, clock
from tests.support.running import context

__all__ = ["backend_emails", "clock"]
pytestmark = pytest.mark.usefixtures("backend_emails", "clock")


def test_airflow_sends_with_the_backend(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id\n1\n")
    airflows_send_email(
        PEOPLE, "News\nof today\n", "<p>All <b>well</b></p>", files=[str(tmp_path / "rows.csv")],
        cc="copy@example.org", bcc=["blind@example.org"], custom_headers={"X-Team": "ops"},
    )  # fmt: skip
    ada, bob = (sandbox.message(person) for person in PEOPLE)
    for mail in (ada, bob):
        assert (mail.subject, mail.html_content, mail.content) == (
            "News of today",
            "<p>All <b>well</b></p>",
            "All well",
        )
        assert [(file.filename, file.content) for file in mail.attachments] == [("rows.csv", b"id\n1\n")]
        assert mail.extra_fields == {}, "Fluxomail chooses the sender"
    assert (ada.cc, ada.bcc) == (["copy@example.org"], ["blind@example.org"])
    assert (bob.cc, bob.bcc) == ([], []), "a copy is one mail"
    sandbox.assert_sent(2)


@pytest.mark.parametrize("name", ["dryrun", "sandbox_mode"])
def test_a_dry_run_checks_and_sends_nothing(sandbox: Sandbox, caplog: pytest.LogCaptureFixture, name: str) -> None:
    caplog.set_level(logging.INFO)
    airflows_send_email(PEOPLE, "News", "<p>Text</p>", **{name: True})
    assert f"Checked 2 emails and sent none of them: {name} is set." in caplog.messages
    with pytest.raises(FluxomailValidationError):
        airflows_send_email("nobody", "News", "<p>Text</p>", **{name: True})
    assert sandbox.requests() == []
    airflows_send_email(PEOPLE, "News", "<p>Text</p>", **{name: False})
    sandbox.assert_sent(2)


def test_what_is_ignored_is_named_once_and_not_quoted(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    send_email(
        PEOPLE, "News", "<p>Text</p>", None, False, None, None, "related", "iso-8859-1",
        from_email="Secret <secret@example.org>", from_name="Secret", categories=["secret"], tags=None, template="",
        custom_headers={"reply-TO": "Answers <answers@example.org>", "X-Team": "secret", "X\n": "secret"},
    )  # fmt: skip
    (line,) = [text for text in caplog.messages if "gnored" in text]
    assert line == (
        "Ignored arguments: from_email, mime_subtype, mime_charset, from_name, categories, custom_headers['X-Team'], "
        "custom_headers['X?']. Fluxomail sends from the organization's From identity and builds the email itself."
    )
    assert "secret" not in caplog.text.lower()
    for mail in sandbox.assert_sent(2):
        assert mail.extra_fields == {"replyTo": "Answers <answers@example.org>"}


def test_what_airflow_itself_passes_is_not_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    headers: list[dict[str, Any] | None] = [None, {}, {"Reply-To": ""}, {"Reply-To": None}]
    for value in headers:
        airflows_send_email(PEOPLE[0], "News", "<p>Text</p>", mime_charset="UTF-8", custom_headers=value)
    assert sandbox.message().extra_fields == {}
    # Airflow's own sender of a failure email, where none is configured.
    send_email(PEOPLE[1], "News", "<p>Text</p>", from_email="airflow@airflow")
    sandbox.assert_sent(2)
    assert "gnored" not in caplog.text


def test_bad_headers_are_refused(sandbox: Sandbox) -> None:
    wrong: list[tuple[Any, str]] = [
        ({"Reply-To": "a@example.org\nBcc: b@example.org"}, r"custom_headers\['Reply-To'\] holds a line break"),
        ([("Reply-To", "ada@example.org")], "custom_headers must be a mapping"),
    ]
    for headers, text in wrong:
        with pytest.raises(FluxomailValidationError, match=text):
            send_email(PEOPLE, "News", "<p>Text</p>", custom_headers=headers)
    assert sandbox.requests() == []


def test_an_email_of_an_image_alone(sandbox: Sandbox) -> None:
    airflows_send_email(PEOPLE[0], "", "<img src='https://example.org/x.png'>")
    assert sandbox.message().subject == sandbox.message().content == "(no subject)"


@pytest.mark.usefixtures("airflow_db")
@pytest.mark.parametrize(
    ("conn_id", "of_another_type", "used"),
    [
        *((None, False, "fluxomail_default"), ("alerts", False, "alerts"), ("alerts", True, "fluxomail_default")),
        *(("smtp_default", False, "smtp_default"), ("smtp_default", True, "fluxomail_default")),
    ],
)
def test_the_connection(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, conn_id: str | None, of_another_type: bool, used: str
) -> None:
    sandbox.connect(key="wrong")
    sandbox.connect(used)
    if of_another_type:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}".upper(), "smtp://mail.example")
    send_email(PEOPLE[0], "News", "<p>Text</p>", conn_id=conn_id)
    with pytest.raises(AirflowNotFoundException):
        send_email(PEOPLE[0], "News", "<p>Text</p>", conn_id="misspelt")
    sandbox.assert_sent(1)


def test_an_email_that_was_accepted_before_is_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "airflow_provider_fluxomail.email_backend")
    for _ in range(2):
        send_email(PEOPLE[0], "News", "<p>Text</p>")
    lines = [record.getMessage() for record in caplog.records if record.name.endswith(".email_backend")]
    first, second = (line.partition(" (")[0].rpartition(" ") for line in lines)
    assert (first[0], second[0]) == ("Fluxomail accepted send", "Fluxomail had already accepted send")
    assert first[2] == second[2]


@pytest.mark.parametrize(
    "fields", [{"to": PEOPLE[0]}, {"subject": "Could not send News"}, {"cc": "lead@example.org"}], ids=str
)
def test_another_email_about_an_error_is_sent(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    """A user's code may tell those who got the email that others did not."""
    everybody = [*PEOPLE, "refused@example.org"]
    sandbox.fail_next(400, to="refused@example.org")
    try:
        send_email(everybody, "News", "<p>Text</p>")
    except FluxomailValidationError:
        send_email(**{"to": everybody, "subject": "News", "html_content": "<p>Other text</p>", **fields})
    assert "Other text" in [mail.content for mail in sandbox.messages(PEOPLE[0])]


def test_an_error_of_one_recipient_is_raised_once_the_others_have_their_email(sandbox: Sandbox) -> None:
    sandbox.fail_next(400, to=PEOPLE[0])
    with pytest.raises(FluxomailValidationError, match="400"):
        send_email([*PEOPLE, "no address"], "News", "<p>Text</p>")
    assert [mail.to for mail in sandbox.messages()] == [PEOPLE[1]]
    sandbox.fail_next(503, to=PEOPLE[0], times=None)
    with pytest.raises(FluxomailServerError):  # what a retry may fix comes first
        send_email(["no address", *PEOPLE], "News", "<p>Text</p>")
    assert [mail.to for mail in sandbox.messages()] == [PEOPLE[1]]


def test_what_holds_for_all_ends_it(sandbox: Sandbox) -> None:
    sandbox.connect(key="wrong")
    with pytest.raises(FluxomailAuthError):
        send_email(PEOPLE, "News", "<p>Text</p>")
    assert len(sandbox.requests()) == 1
    sandbox.connect(host="http://127.0.0.1:1", max_attempts=1)
    with pytest.raises(FluxomailConnectionError):
        send_email(PEOPLE, "News", "<p>Text</p>")


ADA, BOB = PEOPLE
CC: Final[dict[str, Any]] = {"cc": "copy@example.org", "bcc": ["blind@example.org"]}


@pytest.mark.parametrize(
    ("fields", "fault", "told", "stored"),
    [
        # The first recipient gets none: the copies go with the next email.
        (CC, {"status": 400, "to": ADA}, "400", {BOB: (["copy@example.org"], ["blind@example.org"])}),
        ({**CC, "to": ["nobody", BOB]}, None, "to is not", {BOB: (["copy@example.org"], ["blind@example.org"])}),
        # A copy that is no address, in any form.
        ({"cc": ["nobody", "copy@example.org"]}, None, r"^cc\[0\]", {ADA: (["copy@example.org"], []), BOB: ([], [])}),
        ({"cc": "copy@example.org, nobody"}, None, r"^cc\[1\]", {ADA: (["copy@example.org"], []), BOB: ([], [])}),
        ({"bcc": ["a\nb@example.org"]}, None, r"^bcc\[0\]", {ADA: ([], []), BOB: ([], [])}),
        ({"bcc": 5}, None, "^bcc must", {ADA: ([], []), BOB: ([], [])}),
        # A copy to a recipient, or twice to one person.
        ({"cc": [BOB.upper(), "Copy <copy@example.org>"], "bcc": "Bob <bob@example.org>; copy@example.org"}, None, None,
         {ADA: (["Copy <copy@example.org>"], []), BOB: ([], [])}),
        # A copy that the server refuses does not stop the email.
        (CC, {"status": 400, "times": 2}, "cc.0.: Fluxomail refuses", {ADA: ([], []), BOB: ([], [])}),
        # It is unknown whether the copies went out with the first email: they must not go out twice.
        (CC, {"status": 503, "to": ADA, "times": None}, "503", {BOB: ([], [])}),
        (CC, {"kind": "error_after_store", "to": ADA, "times": None}, "500",
         {ADA: (["copy@example.org"], ["blind@example.org"]), BOB: ([], [])}),
        # None is accepted.
        (CC, {"status": 400, "times": None}, "400", {}),
    ],
)  # fmt: skip
def test_copies_go_with_the_first_email_that_is_accepted(
    sandbox: Sandbox, fields: dict[str, Any], fault: dict[str, Any] | None, told: str | None, stored: dict[str, Any]
) -> None:
    if fault:
        sandbox.fail_next(**{"kind": "status", **fault})
    for _ in range(1 if fault and fault.get("times", 1) else 2):
        with pytest.raises(FluxomailError, match=told) if told else contextlib.nullcontext():
            send_email(**{"to": PEOPLE, "subject": "News", "html_content": "<p>Text</p>", **fields})
    assert {mail.to: (mail.cc, mail.bcc) for mail in sandbox.messages()} == stored


def test_a_copy_that_is_not_allowed_costs_nobody_an_email(sandbox: Sandbox) -> None:
    sandbox.connect(allowed_recipient_domains=["example.org"])
    with pytest.raises(FluxomailValidationError, match=r"^cc\[1\]: the connection allows"):
        send_email(PEOPLE, "News", "<p>Text</p>", cc=["copy@example.org", "copy@example.com"])
    assert [(mail.to, mail.cc) for mail in sandbox.messages()] == [(ADA, ["copy@example.org"]), (BOB, [])]


@pytest.mark.parametrize("where", ["asks for a key", "creates a message"])
def test_an_unexpected_error_of_one_recipient_is_that_ones(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    place, name = (email_backend, "_identity") if where == "asks for a key" else (EmailMessage, "of")
    whole = getattr(place, name)

    def fails(message: Any, *args: Any, **how: Any) -> Any:
        if (message["to"] == [ADA]) if isinstance(message, dict) else (message.to == ADA):
            raise LookupError(f"no {ADA}")
        return whole(message, *args, **how)

    monkeypatch.setattr(place, name, fails)
    with pytest.raises(FluxomailError, match=r"unexpected LookupError in test_email_backend\.py, line") as caught:
        send_email(PEOPLE, "News", "<p>Text</p>", cc="copy@example.org")
    assert not caught.value.permanent
    assert [mail.to for mail in sandbox.messages()] == [BOB]
    assert ADA not in str(caught.value) + caplog.text


#: What is at the end of Airflow's failure email.
LINK = '<br>Log: <a href="https://airflow.example.org/dags/load?a=1&b=2">Link</a><br>'


@pytest.mark.parametrize(
    "exception",
    ["<i>x</i> &amp; " * 200_000, "line<br>" * 400_000, "x" * 23 * 2**20, "&lt;" * 2**21, "\U0001f600" * 2**20],
)
def test_a_failure_email_of_any_size_arrives_with_its_link(sandbox: Sandbox, exception: str) -> None:
    send_email(ADA, "Airflow alert\x1b[0m \ud800" + "x" * 5000, f"Try 1 out of 2<br>Exception:<br>{exception}{LINK}")
    mail = sandbox.message()
    markup = str(mail.html_content)
    assert len(markup) < 300_000
    assert markup.startswith("Try 1 out of 2<br>Exception:<br>")
    assert markup.endswith(LINK)
    for body in (markup, mail.content):
        assert re.search(r"\[[\d,]+ characters are left out here: see the log of the task\]", body)
    assert "[Link](https://airflow.example.org/dags/load?a=1&b=2)" in mail.content
    assert mail.subject.startswith("Airflow alert [0m xxx")


def test_what_a_task_sends_is_not_cut(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency_key, "_running_context", context)
    send_email(ADA, "News", "<p>" + "word " * 200_000)
    assert len(str(sandbox.message().html_content)) > 1_000_000
    assert len(sandbox.message().content) < 600_000


# Whole Dags


def test_the_example(dags: DagRuns, sandbox: Sandbox) -> None:
    run = dags.run("fluxomail_email_backend", {"rows": 3})
    assert run.states == {"load": "success", "check": "failed", "report": "success"}
    assert [mail.content for mail in sandbox.messages(subject="Rows loaded")] == ["Today 3 rows were loaded."] * 2
    assert run.run_id in sandbox.message(subject="Failed: fluxomail_email_backend.check").content
    sandbox.assert_sent(3)
    run = dags.run("fluxomail_email_backend", {})
    if NO_FAILURE_MAILS:
        sandbox.assert_sent(3)
        return
    assert run.states == {"load": "failed", "check": "upstream_failed", "report": "upstream_failed"}
    assert [mail.to for mail in sandbox.messages()[3:]] == ["ops@example.org", "data-team@example.org"]
    assert "the source is empty" in sandbox.messages()[3].content
