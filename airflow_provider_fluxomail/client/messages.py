"""Messages, and what may be in them, checked before anything is sent.

The server checks too; here an error names the field and says how to fix it, before a request is made.
https://docs.fluxomail.com/api-reference/fluxomail/send-email
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from airflow_provider_fluxomail.client.addresses import addresses, header_form, one_address
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.html_text import text_from_html
from airflow_provider_fluxomail.client.json_values import json_value
from airflow_provider_fluxomail.client.private import private, private_init
from airflow_provider_fluxomail.client.text_fields import (
    CAME_OUT_AS_NONE,
    UNSAFE_IN_HEADER,
    body_text,
    field_name,
    header_text,
)

#: Attachments per message, at most (Fluxomail's default; a server may allow fewer).
MAX_ATTACHMENTS: Final = 5
#: Total size of a message's attachments, before encoding, at most. Bytes.
MAX_ATTACHMENT_BYTES: Final = 10 * 1024 * 1024

# Documented fields; if extra_fields could repeat them, it could bypass the recipient guard.
_WIRE_FIELDS = frozenset(
    {"to", "subject", "content", "htmlContent", "cc", "bcc", "attachments", "policyKey", "idempotencyKey"}
)
_REQUIRED: Final = object()
_HEADER_FIELDS = frozenset({"fromEmail", "fromName", "replyTo", "identityId", "headers"})


@dataclasses.dataclass(frozen=True)
class Attachment:
    r"""A file to attach.

    ::

        Attachment(filename="rows.csv", content=b"id,total\n1,20\n")

    :param filename: its name in the email.
    :param content: its bytes; text is encoded as UTF-8. Encoded as base64 on the wire, whatever it looks like.
    :param content_type: MIME type; guessed from the file name by default.
    """

    filename: str
    content: bytes | str = dataclasses.field(repr=False)
    content_type: str | None = None

    @classmethod
    def of(cls, value: object, field: str) -> Attachment:
        """Return ``value`` (an attachment, or a mapping of its fields) as an attachment that can be sent."""
        known = {field.name for field in dataclasses.fields(cls)}
        if isinstance(value, Mapping) and {"filename", "content"} <= set(value) <= known:
            value = cls(**value)
        if not isinstance(value, cls):
            raise FluxomailValidationError(
                f"{field} must be an Attachment or a mapping with filename, content (bytes) and perhaps content_type"
            )
        if not isinstance(value.content, bytes | bytearray | memoryview | str):
            raise FluxomailValidationError(f"{field}.content must be bytes, not {type(value.content).__name__}")
        header_text(value.filename, f"{field}.filename")
        if value.content_type is not None:
            header_text(value.content_type, f"{field}.content_type")
        return value

    @property
    def data(self) -> bytes:
        """The bytes to attach."""
        return self.content.encode() if isinstance(self.content, str) else bytes(self.content)

    def to_json(self) -> dict[str, str]:
        """The attachment as the API takes it."""
        guessed = self.content_type or mimetypes.guess_type(self.filename)[0]
        return {
            "filename": self.filename,
            "contentBase64": base64.b64encode(self.data).decode("ascii"),
            **({"contentType": guessed} if guessed else {}),
        }


@private_init
@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class EmailMessage:
    """One message to one recipient. Checked when created.

    ::

        EmailMessage(to="Ops <ops@example.org>", subject="Nightly load", html_content="<p>Loaded <b>20</b> rows.</p>")

    .. seealso:: :doc:`/guides/client`

    :param to: one address, plain or as ``Name <address>``.
    :param subject: one line.
    :param content: plain text; derived from ``html_content`` by default.
    :param html_content: HTML; Fluxomail adds tracking to it.
    :param cc: addresses that all recipients see.
    :param bcc: addresses that no recipient sees.
    :param attachments: at most 5, together 10 MiB.
    :param policy_key: name of a sending policy, e.g. ``transactional``.
    :param extra_fields: sent unchanged, for fields that the API takes but does not document. Dates and times are sent
        in ISO 8601, ``Decimal`` and ``UUID`` as text. The addresses of ``replyTo`` are read as recipients are.
    :raises FluxomailValidationError: names the field and says how to fix it.
    """

    to: str
    subject: str
    content: str | None = None
    html_content: str | None = None
    cc: Sequence[str] = ()
    bcc: Sequence[str] = ()
    attachments: Sequence[Attachment] = ()
    policy_key: str | None = None
    extra_fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, check in _CHECKS.items():
            value = getattr(self, name)
            # Most messages leave most fields out: these have their default, which the class has too.
            if value is not getattr(EmailMessage, name, _REQUIRED):
                put(self, name, check(value))
        check_bodies(self.content, self.html_content)
        content = self.content or text_from_html(self.html_content or "")
        if not content:
            raise FluxomailValidationError(
                "content is empty and html_content holds no text to derive it from: give content as well"
            )
        put(self, "content", content)

    @classmethod
    @private
    def of(cls, value: EmailMessage | Mapping[str, Any]) -> EmailMessage:
        """Return ``value`` (a message, or a mapping of its fields) as a message."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise FluxomailValidationError(
                f"a message must be an EmailMessage or a mapping of its fields, not {type(value).__name__}"
            )
        known = [field.name for field in dataclasses.fields(cls)]
        for number, name in enumerate(value, start=1):
            if name not in known:
                raise FluxomailValidationError(
                    f"unknown message field {field_name(name, number)!r}: use {', '.join(known)} (others go into "
                    "extra_fields)"
                )
        for name in ("to", "subject"):
            if name not in value:
                raise FluxomailValidationError(f"{name} is missing: every message needs one")
        return cls(**value)

    def __repr__(self) -> str:
        """Show no recipient and no text: messages end up in logs and tracebacks."""
        return f"<EmailMessage with {len(self.attachments)} attachments>"

    def private_strings(self) -> tuple[str, ...]:
        """Return the strings of this message that no log and no error may show."""
        people = (self.to, *self.cc, *self.bcc)
        texts = (
            *people,
            # Names alone too: a server may quote a name without its address.
            *(person.partition("<")[0].strip(' "') for person in people),
            *(self.subject, self.content, self.html_content),
            *(file.filename for file in self.attachments),
            *texts_in(self.extra_fields),
        )
        return tuple(text for text in texts if text)

    def to_json(self) -> dict[str, Any]:
        """Return the body of ``POST /emails/send``."""
        optional = {
            "htmlContent": self.html_content,
            "cc": [header_form(address) for address in self.cc],
            "bcc": [header_form(address) for address in self.bcc],
            "attachments": [attachment.to_json() for attachment in self.attachments],
            "policyKey": self.policy_key,
        }
        return {
            **self.extra_fields,
            "to": header_form(self.to),
            "subject": self.subject,
            "content": self.content,
            **{name: value for name, value in optional.items() if value},
        }


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check some of a message's fields, each by itself, as creating the message does."""
    for name, value in fields.items():
        _CHECKS[name](value)


