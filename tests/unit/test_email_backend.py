"""What the backend makes of a subject that holds Airflow's record of a task."""

from __future__ import annotations

import dataclasses
import importlib.util
import uuid
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import BaseOperator
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.email_backend import TaskFailure

AIRFLOW_3 = importlib.util.find_spec("airflow.sdk") is not None
INSTANCE = "01a215d1-d71e-7bcb-a3cb-1a8a57477fae"
RUN = "manual__2026-11-26T03:06:43.162776+00:00"
#: As Airflow 3.3.2 writes it.
RECORD = (
    f"id=UUID('{INSTANCE}') task_id='fails' dag_id='alerts' run_id='{RUN}' try_number=2 "
    "dag_version_id=UUID('01a215d1-d704-7048-a8d4-ded869c29f7e') map_index=-1 hostname='vm' context_carrier=None "
    "queue='default' task=<Task(_PythonDecoratedOperator): fails> max_tries=1 "
    "start_date=datetime.datetime(2026, 11, 26, 3, 6, 44, 221455, tzinfo=datetime.timezone.utc) end_date=None "
    "state=<TaskInstanceState.FAILED: 'failed'> is_mapped=False rendered_map_index=None sentry_integration=''"
)


def told(subject: str) -> str:
    failure = TaskFailure.told_by(subject)
    assert failure is not None
    return failure.subject


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({}, f"Airflow alert: alerts.fails {RUN} [failed] try 2"),
        ({"Airflow alert: ": ""}, f"alerts.fails {RUN} [failed] try 2"),
        ({"map_index=-1": "map_index=3"}, f"Airflow alert: alerts.fails {RUN} map_index=3 [failed] try 2"),
        ({"state=<TaskInstanceState.FAILED: 'failed'>": "state=None"}, f"Airflow alert: alerts.fails {RUN} try 2"),
        ({"'fails'": '"it\'s"'}, f"Airflow alert: alerts.it's {RUN} [failed] try 2"),
        ({"'fails'": r"'it\'s \"so\"'"}, f"Airflow alert: alerts.it's \"so\" {RUN} [failed] try 2"),
        ({"'alerts'": "'übung'"}, f"Airflow alert: übung.fails {RUN} [failed] try 2"),
        ({"'default'": "' state=<X: '"}, f"Airflow alert: alerts.fails {RUN} [failed] try 2"),
        ({"context_carrier=None": "context_carrier={'a': 'b}'}"}, f"Airflow alert: alerts.fails {RUN} [failed] try 2"),
        ({"sentry_integration=''": "sentry_integration='' to all"},
         f"Airflow alert: alerts.fails {RUN} [failed] try 2 to all"),
        # What cannot be read ends the record, and what was read by then counts.
        ({"task=<Task(": "task=<<Task("}, f"Airflow alert: alerts.fails {RUN} try 2"),
    ],
)  # fmt: skip
def test_the_record_of_a_task_becomes_its_name(change: dict[str, str], subject: str) -> None:
    given = f"Airflow alert: {RECORD}"
    for old, new in change.items():
        assert old in given
        given = given.replace(old, new)
    assert told(given) == subject


@pytest.mark.parametrize(
    "subject",
    [
        "Rows loaded",
        "",
        "Airflow alert: <TaskInstance: alerts.fails manual__2026 [failed]>",
        f"Airflow alert: id=UUID('{INSTANCE}') task_id='fails'",
        f"Airflow alert: id=UUID('{INSTANCE}') task_id=None dag_id='d' run_id='r' try_number=x",
    ],
)
def test_other_subjects_stay(subject: str) -> None:
    assert TaskFailure.told_by(subject) is None


@pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 writes <TaskInstance: dag.task run [failed]>")
@pytest.mark.parametrize("task_id", ["fails", "group.fails", "a-b"])
@pytest.mark.parametrize("map_index", [-1, 0, 7])
def test_the_installed_airflows_own_record(task_id: str, map_index: int) -> None:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.utils.state import TaskInstanceState

    names: dict[str, Any] = {"task_id": task_id, "dag_id": "my-dag", "run_id": RUN, "hostname": "worker's <1>"}
    task: Any = BaseOperator(task_id=task_id)
    ti = RuntimeTaskInstance.model_construct(
        **names, id=uuid.UUID(INSTANCE), try_number=3, map_index=map_index, dag_version_id=uuid.uuid4(), task=task,
        max_tries=2, state=TaskInstanceState.FAILED,
    )  # fmt: skip
    mapped = f" map_index={map_index}" if map_index >= 0 else ""
    subject = f"Airflow alert: {ti}"
    assert len(subject) > 300
    assert told(subject) == f"Airflow alert: my-dag.{task_id} {RUN}{mapped} [failed] try 3"


