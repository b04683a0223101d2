"""Derived keys: golden values (promise 6: they never change), and identities that must stay apart (promise 1)."""

from __future__ import annotations

import itertools
import json
import re
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.wire import check_idempotency_key
from airflow_provider_fluxomail.sending.idempotency_key import (
    derive_key,
    email_key,
    explicit_key,
    named_part,
    notification_key,
    recipient_part,
    task_generation,
    task_key,
)

FOLDER = Path(__file__).parent
NAMES = ("keys", "explicit_keys", "parts", "alert_keys", "email_keys")
GOLDEN, GOLDEN_EXPLICIT, GOLDEN_PARTS, GOLDEN_ALERTS, GOLDEN_EMAILS = (
    json.loads((FOLDER / f"golden_{name}.json").read_text(encoding="utf-8")) for name in NAMES
)
SAFE = re.compile(r"af1:[A-Za-z0-9_.-]*:[0-9a-f]{32}")


def context(**fields: Any) -> Any:
    ti = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "max_tries": 3, "try_number": 1}
    return {"ti": SimpleNamespace(**{**ti, **fields})}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_promise_6_keys_never_change(case: dict[str, Any]) -> None:
    assert derive_key(**case["identity"]) == case["key"]


# A task has no generation that is text: that case is there to stay apart from the number.
@pytest.mark.parametrize(
    "case", [case for case in GOLDEN if case["identity"]["generation"] != "5"], ids=lambda case: case["name"]
)
def test_promise_6_the_running_task_gets_the_same_key(case: dict[str, Any]) -> None:
    """The way from a task to its identity is as much a part of the key as the digest."""
    identity = case["identity"]
    generation = identity["generation"]
    ti = {name: identity[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    asked = generation != ""
    task = context(**ti, max_tries=generation if asked else 3)
    assert task_key(task, namespace=identity["namespace"], resend_on_clear=asked, part=identity["part"]) == case["key"]


@pytest.mark.parametrize("case", GOLDEN_EXPLICIT, ids=lambda case: case["name"])
def test_promise_6_explicit_keys_never_change(case: dict[str, Any]) -> None:
    assert explicit_key(case["given"], context(**case["task"]), resend_on_clear=case["resend_on_clear"]) == case["key"]


@pytest.mark.parametrize("case", GOLDEN_PARTS, ids=lambda case: case["name"])
def test_promise_6_parts_never_change(case: dict[str, Any]) -> None:
    """They are hashed into the keys of a batch's messages and of sends by hand."""
    part = named_part(case["named"]) if "named" in case else recipient_part(case["recipient"], case["ordinal"])
    assert part == case["part"]


@pytest.mark.parametrize("case", GOLDEN_ALERTS, ids=lambda case: case["name"])
def test_promise_6_keys_of_alerts_never_change(case: dict[str, Any]) -> None:
    assert notification_key(**case["identity"]) == case["key"]


def test_promise_6_every_point_of_an_alert_is_golden() -> None:
    first = GOLDEN_ALERTS[0]["identity"]
    alone = [[name for name in first if case["identity"][name] != first[name]] for case in GOLDEN_ALERTS]
    assert {names[0] for names in alone if len(names) == 1} == set(first)
    assert {case["identity"]["kind"] for case in GOLDEN_ALERTS} >= {
        "failure",
        "retry",
        "dag_failure",
        "deadline",
        "sla",
    }


def an_email_key(case: dict[str, Any]) -> str:
    message = EmailMessage(**case["message"])
    return email_key(message, namespace=case["namespace"], now=datetime.fromisoformat(case["now"]))


@pytest.mark.parametrize("case", GOLDEN_EMAILS, ids=lambda case: case["name"])
def test_promise_6_keys_of_airflows_own_emails_never_change(case: dict[str, Any]) -> None:
    assert an_email_key(case) == case["key"]


def test_promise_6_every_field_of_airflows_own_email_is_golden() -> None:
    first = GOLDEN_EMAILS[0]
    alone = [
        [name for name in case["message"] if case["message"][name] != first["message"].get(name)]
        for case in GOLDEN_EMAILS
    ]
    assert {tuple(names) for names in alone} == {
        (), ("to",), ("subject",), ("html_content",), ("cc",), ("bcc",), ("attachments",),
    }  # fmt: skip
    assert {case["namespace"] for case in GOLDEN_EMAILS} == {"", "eu-prod"}
    assert len({case["now"][:13] for case in GOLDEN_EMAILS}) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"now": "2026-01-01T12:00:00+00:00"},
        {"now": "2026-01-01T12:59:59.999999+00:00"},
        {"now": "2026-01-01T18:20:00+05:30"},
        {"to": "Ops <OPS@Example.org>"},
        {"content": "Another text, derived from the same HTML"},
        {"extra_fields": {"replyTo": "answers@example.org"}},
    ],
    ids=str,
)
def test_the_same_email_in_the_same_hour_has_one_key(other: dict[str, Any]) -> None:
    case = GOLDEN_EMAILS[0]
    fields = {name: value for name, value in other.items() if name != "now"}
    now = other.get("now", case["now"])
    assert an_email_key({**case, "now": now, "message": {**case["message"], **fields}}) == case["key"]


