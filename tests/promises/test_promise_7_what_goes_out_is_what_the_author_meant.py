"""Promise 7: what goes out is what the author meant. Input that is ambiguous is an error before anything is sent."""

from __future__ import annotations

import enum
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.attachments import read_attachments
from tests.support import batches, decorated_tasks, good_messages, notifiers, rows, send_operators
from tests.support.airflow_names import DAG
from tests.support.flaky_storage import attached
from tests.support.running import Run
from tests.support.ways import ALERTS, FACES, MESSAGE, TRANSPORTS, Try, Way

HEADER: Final = "to,subject,content\n"


@pytest.mark.parametrize("bad", [5, b"x", ["x"]])
@pytest.mark.parametrize("field", ["subject", "content", "html_content"])
def test_promise_7_text_must_be_text(field: str, bad: object) -> None:
    assert good_messages.refused(**{field: bad}).startswith(f"{field} must be text")


def test_promise_7_all_bad_rows_are_named_and_none_is_quoted(tmp_path: Path) -> None:
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
        json.dumps({"to": "ada@example.org", "secret@example.org": "Hi"}),
        json.dumps({**rows.ADA, "extra_fields": {"vars": {"secret@example.org": [float("nan")]}}}),
        '{"to": "secret@example.org", "to": "ada@example.org"}',
    ]
    expected = rows.refused(rows.write(tmp_path, "mails.jsonl", "\n".join(lines)))
    assert "10 messages are invalid, nothing was sent" in expected
    for words in (
        "line 2: is not JSON",
        "line 3: to is not an email address",
        "line 4: unknown field 'subjet': did you mean 'subject'?",
        "line 5: content is empty",
        "line 7: has the same key as line 6",
        "line 8: key must be text",
        "line 9: is str, not a mapping",
        "line 10: unknown field '(field 2)'",
        "line 11: extra_fields.vars.(field 1)[0] is a number that JSON does not have",
        "line 12: names a field twice",
    ):
        assert words in expected
    assert "secret" not in expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ada@example.org,Hi,Text\n", "column 1 in line 1 is no field"),
        ("to,subject,contents\n", "did you mean 'content'?"),
        ("to,to,subject\n", "names a column twice"),
        ("to,subject,content\nada@example.org,Hi\n", "line 2: has 2 cells, and the first line 3"),
        ('to,subject,content,extra_fields\nada@example.org,Hi,Text,"{"\n', "line 2: extra_fields is not JSON"),
        (b"to,subject,content\nada@example.org,H\xe9,Text\n", "save it as UTF-8"),
        ("To;Subjekt\nada@example.org;Hi\n", "column 2 in line 1 is no field"),
        (
            "To;Subjekt\n",
            "did you mean 'subject'? (the first line holds the names of the fields",
        ),
        (
            "sep=;\nto,subject\n",
            "column 1 in line 2 is no field",
        ),
        ("To,to,subject\n", "line 1 names a column twice"),
        ('"to,subject\n', "line 1 is not CSV: a quote that opens in this row is not closed"),
        ("to\tsubject\n".encode("utf-16"), "is not UTF-8 but UTF-16"),
        # The next rows became a part of Ada's email.
        (f'{HEADER}ada@example.org,Hi,"Hello\nbob@example.org,Hi,Text\n', "line 2: is not CSV: a quote that opens"),
        (f'{HEADER}ada@example.org,Hi,"Hello\nbob@example.org,"Hi",Text\n', "line 2: is not CSV: ',' expected"),
        (f'{HEADER}"ada@example.org,Hi,Text\nbob@example.org,"Hi",Text\n', "line 2: is not CSV: ',' expected"),
        (f'{HEADER}ada@example.org,Hi,"Hello\nbob@example.org,Hi,say "\n', "line 2: content holds a line that looks"),
        (
            f'{HEADER}ada@example.org,"Hi,Text\nB <bob@example.org>,Yo",Text\n',
            "line 2: subject holds a line that looks",
        ),
        (f"{HEADER}ada@example.org,Hi,mails/child.html\n", "line 2: content is the name of a file"),
        ('to,content,extra_fields\nada@example.org,Text,"{""a"": 1, ""a"": 2}"\n', "extra_fields names a field twice"),
        # The first row ends in the cell, and the second begins in it.
        (
            'subject,content,to\nHi,"Text,ada@example.org\nHi,Text",bob@example.org\n',
            "line 2: content holds a line that",
        ),
        (f"{HEADER}ada@example.org,#REF!,Text\n", "line 2: subject is an error of a spreadsheet's formula"),
        ("'to','subject','content'\n'ada@example.org','Hi','Text'\n", "line 1 has single quotes around its cells"),
        (",to,subject\n0,ada@example.org,Hi\n", "column 1 in line 1 is no field"),
        ("to,subject,content,\nada@example.org,Hi,Text,x\n", "line 2: has a value in column 4, which has no name"),
        (f"{HEADER}ada@example.org,Hello, Ada,\n", "line 2: has 4 cells, and the first line 3"),
    ],
)
def test_promise_7_bad_csv(tmp_path: Path, text: str | bytes, expected: str) -> None:
    said = rows.refused(rows.write(tmp_path, "mails.csv", text))
    assert expected in said
    assert "ada@" not in said


