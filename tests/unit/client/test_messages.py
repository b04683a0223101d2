"""What a message may be; every mistake is named by its field, before anything is sent."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import MAX_ATTACHMENT_BYTES, Attachment, EmailMessage
from tests.support.good_messages import GOOD, message, refused


def test_only_fields_that_are_given_are_sent() -> None:
    empty = message(html_content=None, cc=None, bcc="", attachments=None, policy_key=None, extra_fields=None)
    assert empty == message() == EmailMessage.of(GOOD) == EmailMessage.of(message())
    assert empty.to_json() == GOOD
    sent = message(attachments=[Attachment("rows.csv", b"id\n")], html_content="<p>Hi</p>", policy_key="bulk").to_json()
    assert sent["attachments"] == [{"filename": "rows.csv", "contentBase64": "aWQK", "contentType": "text/csv"}]
    assert (sent["htmlContent"], sent["policyKey"]) == ("<p>Hi</p>", "bulk")


@pytest.mark.parametrize("value", ["", " \n ", None])
def test_required_fields(value: str | None) -> None:
    assert refused(to=value).startswith("to")
    assert refused(subject=value).startswith("subject")
    assert "content is empty" in refused(content=value)
    assert message(content=value, html_content="<p>From <b>HTML</b></p>").content == "From HTML"
    assert "content as well" in refused(content=value, html_content="<img src='x'>")


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_nothing_but_addresses_in_a_field_of_addresses(field: str) -> None:
    for evil in ("\r\nBcc: x@example.org", "\r\nx", "\nX: y", "\x00", "\x85x", "\u2028x"):
        for value in (f"ops@example.org{evil}", [f"ops@example.org{evil}"]):
            assert refused(**{field: value}).startswith(field)


@pytest.mark.parametrize("field", ["subject", "policy_key"])
def test_no_line_break_in_any_header_field(field: str) -> None:
    for evil in ("\n", "\r", "\r\nBcc: x@example.org", "\x00", "\x0b", "\x85", "\u2028", "\u2029"):
        text = refused(**{field: f"ops@example.org{evil}"})
        assert text.startswith(field)
        assert "line break" in text


@pytest.mark.parametrize("field", ["content", "html_content"])
def test_bodies_may_have_many_lines_but_no_half_characters(field: str) -> None:
    assert message(**{field: "a\r\nb"})
    assert "surrogate" in refused(**{field: "\ud800"})


@pytest.mark.parametrize(
    "bad",
    ["nobody", "@example.org", "a@", "a b@example.org", "x@evil.example@ours.example", "Name <nobody>", 5, b"a@b", []],
)
def test_bad_addresses(bad: object) -> None:
    assert refused(to=bad).startswith("to ")
    if isinstance(bad, str):
        assert refused(cc=["a@example.org", bad]).startswith("cc[1]")


def test_attachments_are_always_encoded_from_bytes() -> None:
    looks_encoded = "aGVsbG8="
    item = Attachment("note.txt", looks_encoded).to_json()
    assert base64.b64decode(item["contentBase64"]) == looks_encoded.encode()
    assert "contentType" not in Attachment("unknown", b"").to_json()
    assert Attachment("x.csv", b"", "text/plain").to_json()["contentType"] == "text/plain"
    assert message(attachments=[{"filename": "a", "content": b"1"}]).attachments == (Attachment("a", b"1"),)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("rows.csv", "must be a list"),
        ([{"name": "a"}], "attachments[0] must be"),
        ([{"filename": "a", "content": b"", "mime": "text/plain"}], "attachments[0] must be"),
        ([Attachment("a", b""), 5], "attachments[1] must be"),
        ([Attachment("a", 5)], "content must be bytes"),  # type: ignore[arg-type]
        ([Attachment("a\n", b"")], "attachments[0].filename holds a line break"),
        ([Attachment("", b"")], "attachments[0].filename is empty"),
        ([Attachment("a", b"", "text/\nplain")], "attachments[0].content_type holds a line break"),
        ([Attachment(str(n), b"") for n in range(6)], "6 files, at most 5"),
        ([Attachment("a", b"x" * MAX_ATTACHMENT_BYTES), Attachment("b", b"x")], "at most 10 MiB"),
    ],
)
def test_bad_attachments(bad: Any, told: str) -> None:
    assert told in refused(attachments=bad)


def test_the_largest_attachments_fit() -> None:
    part = b"x" * (MAX_ATTACHMENT_BYTES // 5)
    assert len(message(attachments=[Attachment(str(n), part) for n in range(5)]).attachments) == 5


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        *(({name: "x"}, name) for name in ("to", "subject", "content", "htmlContent", "cc", "bcc", "idempotencyKey")),
        *(({"fromName": "a\nb"}, "line break"), ({"headers": {"X": "a\r\nb"}}, "line break")),
        *(({"headers": {"X\n": "a"}}, "line break"), (["x"], "mapping")),
    ],
)
def test_bad_extra_fields(extra: Any, told: str) -> None:
    assert told in refused(extra_fields=extra)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({**GOOD, "html": "x"}, "unknown message field 'html'"),
        ({"subject": "x", "content": "y"}, "to is missing"),
        ({"to": "a@example.org", "content": "y"}, "subject is missing"),
        ("text", "not str"),
    ],
)
def test_bad_mappings(bad: Any, told: str) -> None:
    with pytest.raises(FluxomailValidationError, match=told):
        EmailMessage.of(bad)
