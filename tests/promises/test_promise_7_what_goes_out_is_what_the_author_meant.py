"""Promise 7: what goes out is what the author meant. Input that is ambiguous is an error before anything is sent."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.attachments import read_attachments
from tests.support import batches, good_messages, rows, send_operators
from tests.support.running import Run
from tests.support.ways import ALERTS, FACES, MESSAGE, TRANSPORTS, Try, Way


@pytest.mark.parametrize("bad", [5, b"x", ["x"]])
@pytest.mark.parametrize("field", ["subject", "content", "html_content"])
def test_promise_7_text_must_be_text(field: str, bad: object) -> None:
    assert good_messages.refused(**{field: bad}).startswith(f"{field} must be text")


def test_promise_7_bad_rows_are_named_all_together_and_quoted_nowhere(tmp_path: Path) -> None:
    lines = [
        json.dumps(rows.ADA),
        '{"to": "secret@example.org"',
        json.dumps({**rows.ADA, "to": "secret at example.org"}),
        json.dumps({**rows.ADA, "subjet": "secret words"}),
        json.dumps({"to": "secret@example.org", "subject": "secret words"}),
        json.dumps({**rows.ADA, "key": "k"}),
        json.dumps({**rows.ADA, "key": "k"}),
        json.dumps({**rows.ADA, "key": " "}),
        '"secret words"',
    ]
    told = rows.refused(rows.write(tmp_path, "mails.jsonl", "\n".join(lines)))
    assert "7 messages are invalid, nothing was sent" in told
    for words in (
        "line 2: is not JSON",
        "line 3: to is not an e-mail address",
        "line 4: unknown field 'subjet': did you mean 'subject'?",
        "line 5: content is empty",
        "line 7: has the same key as line 6",
        "line 8: key must be text",
        "line 9: is str, not a mapping",
    ):
        assert words in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ada@example.org,Hi,Text\n", "column 1 in line 1 is no field"),
        ("to,subject,contents\n", "did you mean 'content'?"),
        ("to,to,subject\n", "names a column twice"),
        ("to,subject,content\nada@example.org,Hi\n", "line 2: has 2 cells, and the first line 3"),
        ('to,subject,content,extra_fields\nada@example.org,Hi,Text,"{"\n', "line 2: extra_fields is not JSON"),
        (b"to,subject,content\nada@example.org,H\xe9,Text\n", "save it as UTF-8"),
    ],
)
def test_promise_7_bad_csv(tmp_path: Path, text: str | bytes, told: str) -> None:
    said = rows.refused(rows.write(tmp_path, "mails.csv", text))
    assert told in said
    assert "ada@" not in said


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("[{'to': 'ada@example.org'}]", "messages=make.output"),
        ("", "messages is empty"),
        ("/no/such/file.csv", "there is no file"),
        (7, "not int"),
        (None, "not NoneType"),
        (rows.ADA, "not dict"),
        (iter([rows.ADA]), "not list_iterator"),
        (b"x", "not bytes"),
    ],
)
def test_promise_7_bad_sources(source: Any, told: str) -> None:
    said = rows.refused(source)
    assert told in said
    assert "ada@" not in said


@pytest.mark.parametrize(
    ("items", "told"),
    [
        (["/no/such/file"], "attachments[0]: there is no file '/no/such/file' on this worker"),
        (["/tmp"], "there is no file '/tmp'"),
        ([""], "attachments[0] is empty"),
        (["nosuchscheme://x/y"], "attachments[0]: cannot read 'nosuchscheme://x/y'"),
        ("rows.csv", "attachments must be a list"),
        ({"filename": "a"}, "attachments must be a list"),
        (5, "attachments must be a list"),
        ([5], "attachments[0] must be an Attachment"),
        ([{"path": "x"}], "attachments[0] must be an Attachment"),
        (["a"] * 6, "6 files, at most 5"),
    ],
)
def test_promise_7_bad_attachments(items: Any, told: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        read_attachments(items)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"on_error": "ignore"}, "on_error must be"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": 65}, "concurrency must be"),
        ({"concurrency": True}, "concurrency must be"),
        ({"max_rate_limit_wait": -1}, "max_rate_limit_wait must be"),
        ({"messages": "/no/such.csv"}, "there is no file"),
        ({"messages": [{"to": "x"}]}, "messages[0]: subject is missing"),
        ({"defaults": {"subjct": "x"}}, "defaults holds 'subjct'"),
    ],
)
def test_promise_7_bad_input_of_a_batch_is_named_and_nothing_is_sent(
    sandbox: Sandbox, arguments: dict[str, Any], told: str
) -> None:
    done = batches.run(**{"messages": batches.people(3), **arguments})
    assert done.kind == "AirflowFailException", "a retry cannot fix it"
    assert told in str(done.error)
    assert sandbox.requests() == []


def test_promise_7_a_bad_row_at_the_end_stops_the_first_send(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    path.write_text("\n".join([*(json.dumps(row) for row in batches.people(20)), '{"to": 3}']))
    done = batches.run(str(path))
    assert "line 21:" in str(done.error)
    assert sandbox.requests() == []


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
def test_promise_7_bad_input_is_named_and_nothing_is_sent(sandbox: Sandbox, fields: dict[str, Any], told: str) -> None:
    run = Run(send_operators.operator(**fields))
    assert run.kind == "AirflowFailException", "a retry cannot fix it"
    assert told in str(run.error)
    assert sandbox.requests() == []


@pytest.mark.parametrize("text", ["https://example.org/report.html", "See report.html", "Two\nlines.txt"])
def test_promise_7_a_body_that_ends_like_a_file_name_is_a_body(tmp_path: Path, text: str) -> None:
    assert send_operators.render(send_operators.operator(content=text), tmp_path).content == text


def test_promise_7_a_template_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nosuch\.html"):
        send_operators.render(send_operators.operator(content="nosuch.html"), tmp_path)


# Recipients, whatever sends to them

#: Each face once: what sends one message of several does not know it under the text that its author wrote.
EACH_FACE = [way for way in [*TRANSPORTS, *FACES, *ALERTS] if not way.defers and way.name != "decorator-of-many"]


@pytest.mark.parametrize("way", EACH_FACE, ids=str)
@pytest.mark.parametrize(
    ("to", "sent"),
    [
        ("['one@example.org']", "one@example.org"),
        ('\u200b"one@example.org"', "one@example.org"),
        (["Doe, Jane <one@example.org>"], '"Doe, Jane" <one@example.org>'),
    ],
)
def test_promise_7_every_face_reads_recipients_alike(sandbox: Sandbox, way: Way, to: Any, sent: str) -> None:
    way.send(Try([{**MESSAGE, "to": to, "cc": ["Doe, Jane <two@example.org>"], "bcc": '["three@example.org"]'}]))
    (mail,) = sandbox.assert_sent(1)
    copies = ([], []) if way.alert else (['"Doe, Jane" <two@example.org>'], ["three@example.org"])
    assert (mail.to, (mail.cc, mail.bcc)) == (sent, copies)


@pytest.mark.parametrize("way", EACH_FACE, ids=str)
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"to": "{'one@example.org': 1}"}, "to "),
        ({"to": "one@example..org"}, "to is not an e-mail address (it begins or ends with a dot"),
        ({"to": "o\u200bne@example.org"}, "to is not an e-mail address (it holds ZERO WIDTH SPACE"),
        ({"to": "None"}, "to came out as None"),
        ({"cc": [" None"]}, "cc[0] came out as None"),
        ({"bcc": ["one@example.org", "None"]}, "bcc[1] came out as None"),
        ({"extra_fields": {"replyTo": "None"}}, "came out as None"),
        ({"subject": "None"}, "subject came out as None"),
        ({"content": "None"}, "content came out as None"),
        ({"html_content": " None ", "content": ""}, "html_content came out as None"),
    ],
)
def test_promise_7_every_face_refuses_what_cannot_be_read_for_certain(
    sandbox: Sandbox, log: pytest.LogCaptureFixture, way: Way, fields: dict[str, Any], told: str
) -> None:
    run = way.send(Try([{**MESSAGE, **fields}])).run
    if not way.alert:
        assert told in str(run.error)
    elif set(fields) & {"subject", "content", "html_content"}:
        assert "using the default text" in log.text
        assert told in log.text
        return
    elif set(fields) & {"to", "extra_fields"}:
        assert told in log.text
    else:
        return
    assert sandbox.requests() == []
    assert "example..org" not in log.text + str(run.error)


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_promise_7_a_template_of_a_list_is_that_list(sandbox: Sandbox, tmp_path: Path, field: str) -> None:
    fields = {field: "{{ params.people }}"}
    assert (
        Run(send_operators.render(send_operators.operator(**fields), tmp_path, people=["one@example.org"])).error
        is None
    )
    people = getattr(sandbox.message(), field)
    assert people == ("one@example.org" if field == "to" else ["one@example.org"])


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "subject", "content", "html_content", "policy_key"])
def test_promise_7_a_template_of_nothing_is_no_mail(sandbox: Sandbox, tmp_path: Path, field: str) -> None:
    run = Run(send_operators.render(send_operators.operator(**{field: "{{ params.missing }}"}), tmp_path, missing=None))
    assert run.kind == "AirflowFailException"
    assert f"{field} came out as None" in str(run.error)
    assert sandbox.requests() == []


def test_promise_7_cells_of_a_csv_are_read_as_recipients(tmp_path: Path) -> None:
    lines = ["to,subject,content,cc", """['one@example.org'],Hi,Text,"['two@example.org', 'three@example.org']\""""]
    (row,) = rows.read(rows.write(tmp_path, "mails.csv", "\n".join(lines)))
    assert (row.message.to, row.message.cc) == ("one@example.org", ("two@example.org", "three@example.org"))
    assert "line 2: to came out as None" in rows.refused(
        rows.write(tmp_path, "bad.csv", f"{lines[0]}\nNone,Hi,Text,\n")
    )
