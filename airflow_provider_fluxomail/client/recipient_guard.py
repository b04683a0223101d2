"""Keeps the email of a staging system from reaching people."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.addresses import domain_of, normalised_domain
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage, texts_in
from airflow_provider_fluxomail.client.text_fields import field_name

_RECIPIENT_FIELDS: Final = frozenset({"to", "cc", "bcc", "recipients", "personalizations"})
#: Addresses in these are the sender's, not recipients.
_SENDER_FIELDS: Final = frozenset({"fromEmail", "fromName", "replyTo"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipientGuard:
    """Keeps the email of a staging system from reaching people.

    ::

        guard = RecipientGuard(redirect_to="staging@example.org", allowed_domains=("example.org",))
        settings = ClientSettings(api_key="...", guard=guard)

    :param redirect_to: where email goes instead; it then says for whom it was.
    :param allowed_domains: email to these domains is sent as it is. Email to others is refused, or redirected with
        ``redirect_to``. If empty, all email is redirected, or nothing is guarded without ``redirect_to``.
    """

    redirect_to: str | None = dataclasses.field(default=None, repr=False)
    allowed_domains: tuple[str, ...] = ()

    def apply(self, message: EmailMessage, on_redirect: Callable[[], None] = lambda: None) -> EmailMessage:
        """Return the message that may be sent. An error names the field of a recipient that is not allowed."""
        if not self.redirect_to and not self.allowed_domains:
            return message
        if hidden := next(_possible_recipients(message.extra_fields), None):
            raise FluxomailValidationError(
                f"extra_fields holds {hidden!r}: recipients there cannot be guarded, and the connection "
                "restricts recipients (redirect_to, allowed_recipient_domains)"
            )
        allowed = {normalised_domain(domain) for domain in self.allowed_domains}
        people = {"to": (message.to,), "cc": message.cc, "bcc": message.bcc}
        others = [
            f"{field}[{index}]" if field != "to" else field
            for field, addresses in people.items()
            for index, address in enumerate(addresses)
            if domain_of(address) not in allowed
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


def _possible_recipients(extra_fields: Mapping[str, Any]) -> Iterator[str]:
    """Name every extra field that may add recipients: by its name, or because it holds an address."""
    for number, (name, value) in enumerate(extra_fields.items(), start=1):
        if name in _SENDER_FIELDS:
            continue
        leaves = [text.lower() for text in texts_in(value, names=True)]
        if _RECIPIENT_FIELDS.intersection([name.lower(), *leaves]) or any("@" in leaf for leaf in leaves):
            yield field_name(name, number)
