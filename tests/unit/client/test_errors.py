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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", BY_STATUS)
def test_every_status_in_every_form(status: int, form: str) -> None:
    found = error(status, FORMS[form], request_id="req-1", idempotency_key="key-1", retry_after=7.0)
    assert type(found) is BY_STATUS[status]
    assert "it broke" in str(found)
    assert (found.status, found.request_id, found.idempotency_key, found.retry_after) == (status, "req-1", "key-1", 7.0)
    assert found.code == (None if form == "plain" else "some_code")
    for told in (f"status {status}", "request id req-1", "idempotency key key-1", "retry after 7 s"):
        assert told in str(found)


@pytest.mark.parametrize(
    "payload",
    [
        {"error": "Tenant paused for this organization"},
        {"code": "tenant_paused", "message": "no"},
    ],
)
def test_a_paused_tenant_is_told_from_a_missing_scope(payload: dict[str, str]) -> None:
    found = error(403, payload)
    assert type(found) is errors.FluxomailTenantPausedError
    assert "Deliverability" in str(found)


def test_a_missing_scope_is_named() -> None:
    assert "read_sends" in str(error(403, {"error": "Forbidden: missing scope read_sends"}))


def test_a_422_whose_code_says_so_is_a_conflict() -> None:
    assert type(error(422, {"code": "idempotency_mismatch"})) is errors.FluxomailIdempotencyConflictError


def test_402_keeps_the_preview() -> None:
    found = error(402, {"code": "plan_required", "message": "no", "preview": {"plan": "pro"}})
    assert found.preview == {"plan": "pro"}


@pytest.mark.parametrize(
    ("status", "payload", "optional_fields", "concerns_one"),
    [
        (400, {}, (), True),
        (401, {}, (), False),
        (402, {}, (), False),
        (402, {"code": "plan_required"}, ("attachments",), True),
        (402, {}, ("policyKey",), False),
        (403, {}, (), False),
        (403, {"error": "policy forbids it"}, ("policyKey",), True),
        (403, {"error": "policy forbids it"}, ("attachments",), False),
        (403, {"code": "missing_scope"}, ("policyKey",), False),
        (403, {"error": "Forbidden: missing scope send_email"}, ("policyKey",), False),
        (403, {"error": "Tenant paused"}, ("policyKey",), False),
        (404, {}, (), False),
        (408, {}, (), True),
        (409, {}, (), True),
        (413, {}, (), True),
        (415, {}, (), False),
        (422, {}, (), True),
        (422, {"code": "idempotency_mismatch"}, (), True),
        (429, {}, (), False),
        (500, {}, (), True),
        (302, {}, (), True),
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


def test_a_send_id_in_an_error_is_kept() -> None:
    assert error(500, {"error": "x", "sendId": "sends_1"}).send_id == "sends_1"
    assert error(500, {"error": "x", "details": {"sendId": "sends_2"}}).send_id == "sends_2"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no error text"),
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
def test_bodies_that_are_no_json_object(content: bytes, told: str) -> None:
    found = error(502, content)
    assert type(found) is errors.FluxomailServerError
    assert told in str(found)
    assert len(str(found)) < 600


@pytest.mark.parametrize(
    ("said", "private", "printed"),
    [
        ("Ada said so", ("Ada",), "Ada said so"),
        ("Adam said so", ("Adam",), "*** said so"),
        ("code 4711 for Adam", ("4711", "Adam"), "code *** for ***"),
        (
            "the first eleven of abcdefghijklmnop: abcdefghijk",
            ("abcdefghijklmnop",),
            "the first eleven of ***: abcdefghijk",
        ),
        ("twelve from within: cdefghijklmn!", ("abcdefghijklmnop",), "twelve from within: ***!"),
        ("<a@example.org>, not b@example.org", ("a@example.org",), "<***>, not ***"),
        ("anna@other.net", ("a@example.org",), "<address>"),
        ("", ("x" * 100,), ""),
    ],
)
def test_what_is_hidden_and_what_stays(said: str, private: tuple[str, ...], printed: str) -> None:
    assert redact(said, private) == printed


def test_redaction_takes_time_in_proportion_to_the_texts() -> None:
    """A body of megabytes, a page without spaces: in proportion they take a second, else hours."""
    began = time.monotonic()
    redact("a" * 10_000, ("a" * 1_000_000, "ab" * 500_000))
    without_addresses("a" * 300_000)
    without_addresses("@" * 300_000)
    assert time.monotonic() - began < 20


def test_redact_makes_one_short_line() -> None:
    assert redact("a\r\nb\tc") == "a b c"
    assert len(redact("x" * 10_000)) == MAX_TEXT
    assert redact("rejected <a.b+c@d-e.example>: 550") == "rejected <<address>>: 550"


def every(kind: type[FluxomailError]) -> list[type[FluxomailError]]:
    return [kind, *(kind for sub in kind.__subclasses__() for kind in every(sub))]


@pytest.mark.parametrize("kind", every(FluxomailError))
def test_every_error_survives_a_pickle(kind: type[FluxomailError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("text", status=500, concerns_one_message=True)))
    assert (type(copy), copy.message, copy.status) == (kind, "text", 500)


def test_errors_survive_a_pickle() -> None:
    found = error(429, {"error": "x"}, retry_after=3.0, request_id="r")
    copy = pickle.loads(pickle.dumps(found))
    assert (type(copy), str(copy), copy.retry_after) == (type(found), str(found), 3.0)


def test_validation_errors_are_value_errors() -> None:
    assert issubclass(errors.FluxomailValidationError, ValueError)
