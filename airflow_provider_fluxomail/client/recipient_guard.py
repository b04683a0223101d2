"""Keeps the mail of a staging system from reaching people."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.addresses import domain_of
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage, texts_in

_RECIPIENT_FIELDS: Final = frozenset({"to", "cc", "bcc", "recipients", "personalizations"})
#: Addresses in these say from whom a mail comes, not to whom it goes.
_SENDER_FIELDS: Final = frozenset({"fromEmail", "fromName", "replyTo"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecipientGuard:
    """Keeps the mail of a staging system at home.

    :param redirect_to: where mail goes instead; the mail then says for whom it was.
    :param allowed_domains: recipients here are left alone. Without ``redirect_to``, mail to anybody else is refused;
        with it, such mail is redirected. Empty means: nobody is allowed (all mail is redirected), or no guard at all
        when ``redirect_to`` is empty too.
    """

    redirect_to: str | None = dataclasses.field(default=None, repr=False)
    allowed_domains: tuple[str, ...] = ()

    def apply(self, message: EmailMessage, on_redirect: Callable[[], None] = lambda: None) -> EmailMessage:
        """Return the message that may be sent.

        :param on_redirect: called if it goes to ``redirect_to``. For those who send: others only compare.
        :raises FluxomailValidationError: when a recipient is not allowed; names the field, not the recipient.
        """
        if not self.redirect_to and not self.allowed_domains:
            return message
        if hidden := next(_possible_recipients(message.extra_fields), None):
            raise FluxomailValidationError(
                f"extra_fields holds {hidden!r}: recipients there cannot be guarded, and the connection "
                "restricts recipients (redirect_to, allowed_recipient_domains)"
            )
        people = {"to": (message.to,), "cc": message.cc, "bcc": message.bcc}
        strangers = [
            f"{field}[{index}]" if field != "to" else field
            for field, addresses in people.items()
            for index, address in enumerate(addresses)
            if domain_of(address) not in self.allowed_domains
        ]
        if not strangers:
            return message
        if not self.redirect_to:
            raise FluxomailValidationError(
                f"{', '.join(strangers)}: the connection allows mail only to {', '.join(self.allowed_domains)} "
                "(extra allowed_recipient_domains)"
            )
        on_redirect()
        told = "; ".join(f"{field}: {', '.join(addresses)}" for field, addresses in people.items() if addresses)
        banner = f"[redirected by Airflow; was for {told}]"
        return dataclasses.replace(
            message,
            to=self.redirect_to,
            cc=(),
            bcc=(),
            content=f"{banner}\n\n{message.content}",
            html_content=f"<p>{html.escape(banner)}</p>\n{message.html_content}" if message.html_content else None,
        )


def _possible_recipients(extra_fields: Mapping[str, Any]) -> Iterator[str]:
    """Name every extra field that may make the server mail somebody: by its name, or because it holds an address."""
    for name, value in extra_fields.items():
        if name in _SENDER_FIELDS:
            continue
        leaves = [text.lower() for text in texts_in(value, names=True)]
        if _RECIPIENT_FIELDS.intersection([name.lower(), *leaves]) or any("@" in leaf for leaf in leaves):
            yield name
