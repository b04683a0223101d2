"""Keeps the email of a staging system from reaching people."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.addresses import domain_of, idna_domain, one_address
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage, texts_in
from airflow_provider_fluxomail.client.private import private, private_init
from airflow_provider_fluxomail.client.text_fields import field_name

_RECIPIENT_FIELDS: Final = frozenset({"to", "cc", "bcc", "recipients", "personalizations"})
#: Addresses in these are the sender's, not recipients.
_SENDER_FIELDS: Final = frozenset({"fromEmail", "fromName", "replyTo"})


@private_init
@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipientGuard:
    """Keeps the email of a staging system from reaching people.

    ::

        guard = RecipientGuard(redirect_to="staging@example.org", allowed_domains=("example.org",))
        settings = ClientSettings(api_key="...", guard=guard)

    :param redirect_to: where email goes instead; it then names the original recipients.
    :param allowed_domains: email to these domains is sent as it is. Email to others is refused, or redirected with
        ``redirect_to``. If empty, all email is redirected, or nothing is guarded without ``redirect_to``.
    """

    redirect_to: str | None = dataclasses.field(default=None, repr=False)
    allowed_domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check both: with a domain that cannot exist, the guard would refuse every message."""
        if self.redirect_to:
            object.__setattr__(self, "redirect_to", redirect_address(self.redirect_to))
        if self.allowed_domains:
            object.__setattr__(self, "allowed_domains", recipient_domains(self.allowed_domains))

    @private
    def apply(self, message: EmailMessage, on_redirect: Callable[[], None] = lambda: None) -> EmailMessage:
        """Return the message that may be sent. An error names the field of a recipient that is not allowed."""
        if not self.redirect_to and not self.allowed_domains:
            return message
        if hidden := next(_possible_recipients(message.extra_fields), None):
            raise FluxomailValidationError(
                f"extra_fields holds {hidden!r}: recipients there cannot be guarded, and the connection "
                "restricts recipients (redirect_to, allowed_recipient_domains)"
            )
        people = {"to": (message.to,), "cc": message.cc, "bcc": message.bcc}
        others = [
            f"{field}[{index}]" if field != "to" else field
            for field, addresses in people.items()
            for index, address in enumerate(addresses)
            if domain_of(address) not in self.allowed_domains
        ]
        if not others:
            return message
        if not self.redirect_to:
            raise FluxomailValidationError(
                f"{', '.join(others)}: the connection allows email only to {', '.join(self.allowed_domains)} "
                "(extra allowed_recipient_domains)"
            )
        on_redirect()
        recipients = "; ".join(f"{field}: {', '.join(addresses)}" for field, addresses in people.items() if addresses)
        banner = f"[redirected by Airflow; was for {recipients}]"
        return dataclasses.replace(
            message,
            to=self.redirect_to,
            cc=(),
            bcc=(),
            content=f"{banner}\n\n{message.content}",
            html_content=f"<p>{html.escape(banner)}</p>\n{message.html_content}" if message.html_content else None,
        )


def redirect_address(value: object) -> str:
    """Return the address of ``redirect_to``."""
    try:
        return one_address(value)
    except FluxomailValidationError:
        # That error is about a message.
        raise FluxomailValidationError("redirect_to must be one address, such as staging@example.com") from None


def recipient_domains(value: object) -> tuple[str, ...]:
    """Return the domains of a list, or of a text with commas, as :func:`.idna_domain` does."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple | set | frozenset) or not all(isinstance(item, str) for item in items):
        raise FluxomailValidationError(
            "allowed_recipient_domains must be a list of domains, or a comma-separated text of them"
        )
    domains = tuple(idna_domain(item) for item in items if item.strip())
    if not domains or not all("." in domain or domain == "localhost" for domain in domains):
        raise FluxomailValidationError(
            "allowed_recipient_domains must hold domains such as example.com, whole and without wildcards: a list, or "
            "text with commas between them"
        )
    return domains


def _possible_recipients(extra_fields: Mapping[str, Any]) -> Iterator[str]:
    """Name every extra field that may add recipients: by its name, or because it holds an address."""
    for number, (name, value) in enumerate(extra_fields.items(), start=1):
        if name in _SENDER_FIELDS:
            continue
        leaves = [text.lower() for text in texts_in(value, names=True)]
        if _RECIPIENT_FIELDS.intersection([name.lower(), *leaves]) or any("@" in leaf for leaf in leaves):
            yield field_name(name, number)