@pytest.mark.parametrize("now", ["2026-01-01T11:59:59+00:00", "2026-01-01T13:00:00+00:00", "2026-01-02T12:30:00+00:00"])
def test_the_same_email_in_another_hour_has_another_key(now: str) -> None:
    assert an_email_key({**GOLDEN_EMAILS[0], "now": now}) != GOLDEN_EMAILS[0]["key"]


def test_two_firings_have_one_key_whatever_the_case_of_the_recipient() -> None:
    identity = GOLDEN_ALERTS[0]["identity"]
    assert notification_key(**identity | {"recipient": "Ops <OPS@example.org>"}) == GOLDEN_ALERTS[0]["key"]


def test_keys_of_alerts_do_not_depend_on_the_process() -> None:
    """The order of a mapping, or where an object lies in memory, must not send a second mail."""
    one, same = (
        notification_key(**GOLDEN_ALERTS[0]["identity"] | {"configuration": value})
        for value in ({"a": object(), "b": 1}, {"b": 1, "a": object()})
    )
    assert one == same


def test_promise_6_every_kind_of_key_is_golden() -> None:
    """A case that differs from the first in one point alone, for each point; and explicit keys in all combinations."""
    first = GOLDEN[0]["identity"]
    alone = [[name for name in first if case["identity"][name] != first[name]] for case in GOLDEN]
    assert {names[0] for names in alone if len(names) == 1} == set(first)
    assert any(len(names) > 3 for names in alone), "several at once"
    combinations = {(case["task"]["map_index"] >= 0, case["resend_on_clear"]) for case in GOLDEN_EXPLICIT}
    assert combinations == set(itertools.product((False, True), repeat=2))
    assert {case["key"] == str(case["given"]) for case in GOLDEN_EXPLICIT} == {False, True}
    assert {case.get("ordinal", 0) for case in GOLDEN_PARTS} == {0, 1}
    assert {"named" in case for case in GOLDEN_PARTS} == {False, True}
    assert {case["part"] for case in GOLDEN_PARTS} & {case["identity"]["part"] for case in GOLDEN}


def test_every_golden_file_is_loaded() -> None:
    """A file that is added must get its test."""
    tests = FOLDER.parent.parent
    files = {path.relative_to(tests).as_posix() for path in tests.rglob("golden_*.json")}
    keys = {f"unit/sending/golden_{name}.json" for name in NAMES}
    assert files == {*keys, *(f"wire/golden_{name}.json" for name in ("events", "states", "triggers"))}


