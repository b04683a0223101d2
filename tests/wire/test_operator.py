"""FluxomailSendOperator against the sandbox, run as Airflow runs a task."""

from __future__ import annotations

import json
import logging
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import Asset
from airflow_provider_fluxomail.client.errors import FluxomailRateLimitError, FluxomailServerError
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.operators import FluxomailSendOperator, Unrecorded
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger, FluxomailRetryAfterTrigger
from tests.support.airflow_names import DAG
from tests.support.running import Run, context
from tests.support.timing import quick_waits


def operator(**fields: Any) -> FluxomailSendOperator:
    message = {"to": "ops@example.org", "subject": "Hi", "content": "Text", "deferrable": False}
    return FluxomailSendOperator(task_id="task", **{**message, **fields})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Defer at once and resume at once: outside a scheduler nothing kills a task that resumes too soon."""
    quick_waits(monkeypatch)


def test_the_result(sandbox: Sandbox) -> None:
    run = Run(operator())
    (mail,) = sandbox.messages()
    assert set(run.result) == {"send_id", "message_id", "status", "reused", "idempotency_key", "request_id"}
    assert run.result["send_id"] == mail.send_id
    assert run.result["message_id"] == mail.message_id
    assert run.result["idempotency_key"] == mail.idempotency_key
    assert str(mail.idempotency_key).startswith("af1:dag.task:")
    assert json.loads(json.dumps(run.result)) == run.result


def test_promise_2_retries_send_once_and_clears_only_if_asked(sandbox: Sandbox) -> None:
    for resend, mails in ((False, 1), (True, 3)):
        for max_tries, try_number in ((3, 1), (3, 2), (5, 3)):
            run = Run(operator(resend_on_clear=resend), context(max_tries=max_tries, try_number=try_number))
            assert run.kind == "success"
        assert len(sandbox.messages()) == mails


def test_mapped_tasks_send_one_each(sandbox: Sandbox) -> None:
    for map_index in (0, 1, 2):
        Run(operator(), context(map_index=map_index))
        Run(operator(idempotency_key="mine"), context(map_index=map_index))
    keys = [mail.idempotency_key for mail in sandbox.messages()]
    assert len(set(keys)) == 6
    assert {"mine:0", "mine:1", "mine:2"} < set(keys)


def test_the_namespace_is_part_of_the_key(sandbox: Sandbox) -> None:
    for namespace in ("", "eu", "us"):
        sandbox.connect(idempotency_namespace=namespace)
        Run(operator())
    assert len(sandbox.messages()) == 3


@pytest.mark.parametrize(
    ("fault", "mails"),
    [
        ({"kind": "response_lost_after_store"}, 1),
        ({"kind": "error_after_store"}, 1),
        ({"kind": "error_before_store"}, 0),
    ],
)
def test_promise_1_a_try_that_fails_leaves_at_most_one_mail_and_the_next_one_exactly_one(
    sandbox: Sandbox, fault: dict[str, Any], mails: int
) -> None:
    sandbox.connect(max_attempts=2, max_wait=2)
    sandbox.fail_next(**fault, times=2)
    first = Run(operator())
    assert first.kind in ("FluxomailServerError", "FluxomailConnectionError"), "transient: Airflow retries it"
    assert len(sandbox.messages()) == mails
    second = Run(operator(), context(try_number=2))
    assert second.kind == "success"
    assert second.result["reused"] is bool(mails)
    assert len(sandbox.messages()) == 1


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"to": ""}, "to is empty"),
        ({"to": None}, "to is empty"),
        ({"to": "a@example.org, b@example.org"}, ".expand(to=[...])"),
        ({"subject": "a\nb"}, "subject holds a line break"),
        ({"content": None}, "content is empty"),
        ({"attachments": ["/no/such/file"]}, "attachments[0]"),
        ({"attachments": ["x"] * 6}, "at most 5"),
        ({"extra_fields": {"to": "x"}}, "extra_fields"),
        ({"idempotency_key": ""}, "idempotency_key came out empty"),
        ({"idempotency_key": "None"}, "idempotency_key came out empty"),
        ({"subject": 2026}, "does the Dag render native objects?"),
        ({"idempotency_key": "a\nb"}, "idempotency_key holds a line break"),
        ({"wait_for": "arrived"}, "unknown target 'arrived'"),
        ({"wait_for": "opened"}, "needs html_content"),
        ({"wait_for": "clicked"}, "needs html_content"),
        ({"wait_timeout": -1}, "wait_timeout must be"),
        ({"poll_interval": timedelta(seconds=-1)}, "poll_interval must be"),
        ({"max_rate_limit_wait": float("nan")}, "max_rate_limit_wait must be"),
        ({"wait_timeout": "soon"}, "wait_timeout must be"),
    ],
)
def test_bad_input_is_named_and_nothing_is_sent(sandbox: Sandbox, fields: dict[str, Any], told: str) -> None:
    run = Run(operator(**fields))
    assert run.kind == "AirflowFailException", "no retry mends it"
    assert told in str(run.error)
    assert sandbox.requests() == []


def test_permanent_errors_do_not_use_up_retries(sandbox: Sandbox) -> None:
    sandbox.connect(key="wrong")
    assert Run(operator()).kind == "AirflowFailException"
    sandbox.connect(key="")
    run = Run(operator())
    assert run.kind == "AirflowFailException"
    assert "no API key" in str(run.error)
    sandbox.connect()
    sandbox.pause()
    run = Run(operator())
    assert run.kind == "AirflowFailException"
    assert "FluxomailTenantPausedError" in str(run.error)


def test_a_long_rate_limit_without_deferral_is_airflows_to_retry(sandbox: Sandbox) -> None:
    sandbox.fail_next(429, retry_after=100)
    run = Run(operator())
    assert isinstance(run.error, FluxomailRateLimitError)
    assert run.error.retry_after == 100
    assert run.deferrals == []


def test_promise_4_a_long_rate_limit_defers_and_then_sends_with_the_same_key(sandbox: Sandbox, quick: None) -> None:
    sandbox.connect(max_wait=0)
    sandbox.fail_next(429, times=2, retry_after=0.1)
    run = Run(operator(deferrable=True), context())
    assert run.kind == "success"
    assert [type(deferral.trigger) for deferral in run.deferrals] == [FluxomailRetryAfterTrigger] * 2
    assert {request.idempotency_key for request in sandbox.requests("POST")} == {run.result["idempotency_key"]}
    assert len(sandbox.messages()) == 1
    first, second = run.deferrals
    assert second.trigger.serialize()[1]["give_up_at"] == first.trigger.serialize()[1]["give_up_at"]


def test_deferrals_for_a_rate_limit_are_spread_and_bounded(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    resumes = set()
    for _ in range(5):
        sandbox.fail_next(429, retry_after=100)
        with pytest.raises(BaseException) as caught:
            operator(deferrable=True).execute(context())
        trigger = caught.value.trigger  # type: ignore[attr-defined]
        resumes.add(round(trigger.resume_at - now(), 3))
        assert 99 < trigger.resume_at - now() <= 126
    assert len(resumes) > 1
    sandbox.fail_next(429, retry_after=100)
    run = Run(operator(deferrable=True, max_rate_limit_wait=99))
    assert isinstance(run.error, FluxomailRateLimitError)
    assert run.deferrals == []


@pytest.mark.parametrize(("asked", "limit", "least", "most"), [(0.5, 3600, 8, 19), (3590, 3600, 3590, 3601)])
def test_a_deferral_is_neither_too_short_for_airflow_nor_longer_than_allowed(
    sandbox: Sandbox, asked: float, limit: float, least: float, most: float
) -> None:
    sandbox.connect(max_wait=0)
    sandbox.fail_next(429, retry_after=asked)
    with pytest.raises(BaseException) as caught:
        operator(deferrable=True, max_rate_limit_wait=limit).execute(context())
    assert least - 0.5 < caught.value.trigger.resume_at - now() <= most  # type: ignore[attr-defined]


def test_a_rate_limit_that_names_no_time_defers_for_a_minute(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(429)
    with pytest.raises(BaseException) as caught:
        operator(deferrable=True).execute(context())
    assert 59 < caught.value.trigger.resume_at - now() <= 76  # type: ignore[attr-defined]


def test_a_trigger_that_comes_back_with_nonsense_still_sends_once(sandbox: Sandbox) -> None:
    task = operator(deferrable=True)
    assert task.send_after_rate_limit(context(), event=None)["send_id"]
    assert task.send_after_rate_limit(context(), event={"give_up_at": "x"})["reused"]
    assert len(sandbox.messages()) == 1


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(
    ("to", "target", "kind"),
    [
        ("ops@example.org", "delivered", "success"),
        ("opened@example.org", "opened", "success"),
        ("clicked@example.org", "opened", "success"),
        ("bounced@example.org", "delivered", "AirflowFailException"),
        ("dropped@example.org", "delivered", "AirflowFailException"),
        ("never@example.org", "delivered", "AirflowFailException"),
    ],
)
def test_promise_3_wait_for(sandbox: Sandbox, quick: None, to: str, target: str, kind: str, deferrable: bool) -> None:
    sandbox.settings(event_delay=0.3)
    task = operator(
        to=to, html_content="<p>Hi</p>", wait_for=target, wait_timeout=1.5, poll_interval=0.1, deferrable=deferrable
    )
    run = Run(task)
    assert run.kind == kind, run.error
    # On a slow machine the event may be there at the first look.
    deferred = deferrable and len(sandbox.requests("GET")) > 1
    assert [type(deferral.trigger) for deferral in run.deferrals] == [FluxomailDeliveryTrigger] * deferred
    (mail,) = sandbox.messages()
    if kind == "success":
        assert run.result["send_id"] == mail.send_id
        assert run.result["idempotency_key"] == mail.idempotency_key
        assert run.result["event"] in (target, "clicked")
        assert run.result["time"].endswith("Z")
    else:
        assert mail.send_id in str(run.error)


def test_wait_for_ends_in_the_worker_when_the_mail_is_quick(sandbox: Sandbox) -> None:
    run = Run(operator(wait_for="delivered", deferrable=True))
    assert run.result["event"] == "delivered"
    assert run.deferrals == []


@pytest.mark.parametrize("event", [None, {}, {"status": "fine"}])
def test_a_wait_does_not_go_green_on_nonsense(sandbox: Sandbox, event: Any) -> None:
    with pytest.raises(Exception, match="is not the outcome of a wait"):
        operator(wait_for="delivered").execute_complete(context(), event=event)


def test_a_5xx_that_lasts_is_airflows_to_retry(sandbox: Sandbox) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next("error_before_store")
    assert isinstance(Run(operator()).error, FluxomailServerError)


def render(task: FluxomailSendOperator, tmp_path: Path, **values: Any) -> FluxomailSendOperator:
    with DAG(dag_id="d", schedule=None, template_searchpath=[str(tmp_path)]) as dag:
        dag.add_task(task)
    task.resolve_template_files()
    task.render_template_fields({"params": values, **values})  # type: ignore[typeddict-item]
    return task


def test_every_message_field_is_templated(tmp_path: Path) -> None:
    names = ["to", "subject", "content", "html_content", "policy_key", "idempotency_key", "fluxomail_conn_id"]
    task = operator(
        **dict.fromkeys(names, "{{ word }}"),
        cc=["{{ word }}"],
        bcc="{{ word }}",
        attachments=["/tmp/{{ word }}.txt", {"filename": "{{ word }}", "content": "x"}],
        extra_fields={"replyTo": "{{ word }}"},
    )
    render(task, tmp_path, word="rendered")
    assert {getattr(task, name) for name in names} == {"rendered"}
    assert (task.cc, task.bcc, task.extra_fields) == (["rendered"], "rendered", {"replyTo": "rendered"})
    assert task.attachments == ["/tmp/rendered.txt", {"filename": "rendered", "content": "x"}]
    assert set(names) < set(task.template_fields)


def test_only_bodies_are_names_of_template_files(tmp_path: Path) -> None:
    (tmp_path / "mail.txt").write_text("Text for {{ word }}")
    (tmp_path / "mail.html").write_text("<p>{{ word }}</p>")
    task = operator(
        to="{{ word }}@example.md",
        subject="About report.txt",
        content="mail.txt",
        html_content=Unrecorded("mail.html"),
        attachments=["/data/rows.txt"],
        cc="a@example.md",
        idempotency_key="key.md",
    )
    render(task, tmp_path, word="Ada")
    assert (task.to, task.subject, task.cc) == ("Ada@example.md", "About report.txt", "a@example.md")
    assert (task.attachments, task.idempotency_key) == (["/data/rows.txt"], "key.md")
    assert task.content == "Text for Ada"
    assert task.html_content.text == "<p>Ada</p>"  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["https://example.org/report.html", "See report.html", "Two\nlines.txt"])
def test_a_body_that_ends_like_a_file_name_is_a_body(tmp_path: Path, text: str) -> None:
    assert render(operator(content=text), tmp_path).content == text


def test_a_template_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nosuch\.html"):
        render(operator(content="nosuch.html"), tmp_path)


def test_promise_5_an_unrecorded_body_is_sent_but_not_shown(sandbox: Sandbox, tmp_path: Path) -> None:
    task = render(operator(content=Unrecorded("Code {{ word }}")), tmp_path, word="123456")
    assert (str(task.content), repr(task.content)) == ("***", "***")
    Run(task)
    assert [mail.content for mail in sandbox.messages()] == ["Code 123456"]


def test_an_unrecorded_body_is_rendered_for_each_task_anew(tmp_path: Path) -> None:
    """Mapped tasks share the object that the Dag holds; one must not get the text of another."""
    shared = Unrecorded("Code {{ word }}")
    tasks = [render(operator(content=shared), tmp_path, word=word) for word in ("111111", "{{ 7 * 7 }}")]
    tasks.append(render(operator(content=shared), tmp_path, word="333333"))
    texts = [task.content.text for task in tasks]  # type: ignore[union-attr]
    assert texts == ["Code 111111", "Code {{ 7 * 7 }}", "Code 333333"]
    assert shared.text == "Code {{ word }}"


def test_promise_5_no_recipient_and_no_body_in_the_log(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one in (FluxomailSendOperator, FluxomailDeliveryTrigger):
        monkeypatch.setattr(one, "log", logging.getLogger("airflow.task"))
    sandbox.settings(event_delay=0.2)
    sandbox.fail_next("response_lost_after_store")
    with caplog.at_level("INFO"):
        run = Run(
            operator(
                to="ada@example.org", content="secret words", wait_for="delivered", deferrable=True, poll_interval=0.1
            )
        )
    assert run.kind == "success", run.error
    assert "Fluxomail had already accepted send" in caplog.text
    for private in ("ada@example.org", "secret words", "fm_sandbox"):
        assert private not in caplog.text
        assert private not in json.dumps([deferral.trigger.serialize() for deferral in run.deferrals])


@pytest.mark.parametrize("wait_for", [None, "delivered"])
def test_events_of_outlets_say_which_message_it_was(sandbox: Sandbox, wait_for: str | None) -> None:
    class Events:
        """Airflow's accessor, which makes an entry for whatever is asked for."""

        def __init__(self) -> None:
            self.made: dict[str, Any] = {}

        def __getitem__(self, asset: Any) -> Any:
            return self.made.setdefault(asset.uri, SimpleNamespace(extra={"own": 1}))

    events = Events()
    task = FluxomailSendOperator(
        task_id="task",
        to="ops@example.org",
        subject="Hi",
        content="Text",
        wait_for=wait_for,
        outlets=[Asset("x://sent")],
    )
    run = Run(task, {**context(), "outlet_events": events})
    assert run.kind == "success", run.error
    sent = {name: run.result[name] for name in ("send_id", "message_id")}
    (made,) = events.made.values()
    assert made.extra == {"own": 1, **sent}