@pytest.mark.parametrize(
    ("source", "expected"),
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
def test_promise_7_bad_sources(source: Any, expected: str) -> None:
    said = rows.refused(source)
    assert expected in said
    assert "ada@" not in said


@pytest.mark.parametrize(
    ("items", "expected"),
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
def test_promise_7_bad_attachments(items: Any, expected: str) -> None:
    with pytest.raises(FluxomailValidationError) as caught:
        read_attachments(items)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
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
    sandbox: Sandbox, arguments: dict[str, Any], expected: str
) -> None:
    done = batches.run(**{"messages": batches.people(3), **arguments})
    assert done.kind == "AirflowFailException", "a retry cannot fix it"
    assert expected in str(done.error)
    assert sandbox.requests() == []


def test_promise_7_a_bad_row_at_the_end_stops_the_first_send(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    path.write_text("\n".join([*(json.dumps(row) for row in batches.people(20)), '{"to": 3}']))
    done = batches.run(str(path))
    assert "line 21:" in str(done.error)
    assert sandbox.requests() == []


@pytest.mark.parametrize(
    ("fields", "expected"),
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
def test_promise_7_bad_input_is_named_and_nothing_is_sent(
    sandbox: Sandbox, fields: dict[str, Any], expected: str
) -> None:
    run = Run(send_operators.operator(**fields))
    assert run.kind == "AirflowFailException", "a retry cannot fix it"
    assert expected in str(run.error)
    assert sandbox.requests() == []


@pytest.mark.parametrize(
    "text",
    ["https://example.org/report.html", "See report.html", "Two\nlines.txt", "Done. See report.md", "See: a.txt, b.txt",
     "Loaded 5 rows into data.txt"],
)  # fmt: skip
def test_promise_7_a_body_that_ends_like_a_file_name_is_a_body(tmp_path: Path, text: str) -> None:
    assert send_operators.render(send_operators.operator(content=text), tmp_path).content == text
    if text != "See report.html":
        assert send_operators.render(send_operators.operator(html_content=text), tmp_path).html_content == text
        assert good_messages.message(html_content=text).html_content == text


def test_promise_7_a_template_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nosuch\.html"):
        send_operators.render(send_operators.operator(content="nosuch.html"), tmp_path)


# Recipients, for each way to send

#: Each way to send once; without lists, which do not send one message as its author wrote it.
EACH_WAY_ONCE = [way for way in [*TRANSPORTS, *FACES, *ALERTS] if not way.defers and way.name != "decorator-of-many"]


@pytest.mark.parametrize("way", EACH_WAY_ONCE, ids=str)
@pytest.mark.parametrize(
    ("to", "sent"),
    [
        ("['one@example.org']", "one@example.org"),
        ('\u200b"one@example.org"', "one@example.org"),
        (["Doe, Jane <one@example.org>"], '"Doe, Jane" <one@example.org>'),
        ('Jane "J, J" Doe <one@example.org>\n', r'"Jane \"J, J\" Doe" <one@example.org>'),
        ('"one two"@example.org', '"one two"@example.org'),
    ],
)
def test_promise_7_every_way_reads_recipients_in_the_same_way(sandbox: Sandbox, way: Way, to: Any, sent: str) -> None:
    way.send(Try([{**MESSAGE, "to": to, "cc": ["Doe, Jane <two@example.org>"], "bcc": '["three@example.org"]'}]))
    (mail,) = sandbox.assert_sent(1)
    copies = ([], []) if way.alert else (['"Doe, Jane" <two@example.org>'], ["three@example.org"])
    assert (mail.to, (mail.cc, mail.bcc)) == (sent, copies)


@pytest.mark.parametrize("way", EACH_WAY_ONCE, ids=str)
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"to": "{'one@example.org': 1}"}, "to "),
        ({"to": "one@example..org"}, "to is not an email address (it begins or ends with a dot"),
        ({"to": "o\u200bne@example.org"}, "to is not an email address (it holds ZERO WIDTH SPACE"),
        ({"to": "None"}, "to came out as None"),
        ({"cc": [" None"]}, "cc[0] came out as None"),
        ({"bcc": ["one@example.org", "None"]}, "bcc[1] came out as None"),
        ({"extra_fields": {"replyTo": "None"}}, "came out as None"),
        ({"subject": "None"}, "subject came out as None"),
        ({"content": "None"}, "content came out as None"),
        ({"html_content": " None ", "content": ""}, "html_content came out as None"),
    ],
)
def test_promise_7_every_way_refuses_ambiguous_input(
    sandbox: Sandbox, log: pytest.LogCaptureFixture, way: Way, fields: dict[str, Any], expected: str
) -> None:
    run = way.send(Try([{**MESSAGE, **fields}])).run
    if not way.alert:
        assert expected in str(run.error)
    elif set(fields) & {"subject", "content", "html_content"}:
        assert "using the default text" in log.text
        assert expected in log.text
        return
    elif set(fields) & {"to", "extra_fields"}:
        assert expected in log.text
    else:
        return
    # The email backend sends the email without the copy.
    assert sandbox.requests() == [] or (way.name == "email-backend" and set(fields) & {"cc", "bcc"})
    assert "example..org" not in log.text + str(run.error)