@pytest.mark.parametrize("case", GOLDEN + GOLDEN_ALERTS + GOLDEN_EMAILS, ids=lambda case: case["name"])
def test_every_key_is_a_safe_header_value_of_at_most_128_characters(case: dict[str, Any]) -> None:
    assert SAFE.fullmatch(case["key"])
    assert len(case["key"]) <= 128
    assert check_idempotency_key(case["key"]) == case["key"]


def test_golden_keys_are_all_different() -> None:
    keys = [case["key"] for case in GOLDEN + GOLDEN_ALERTS + GOLDEN_EMAILS]
    assert len(set(keys)) == len(keys)


def test_identities_that_collide_when_joined_stay_apart() -> None:
    names = ["a", "a.b", "b", "b.c", "c", "", "a\x1fb", '["a"]', '","', "a,b"]
    keys = {
        derive_key(namespace="", run_id="r", dag_id=dag_id, task_id=task_id, part=part)
        for dag_id, task_id, part in itertools.product(names, repeat=3)
    }
    assert len(keys) == len(names) ** 3


def test_the_readable_part_is_readable() -> None:
    assert task_key(context(dag_id="my dag/ü", task_id="group.send"), namespace="").startswith(
        "af1:my_dag__.group.send:"
    )


def test_promise_2_a_retry_keeps_the_key_and_a_clear_only_if_not_asked() -> None:
    first, retry, cleared = (context(try_number=n, max_tries=m) for n, m in ((1, 3), (2, 3), (3, 5)))
    assert task_key(first, namespace="") == task_key(retry, namespace="") == task_key(cleared, namespace="")
    asked = [task_key(one, namespace="", resend_on_clear=True) for one in (first, retry, cleared)]
    assert asked[0] == asked[1] != asked[2]


@pytest.mark.parametrize(
    "other", [{"dag_id": "x"}, {"run_id": "x"}, {"task_id": "x"}, {"map_index": 0}, {"map_index": 1}]
)
def test_another_task_has_another_key(other: dict[str, Any]) -> None:
    assert task_key(context(), namespace="") != task_key(context(**other), namespace="")


def test_namespace_and_part_tell_apart() -> None:
    keys = {task_key(context(), namespace=n, part=p) for n in ("", "eu", "us") for p in ("", "1", "2")}
    assert len(keys) == 9


def test_tasks_of_old_contexts_without_map_index() -> None:
    assert task_key(context(map_index=None), namespace="") == task_key(context(), namespace="")
    assert task_generation(context(max_tries=None)) == 0


@pytest.mark.parametrize(
    ("key", "fields", "resend", "used"),
    [
        ("mine", {}, False, "mine"),
        (20260101, {}, False, "20260101"),
        ("mine", {"map_index": 4}, False, "mine:4"),
        ("mine", {"max_tries": 5}, True, "mine:g5"),
        ("mine", {"map_index": 0, "max_tries": 5}, True, "mine:0:g5"),
        ("manual__2026-01-01T00:00:00+00:00", {}, False, "manual__2026-01-01T00:00:00+00:00"),
    ],
)
def test_explicit_keys(key: Any, fields: dict[str, Any], resend: bool, used: str) -> None:
    assert explicit_key(key, context(**fields), resend_on_clear=resend) == used


@pytest.mark.parametrize("key", ["k" * 129, "zwei Wörter", "a b", "\ud800"])
def test_explicit_keys_that_are_no_header_value_get_a_digest(key: str) -> None:
    used = explicit_key(key, context())
    assert check_idempotency_key(used) == used
    assert used == explicit_key(key, context())
    assert used != explicit_key(key + "x", context())


@pytest.mark.parametrize(
    ("key", "told"),
    [("", "empty"), (" ", "empty"), ("None", "empty"), (None, "empty"), (True, "empty"), ("a\nb", "line break")],
)
def test_bad_explicit_keys(key: Any, told: str) -> None:
    with pytest.raises(FluxomailValidationError, match=told):
        explicit_key(key, context())
