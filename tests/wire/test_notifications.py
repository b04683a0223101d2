"""Alerts over the wire: each callback with the context that Airflow gives it, and what can go wrong."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import importlib.util
import json
import logging
import re
import socket
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION, AirflowFailException
from airflow_provider_fluxomail.alerts import alert, sending
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.send_once import asend_once
from tests.support.airflow_facts import CALLBACKS_SEE_THE_EXCEPTION, TASKS_HAVE_A_LOG_URL
from tests.support.airflow_runs import DagRuns
from tests.support.isolation import end_isolation
from tests.support.notifiers import AIRFLOW_3, OPS, URL, Way, base_url_notifiers, by_await, context, log, log_lines, way

__all__ = ["base_url_notifiers", "log", "way"]
pytestmark = pytest.mark.usefixtures("base_url_notifiers", "log")

DEADLINES: Final = importlib.util.find_spec("airflow.sdk") and importlib.util.find_spec("airflow.triggers.callback")


# Kinds of callbacks, run by Airflow


@pytest.mark.parametrize("dag_id", ["alerts_shared", "alerts_each"])
def test_each_callback_of_a_dag_says_what_has_happened(airflow_db: Path, sandbox: Sandbox, dag_id: str) -> None:
    run = DagRuns(airflow_db).run(dag_id, {})
    assert run.states["bad"] == "failed"
    subjects = [mail.subject for mail in sandbox.messages()]
    wanted = {
        *(f"started: {dag_id}.{task}" for task in ("well", "mapped[0]", "mapped[1]", "skips", "bad")),
        *(f"succeeded: {dag_id}.{task}" for task in ("well", "mapped[0]", "mapped[1]")),
        *(f"started: {dag_id}.flaky (try {number} of 2)" for number in (1, 2)),
        *(f"up for retry: {dag_id}.flaky (try 1 of 2)", f"succeeded: {dag_id}.flaky (try 2 of 2)"),
        *(f"failed: {dag_id}.bad", f"skipped: {dag_id}.skips"),
        f"Dag failed: {dag_id} ({run.run_id})",
    }
    if not AIRFLOW_3 and dag_id == "alerts_each":
        # Airflow 2 calls on_success_callback of a skipped task as well.
        wanted.add(f"succeeded: {dag_id}.skips")
    assert sorted(subjects) == sorted(f"[Airflow] {one}" for one in wanted)

    mail = sandbox.message(subject=f"[Airflow] failed: {dag_id}.bad")
    assert f"\nRun:          {run.run_id}\n" in mail.content
    said = CALLBACKS_SEE_THE_EXCEPTION
    assert ("\nValueError: no rows for <address> & co: <bad>\n" in mail.content) is said
    assert ("no rows for &lt;address&gt; &amp; co: &lt;bad&gt;" in str(mail.html_content)) is said
    assert (f"\nOpen the log: {URL}/" in mail.content) is TASKS_HAVE_A_LOG_URL
    assert str(mail.idempotency_key).startswith(f"af1:{dag_id}.bad:")
    whole = sandbox.message(subject=f"[Airflow] Dag failed: {dag_id} ({run.run_id})")
    assert "\nReason:       task failure\n" in whole.content
    # With dag.test(), Airflow 3.0 and 3.1 do not say which.
    named = not (3, 0) <= AIRFLOW_VERSION < (3, 2)
    assert ("\nFailed tasks: bad\n" in whole.content) is named
    assert (">Failed tasks</td>" in str(whole.html_content)) is named
    assert f"\nOpen the run: {URL}/dags/{dag_id}/" in whole.content
    assert "Try:" not in whole.content, "of the run, not of the task that Airflow adds"
    assert str(whole.idempotency_key).startswith(f"af1:{dag_id}:")


@pytest.mark.skipif(not DEADLINES, reason="approvals came with Airflow 3.1")
def test_a_task_that_waits_for_a_person(airflow_db: Path, sandbox: Sandbox) -> None:
    task = DagRuns(airflow_db).load("alerts_approval").get_task("approve")
    (notifier,) = task.notifiers
    # As its execute() does, before it stops to wait.
    notifier(context(task=task, task_id="approve", state=None, end_date=None))
    mail = sandbox.message("boss@example.org")
    assert mail.subject == "[Airflow] input needed: load.approve: Publish the report of {{ dag.dag_id }}?"
    assert "\n20,112 rows\n" in mail.content
    assert "\nAnswers:      Approve, Reject\n" in mail.content
    assert "/required_actions" in mail.content


#: As the scheduler stores it for the callback of a deadline: plain JSON.
DEADLINE: Final[dict[str, Any]] = {
    "dag_run": {
        "dag_run_id": "scheduled__1",
        "dag_id": "load",
        "logical_date": "2026-01-01T02:00:00Z",
        "state": "running",
        "start_date": "2026-01-01T02:00:01Z",
        "end_date": None,
        "conf": {},
        "run_type": "scheduled",
    },
    "deadline": {"id": "019ab0a2-0000-7000-8000-000000000000", "deadline_time": "2026-01-01T03:00:00Z"},
}
MISSED: Final = "[Airflow] deadline missed: load (scheduled__1)"


def deadline(number: int) -> dict[str, Any]:
    return {**DEADLINE, "deadline": {**DEADLINE["deadline"], "id": f"019ab0a2-0000-7000-8000-00000000000{number}"}}


@pytest.mark.skipif(not DEADLINES, reason="Airflow has deadlines from 3.1 on")
def test_deadlines_as_airflow_runs_their_callbacks(sandbox: Sandbox) -> None:
    from airflow.triggers.callback import CallbackTrigger

    path, kwargs = f"{FluxomailNotifier.__module__}.{FluxomailNotifier.__qualname__}", {"to": OPS, "part": "async"}

    async def in_triggerer() -> list[Any]:
        trigger = CallbackTrigger(path, {**kwargs, "context": copy.deepcopy(DEADLINE)})
        return [event.payload["state"] async for event in trigger.run()]

    assert [str(getattr(state, "value", state)) for state in asyncio.run(in_triggerer())] == ["running", "success"]
    mail = sandbox.message(subject=MISSED)
    assert "\nDeadline:     2026-01-01 03:00:00 UTC\n" in mail.content
    assert "\nStarted:      2026-01-01 02:00:01 UTC\n" in mail.content
    assert f"Open the run: {URL}/dags/load/runs/scheduled__1\n" in mail.content


@pytest.mark.skipif(
    not (AIRFLOW_3 and importlib.util.find_spec("airflow.sdk.execution_time.callback_supervisor")),
    reason="Airflow runs callbacks of deadlines in executors from 3.2 on",
)
def test_deadlines_in_an_executor(sandbox: Sandbox) -> None:
    import structlog
    from airflow.sdk.execution_time.callback_supervisor import execute_callback

    path = f"{FluxomailNotifier.__module__}.{FluxomailNotifier.__qualname__}"
    kwargs = {"to": OPS, "context": copy.deepcopy(DEADLINE)}
    assert execute_callback(path, kwargs, Path("dag.py"), None, structlog.get_logger()) == (True, None)
    assert sandbox.message().subject == MISSED


def test_sla_misses_of_airflow_2(sandbox: Sandbox) -> None:
    slas = [SimpleNamespace(task_id=name, execution_date="2026-01-01") for name in ("copy", "b")]
    dag = SimpleNamespace(dag_id="load")
    notifier = FluxomailNotifier(to=OPS)
    for missed in (slas, slas[::-1], slas[:1]):
        notifier(dag, "copy on 2026-01-01", "", missed, [])
    first, _ = sandbox.assert_sent(2)
    assert first.subject == "[Airflow] SLA missed: load"
    assert "\nMissed by:    b, copy\n" in first.content


def test_a_notifier_that_one_list_holds_knows_its_kind(sandbox: Sandbox) -> None:
    """Whatever the state says: of the Dag processor's callbacks it says nothing."""
    for kind in ("failure", "retry", "success", "execute", "skipped"):
        notifier = FluxomailNotifier(to=OPS)
        task = SimpleNamespace(**{f"on_{kind}_callback": [FluxomailNotifier(to="a@example.org"), notifier]})
        notifier(context(task=task, state=None))
        assert f" {alert.TITLES[kind]}: load.copy (try 1 of 3)" in sandbox.messages()[-1].subject


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"state": "failed"}, "failure"),
        ({"state": SimpleNamespace(value="up_for_retry")}, "retry"),
        ({"state": "success"}, "success"),
        ({"state": "skipped"}, "skipped"),
        ({"state": "running", "exception": ValueError()}, "retry"),
        ({"state": "running", "exception": ValueError(), "try_number": 3}, "failure"),
        ({"state": None, "exception": AirflowFailException()}, "failure"),
        ({"state": None}, "success" if AIRFLOW_3 else "other"),
        ({"state": None, "end_date": None}, "other"),
        ({"state": None, "end_date": None, "task": SimpleNamespace(on_execute_callback=[print])}, "execute"),
        ({"state": None, "end_date": None, "start_date": None}, "retry" if AIRFLOW_3 else "other"),
    ],
)
def test_a_notifier_that_a_function_calls_guesses_its_kind(sandbox: Sandbox, fields: Any, kind: str) -> None:
    FluxomailNotifier(to=OPS)(context(**fields))
    number = fields.get("try_number", 1)
    assert sandbox.message().subject == f"[Airflow] {alert.TITLES[kind]}: load.copy (try {number} of 3)"


