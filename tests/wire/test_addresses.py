"""Recipients mean the same to every face, over real HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.running import context

COPIES = ['"Doe, Jane; PhD" <jane@example.org>', "cc@example.org"]
AS_TEXT = "; ".join(COPIES)
MAIL: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "html_content": "<p>Text</p>"}


def batch_defaults(**fields: Any) -> None:
    FluxomailSendBatchOperator(task_id="send", messages=[MAIL], defaults=fields).execute(context())


def hook(**fields: Any) -> None:
    FluxomailHook().send({**MAIL, **fields}, idempotency_key="k")


def backend(**fields: Any) -> None:
    send_email(**MAIL, **fields)


FACES = [batch_defaults, hook, backend]


@pytest.mark.parametrize("send", FACES)
def test_every_face_takes_semicolons(sandbox: Sandbox, send: Callable[..., None]) -> None:
    send(cc=AS_TEXT, bcc=AS_TEXT)
    # The email backend leaves out a copy that is in cc already.
    assert (sandbox.message().cc, sandbox.message().bcc) == (COPIES, [] if send is backend else COPIES)


def test_each_recipient_of_a_text_gets_an_email(sandbox: Sandbox) -> None:
    to = AS_TEXT + "; CC@example.org"
    FluxomailNotifier(to=to)(context())
    send_email(to, "Hi", "<p>Text</p>")
    assert sorted(mail.to for mail in sandbox.assert_sent(4)) == sorted(COPIES * 2)


@pytest.mark.parametrize("people", [["ada@stra\u00dfe.de", "ada@strasse.de"], ["ada@strasse.de", "ada@stra\u00dfe.de"]])
def test_recipients_whose_keys_would_be_equal_both_get_the_alert_once(sandbox: Sandbox, people: list[str]) -> None:
    for _ in range(2):
        FluxomailNotifier(to=[*people, "ADA@xn--strae-oqa.de"])(context())
    assert sorted(mail.to for mail in sandbox.assert_sent(2)) == sorted(people)
    FluxomailSendBatchOperator(task_id="send", messages=[{**MAIL, "to": person} for person in people]).execute(
        context()
    )
    sandbox.assert_sent(4)


# Images that a body expects within the mail

LOGO = '<p>Text <img src=\'cid:logo.png\'><td background = "CID:back"><p style="background: url(cid:style)"></p>'


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return ours; Airflow 2 has one of its own about operators that are run by hand."""
    ours = [record for record in caplog.records if record.name.startswith("airflow_provider_fluxomail.")]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("send", FACES)
def test_inline_images_are_a_warning_that_names_them(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, send: Callable[..., None]
) -> None:
    monkeypatch.setitem(MAIL, "html_content", LOGO)
    send()
    (warning,) = warnings(caplog)
    assert warning.startswith("html_content refers to images by content id (cid:logo.png, cid:back, cid:style).")
    sandbox.assert_sent(1)


def test_inline_images_of_many_emails_are_one_warning(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    people = [f"p{number}@example.org" for number in range(20)]
    FluxomailSendBatchOperator(
        task_id="send", messages=[{"to": person} for person in people], defaults={"subject": "Hi", "html_content": LOGO}
    ).execute(context())
    FluxomailNotifier(to=people, html_content=LOGO)(context())
    assert len(warnings(caplog)) == 2, "one of each task"
    sandbox.assert_sent(40)


def test_other_images_and_words_are_no_warning(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    html = "<img src='https://example.org/cid:logo.png'><p>src is cid:logo.png</p><p>The cid:logo.png</p><img src=x>"
    FluxomailHook().send({**MAIL, "html_content": html + "text"}, idempotency_key="k")
    assert warnings(caplog) == []


def test_the_warning_is_bounded_and_printable(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    images = "".join(f"<img src='cid:{number:02}\x1b[31m{'x' * 1000}'>" for number in range(30))
    FluxomailHook().send({**MAIL, "html_content": "text" + images}, idempotency_key="k")
    (warning,) = warnings(caplog)
    assert "cid:09" in warning
    assert "and 20 more" in warning
    assert len(warning) < 1200
    assert warning.isprintable()
