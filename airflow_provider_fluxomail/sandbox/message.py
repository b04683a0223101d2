"""The body of a send, checked. https://docs.fluxomail.com/api-reference/fluxomail/send-email"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from airflow_provider_fluxomail.sandbox.errors import ApiError
from airflow_provider_fluxomail.sandbox.exchange import parse_json
from airflow_provider_fluxomail.sandbox.limits import MAX_IDEMPOTENCY_KEY_CHARS
from airflow_provider_fluxomail.sandbox.switches import Switches

SHORT_REFUSES: Final = ("cc", "bcc", "attachments")
"""The fields that the shorter table of send-global does not have."""

_TEXTS: Final = ("to", "subject", "content", "htmlContent", "policyKey")
_KNOWN: Final = frozenset((*_TEXTS, *SHORT_REFUSES, "idempotencyKey"))

# OpenAPI shows these patterns, so they mean the same in every dialect: `\s` is another set of characters in JavaScript
# than in Python.
_SPACES = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What `str.isspace` is true for, as the inside of a character class."""
NOT_BLANK: Final = f"[^{_SPACES}]"
ONE_LINE: Final = rf"^[^\r\n\x00]*[^{_SPACES}\x00][^\r\n\x00]*$"
_QUOTED = r'"(?:\\[^\r\n\x00]|[^"\\\r\n\x00])*"'
_ATOM = rf'[^\x00-\x1f\x7f-\x9f{_SPACES}@,;<>"]+'
_BARE = rf"(?:{_QUOTED}|{_ATOM})@{_ATOM}"
MAILBOX: Final = rf'^(?:[ \t]*({_BARE})|(?:[ \t]*{_QUOTED}[ \t]*|[^@<>",;\r\n\x00]*)<({_BARE})>)[ \t]*$'
"""One address, bare (the first group) or after a display name (the second)."""
_MAILBOX = re.compile(MAILBOX)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A decoded attachment."""

    filename: str
    content_type: str | None
    content: bytes
    sha256: str


@dataclass(frozen=True)
class Message:
    """A valid send, with the names of the store's columns.

    :param recipient: ``to`` as it was sent; ``address`` is the bare address in it.
    :param idempotency_key: of the header, else of the body.
    :param fingerprint: equal for equal bodies, whatever their idempotency key and the order of their fields.
    :param extra: fields that the API does not name.
    :param size: bytes of the request body.
    """

    recipient: str
    address: str
    subject: str
    content: str
    html: str | None
    cc: list[str]
    bcc: list[str]
    attachments: list[Attachment]
    policy_key: str | None
    idempotency_key: str | None
    fingerprint: str
    extra: dict[str, Any]
    size: int


def parse_body(body: bytes | bytearray) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except ValueError as error:
        raise ApiError(400, "Invalid JSON body", details={"reason": str(error)}) from error
    if not isinstance(value, dict):
        raise _invalid("the body must be a JSON object")
    return value


def idempotency_key_of(header: str | None, fields: dict[str, Any]) -> str | None:
    """The idempotency key of a send: the header's, else the body's; empty counts as none.

    :raises ApiError: 400, not a string or too long.
    """
    for key in (header, fields.get("idempotencyKey")):
        # The body's too where the header wins: it is a mistake all the same.
        if key is not None and (not isinstance(key, str) or len(key) > MAX_IDEMPOTENCY_KEY_CHARS):
            text = f"idempotencyKey must be a string of at most {MAX_IDEMPOTENCY_KEY_CHARS} characters"
            raise _invalid(text, "idempotencyKey")
    return header or fields.get("idempotencyKey") or None


def parse_message(fields: dict[str, Any], idempotency_key: str | None, size: int, switches: Switches) -> Message:
    """Check the fields of a send.

    :raises ApiError: 400; it names the field.
    """
    # null counts as left out.
    given = {name: value for name, value in fields.items() if value is not None or name not in _KNOWN}
    if switches.to_list and isinstance(given.get("to"), list) and len(given["to"]) == 1:
        given["to"] = given["to"][0]
    html_alone = not switches.content_required and isinstance(given.get("htmlContent"), str)
    required = ("to", "subject") if html_alone and given["htmlContent"].strip() else ("to", "subject", "content")
    missing = [name for name in required if name not in given or str(given[name]).strip() == ""]
    if missing:
        raise ApiError(400, "Missing required fields", details={"fields": missing})
    extra = {name: value for name, value in given.items() if name not in _KNOWN}
    if extra and switches.unknown_fields == "refuse":
        named = [name[:100] for name in sorted(extra)[:10]]
        raise _invalid(f"unknown field {', '.join(named)}", *named)
    for name in _TEXTS:
        if not isinstance(given.get(name, ""), str):
            raise _invalid(f"{name} must be {'exactly one email address' if name == 'to' else 'a string'}", name)
    for name in ("to", "subject"):
        if re.search(r"[\r\n\x00]", given[name]):
            raise _invalid(f"{name} must be a single line", name)
    address = bare_address(given["to"])
    if address is None:
        raise _invalid("to must be exactly one email address", "to")
    unkeyed = {name: given.get(name, value) for name, value in fields.items() if name != "idempotencyKey"}
    return Message(
        recipient=given["to"],
        address=address,
        subject=given["subject"],
        content=given.get("content", ""),
        html=given.get("htmlContent"),
        cc=_copies(given, "cc"),
        bcc=_copies(given, "bcc"),
        attachments=_attachments(given.get("attachments", []), switches),
        policy_key=given.get("policyKey"),
        idempotency_key=idempotency_key,
        fingerprint=hashlib.sha256(json.dumps(unkeyed, sort_keys=True).encode()).hexdigest(),
        extra=extra,
        size=size,
    )


def recipient_forms(to: object) -> list[str]:
    """A ``to`` as it was sent and as a bare address; nothing if it names no single recipient."""
    if isinstance(to, list) and len(to) == 1:
        to = to[0]
    return [to, bare_address(to) or to] if isinstance(to, str) else []


def bare_address(to: str) -> str | None:
    """The address of a text that is one address, bare or with a display name."""
    match = _MAILBOX.fullmatch(to)
    return None if match is None else match[1] or match[2]


def _copies(given: dict[str, Any], name: str) -> list[str]:
    value = given.get(name, [])
    copies = [value] if isinstance(value, str) else value
    if not isinstance(copies, list) or not all(isinstance(item, str) and "@" in item for item in copies):
        raise _invalid(f"{name} must be an email address or a list of them", name)
    return copies


def _attachments(value: object, switches: Switches) -> list[Attachment]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _invalid("attachments must be a list of objects", "attachments")
    if len(value) > switches.attachments_max_count:
        raise _refused(f"Too many attachments: {len(value)}, at most {switches.attachments_max_count}", "too_many")
    attachments: list[Attachment] = []
    most = switches.attachments_max_bytes
    for position, item in enumerate(value):
        attachments.append(_attachment(item, f"attachments[{position}]"))
        if sum(len(attachment.content) for attachment in attachments) > most:
            raise _refused(f"Attachments too large: more than {most} bytes in total", "too_large")
    return attachments


def _attachment(item: dict[str, Any], where: str) -> Attachment:
    filename, encoded, content_type = item.get("filename"), item.get("contentBase64"), item.get("contentType")
    if not isinstance(filename, str) or not filename.strip():
        raise _invalid(f"{where}.filename must be a string that is not empty", where)
    if not isinstance(encoded, str):
        raise _invalid(f"{where}.contentBase64 must be a string", where)
    if content_type is not None and not isinstance(content_type, str):
        raise _invalid(f"{where}.contentType must be a string", where)
    try:
        content = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise _refused(f"Invalid base64 in {where}.contentBase64", "invalid_base64") from error
    return Attachment(filename, content_type, content, hashlib.sha256(content).hexdigest())


def _invalid(message: str, *fields: str) -> ApiError:
    return ApiError(400, f"Invalid request: {message}", details={"fields": list(fields)} if fields else None)


def _refused(message: str, reason: str) -> ApiError:
    return ApiError(400, message, details={"fields": ["attachments"], "reason": reason})