@pytest.mark.parametrize("field", ["to", "cc", "bcc"])
def test_promise_7_a_list_that_a_template_rendered_is_read_as_a_list(
    sandbox: Sandbox, tmp_path: Path, field: str
) -> None:
    fields = {field: "{{ params.people }}"}
    assert (
        Run(send_operators.render(send_operators.operator(**fields), tmp_path, people=["one@example.org"])).error
        is None
    )
    people = getattr(sandbox.message(), field)
    assert people == ("one@example.org" if field == "to" else ["one@example.org"])


@pytest.mark.parametrize("field", ["to", "cc", "bcc", "subject", "content", "html_content", "policy_key"])
def test_promise_7_a_template_that_renders_to_none_is_an_error(sandbox: Sandbox, tmp_path: Path, field: str) -> None:
    run = Run(send_operators.render(send_operators.operator(**{field: "{{ params.missing }}"}), tmp_path, missing=None))
    assert run.kind == "AirflowFailException"
    named = f"{field}[0]" if field in ("cc", "bcc") else field
    assert f"{named} came out as None" in str(run.error)
    assert sandbox.requests() == []


def test_promise_7_cells_of_a_csv_are_read_as_recipients(tmp_path: Path) -> None:
    lines = ["to,subject,content,cc", """['one@example.org'],Hi,Text,"['two@example.org', 'three@example.org']\""""]
    (row,) = rows.read(rows.write(tmp_path, "mails.csv", "\n".join(lines)))
    assert (row.message.to, row.message.cc) == ("one@example.org", ("two@example.org", "three@example.org"))
    assert "line 2: to came out as None" in rows.refused(
        rows.write(tmp_path, "bad.csv", f"{lines[0]}\nNone,Hi,Text,\n")
    )


