"""Staging: email goes only to allowed recipients."""

from __future__ import annotations

import traceback
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
        FluxomailValidationError, match=r"allows email only to ours\.example|not an email address"
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


@pytest.mark.parametrize(
    ("domain", "to"),
    [
        ("OURS.example.", "a@ours.example"),
        ("@ours.example", "a@ours.example."),
        ("stra\u00dfe.example", "a@xn--strae-oqa.example"),
        ("xn--strae-oqa.example", "a@STRA\u1e9eE.example"),
        ("b\u00fccher.example", "a@bu\u0308cher.example"),
        ("ours.example, other.example", "a@other.example"),
    ],
)
def test_a_domain_in_any_spelling_is_allowed(domain: Any, to: str) -> None:
    for domains in (domain, domain.split(",")):
        assert RecipientGuard(allowed_domains=domains).apply(message(to=to)).to == to.removesuffix(".")


@pytest.mark.parametrize(
    ("domain", "to"),
    [
        ("stra\u00dfe.example", "a@strasse.example"),
        ("strasse.example", "a@stra\u00dfe.example"),
        ("\u03c3\u03c2.example", "a@\u03c3\u03c3.example"),
        ("ours.example", "a@\u043eurs.example"),
    ],
)
def test_a_domain_of_another_owner_is_not_allowed(domain: str, to: str) -> None:
    with pytest.raises(FluxomailValidationError, match="allows email only to"):
        RecipientGuard(allowed_domains=(domain,)).apply(message(to=to))


@pytest.mark.parametrize(
    "domains",
    ["a.org;b.org", "*.a.org", ["*"], '["a.org"]', "https://a.org", "a.org/", "me@a.org", "a.org b.org", ".a.org",
     "a..org", "None", ["a.org", "[]"], ["", " "], ("example",), "a.org:25", ["a.org", None], 5, {"a.org": 1}],
)  # fmt: skip
def test_what_is_no_domain_is_refused_when_the_guard_is_made(domains: Any) -> None:
    with pytest.raises(
        FluxomailValidationError, match=r"^allowed_recipient_domains must (hold domains such as|be a list)"
    ):
        RecipientGuard(allowed_domains=domains)


@pytest.mark.parametrize(
    "to", ["nobody", "None", "a@a.org, b@a.org", ["a@a.org", "b@a.org"], "a@*", "{{ x }}", True, " "]
)
def test_what_is_no_address_is_refused_when_the_guard_is_made(to: Any) -> None:
    with pytest.raises(FluxomailValidationError, match=r"^redirect_to must be one address") as caught:
        RecipientGuard(redirect_to=to)
    frames = caught.value.__traceback__.tb_next  # type: ignore[union-attr]
    told = traceback.TracebackException(FluxomailValidationError, caught.value, frames, capture_locals=True)
    assert "a@a.org" not in "".join(told.format())


@pytest.mark.parametrize("domains", [(), ("ours.example",)])
def test_redirect_names_the_original_recipients(domains: tuple[str, ...]) -> None:
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
