"""Recipients mean the same to every face, over real HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.running import context

COPIES = ['"Doe, Jane; PhD" <jane@example.org>', "cc@example.org"]
AS_TEXT = "; ".join(COPIES)
MAIL: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "html_content": "<p>Text</p>"}


def operator(**fields: Any) -> None:
    FluxomailSendOperator(task_id="send", **MAIL, **fields).execute(context())


def batch(**fields: Any) -> None:
    FluxomailSendBatchOperator(task_id="send", messages=[{**MAIL, **fields}]).execute(context())


def batch_defaults(**fields: Any) -> None:
    FluxomailSendBatchOperator(task_id="send", messages=[MAIL], defaults=fields).execute(context())


def hook(**fields: Any) -> None:
    FluxomailHook().send({**MAIL, **fields}, idempotency_key="k")


def backend(**fields: Any) -> None:
    send_email(**MAIL, **fields)


FACES = [operator, batch, batch_defaults, hook, backend]


@pytest.mark.parametrize("field", ["cc", "bcc"])
@pytest.mark.parametrize("send", FACES)
def test_every_face_takes_semicolons(sandbox: Sandbox, send: Callable[..., None], field: str) -> None:
    send(**{field: AS_TEXT})
    assert getattr(sandbox.message(), field) == COPIES


def test_a_csv_file_of_a_batch_takes_semicolons(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("to,subject,content,cc\nops@example.org,Hi,Text,a@example.org; b@example.org\n")
    FluxomailSendBatchOperator(task_id="send", messages=str(tmp_path / "rows.csv")).execute(context())
    assert sandbox.message().cc == ["a@example.org", "b@example.org"]


def notifier(to: str) -> None:
    FluxomailNotifier(to=to)(context())


def backend_to(to: str) -> None:
    send_email(to, "Hi", "<p>Text</p>")


@pytest.mark.parametrize("send", [notifier, backend_to])
def test_each_recipient_of_a_text_gets_a_mail(sandbox: Sandbox, send: Callable[[str], None]) -> None:
    send(AS_TEXT + "; CC@example.org")
    assert sorted(mail.to for mail in sandbox.assert_sent(2)) == COPIES


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


async def test_inline_images_of_an_asynchronous_send(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    await FluxomailHook().asend({**MAIL, "html_content": LOGO}, idempotency_key="k")
    assert len(warnings(caplog)) == 1


def test_inline_images_of_many_mails_are_one_warning(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    people = [f"p{number}@example.org" for number in range(20)]
    FluxomailSendBatchOperator(
        task_id="send", messages=[{"to": person} for person in people], defaults={"subject": "Hi", "html_content": LOGO}
    ).execute(context())
    FluxomailNotifier(to=people, html_content=LOGO)(context())
    assert len(warnings(caplog)) == 2, "one of each task"
    sandbox.assert_sent(40)


@pytest.mark.parametrize(
    "html",
    [
        "<img src='https://example.org/cid:logo.png'>",
        "<p>src is cid:logo.png</p>",
        "<p>The cid:logo.png</p>",
        "<img src=x>",
    ],
)
def test_other_images_and_words_are_no_warning(sandbox: Sandbox, caplog: pytest.LogCaptureFixture, html: str) -> None:
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