@pytest.mark.parametrize("field", ["content", "html_content"])
@pytest.mark.parametrize("name", ["mail.html.j2", "a.htm", "A.HTML", "my mail.html", " b.jinja2\n", "mails/child.TXT"])
def test_promise_7_a_file_name_in_place_of_its_text(sandbox: Sandbox, tmp_path: Path, name: str, field: str) -> None:
    """One rule for the operator, a batch and its defaults; where no file is read, the name is an error."""
    (tmp_path / "mails").mkdir()
    (tmp_path / name.strip()).write_text("<p>{% if 1 < 2 %}{{ word }}{% endif %}</p>")
    row = {"to": "ada@example.org", "subject": "Hi"}
    one = send_operators.operator(**{**row, "content": None, field: name})
    two = batches.operator([row, {**row, field: name}], defaults={field: name})
    for task in (one, two):
        assert Run(send_operators.render(task, tmp_path, word="Ada")).error is None
    assert {getattr(mail, field) for mail in sandbox.assert_sent(3)} == {"<p>Ada</p>"}
    if field == "html_content" or " m" not in name:
        named = {**row, field: name}
        assert f"{field} is the name of a file" in good_messages.refused(**{"content": None, field: name})
        (tmp_path / name.strip()).unlink()
        for lost in (send_operators.operator(**{"content": None, **named}), batches.operator([named])):
            with pytest.raises(FluxomailValidationError, match=f"{field}: there is no template file"):
                send_operators.render(lost, tmp_path)
        for task in (batches.operator([named]), decorated_tasks.decorated(lambda: named)):
            assert f"{field} is the name of a file" in str(Run(task).error)
    sandbox.assert_sent(3)


def test_promise_7_templates_in_nested_values_are_rendered(sandbox: Sandbox, tmp_path: Path) -> None:
    from pathlib import PurePosixPath

    (tmp_path / "rows-1.csv").write_text("id\n")
    files = [
        Attachment("report-{{ n }}.csv", b"{{ n }}"),
        Attachment("n.csv", "{{ n }}"),
        tmp_path / "rows-{{ n }}.csv",
    ]
    message = EmailMessage(
        to="ada@example.org",
        subject="Hi {{ n }}",
        html_content="<p>{% if 1 < 2 %}{{ n }}{% endif %}</p>",
        attachments=files[:2],  # type: ignore[arg-type]
        extra_fields={"metadata": {"n": ["{{ n }}"]}},
    )
    tasks = [send_operators.operator(attachments=files), batches.operator([message])]
    tasks[1].report_path = tmp_path / "{{ n }}.jsonl"
    for task in tasks:
        assert Run(send_operators.render(task, tmp_path, n="1")).error is None
    one, two = sandbox.messages()
    assert [(file.filename, file.content) for file in one.attachments] == [
        ("report-1.csv", b"{{ n }}"), ("n.csv", b"1"), ("rows-1.csv", b"id\n"),
    ]  # fmt: skip
    assert (two.subject, two.html_content, two.content) == ("Hi 1", "<p>1</p>", "1")
    assert [file.filename for file in two.attachments] == ["report-1.csv", "n.csv"]
    assert two.extra_fields == {"metadata": {"n": ["1"]}}
    assert (tmp_path / "1.jsonl").exists()
    assert message.subject == "Hi {{ n }}", "the Dag's own object stays a template"
    assert PurePosixPath(files[2]).name == "rows-{{ n }}.csv"  # type: ignore[arg-type]