# Keys


def test_what_makes_two_alerts(sandbox: Sandbox) -> None:
    """Each difference between two events, two notifiers and two deployments is an email of its own."""
    events: list[dict[str, Any]] = [
        *({}, {"try_number": 2}, {"state": "up_for_retry"}, {"task_id": "b"}, {"dag_id": "b"}, {"map_index": 0}),
        *({"reason": "task_failure", "dag_run": SimpleNamespace(clear_number=number)} for number in (0, 1)),
        {"run_id": "b"},
    ]
    others: list[dict[str, Any]] = [
        *({"part": "b"}, {"subject": "Other"}, {"content": "Other"}, {"html_content": "<p>Other</p>"}),
        *({"extra_fields": {"replyTo": "a@example.org"}}, {"policy_key": "b"}, {"to": "b@example.org"}),
    ]
    contexts = [*(context(**event) for event in events), *(deadline(number) for number in (0, 0, 1))]
    for given, fields in [*((given, {}) for given in contexts), *((context(), fields) for fields in others)]:
        FluxomailNotifier(**{"to": OPS, **fields})(given)
    sandbox.assert_sent(len(contexts) + len(others) - 1)
    sandbox.connect(idempotency_namespace="staging")
    FluxomailNotifier(to=OPS)(context())
    sandbox.assert_sent(len(contexts) + len(others))


