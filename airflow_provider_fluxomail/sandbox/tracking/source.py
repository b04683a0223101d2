"""The source of a message: the MIME document that its recipients get.

https://docs.fluxomail.com/guides/attachments-and-limits
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from email.utils import format_datetime
from typing import Final, NamedTuple

from airflow_provider_fluxomail.sandbox.limits import FROM_EMAIL
from airflow_provider_fluxomail.sandbox.store.records import Delivery, StoredSend

_TYPE: Final = re.compile(r"\s*([a-z0-9!#$&^_.+-]+)/([a-z0-9!#$&^_.+-]+)\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_COMPOSITE: Final = ("multipart", "message")
"""Types of parts that have parts of their own, which a file has not."""
_SHORT_TEXT: Final = 20_000
"""Longer texts with long lines get base64: Python writes quoted-printable slowly."""


class File(NamedTuple):
    """An attachment with its content."""

    filename: str
    content_type: str | None
    content: bytes


class _Verbatim(str):
    """The value of a header that is written in one line: Python would encode a long URL as if it were text."""

    name: str

    def fold(self, *, policy: EmailPolicy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


def source(send: StoredSend, delivery: Delivery, files: Sequence[File]) -> bytes:
    """The source of a message, the same at every call. Bcc is not in it."""
    made = EmailMessage(_policy(send))
    for name, value in (
        ("From", FROM_EMAIL),
        ("To", send.recipient),
        ("Cc", ", ".join(send.cc)),
        ("Subject", send.subject),
        ("Date", format_datetime(datetime.fromtimestamp(send.created_ms // 1000, UTC))),
    ):
        if value:
            made[name] = _line(value)
    verbatim = {
        "Message-ID": f"<{send.message_id}@{FROM_EMAIL.rpartition('@')[2]}>",
        "Feedback-ID": f"send-{send.send_id}",
    }
    if delivery.unsubscribe_url:
        verbatim["List-Unsubscribe"] = f"<{delivery.unsubscribe_url}>"
        verbatim["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    for name, value in verbatim.items():
        header = _Verbatim(value)
        header.name = name
        made[name] = header
    made.set_content(send.content, cte=_encoding(send.content))
    if delivery.html:
        made.add_alternative(delivery.html, subtype="html", cte=_encoding(delivery.html))
    for file in files:
        main, sub = _content_type(file.content_type)
        made.add_attachment(file.content, maintype=main, subtype=sub, filename=_line(file.filename))
    for number, part in enumerate(made.walk()):
        if part.is_multipart():
            # Python's own are random. The send id is, too, so that no text can hold it.
            part.set_boundary(f"=_{send.send_id}_{number}")
    return made.as_bytes()


def _policy(send: StoredSend) -> EmailPolicy[EmailMessage]:
    """Addresses beyond ASCII cannot be encoded: their message is one of SMTPUTF8 (RFC 6531)."""
    addresses = [send.address, *(re.sub(r".*<", "", copy) for copy in send.cc)]
    return SMTP if all(address.isascii() for address in addresses) else SMTPUTF8


def _line(value: str) -> str:
    """The value as one line: Python ends lines at more characters than the API does."""
    return " ".join(value.splitlines())


def _encoding(text: str) -> str | None:
    """The transfer encoding of a text; None leaves it to Python."""
    return "base64" if len(text) > _SHORT_TEXT else None


def _content_type(content_type: str | None) -> tuple[str, str]:
    match = _TYPE.fullmatch(content_type or "")
    if match is None or match[1].lower() in _COMPOSITE:
        return "application", "octet-stream"
    return match[1].lower(), match[2].lower()
