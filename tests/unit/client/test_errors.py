"""Every status and every error body of the contract, to the error that says what to do."""

from __future__ import annotations

import pickle
import time

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.redaction import MAX_TEXT, redact, without_addresses
from tests.support.error_responses import BY_STATUS, error

FORMS = {
    "plain": {"error": "it broke"},
    "structured": {"code": "some_code", "message": "it broke", "error": "other words", "details": {}},
    "roadmap": {"code": "some_code", "message": "it broke"},
    "nested": {"error": {"code": "some_code", "message": "it broke"}},
}


@pytest.mark.parametrize("status", BY_STATUS)
def test_every_status_in_every_form(status: int) -> None:
    for form, payload in FORMS.items():
        found = error(status, payload, request_id="req-1", idempotency_key="key-1", retry_after=7.0)
        assert type(found) is BY_STATUS[status]
        assert found.code == (None if form == "plain" else "some_code")
        assert (found.status, found.request_id, found.idempotency_key) == (status, "req-1", "key-1")
        shown = ("it broke", f"status {status}", "request id req-1", "idempotency key key-1", "retry after 7 s")
        assert [text for text in shown if text not in str(found)] == []
        copy = pickle.loads(pickle.dumps(found))
        assert (type(copy), str(copy), copy.retry_after) == (type(found), str(found), 7.0)


@pytest.mark.parametrize(
    ("status", "payload", "kind", "shown"),
    [
        (403, {"error": "Tenant paused for this organization"}, errors.FluxomailTenantPausedError, "Deliverability"),
        (403, {"code": "tenant_paused", "message": "no"}, errors.FluxomailTenantPausedError, "Deliverability"),
        (403, {"error": "Forbidden: missing scope read_sends"}, errors.FluxomailPermissionError, "read_sends"),
        (422, {"code": "idempotency_mismatch"}, errors.FluxomailIdempotencyConflictError, ""),
    ],
)
def test_bodies_that_distinguish_errors_of_one_status(
    status: int, payload: object, kind: type[FluxomailError], shown: str
) -> None:
    found = error(status, payload)
    assert type(found) is kind
    assert shown in str(found)


def test_what_an_error_keeps_of_the_body() -> None:
    assert error(402, {"code": "plan_required", "preview": {"plan": "pro"}}).preview == {"plan": "pro"}
    assert error(500, {"error": "x", "sendId": "sends_1"}).send_id == "sends_1"
    assert error(500, {"error": "x", "details": {"sendId": "sends_2"}}).send_id == "sends_2"
    # A thousand waits keep their last error.
    huge = error(422, {"error": "x", "details": {"sendId": "sends_2", "to": ["wrong"] * 5000}, "preview": [{}] * 5000})
    assert (huge.details, huge.preview, huge.send_id, len(huge.body or "")) == (None, None, "sends_2", 4096)
    assert "wrong" in str(huge)


@pytest.mark.parametrize(
    ("status", "payload", "optional_fields", "concerns_one"),
    [
        *((status, {}, (), True) for status in (302, 400, 408, 409, 413, 422, 500)),
        *((status, {}, (), False) for status in (401, 402, 403, 404, 415, 429)),
        (402, {"code": "plan_required"}, ("attachments",), True),
        (402, {}, ("policyKey",), False),
        (403, {"error": "policy forbids it"}, ("policyKey",), True),
        (403, {"error": "policy forbids it"}, ("attachments",), False),
        (403, {"code": "missing_scope"}, ("policyKey",), False),
        (403, {"error": "Forbidden: missing scope send_email"}, ("policyKey",), False),
        (403, {"error": "Tenant paused"}, ("policyKey",), False),
        (422, {"code": "idempotency_mismatch"}, (), True),
    ],
)
def test_which_error_concerns_one_message_and_which_all(
    status: int, payload: object, optional_fields: tuple[str, ...], concerns_one: bool
) -> None:
    assert error(status, payload, optional_fields=optional_fields).concerns_one_message is concerns_one


def test_a_failed_connection_concerns_one_message_only_if_a_server_was_reached() -> None:
    assert errors.FluxomailConnectionError("reset").concerns_one_message
    assert not errors.FluxomailConnectionError("refused", ambiguous=False).concerns_one_message
    assert not errors.FluxomailValidationError("proxy", concerns_one_message=False).concerns_one_message
    assert not FluxomailError("x").concerns_one_message


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"upstream timed out", "upstream timed out"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "titled '502 Bad Gateway'"),
        (b"<!DOCTYPE html><p>", "an HTML page"),
        (b"[1, 2]", "[1, 2]"),
        (b"\xff\xfe\x00", "\ufffd"),
        (b'{"error": 5}', "no error text"),
        (b'{"message": null, "error": ""}', "no error text"),
        (b"[" * 100_000, "["),
    ],
)
def test_bodies_without_an_error_text(content: bytes, shown: str) -> None:
    found = error(502, content)
    assert type(found) is errors.FluxomailServerError
    assert shown in str(found)
    assert len(str(found)) < 600


@pytest.mark.parametrize(
    ("text", "private", "shown"),
    [
        ("Ada said so", ("Ada",), "Ada said so"),
        ("code 4711 for Adam", ("4711", "Adam"), "code *** for ***"),
        ("eleven of abcdefghijklmnop: abcdefghijk", ("abcdefghijklmnop",), "eleven of ***: abcdefghijk"),
        ("twelve from within: cdefghijklmn!", ("abcdefghijklmnop",), "twelve from within: ***!"),
        ("<a@example.org>, not b@example.org", ("a@example.org",), "<***>, not ***"),
        ("anna@other.net", ("a@example.org",), "<address>"),
        ("rejected <a.b+c@d-e.example>: 550", (), "rejected <<address>>: 550"),
        ("a\r\nb\tc", (), "a b c"),
        ("x" * 10_000, (), "x" * (MAX_TEXT - 1) + "…"),
        ("", ("x" * 100,), ""),
    ],
)
def test_what_is_hidden_and_what_stays(text: str, private: tuple[str, ...], shown: str) -> None:
    assert redact(text, private) == shown


def test_redaction_takes_time_in_proportion_to_the_texts() -> None:
    """A body of megabytes, a page without spaces: in proportion they take a second, otherwise minutes."""
    began = time.process_time()
    redact("a" * 5_000, ("a" * 200_000, "ab" * 100_000))
    without_addresses("a" * 100_000)
    without_addresses("@" * 100_000)
    assert time.process_time() - began < 5


def every(kind: type[FluxomailError]) -> list[type[FluxomailError]]:
    return [kind, *(kind for sub in kind.__subclasses__() for kind in every(sub))]


def test_every_error_survives_a_pickle() -> None:
    for kind in every(FluxomailError):
        copy = pickle.loads(pickle.dumps(kind("text", status=500, concerns_one_message=True)))
        assert (type(copy), copy.message, copy.status) == (kind, "text", 500)