def test_what_says_nothing_of_an_alert_is_not_in_its_key(sandbox: Sandbox) -> None:
    FluxomailNotifier(to=OPS)(context())
    FluxomailNotifier(to=["a@example.org", f"Ops <{OPS.upper()}>"], time_limit=20)(context(exception=ValueError()))
    assert sorted(mail.to for mail in sandbox.assert_sent(2)) == ["a@example.org", OPS]


def test_nothing_known_is_never_taken_for_a_repetition(sandbox: Sandbox, way: Way) -> None:
    for _ in range(2):
        way(FluxomailNotifier(to=OPS), {})
    assert {mail.subject for mail in sandbox.assert_sent(2)} == {"[Airflow] alert: Airflow"}


# What it says


def test_a_notifier_that_is_used_again_says_what_happened_now(sandbox: Sandbox, way: Way) -> None:
    """Airflow renders a notifier's fields in place: the second task would repeat the words of the first."""
    notifier = FluxomailNotifier(
        to="{{ ti.task_id }}@example.org", subject="{{ ti.task_id }}", content="{{ ti.task_id }}!"
    )
    before = dict(vars(notifier))
    for task_id in ("one", "two"):
        given = context(task_id=task_id)
        way(notifier, given)
        assert set(given) == {"ti", "run_id"}, "the next callback gets this context too"
    assert [(mail.to, mail.subject, mail.content) for mail in sandbox.messages()] == [
        (f"{name}@example.org", name, f"{name}!") for name in ("one", "two")
    ]
    assert {**vars(notifier), "context": {}} == {**before, "context": {}}