def test_promise_7_fields_of_a_subclass_are_rendered_as_airflow_does_it(tmp_path: Path) -> None:
    class Query(FluxomailSendOperator):
        template_fields = (*FluxomailSendOperator.template_fields, "sql")
        template_ext = (*FluxomailSendOperator.template_ext, ".sql")

        def __init__(self, *, sql: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.sql = sql

    for name in ("q.sql", "q.html"):
        (tmp_path / name).write_text("SELECT {{ n }}")
    for sql in ("q.sql", "q.html", "SELECT {{ n }}"):
        message = {"to": "ada@example.org", "subject": "q.sql", "content": "q.html", "extra_fields": {"x": "q.html"}}
        task: Any = send_operators.render(Query(task_id="task", sql=sql, **message), tmp_path, n="1")
        assert (task.sql, task.subject, task.content) == ("SELECT 1", "q.sql", "SELECT 1")
        assert task.extra_fields == {"x": "q.html"}


NO_JSON: Final[list[tuple[Any, str]]] = [
    (b"x", "extra_fields.v is bytes"),
    ({"a"}, "extra_fields.v is set"),
    ([{"a": (object(),)}], "extra_fields.v[0].a[0] is object"),
    (float("nan"), "extra_fields.v is a number that JSON does not have"),
    (Decimal("Infinity"), "extra_fields.v is a number that JSON does not have"),
    (10**400, "extra_fields.v is a number that JSON does not have"),
    ({1: "a"}, "extra_fields.v: the name of field 1 is int"),
    ({"\ud800": "a"}, "extra_fields.v: the name of field 1 holds half a Unicode character"),
    ("\ud800", "extra_fields.v holds half a Unicode character"),
    (json.loads("[" * 60 + "]" * 60), "is nested too deeply"),
    (timedelta(1), "extra_fields.v is timedelta"),
]


@pytest.mark.parametrize(("value", "expected"), NO_JSON)
def test_promise_7_a_value_without_a_json_form_is_named_before_anything_is_sent(
    sandbox: Sandbox, value: Any, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    extra = {"extra_fields": {"v": value}}
    bad = batches.people(3)
    bad[2] |= extra
    for task in (
        send_operators.operator(**extra),
        batches.operator(bad),
        batches.operator(batches.people(1), defaults=extra),
        decorated_tasks.decorated(lambda: {**rows.ADA, **extra}),
    ):
        run = Run(task)
        assert run.kind == "AirflowFailException", "a retry cannot fix it"
        assert expected in str(run.error)
    assert sandbox.requests() == []
    # An alert without them is better than none.
    FluxomailNotifier(to="ops@example.org", extra_fields=extra["extra_fields"])(notifiers.context())
    assert sandbox.message().extra_fields == {}


def test_promise_7_a_value_that_contains_itself(sandbox: Sandbox) -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    assert "extra_fields.v.a[0] contains itself" in good_messages.refused(extra_fields={"v": value})
    assert "extra_fields.v.a[0] contains itself" in rows.refused([{**rows.ADA, "extra_fields": {"v": value}}])
    FluxomailNotifier(to="ops@example.org", extra_fields=value)(notifiers.context())
    assert sandbox.message().extra_fields == {}


def test_promise_7_values_with_an_obvious_json_form_are_sent(sandbox: Sandbox) -> None:
    class Color(enum.Enum):
        RED = "red"

    when = datetime(2026, 1, 1, 2, tzinfo=UTC)
    given = {
        "at": when,
        "day": when.date(),
        "n": Decimal("1.50"),
        "id": UUID(int=1),
        "t": (1, True, None),
        "c": Color.RED,
    }
    assert Run(send_operators.operator(extra_fields={"metadata": MappingProxyType(given)})).error is None
    assert sandbox.message().extra_fields == {
        "metadata": {
            "at": "2026-01-01T02:00:00+00:00",
            "day": "2026-01-01",
            "n": "1.50",
            "id": "00000000-0000-0000-0000-000000000001",
            "t": [1, True, None],
            "c": "red",
        }
    }


def test_promise_7_rows_from_elsewhere_attach_files_of_the_named_folder_only(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "a").mkdir(parents=True)
    secret = tmp_path / "secret"
    for file in (secret, folder / "ok.txt", folder / "a" / "ok.txt"):
        file.write_text("x")
    (folder / "link").symlink_to(secret)
    (tmp_path / "out2").symlink_to(secret)
    reach = {"task": partial(from_task, tmp_path), "file": partial(from_file, tmp_path)}
    for way in reach.values():
        for path in (str(secret), "/etc/passwd", f"file://{secret}", str(folder / "ok.txt"), "ok.txt"):
            run = Run(way([path]))
            assert "attachments[0] is a path, and this message was not written in the Dag" in str(run.error), path
        outside = (
            str(secret), "../secret", "a/../../secret", "link", f"{folder}2", f"{folder}/../secret", f"file://{secret}",
            ".", str(folder), f"file://{folder}/../secret", "", "ok.txt\0", "s3://bucket/ok.txt", "local:///etc/passwd",
            "~/secret",
        )  # fmt: skip
        for url in ("", "file://"):
            for path in outside:
                run = Run(way([path], attachment_folder=f"{url}{folder}"))
                assert run.kind == "AirflowFailException", path
                assert "attachments[0]" in str(run.error)
            good = [
                "ok.txt",
                "a/ok.txt",
                f"{folder}/a/../ok.txt",
                f"file://{folder}/ok.txt",
                {"filename": "f", "content": "x"},
            ]
            assert Run(way(good, attachment_folder=f"{url}{folder}/")).error is None
    sandbox.assert_sent(1)


def from_file(folder: Path, attachments: list[Any], **arguments: Any) -> FluxomailSendBatchOperator:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps({**rows.ADA, "attachments": attachments}))
    return batches.operator(str(path), **arguments)


def from_task(_: Path, attachments: list[Any], **arguments: Any) -> FluxomailSendBatchOperator:
    task = batches.operator("{{ word }}", **arguments)
    task.messages = [{**rows.ADA, "attachments": attachments}]  # as Airflow renders it
    return task


def test_promise_7_only_rows_written_in_the_dag_may_attach_any_file(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "logo.png"
    path.touch()
    files = {"attachments": [str(path)]}
    assert Run(batches.operator([{**rows.ADA, **files}], defaults=files)).error is None
    assert (
        Run(batches.operator(str(rows.write(tmp_path, "a.jsonl", json.dumps(rows.ADA))), defaults=files)).error is None
    )
    for arguments in (
        *({"messages": one} for one in (make(), [make()], [{**rows.ADA, "attachments": make()}])),
        *({"messages": [], "defaults": one} for one in (make(), {"attachments": make()}, {"attachments": [make()]})),
    ):
        task = batches.operator(**arguments)
        # As Airflow renders them.
        task.messages = [rows.ADA if "defaults" in arguments else {**rows.ADA, **files}]
        task.defaults = files if "defaults" in arguments else None
        assert "was not written in the Dag" in str(Run(task).error)


def make() -> Any:
    """The output of another task."""
    with DAG("d", schedule=None):
        return FluxomailSendOperator(task_id="make", **rows.ADA).output


OUT_OF_A_BUCKET: Final = (
    "memory://bucket/secret", "../secret", "a/../../secret", "%2e%2e/secret", "a//ok.txt", "/etc/passwd", "", ".",
    "memory://bucket/out", "memory://other@bucket/out/a/ok.txt", "file:///etc/passwd", "zip://a::file:///etc/passwd",
    "a/b::file:///x",
)  # fmt: skip


def test_promise_7_a_folder_in_object_storage() -> None:
    files = MemoryFileSystem()
    for name in ("/bucket/out/a/ok.txt", "/bucket/secret"):
        files.pipe(name, b"x")
    base = "memory://bucket/out"
    with attached("memory", None, files):
        for item in ("a/ok.txt", "memory://bucket/out/a/ok.txt"):
            assert read_attachments([item], folder=base)[0].data == b"x"
        for item in OUT_OF_A_BUCKET:
            with pytest.raises(FluxomailValidationError, match=r"attachments\[0\] is"):
                read_attachments([item], folder=base)