def mail(**fields: Any) -> EmailMessage:
    return EmailMessage(**{"to": "ops@example.org", "subject": "Hi", "html_content": "<p>Text</p>", **fields})


def key(message: EmailMessage, record: str = RECORD, namespace: str = "") -> str:
    failure = TaskFailure.told_by(record)
    assert failure is not None
    return failure.key(namespace, message)


def test_promise_6_the_key_of_a_failure_mail_never_changes() -> None:
    assert key(mail()) == "af1:alerts.fails:0482733564e9dfbec3063e528a0a4355"


def test_mails_of_one_try_are_one_only_if_each_word_is_the_same() -> None:
    first = key(mail())
    assert key(mail(to="Ops <Ops@example.org>")) == first
    other = [
        *(
            mail(to="dev@example.org"),
            mail(subject="Ho"),
            mail(html_content="<p>Other</p>"),
            mail(cc=["a@example.org"]),
        ),
        *(mail(bcc=["a@example.org"]), mail(attachments=[{"filename": "a", "content": "b"}])),
        mail(attachments=[{"filename": "a", "content": "c"}]),
    ]
    assert len({first, *map(key, other)}) == 1 + len(other)


@pytest.mark.parametrize(
    ("old", "new"),
    [("1a8a57477fae", "1a8a57477faf"), ("try_number=2", "try_number=3"), ("'alerts'", "'other'"),
     ("'fails'", "'other'"), ("43.162776", "44.162776"), ("map_index=-1", "map_index=0")],
)  # fmt: skip
def test_two_failures_never_have_one_key(old: str, new: str) -> None:
    assert old in RECORD
    assert key(mail(), RECORD.replace(old, new)) != key(mail())
    assert key(mail(), namespace="eu") != key(mail())


#: As Airflow 2.11.2 writes it.
OLD_BODY = (
    'Try 2 out of 3<br>Exception:<br>no <a href="https://example.org/dags/other/grid?task_id=other">rows</a><br>'
    'Log: <a href="http://localhost:8080/dags/alerts/grid?dag_run_id=manual__2026-11-26T03%3A06%3A43%2B00%3A00'
    '&task_id=fails&map_index=3&base_date=2026-11-26T03%3A06%3A43.162776%2B0000&tab=logs">Link</a><br>'
    'Host: vm<br>Mark success: <a href="http://localhost:8080/confirm?task_id=fails&dag_id=alerts">Link</a><br>'
)


def test_the_body_of_airflow_2_names_the_try() -> None:
    for body in (OLD_BODY, OLD_BODY.replace("&", "&amp;")):
        failure = TaskFailure.told_by_body(body, subject="Airflow alert: <TaskInstance: alerts.fails [failed]>")
        assert failure is not None
        assert dataclasses.asdict(failure) == {
            "subject": "Airflow alert: <TaskInstance: alerts.fails [failed]>",
            "instance": "2026-11-26T03:06:43.162776+0000",
            "dag_id": "alerts",
            "task_id": "fails",
            "run_id": "manual__2026-11-26T03:06:43+00:00",
            "map_index": 3,
            "try_number": 2,
        }
    failure = TaskFailure.told_by_body(OLD_BODY.replace("&map_index=3", ""), subject="")
    assert failure is not None
    assert failure.map_index == -1


def test_promise_6_the_key_of_a_failure_mail_of_airflow_2_never_changes() -> None:
    failure = TaskFailure.told_by_body(OLD_BODY, subject="")
    assert failure is not None
    assert failure.key("", mail()) == "af1:alerts.fails:93e3b336a614b0ca7399e806c3a02cd3"
    assert failure.key("eu", mail()) != failure.key("", mail())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Try 2 out of 3<br>", ""),
        ("Try 2 out", "It is try 2 out"),
        ("Try 2", "Try ?"),
        ("/grid?dag_run_id", "/runs?dag_run_id"),
        ("base_date=", "date="),
        ("&task_id=", "&id="),
        ("map_index=3", "map_index=x"),
        (">Link</a>", ">Open</a>"),
    ],
)
def test_a_body_with_other_words_names_no_try(old: str, new: str) -> None:
    assert old in OLD_BODY
    assert TaskFailure.told_by_body(OLD_BODY.replace(old, new), subject="") is None