class Supervisor:
    """Airflow's supervisor, for a process of its Dag processor."""

    def __init__(self, states: dict[str, Any] | Exception) -> None:
        self._states = states

    def send(self, question: Any) -> Any:
        if type(question).__name__ == "MaskSecret":
            # Airflow 3.0 masks a connection's password in this way.
            return None
        if type(question).__name__ != "GetTaskStates":
            raise RuntimeError("the environment has the connection")
        assert (question.dag_id, question.run_ids) == ("load", ["run_1"])
        if isinstance(self._states, Exception):
            raise self._states
        return SimpleNamespace(task_states={"run_1": self._states} if self._states else {})


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="the Dag processor can request states since Airflow 3.1")
@pytest.mark.parametrize("with_ti", [True, False])
def test_the_alert_of_a_run_names_the_tasks_that_failed(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, with_ti: bool
) -> None:
    from airflow.sdk.execution_time import task_runner

    mapped = {"copy": "failed", "load_10": "failed", "load_2": "failed", "after": "upstream_failed"}
    like_mapped = {"v_2": "failed", "other_3": "failed", "copy": "success", "new": None}
    many: dict[str, Any] = {f"v{number:02}": "failed" for number in range(22)}
    dag = SimpleNamespace(dag_id="load", task_dict=dict.fromkeys(["copy", "load", "after", "v_2", "v"]))
    given = context(reason="task_failure", dag=dag, dag_run=SimpleNamespace(clear_number=0))
    cases: list[tuple[dict[str, Any], str | None]] = [
        (mapped, "copy, load[2], load[10]"),
        (like_mapped, "other_3, v_2"),
        (many, ", ".join(f"v{n:02}" for n in range(20)) + " and 2 more"),
        *(({"copy": "success"}, None), ({}, None)),
    ]
    for number, (states, names) in enumerate(cases):
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(states), raising=False)
        notifier = FluxomailNotifier(to=OPS, part=str(number))
        notifier(given if with_ti else {"run_id": "run_1", "reason": "task_failure", "dag": dag})
        content = sandbox.messages()[-1].content
        lines = [line for line in content.splitlines() if line.startswith("Failed tasks:")]
        assert lines == ([f"Failed tasks: {names}"] if names else [])


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 reads its database")
@pytest.mark.parametrize(("reason", "name"), [("task_failure", "copy[4]"), ("timed_out", None)])
def test_where_airflow_gives_no_states_the_alert_names_at_most_the_task_that_failed_last(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, reason: str, name: str | None
) -> None:
    from airflow.sdk.execution_time import task_runner

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(RuntimeError("away")), raising=False)
    FluxomailNotifier(to=OPS)(context(map_index=4, reason=reason, dag_run=SimpleNamespace(clear_number=0)))
    content = sandbox.message().content
    assert (f"Failed tasks: {name}\n" in content) is bool(name and AIRFLOW_VERSION >= (3, 2))
    assert ("Failed tasks" in content) is bool(name and AIRFLOW_VERSION >= (3, 2))


def test_the_words_of_the_default_email(sandbox: Sandbox) -> None:
    FluxomailNotifier(to=OPS)(
        context(map_index=3, try_number=2, rendered_map_index="emea", exception=ValueError("Rows:\n  none <b>"))
    )
    mail = sandbox.message()
    assert mail.subject == "[Airflow] failed: load.copy[3] (try 2 of 3)"
    assert mail.content.strip() == (
        "Failed: load.copy[3]\n\n"
        "Dag:          load\nTask:         copy\nMap index:    3 (emea)\nRun:          run_1\nTry:          2 of 3\n"
        "Started:      2026-01-01 00:00:00 UTC\nEnded:        2026-01-01 00:02:05 UTC\nDuration:     2 min 5 s\n\n"
        "ValueError: Rows:\n  none <b>\n\n"
        "Open the log: https://airflow.example.org/dags/load?a=1&b=2"
    )
    assert "ValueError: Rows:\n  none &lt;b&gt;" in str(mail.html_content)
    assert 'href="https://airflow.example.org/dags/load?a=1&amp;b=2"' in str(mail.html_content)


