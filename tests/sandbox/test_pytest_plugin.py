"""The pytest plugin: its fixture in a user's project, and the object that a test gets."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailRateLimitError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.faults import models as faults
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from tests.support.airflow_facts import MAKES_ITS_HOME

CONNECTION = "AIRFLOW_CONN_FLUXOMAIL_DEFAULT"
WITHOUT = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
"""Plugins that a user's tests do not need, and that cost time."""


def send(to: str = "ops@example.org", *, key: str | None = None, conn: str = "fluxomail_default", **more: Any) -> str:
    hook = FluxomailHook(conn)
    try:
        fields = {"to": to, "subject": "Load done", "content": "20 rows", **more}
        return hook.get_conn().send(EmailMessage.of(fields), idempotency_key=key).send_id
    finally:
        hook.close()


def refused(error: type[FluxomailError] = FluxomailError, **fields: Any) -> FluxomailError:
    with pytest.raises(error) as caught:
        send(**fields)
    return caught.value


# In a user's project

USERS_TESTS = """
    import asyncio
    import os

    import pytest

    from airflow_provider_fluxomail.client import FluxomailAuthError
    from airflow_provider_fluxomail.hooks import FluxomailHook

    MESSAGE = {"to": "ops@example.org", "subject": "Load done", "content": "20 rows"}

    def test_one(fluxomail_sandbox):
        fluxomail_sandbox.settings(default_outcome="never")
        fluxomail_sandbox.fail_next(503, path="/api/v1/sends")
        hook = FluxomailHook()
        hook.send(MESSAGE, idempotency_key="one")
        hook.close()
        mail = fluxomail_sandbox.message("ops@example.org")
        assert (mail.subject, mail.event_types) == ("Load done", ["sent"])
        assert "127.0.0.1" in os.environ["no_proxy"]
        assert "corp.example" in os.environ["no_proxy"]

    def test_two(fluxomail_sandbox):
        fluxomail_sandbox.assert_sent(0)
        assert fluxomail_sandbox.requests() == []
        assert fluxomail_sandbox.faults() == []
        asyncio.run(FluxomailHook().asend(MESSAGE, idempotency_key="two"))
        assert fluxomail_sandbox.message().event_types == ["sent", "delivered"]

    def test_without(request):
        assert "AIRFLOW_CONN_FLUXOMAIL_DEFAULT" not in os.environ
        assert os.environ["no_proxy"] == "corp.example"
        assert "NO_PROXY" not in os.environ

    # Nothing that the fixture does is a warning in a strict project.
    @pytest.mark.filterwarnings("error")
    def test_that_fails(fluxomail_sandbox):
        hook = FluxomailHook()
        hook.send(MESSAGE, idempotency_key="k1")
        hook.close()
        fluxomail_sandbox.connect("other", key="wrong")
        hook = FluxomailHook("other")
        with pytest.raises(FluxomailAuthError):
            hook.send(MESSAGE, idempotency_key="k2")
        hook.close()
        fluxomail_sandbox.message(to="ada@example.org", subject="Load done")
"""


