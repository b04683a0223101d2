"""Where a batch's messages come from, and how bad ones are named."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.sending.batch.rows import MAX_NAMED
from tests.support.rows import ADA, read, refused, write


def test_a_list_of_mappings_and_messages() -> None:
    rows = read([ADA, EmailMessage(**{**ADA, "to": "bob@example.org"}), {**ADA, "key": "mine"}, {**ADA, "key": 7}])
    assert [row.part for row in rows] == ["to:ada@example.org:0", "to:bob@example.org:0", "key:mine", "key:7"]
    assert [row.where for row in rows] == ["messages[0]", "messages[1]", "messages[2]", "messages[3]"]


def test_the_part_does_not_depend_on_the_order_of_people() -> None:
    people = ["Ada <ada@example.org>", "bob@example.org", "ADA@example.org"]
    forth = {row.part for row in read([{**ADA, "to": to} for to in people])}
    back = {row.part for row in read([{**ADA, "to": to} for to in reversed(people)])}
    assert forth == back == {"to:ada@example.org:0", "to:ada@example.org:1", "to:bob@example.org:0"}


FILES = [[Attachment("a.txt", data)] for data in (b"1", b"2")]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({}, {"content": "Two"}),
        ({}, {"subject": "Two"}),
        ({"cc": ["c@example.org"]}, {}),
        ({"attachments": FILES[0]}, {"attachments": FILES[1]}),
        ({"extra_fields": {"replyTo": "one@example.org"}}, {"extra_fields": {"replyTo": "two@example.org"}}),
        ({"policy_key": "a"}, {"policy_key": "b"}),
    ],
)
@pytest.mark.parametrize("kind", [dict, EmailMessage])
def test_rows_to_one_person_that_differ_need_keys(one: dict[str, Any], two: dict[str, Any], kind: Any) -> None:
    bob = {**ADA, "to": "bob@example.org"}
    rows = [kind(**{**ADA, **one}), bob, kind(**{**ADA, "to": "A <ADA@example.org>", **two}), kind(**{**ADA, **one})]
    with pytest.raises(FluxomailValidationError) as caught:
        read(rows)
    assert "1 message is invalid, nothing was sent: messages[2]: has the recipient of messages[0]" in str(caught.value)
    del rows[2]
    assert [row.part for row in read(rows)] == ["to:ada@example.org:0", "to:bob@example.org:0", "to:ada@example.org:1"]
    named = [{**ADA, "key": "mine"}, *rows]
    assert next(row.part for row in read(named)) == "key:mine"


def test_defaults(tmp_path: Path) -> None:
    note = write(tmp_path, "note.txt", "x")
    rows = read([{"to": "bob@example.org"}, ADA], defaults={"subject": "S", "content": "C", "attachments": [str(note)]})
    assert [(row.message.subject, row.message.content) for row in rows] == [("S", "C"), ("Hi", "Text")]
    assert all(row.message.attachments[0].data == b"x" for row in rows)


@pytest.mark.parametrize("name", ["mails.jsonl", "mails.ndjson", "MAILS.JSONL"])
def test_json_lines(tmp_path: Path, name: str) -> None:
    with_nulls = {"to": "bob@example.org", "subject": None, "cc": None, "key": None}
    text = "\n".join([json.dumps({**ADA, "cc": ["x@example.org"]}), "", json.dumps(with_nulls)])
    first, second = read(str(write(tmp_path, name, text)), defaults={"subject": "Ho", "content": "Text"})
    assert (first.where, second.where) == ("line 1", "line 3")
    assert (first.message.cc, second.message.cc, second.key) == (("x@example.org",), (), None)
    assert (first.message.subject, second.message.subject) == ("Hi", "Ho")


def test_a_newsletter_fits_into_a_cell(tmp_path: Path) -> None:
    path = write(tmp_path, "mails.csv", f"to,subject,content\nada@example.org,Hi,{'x' * 1_000_000}\n")
    (row,) = read(path)
    assert len(str(row.message.content)) == 1_000_000


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_csv(tmp_path: Path, ends: str) -> None:
    lines = [
        "to,subject,content,cc,key,extra_fields,html_content",
        'ada@example.org,Hi,"Two\nlines, and a comma","x@example.org, y@example.org",k1,"{""replyTo"": ""z@e.org""}",',
        "bob@example.org,Hi,Text,,,,",
    ]
    rows = read(write(tmp_path, "mails.csv", b"\xef\xbb\xbf" + ends.join(lines).encode()))
    ada, bob = (row.message for row in rows)
    assert ada.content == "Two\nlines, and a comma"
    assert list(ada.cc) == ["x@example.org", "y@example.org"]
    assert ada.extra_fields == {"replyTo": "z@e.org"}
    assert (bob.cc, bob.html_content, rows[1].key) == ((), None, None)
    assert [row.where for row in rows] == ["line 2", "line 4"], "a row is named by the line that it begins on"


@pytest.mark.parametrize(
    "head",
    [
        "to;subject;content",
        "to\tsubject\tcontent",
        "to|subject|content",
        "To, Subject, Content",
        '"TO";"Subject";"content"',
        "sep=;\nto;subject;content",
        "\ufeffsep=\t\nTo\tSubject\tContent",
        "\ufeff\n\nto,subject,content",
        "\ufeff\ufeffto,subject,content",
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_what_spreadsheets_write(tmp_path: Path, head: str, ends: str) -> None:
    (delimiter,) = {",", ";", "\t", "|"}.intersection(head.replace("sep=;", ""))
    cells = ["ada@example.org", '"Hi, you; and | all"', "Te'xt"]
    # By hand, people write a blank after the comma.
    line = (delimiter + " " * (", " in head)).join(cells)
    (row,) = read(write(tmp_path, "mails.csv", ends.join([*head.split("\n"), line, ""])))
    assert (row.message.subject, row.message.content) == ("Hi, you; and | all", "Te'xt")
    assert row.where == f"line {len(head.splitlines()) + 1}"


def test_columns_without_a_name_that_hold_nothing(tmp_path: Path) -> None:
    lines = ["to;subject;content;; ", "ada@example.org;Hi;Text;;", "bob@example.org;Hi;Text; ;NULL", ";;;;"]
    assert [row.message.to for row in read(write(tmp_path, "m.csv", "\r\n".join(lines)))] == [
        "ada@example.org",
        "bob@example.org",
    ]


@pytest.mark.parametrize(
    "text",
    ["> bob@example.org,wrote\nyes", "Hello, ada@example.org\nBye", "Bye\n\nAda, CEO, ada@example.org", '5" disk'],
)
def test_lines_of_a_cell_that_are_no_row(tmp_path: Path, text: str) -> None:
    quoted = '"{}"'.format(text.replace('"', '""'))
    for lines in (
        ["subject,content,to", f"Hi,{quoted},a@example.org"],
        ["to,subject,content", f"a@example.org,Hi,{quoted}"],
    ):
        (row,) = read(write(tmp_path, "m.csv", "\n".join(lines)))
        assert row.message.content == text


def test_names_of_fields_in_the_spelling_of_spreadsheets(tmp_path: Path) -> None:
    names = "To,Subject,HTML Content,htmlContent"
    assert "names a column twice" in refused(write(tmp_path, "mails.csv", names))
    path = write(tmp_path, "mails.csv", "To,SUBJECT,HTML Content,policyKey\na@example.org,Hi,<p>Text</p>,bulk\n")
    assert [(row.message.html_content, row.message.policy_key) for row in read(path)] == [("<p>Text</p>", "bulk")]


class NAType:
    """As in pandas."""

    def __ne__(self, other: object) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("missing", [None, float("nan"), Decimal("NaN"), NAType()])
def test_what_a_table_has_for_a_missing_value_is_absent(missing: Any) -> None:
    row = {
        "to": "ada@example.org",
        "content": "Text",
        "subject": missing,
        "cc": missing,
        "key": missing,
        "other": missing,
    }
    for one in read([row], defaults={"subject": "S", "html_content": missing, "extra_fields": missing}):
        assert (one.message.subject, one.message.cc, one.key) == ("S", (), None)
    assert "content is empty" in refused([{**row, "content": missing}], defaults={"subject": "S"})


def test_what_is_written_for_a_missing_value_is_absent(tmp_path: Path) -> None:
    words = ("nan", "NaN", "<NA>", "NaT", " ", "#N/A", "NULL", "[NULL]", "\\N")
    lines = ["to,subject,content", *(f"p@example.org,{word},Text" for word in words)]
    assert {
        row.message.subject for row in read(write(tmp_path, "m.csv", "\n".join(lines)), defaults={"subject": "S"})
    } == {"S"}
    (row,) = read(
        write(tmp_path, "m.jsonl", '\ufeff{"to": "p@example.org", "subject": NaN, "content": "Text"}'),
        defaults={"subject": "S"},
    )
    assert row.message.subject == "S"


def test_the_format_can_be_named(tmp_path: Path) -> None:
    assert len(read(write(tmp_path, "mails.txt", json.dumps(ADA)), file_format="jsonl")) == 1
    assert "set file_format" in refused(write(tmp_path, "mails.txt", ""))
    assert "file_format must be" in refused(write(tmp_path, "mails.csv", ""), file_format="xlsx")


def test_an_object_storage_path(tmp_path: Path) -> None:
    from airflow_provider_fluxomail.airflow_compat import ObjectStoragePath

    path = write(tmp_path, "mails.jsonl", json.dumps(ADA))
    assert len(read(f"file://{path}")) == 1
    assert len(read(ObjectStoragePath(f"file://{path}"))) == 1


def test_no_rows(tmp_path: Path) -> None:
    sources: list[Any] = [[], write(tmp_path, "empty.jsonl", ""), write(tmp_path, "empty.csv", "")]
    for source in sources:
        assert read(source) == []


def test_only_the_first_of_many_bad_rows_are_named() -> None:
    text = refused([{"to": ""}] * (MAX_NAMED + 5))
    assert f"messages[{MAX_NAMED - 1}]" in text
    assert f"messages[{MAX_NAMED}]" not in text
    assert "and 5 more" in text


def test_bad_defaults() -> None:
    assert "defaults holds 'subjet'" in refused([ADA], defaults={"subjet": "x"})
    assert "defaults holds 'key'" in refused([ADA], defaults={"key": "k"})
    assert "must be a mapping" in refused([ADA], defaults="x")