def test_own_words_know_all_of_the_alert(sandbox: Sandbox) -> None:
    FluxomailNotifier(
        to=OPS,
        subject="{{ alert.title }}:\n {{ alert.name }}",
        html_content="<p>{{ alert.exception | e }}, {{ alert.url }}, {{ ti.try_number }}, {{ alert.kind }}</p>",
        extra_fields={"replyTo": "{{ ti.task_id }}@example.org"},
    )(context(exception=ValueError("<x>")))
    mail = sandbox.message()
    assert mail.subject == "failed: load.copy"
    url = "https://airflow.example.org/dags/load?a=1&b=2"
    assert mail.html_content == f"<p>ValueError: &lt;x&gt;, {url}, 1, failure</p>"
    assert mail.content == f"ValueError: <x>, {url}, 1, failure", "made from the HTML"
    assert mail.extra_fields == {"replyTo": "copy@example.org"}


def test_template_files(sandbox: Sandbox, tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    import pendulum

    from tests.support.airflow_names import DAG

    (tmp_path / "alert.html").write_text("<p>{{ alert.name }}</p>")
    (tmp_path / "subject.j2").write_text("{{ alert.title }}\n")
    dag = DAG("load", schedule=None, start_date=pendulum.datetime(2026, 1, 1), template_searchpath=[str(tmp_path)])
    FluxomailNotifier(to=OPS, subject="subject.j2", html_content="alert.html")(context(dag=dag))
    # A deadline's callback has no Dag to search in.
    FluxomailNotifier(to=OPS, subject="Report.html is late", html_content=str(tmp_path / "alert.html"))(DEADLINE)
    assert [(mail.subject, mail.html_content) for mail in sandbox.messages()] == [
        ("failed", "<p>load.copy</p>"),
        ("Report.html is late", "<p>load</p>"),
    ]
    assert log_lines(log) == []


def test_an_alert_in_other_words_is_better_than_none(sandbox: Sandbox, log: pytest.LogCaptureFixture) -> None:
    wrong: list[dict[str, Any]] = [
        {"subject": "{{ ti.task_id }}", "content": "{{ ti.task_id.upper() }}"},
        {"subject": "{{ ti", "content": "{% x %}"},
        *({"html_content": "alert.html"}, {"content": "/no/such/file.txt"}),
    ]
    for fields in wrong:
        log.clear()
        FluxomailNotifier(to=OPS, **fields)(DEADLINE)
        mail = sandbox.messages()[-1]
        assert mail.subject == MISSED
        assert "Deadline missed" in mail.content
        assert ["using the default text" in line for line in log_lines(log)] == [True] * len(fields)
    sandbox.assert_sent(len(wrong))


def test_the_subject_is_never_empty_nor_long(sandbox: Sandbox) -> None:
    empty = (None, "", "  ", "{{ '' }}", "\n\t")
    for number, subject in enumerate(empty):
        notifier = FluxomailNotifier(to=OPS, subject=subject, content="{{ '' }}", part=str(number))
        notifier({"run_id": "run_1", "reason": "success"})
    for mail in sandbox.assert_sent(len(empty)):
        assert mail.subject == "[Airflow] Dag succeeded: Airflow (run_1)"
        assert mail.content
        assert mail.html_content
    FluxomailNotifier(to=OPS)(context(dag_id="d" * 250, task_id="t" * 250))
    assert len(sandbox.messages()[-1].subject) == alert.MAX_SUBJECT


@pytest.mark.parametrize(
    ("written", "subject"),
    [
        # A family, a flag of letters, emoji newer than any interpreter, Persian and Arabic with their joiners.
        *(2 * ("\U0001f468\u200d\U0001f469\u200d\U0001f467",), 2 * ("\U0001f3f4\U000e0067\U000e007f",)),
        *(2 * ("\u2764\ufe0f \U0001fabc \U0001fbfa",), 2 * ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",)),
        2 * ("soft\u00adhyphen",),
        ("a\x00b\x1b[0m\tc\r\nd\u2028e\x85f\x7fg\ud800h", "a b [0m c d e f g\ufffdh"),
    ],
)  # fmt: skip
def test_a_subject_loses_control_characters_only(sandbox: Sandbox, written: str, subject: str) -> None:
    FluxomailNotifier(to=OPS, subject=written, content="Text")(context())
    assert sandbox.message().subject == subject


@pytest.mark.parametrize(
    "exception",
    [ValueError("x" * 2**22), ValueError("line\n" * 2**19), ValueError("half \ud800 of a character")],
    ids=["long", "lines", "half"],
)
@pytest.mark.parametrize(
    "words",
    [
        {"content": "It failed: {{ exception }}\nLog: {{ alert.url }}"},
        {"html_content": "<p>It failed: {{ exception | e }}</p><a href='{{ alert.url }}'>Log</a>"},
        {"subject": "{{ exception }}"},
        {},
    ],
    ids=lambda words: next(iter(words), "default"),
)
def test_an_alert_about_any_exception_arrives_with_its_link(
    sandbox: Sandbox, way: Way, exception: ValueError, words: dict[str, Any]
) -> None:
    way(FluxomailNotifier(to=OPS, **words), context(exception=exception, rendered_map_index="m" * 2**20, map_index=1))
    mail = sandbox.message()
    for body in (mail.content, mail.html_content):
        assert len(str(body)) < 600_000
    assert URL in mail.content
    cut = any("content" in name for name in words) and len(str(exception)) > 1000
    assert (
        bool(re.search(rf"\[[\d,]+ characters are left out here: see the log of the task at {URL}", mail.content))
        is cut
    )


class Nothing:
    """A row without its session, or worse."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_whatever_a_context_lacks(sandbox: Sandbox) -> None:
    unreadable = {"ti": Nothing(), "dag_run": Nothing(), "task": Nothing()}
    for given in (unreadable, {"ti": None, "dag_run": {"dag_id": 1}, "reason": None}):
        FluxomailNotifier(to=OPS)(given)
    assert all(mail.subject for mail in sandbox.assert_sent(2))


# Recipients


def test_each_recipient_gets_an_email_and_one_that_is_refused_keeps_it_from_nobody(
    sandbox: Sandbox, way: Way, log: pytest.LogCaptureFixture
) -> None:
    sandbox.fail_next(400, to="refused@example.org", times=None)
    people = [f"p{number}@example.org" for number in range(7)]
    way(FluxomailNotifier(to=["refused@example.org", "not an address", str(people[:3]), *people[2:]]), context())
    assert sorted(mail.to for mail in sandbox.messages()) == people
    assert ["FluxomailValidationError" in line for line in log_lines(log)] == [True, True]
    assert "recipient 1 of 9" in log_lines(log)[0]
    assert "recipient 2 of 9" in log_lines(log)[1]


def test_an_unexpected_error_of_one_recipient_is_that_ones(
    sandbox: Sandbox, way: Way, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UnprintableError(Exception):
        def __str__(self) -> str:
            raise LookupError("veiled")

    def fails(message: Any, *args: Any, **how: Any) -> Any:
        if message.to != OPS:
            raise UnprintableError
        return asend_once(message, *args, **how)

    monkeypatch.setattr(sending, "asend_once", fails)
    way(FluxomailNotifier(to=["bad@example.org", OPS]), context())
    sandbox.assert_sent(1)
    (line,) = log_lines(log)
    assert "recipient 1 of 2 was not sent: FluxomailError: unexpected UnprintableError in test_notifications.py" in line


# Nothing of it reaches the callback


@pytest.mark.usefixtures("airflow_db")
def test_it_never_raises(sandbox: Sandbox, way: Way, log: pytest.LogCaptureFixture) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"to": ""}, "to came out empty"),
        ({"to": None}, "to came out empty"),
        ({"to": 5}, "to must be an address or a list of addresses"),
        ({"to": "{{ nothing.here }}"}, "UndefinedError"),
        ({"fluxomail_conn_id": "nowhere"}, "nowhere"),
        ({"extra_fields": {"to": "x@example.org"}}, "extra_fields"),
        ({"part": "{{ nothing.here }}"}, "UndefinedError"),
    ]
    for fields, reason in wrong:
        log.clear()
        way(FluxomailNotifier(**{"to": OPS, **fields}), context())
        (line,) = log_lines(log)
        assert "not sent" in line
        assert reason in line
    sandbox.connect(max_attempts=1)
    for status in (401, 422, 429, 500):
        log.clear()
        sandbox.fail_next(status)
        way(FluxomailNotifier(to=OPS), context())
        (line,) = log_lines(log)
        assert "not sent" in line
        assert f"status {status}" in line
    sandbox.assert_sent(0)


# Time. Nothing here measures any: each test would hang, not be slow.

HANGS: Final = 170.0


@pytest.mark.parametrize(
    ("kind", "options"), [("delay", {"seconds": HANGS}), (429, {"retry_after": HANGS}), (503, {"retry_after": HANGS})]
)
def test_a_slow_server_holds_nobody(
    sandbox: Sandbox, way: Way, log: pytest.LogCaptureFixture, kind: Any, options: dict[str, Any]
) -> None:
    sandbox.connect(timeout=2 * HANGS, max_wait=2 * HANGS)
    sandbox.fail_next(kind, times=None, to="slow@example.org", **options)
    way(FluxomailNotifier(to=["slow@example.org", OPS], time_limit=3), context())
    (line,) = log_lines(log)
    assert "recipient 1 of 2" in line
    sandbox.message(OPS)


def test_a_name_that_is_looked_up_for_ever_holds_nobody(
    sandbox: Sandbox, way: Way, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, over, real = threading.Event(), threading.Event(), socket.getaddrinfo
    lookups: list[threading.Thread] = []

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if b"slow.example" not in host.encode() if isinstance(host, str) else b"slow.example" not in host:
            return real(host, *args, **kwargs)
        lookups.append(threading.current_thread())
        began.set()
        over.wait(HANGS)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    class Released(FluxomailNotifier):
        async def async_notify(self, context: Any) -> None:
            await super().async_notify(context)
            over.set()  # the end of an event loop waits for its threads

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    sandbox.connect(host="https://slow.example")
    end_isolation(monkeypatch)
    way(Released(to=OPS, time_limit=3), context())
    over.set()
    assert began.is_set()
    (line,) = log_lines(log)
    assert "timed out after time_limit" in line
    if way is not by_await:
        assert lookups[0].daemon, "a process that ends would wait for any other thread"


def test_a_time_limit_that_is_none(sandbox: Sandbox, log: pytest.LogCaptureFixture) -> None:
    limits: list[Any] = [0, -1, float("nan"), float("inf"), "30", None, True]
    for number, limit in enumerate(limits, 1):
        FluxomailNotifier(to=OPS, time_limit=limit, part=str(number))(context())
        assert "time_limit" in log_lines(log)[-1]
        sandbox.assert_sent(number)
    assert len(log_lines(log)) == len(limits)


def test_the_thread_that_sends_has_the_callers_context(sandbox: Sandbox, log: pytest.LogCaptureFixture) -> None:
    """Airflow 3 keeps in it where a task's log goes."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    found: list[tuple[threading.Thread, str | None]] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append((threading.current_thread(), variable.get(None)))

    sandbox.connect(redirect_to="qa@example.org")
    variable.set("of the caller")
    logger, reader = logging.getLogger("airflow_provider_fluxomail.metrics"), Reader()
    log.set_level(logging.INFO, logger.name)
    logger.addHandler(reader)
    FluxomailNotifier(to=OPS)(context())
    logger.removeHandler(reader)
    ((thread, value),) = found
    assert (thread is threading.current_thread(), value) == (False, "of the caller")


# As Airflow holds it


def test_it_can_be_copied_and_stored(sandbox: Sandbox) -> None:
    """Dags are copied; arguments of a deadline's callback are stored as JSON."""
    arguments = json.loads(json.dumps({"to": [OPS], "subject": "Hi", "extra_fields": {"a": 1}, "time_limit": 10}))
    copy.deepcopy(FluxomailNotifier(**arguments))(context())
    FluxomailNotifier(**arguments)(context())
    sandbox.assert_sent(1)