def check_bodies(content: str | None, html_content: str | None) -> None:
    """Check that there is a body, as creating the message does."""
    if not any(body and body.strip() for body in (content, html_content)):
        raise FluxomailValidationError("content is empty: give the text of the email, or html_content")


def texts_in(value: object, *, names: bool = False) -> Iterator[str]:
    """Yield every text in a nested structure, and with ``names`` those of fields."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if names:
                yield str(name)
            yield from texts_in(inner, names=names)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner, names=names)


def _attachments(value: object) -> tuple[Attachment, ...]:
    if value is None:
        return ()
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise FluxomailValidationError("attachments must be a list")
    files = tuple(Attachment.of(item, f"attachments[{index}]") for index, item in enumerate(value))
    check_attachment_limits([len(file.data) for file in files])
    return files


def check_attachment_limits(sizes: Sequence[int]) -> None:
    """Check count and total size of attachments, from the size of each in bytes before encoding."""
    if len(sizes) > MAX_ATTACHMENTS:
        raise FluxomailValidationError(
            f"attachments: {len(sizes)} files, at most {MAX_ATTACHMENTS} fit into one message: put them into an archive"
        )
    if sum(sizes) > MAX_ATTACHMENT_BYTES:
        raise FluxomailValidationError(
            f"attachments: {sum(sizes) / 2**20:.1f} MiB together, at most {MAX_ATTACHMENT_BYTES / 2**20:.0f} MiB fit "
            "into one message: send a link to the file instead"
        )


def _extra_fields(value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise FluxomailValidationError("extra_fields must be a mapping of field names to values")
    given = dict(value)
    if isinstance(reply_to := given.get("replyTo"), str | list | tuple | set | frozenset):
        replies = [header_form(address) for address in addresses(reply_to, "extra_fields['replyTo']")]
        given["replyTo"] = ", ".join(replies) if isinstance(reply_to, str) else replies
    # Checked now: a value that fails when the request is made would end a batch that has begun.
    fields: dict[str, Any] = json_value(given, "extra_fields")
    for name, content in fields.items():
        if name in _WIRE_FIELDS:
            raise FluxomailValidationError(f"extra_fields holds {name!r}, which has its own argument: use that one")
        if name in _HEADER_FIELDS and any(map(UNSAFE_IN_HEADER.search, texts_in(content, names=True))):
            raise FluxomailValidationError(
                f"extra_fields[{name!r}] holds a line break or control character: give one line of text"
            )
        if name in _HEADER_FIELDS and "None" in map(str.strip, texts_in(content)):
            raise FluxomailValidationError(f"extra_fields[{name!r}] {CAME_OUT_AS_NONE}")
    return fields


#: Checks each field by itself and returns it as it is sent; in the order in which errors are reported.
_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "to": one_address,
    "cc": functools.partial(addresses, field="cc"),
    "bcc": functools.partial(addresses, field="bcc"),
    "subject": functools.partial(header_text, field="subject"),
    "html_content": functools.partial(body_text, field="html_content"),
    "content": functools.partial(body_text, field="content"),
    "policy_key": lambda value: None if value is None else header_text(value, "policy_key"),
    "attachments": _attachments,
    "extra_fields": _extra_fields,
}
