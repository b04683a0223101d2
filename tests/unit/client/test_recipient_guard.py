"""Staging: mail goes to nobody it should not go to."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard


def message(**fields: Any) -> EmailMessage:
    return EmailMessage(**{"to": "ada@customer.example", "subject": "S", "content": "C", **fields})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "to"),
        ({"to": "a@ours.example", "cc": ["a@ours.example", "x@other.example"]}, "cc[1]"),
        ({"to": "a@ours.example", "bcc": "x@other.example"}, "bcc[0]"),
        ({"to": "a@ours.example.evil.example"}, "to"),
        ({"to": "a@ours.example <x@other.example>"}, "to"),
        ({"to": "a@sub.ours.example"}, "to"),
    ],
)
def test_allowed_domains_refuse_everybody_else_without_naming_them(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(
        FluxomailValidationError, match=r"allows email only to ours\.example|not an e-mail address"
    ) as caught:
        RecipientGuard(allowed_domains=("ours.example",)).apply(message(**fields))
    assert str(caught.value).startswith(named)
    assert "other.example" not in str(caught.value)
    assert "ada" not in str(caught.value)


def test_allowed_domains_let_their_own_through() -> None:
    extra = {"replyTo": "r@any.example", "headers": {"X-Job": "1"}, "n": 1}
    for to in ("a@ours.example", "A <a@OURS.Example>"):
        mail = message(to=to, cc=["b@ours.example"], extra_fields=extra)
        assert RecipientGuard(allowed_domains=("ours.example",), redirect_to="qa@ours.example").apply(mail) is mail


@pytest.mark.parametrize("domains", [(), ("ours.example",)])
def test_redirect_says_for_whom_the_mail_was(domains: tuple[str, ...]) -> None:
    mail = message(to="Ada <ada@customer.example>", cc=["b@ours.example"], html_content="<p>C</p>")
    moved = RecipientGuard(redirect_to="qa@ours.example", allowed_domains=domains).apply(mail)
    assert (moved.to, moved.cc, moved.bcc, moved.subject) == ("qa@ours.example", (), (), "S")
    banner = "[redirected by Airflow; was for to: Ada <ada@customer.example>; cc: b@ours.example]"
    assert moved.content == f"{banner}\n\nC"
    assert moved.html_content is not None
    assert "Ada &lt;ada@customer.example&gt;" in moved.html_content
    assert moved.html_content.endswith("<p>C</p>")


@pytest.mark.parametrize(
    "extra",
    [
        {"personalizations": [{"to": "x"}]},
        {"options": {"BCC": "x"}},
        {"headers": [{"name": "Bcc", "value": "x@other.example"}]},
        {"headers": {"X-Forward": "x@other.example"}},
        {"list": ["x@other.example"]},
    ],
)
def test_extra_fields_cannot_pass_a_guard_by(extra: dict[str, Any]) -> None:
    for guard in (RecipientGuard(redirect_to="qa@ours.example"), RecipientGuard(allowed_domains=("ours.example",))):
        with pytest.raises(FluxomailValidationError, match="cannot be guarded"):
            guard.apply(message(to="a@ours.example", extra_fields=extra))
    assert RecipientGuard().apply(message(extra_fields=extra))