def test_a_users_tests_send_through_the_connection_and_start_fresh(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = pytester.path / "airflow"
    monkeypatch.setenv("AIRFLOW_HOME", str(home))
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", f"sqlite:///{home}/airflow.db")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("no_proxy", "corp.example")
    pytester.makepyfile(USERS_TESTS)
    result = pytester.runpytest_subprocess(*WITHOUT)
    result.assert_outcomes(passed=3, failed=1)
    assert home.exists() is MAKES_ITS_HOME, "it was the Airflow of the test"
    assert not (home / "airflow.db").exists(), "no metadata database is needed"
    # The failed assertion shows the user's line, and what the sandbox holds.
    result.stdout.fnmatch_lines(
        [
            '>*fluxomail_sandbox.message(to="ada@example.org", subject="Load done")',
            "E*expected 1 message with to 'ada@example.org' and subject 'Load done', found none",
            "E*the sandbox holds 1 message:",
            "E*to * subject * idempotency key * last event",
            "E*ops@example.org *Load done *k1 *delivered",
            "E*requests that failed:",
            "E*POST */api/v1/emails/send *401 Unauthorized",
        ],
        consecutive=False,
    )
    assert "self.assert_sent" not in result.stdout.str(), "the plugin's own code is of no interest"


def test_without_the_extra_it_says_what_to_install(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name in ("fastapi", "uvicorn"):
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, Blocker())
        """
    )
    pytester.makepyfile("def test_it(fluxomail_sandbox): pass\ndef test_other(): pass")
    result = pytester.runpytest_subprocess(*WITHOUT)
    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines("*pip install 'airflow-provider-fluxomail?sandbox?'*No module named 'uvicorn'*")
    assert "Traceback" not in result.stdout.str()


def test_the_plugin_does_not_slow_down_pytest_without_the_fixture() -> None:
    code = """if True:
        import json, os, sys, pytest
        before, environ = set(sys.modules), dict(os.environ)
        import airflow_provider_fluxomail.sandbox.testing.plugin
        assert dict(os.environ) == environ
        print(json.dumps(sorted(set(sys.modules) - before)))
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    tops = {name.split(".")[0] for name in json.loads(run.stdout)}
    assert tops - sys.stdlib_module_names == {"airflow_provider_fluxomail"}
    assert "asyncio" not in tops


# The connection


def test_the_connection_can_be_redefined(sandbox: FluxomailSandbox) -> None:
    assert json.loads(os.environ[CONNECTION])["extra"] == {"timeout": 10}
    sandbox.connect(key="wrong", max_attempts=1)
    assert "401" in str(refused())
    sandbox.connect("other", host=f"{sandbox.url}/", timeout=5)
    send(conn="other")
    assert json.loads(os.environ["AIRFLOW_CONN_OTHER"])["extra"] == {"timeout": 5}


@pytest.mark.parametrize("past", ["*", " * "])
def test_no_proxy_for_all_stays(past: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("no_proxy", past)
    request.getfixturevalue("fluxomail_sandbox")
    assert os.environ["no_proxy"] == past


# What was sent


def test_a_message_has_all_that_was_sent(sandbox: FluxomailSandbox) -> None:
    data = bytes(range(256))
    attachments = [{"filename": f"{name}.bin", "content": data * size} for name, size in (("a", 1), ("b", 2))]
    send_id = send(
        "Ops <ops@example.org>",
        key="k1",
        html_content="<p>20 rows</p>",
        cc=["a@example.org"],
        bcc=["b@example.org"],
        attachments=attachments,
        extra_fields={"replyTo": "r@example.org"},
    )
    mail = sandbox.message("ops@example.org")
    assert (mail.to, mail.subject, mail.content) == ("Ops <ops@example.org>", "Load done", "20 rows")
    assert (mail.html_content, mail.cc, mail.bcc) == ("<p>20 rows</p>", ["a@example.org"], ["b@example.org"])
    assert (mail.idempotency_key, mail.send_id, mail.endpoint) == ("k1", send_id, "send")
    assert mail.extra_fields == {"replyTo": "r@example.org"}
    assert mail.created_at == pytest.approx(sandbox.now(), abs=5)
    assert mail.message_id
    second = mail.attachments[1]
    assert (second.filename, second.size, second.content) == ("b.bin", 512, data * 2)
    assert second.sha256 == hashlib.sha256(data * 2).hexdigest()
    assert second.content is second.content, "it is fetched once"
    assert mail == sandbox.message()
    sandbox.reset()
    with pytest.raises(ValueError, match="no message has the send id"):
        _ = mail.attachments[0].content


def test_messages_are_found_by_what_is_given(sandbox: FluxomailSandbox) -> None:
    send("ada@example.org", key="k1")
    send("bob@example.org", key="k2", subject="Load failed")
    send("bob@example.org", key="k3")
    assert [mail.idempotency_key for mail in sandbox.messages()] == ["k1", "k2", "k3"]
    assert [mail.idempotency_key for mail in sandbox.messages("bob@example.org")] == ["k2", "k3"]
    assert sandbox.message(idempotency_key="k2").subject == "Load failed"
    assert sandbox.message("bob@example.org", subject="Load done").idempotency_key == "k3"
    assert len(sandbox.assert_sent(2, subject="Load done")) == 2
    assert sandbox.assert_sent(0, "nobody@example.org") == []


def test_more_messages_than_a_page_has(sandbox: FluxomailSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_fluxomail.sandbox.testing.calls._PAGE", 5)
    people = [f"{number}@example.org" for number in range(12)]
    for to in people:
        send(to)
    assert [mail.to for mail in sandbox.messages()] == people
    with pytest.raises(AssertionError) as caught:
        sandbox.message()
    assert "expected 1 message, found 12" in str(caught.value)
    assert "... and 2 before these\n  2@example.org" in str(caught.value)
    assert "\n  11@example.org" in str(caught.value)


def test_an_assertion_says_what_there_is(sandbox: FluxomailSandbox) -> None:
    def described(count: int, **filters: Any) -> list[str]:
        with pytest.raises(AssertionError) as caught:
            sandbox.assert_sent(count, **filters)
        return [" ".join(line.split()) for line in str(caught.value).splitlines()]

    assert described(2) == [
        "expected 2 messages, found none",
        "the sandbox holds no message",
        f"no request has reached it: is {sandbox.url} the host of the connection?",
    ]
    send(subject="A subject that is so long that no table should show all of it")
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("cut_before_store")
    sandbox.fail_next(599)
    for _ in range(2):
        refused(key="k2")
    assert described(0, to="ops@example.org") == [
        "expected no messages with to 'ops@example.org', found 1",
        "the sandbox holds 1 message:",
        "to subject idempotency key last event",
        "ops@example.org A subject that is so long that no tab... - delivered",
        "requests that failed:",
        "POST /api/v1/emails/send no response (fault cut_before_store)",
        "POST /api/v1/emails/send 599 (fault status)",
    ]


# What happens to a message


def test_events_happen_to_the_message_that_is_meant(sandbox: FluxomailSandbox) -> None:
    sandbox.settings(default_outcome="never")
    send("ada@example.org")
    assert sandbox.deliver().event_types == ["sent", "delivered"]
    ada = sandbox.open()
    assert ada.event_types == ["sent", "delivered", "opened"]
    send("bob@example.org")
    clicked = sandbox.click(ada, url="https://example.org/report")
    assert (clicked.to, clicked.events[-1].data["url"]) == ("ada@example.org", "https://example.org/report")
    bounced = sandbox.bounce(to="bob@example.org", reason="mailbox full", bounceType="Transient")
    assert bounced.event_types == ["sent", "bounced"]
    server = {"smtpCode": "450", "mtaHost": "mx.example.org"}
    assert bounced.events[-1].data == {"reason": "mailbox full", "bounceType": "Transient", **server}
    with pytest.raises(AssertionError, match="expected 1 message, found 2"):
        sandbox.complain()
    assert sandbox.complain(ada).event_types[-1] == "complained"
    assert sandbox.drop(ada).events[-1].data["reason"]
    assert sandbox.bounce(ada).events[-1].data["reason"]
    assert sandbox.click(ada).events[-1].data["url"]
    assert sandbox.event("failed", ada, at=ada.created_at + 1).event_types[-1] == "clicked", "not yet"
    sandbox.advance(2)
    assert sandbox.message("ada@example.org").events[-1].type == "failed"
    with pytest.raises(TypeError, match="not both"):
        sandbox.deliver(ada, to="bob@example.org")
    with pytest.raises(ValueError, match="type must be"):
        sandbox.event("lost", ada)


def test_the_right_one_of_equal_messages_comes_back(sandbox: FluxomailSandbox) -> None:
    first, second = send(), send()
    mails = {mail.send_id: mail for mail in sandbox.messages()}
    assert sandbox.open(mails[second]).send_id == second
    assert sandbox.open(mails[first]).send_id == first


# What goes wrong


def test_which_requests_fail(sandbox: FluxomailSandbox) -> None:
    sends = {"method": "POST", "path": "/api/v1/emails"}
    matches: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({}, sends),
        ({"to": "OPS@*"}, sends | {"recipient": "OPS@*"}),
        ({"idempotency_key": "k?"}, sends | {"idempotency_key": "k?"}),
        ({"api_key": "fm_*"}, sends | {"api_key": "fm_*"}),
        ({"method": "GET"}, {"method": "GET"}),
        ({"path": "/api/v1"}, {"path": "/api/v1"}),
    ]
    for options, match in matches:
        assert sandbox.fail_next("error_before_store", **options).match == match
    spread: dict[str, Any] = {"skip": 1, "every": 2, "chance": 0.5, "seed": 3, "times": 4}
    assert sandbox.fail_next("delay", seconds=0.5, **spread).options == spread | {"seconds": 0.5}
    # Without any, a fault of streams meets streams.
    assert sandbox.fail_next("stream_drop", after_events=1).match == {"path": "/api/v1/events/stream"}
    streams = {get_args(kind.model_fields["kind"].annotation)[0] for kind in faults.StreamFault.__subclasses__()}
    assert streams == {kind for kind in faults.KINDS if kind.startswith("stream_")}


def test_fail_next_meets_sends_by_default_and_reads_by_path(sandbox: FluxomailSandbox) -> None:
    sandbox.connect(max_attempts=1)
    send_id = send()
    sandbox.fail_next(404)
    sandbox.fail_next(429, path="/api/v1/sends", retry_after=5)
    hook = FluxomailHook()
    with pytest.raises(FluxomailRateLimitError) as caught:
        hook.get_timeline(send_id)
    hook.close()
    assert caught.value.retry_after == 5
    refused()


def test_pending_faults_are_shown_and_cleared(sandbox: FluxomailSandbox) -> None:
    fault = sandbox.fail_next(503, times=2, to="ops@example.org", headers={"X-Test": "1"})
    assert (fault.kind, fault.met, fault.remaining) == ("status", 0, 2)
    assert fault.match == {"method": "POST", "path": "/api/v1/emails", "recipient": "ops@example.org"}
    assert (fault.options["status"], fault.options["headers"]) == (503, {"X-Test": "1"})
    assert sandbox.fail_next("gzip_garbage", chance=0.5).remaining is None, "a chance has no end by itself"
    sandbox.connect(max_attempts=1)
    refused()
    assert [(one.id, one.met, one.remaining) for one in sandbox.faults()] == [(1, 1, 1), (2, 0, None)]
    sandbox.clear_faults()
    assert sandbox.faults() == []


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda sandbox: sandbox.fail_next("lost"), "kind 'lost' is none of"),
        (lambda sandbox: sandbox.fail_next("delay"), "seconds is missing"),
        (lambda sandbox: sandbox.fail_next(503, retry_afer=3), "retry_afer"),
        (lambda sandbox: sandbox.settings(event_dely=1), "event_dely"),
        (lambda sandbox: sandbox.revoke("a/b"), "there is no key 'a/b'"),
        (lambda sandbox: sandbox.requests(""), "method"),
    ],
)
def test_what_the_sandbox_refuses_is_a_value_error(sandbox: FluxomailSandbox, call: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(sandbox)


# Clock, settings, keys


def test_advance_moves_the_clock(sandbox: FluxomailSandbox) -> None:
    sandbox.settings(event_delay=3600)
    send()
    assert sandbox.message().event_types == ["sent"]
    before = sandbox.now()
    assert sandbox.advance(3600) == pytest.approx(before + 3600, abs=5)
    assert sandbox.now() == pytest.approx(before + 3600, abs=5)
    assert sandbox.message().event_types == ["sent", "delivered"]


def test_settings_are_shown_and_changed(sandbox: FluxomailSandbox) -> None:
    assert sandbox.settings()["event_delay"] == 0
    assert sandbox.settings(event_delay=2, timeline_form="spec")["timeline_form"] == "spec"
    assert sandbox.settings()["event_delay"] == 2


def test_keys_are_made_and_revoked(sandbox: FluxomailSandbox) -> None:
    sandbox.advance(72 - sandbox.now() % 60)  # no rate window ends between two requests
    sandbox.connect(key=sandbox.key("capped", rate_limit_per_minute=1), max_attempts=1)
    send()
    refused(FluxomailRateLimitError)
    sandbox.connect(key=sandbox.key("reader", scopes=("read_sends",)))
    assert "send_email" in str(refused())
    sandbox.connect(key=sandbox.key("short", expires_in=60, organization="org_other"))
    send()
    assert sandbox.messages()[-1].organization == "org_other"
    sandbox.advance(61)
    assert "401" in str(refused())
    sandbox.connect(key=sandbox.key("gone/1?"))
    send()
    sandbox.revoke("gone/1?")
    assert "401" in str(refused())


def test_pause_and_resume(sandbox: FluxomailSandbox) -> None:
    sandbox.pause("org_other")
    send()
    sandbox.pause()
    assert "paused" in str(refused())
    sandbox.resume()
    send()


# Requests


def test_requests_and_the_time_between_them(sandbox: FluxomailSandbox) -> None:
    sandbox.fail_next(503, times=2)
    sandbox.fail_next("cut_before_store", idempotency_key="k2")
    sandbox.connect(max_attempts=3)
    send(key="k1")
    sandbox.connect(max_attempts=1)
    refused(key="k2")
    requests = sandbox.requests()
    assert [one.status for one in requests] == [503, 503, 200, None]
    assert [one.fault for one in requests] == ["status", "status", None, "cut_before_store"]
    assert len(requests.gaps) == 3
    assert all(gap > 0 for gap in requests.gaps)
    assert [one.gap for one in requests] == [None, *requests.gaps]
    assert requests.gaps[0] == requests[1].at - requests[0].at
    assert {(one.method, one.path, one.query) for one in requests} == {("POST", "/api/v1/emails/send", "")}
    assert requests[0].headers["user-agent"].startswith("airflow-provider-fluxomail/")
    assert "authorization" not in requests[0].headers
    assert len(sandbox.requests("POST", "/api/v1/emails", idempotency_key="k1", status=503, fault="status")) == 2
    assert [one.idempotency_key for one in sandbox.requests(status=0)] == ["k2"]
    assert sandbox.requests("GET") == []
    assert sandbox.requests("GET").gaps == []


def test_control_calls_are_not_in_the_log_that_a_test_checks(
    sandbox: FluxomailSandbox, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        sandbox.settings(event_delay=1)
        assert sandbox.messages() == []
    assert caplog.records == []


def test_the_plugin_is_the_installed_one(request: pytest.FixtureRequest) -> None:
    plugin = request.config.pluginmanager.get_plugin("fluxomail")
    assert plugin is not None
    assert Path(str(plugin.__file__)).name == "plugin.py"


def test_what_the_recipient_gets(fluxomail_sandbox: FluxomailSandbox) -> None:
    send(html_content='<a href="https://example.org/report">Report</a>', bcc="boss@example.org")
    message = fluxomail_sandbox.message()
    assert message.html_content == '<a href="https://example.org/report">Report</a>'
    assert f"{fluxomail_sandbox.url}/api/track/click?token=" in (message.delivered_html or "")
    mail = email.message_from_bytes(message.source, policy=email.policy.default)
    assert mail["To"] == "ops@example.org"
    assert b"boss@example.org" not in message.source
    assert message.source is message.source, "it is fetched once"
    fluxomail_sandbox.reset()
    fresh = message.model_copy()
    del fresh.__dict__["source"]
    with pytest.raises(ValueError, match="no message has the send id"):
        fresh.source  # noqa: B018


def test_suppressed_addresses(fluxomail_sandbox: FluxomailSandbox) -> None:
    for to in ("ops@example.org", "ann@example.org"):
        send(to, key=to)
    assert fluxomail_sandbox.unsubscribe(to="ops@example.org").event_types == ["sent", "delivered", "unsubscribed"]
    fluxomail_sandbox.bounce(to="ops@example.org")
    fluxomail_sandbox.complain(to="ann@example.org")
    assert fluxomail_sandbox.suppressions() == {"ops@example.org": "unsubscribed", "ann@example.org": "complained"}
    send(key="again")
    assert fluxomail_sandbox.message(idempotency_key="again").event_types == ["sent", "dropped"]
    fluxomail_sandbox.unsuppress("ops@example.org")
    fluxomail_sandbox.settings(suppression="refuse")
    assert refused(FluxomailValidationError, to="ann@example.org").code == "recipient_suppressed"
    send(key="once-more")
    assert fluxomail_sandbox.message(idempotency_key="once-more").event_types == ["sent", "delivered"]
    with pytest.raises(ValueError, match="is suppressed in the organization"):
        fluxomail_sandbox.unsuppress("ops@example.org")
