"""The wrong replay: a known key that stands for another message (promise 1)."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.deployments import ADA, BOB, by_hand, running, send

__all__ = ["by_hand", "running"]

TIMELINE = "/api/v1/sends"


def test_the_recipients_domain_is_compared_as_dns_knows_it(sandbox: Sandbox) -> None:
    assert send("ada@stra\u00dfe.de").kind == "success"
    assert send("Ada <ada@xn--strae-oqa.de>").kind == "success"
    assert send("ada@strasse.de").kind == "AirflowFailException", "of another owner"


@pytest.mark.parametrize("form", ["docs", "spec"])
def test_names_and_spelling_of_an_address_are_no_difference(sandbox: Sandbox, form: str) -> None:
    sandbox.settings(timeline_form=form)
    assert send("Ada <ada@example.org>", subject="Hi  there").kind == "success"
    assert send("ADA@example.org", subject="Hi there").kind == "success"


def test_a_replay_of_this_calls_own_making_is_not_compared(sandbox: Sandbox) -> None:
    sandbox.fail_next("response_lost_after_store")
    run = send()
    assert run.kind == "success"
    assert run.result["reused"]
    assert "own_replay" not in run.result
    assert sandbox.requests("GET") == []


def test_a_replay_after_a_refusal_that_stored_nothing_is_compared(sandbox: Sandbox) -> None:
    assert send(ADA).kind == "success"
    sandbox.fail_next(429, retry_after=0.01)
    assert send(BOB).kind == "AirflowFailException"


def test_the_redirected_recipient_is_the_one_that_counts(sandbox: Sandbox) -> None:
    sandbox.connect(redirect_to="qa@example.org")
    assert send().kind == "success"
    assert send().kind == "success"
    sandbox.connect()
    run = send(ctx={"try_number": 2})
    assert run.kind == "AirflowFailException", "the mail went to the staging address, never to the recipient"


@pytest.mark.parametrize("why", ["send-only key", "not found", "no recipient"])
def test_a_stored_send_that_cannot_be_read_is_a_warning(
    sandbox: Sandbox, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert send(ADA).kind == "success"
    if why == "send-only key":
        sandbox.key("sender", scopes=["send_email"])
        sandbox.connect(key="sender")
    elif why == "not found":
        sandbox.fail_next(404, path=TIMELINE)
    else:
        sandbox.fail_next(200, path=TIMELINE, body={"events": []})
    with caplog.at_level(logging.WARNING):
        run = send(BOB)
    assert run.kind == "success"
    assert ("cannot be read" in caplog.text) is (why != "no recipient")
    assert BOB not in caplog.text


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 503}, "FluxomailServerError"),
        # A gateway's, not Fluxomail's.
        (
            {
                "status": 404,
                "headers": {"X-Request-Id": "", "Fluxomail-Request-Id": ""},
                "body": {"message": "no Route matched with those values"},
            },
            "FluxomailResponseError",
        ),
    ],
)
def test_an_outage_while_comparing_is_airflows_to_retry(sandbox: Sandbox, fault: dict[str, Any], kind: str) -> None:
    sandbox.connect(max_attempts=1)
    assert send(ADA).kind == "success"
    sandbox.fail_next("status", path=TIMELINE, **fault)
    assert send(BOB).kind == kind
    assert send(BOB, ctx={"try_number": 2}).kind == "AirflowFailException"


# By hand, in a task


def test_by_hand_bad_input_is_named(sandbox: Sandbox, running: Any, by_hand: Any) -> None:
    for arguments in ({}, {"part": "x"}):
        with pytest.raises(FluxomailValidationError, match="give idempotency_key"):
            by_hand(**arguments)
    running()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"part": ""}, "part came out empty"),
        ({"part": 3}, "part came out empty"),
        ({"idempotency_key": ""}, "idempotency_key must be 1 to 128"),
        ({"idempotency_key": "k", "part": "x"}, "belong to a derived key"),
        ({"idempotency_key": "k", "resend_on_clear": True}, "belong to a derived key"),
    ]
    for arguments, text in wrong:
        with pytest.raises(FluxomailValidationError, match=text):
            by_hand(**arguments)
    assert sandbox.requests() == []
