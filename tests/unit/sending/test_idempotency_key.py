"""Derived keys: golden values (promise 6: they never change), and identities that must stay apart (promise 1)."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.wire import check_idempotency_key
from airflow_provider_fluxomail.sending.idempotency_key import (
    derive_key,
    explicit_key,
    notification_key,
    task_generation,
    task_key,
)
from tests.support.golden_keys import (
    FOLDER,
    GOLDEN,
    GOLDEN_ALERTS,
    GOLDEN_EMAILS,
    GOLDEN_EXPLICIT,
    NAMES,
    an_email_key,
    context,
)

SAFE = re.compile(r"af1:[A-Za-z0-9_.-]*:[0-9a-f]{32}")


@pytest.mark.parametrize(
    "other",
    [
        {"to": "Ops <OPS@Example.org>"},
        {"content": "Another text, derived from the same HTML"},
        {"extra_fields": {"replyTo": "answers@example.org"}},
    ],
    ids=str,
)
def test_the_same_email_has_one_key_in_each_hour(other: dict[str, Any]) -> None:
    case = {**GOLDEN_EMAILS[0], "message": {**GOLDEN_EMAILS[0]["message"], **other}}
    for now in ("2026-01-01T12:00:00+00:00", "2026-01-01T12:59:59.999999+00:00", "2026-01-01T18:20:00+05:30"):
        assert an_email_key({**case, "now": now}) == case["key"]
    for now in ("2026-01-01T11:59:59+00:00", "2026-01-01T13:00:00+00:00", "2026-01-02T12:30:00+00:00"):
        assert an_email_key({**case, "now": now}) != case["key"]


def test_two_firings_have_one_key_whatever_the_case_of_the_recipient() -> None:
    identity = GOLDEN_ALERTS[0]["identity"]
    assert notification_key(**identity | {"recipient": "Ops <OPS@example.org>"}) == GOLDEN_ALERTS[0]["key"]


def test_keys_of_alerts_do_not_depend_on_the_process() -> None:
    """The order of a mapping, or where an object lies in memory, must not send a second email."""
    one, same = (
        notification_key(**GOLDEN_ALERTS[0]["identity"] | {"configuration": value})
        for value in ({"a": object(), "b": 1}, {"b": 1, "a": object()})
    )
    assert one == same


def test_every_golden_file_is_loaded() -> None:
    """A file that is added must get its test."""
    files = {path.name for path in FOLDER.parent.rglob("golden_*.json")}
    assert files == {f"golden_{name}.json" for name in (*NAMES, "events", "states", "triggers")}


def test_golden_keys_differ_and_are_safe_header_values_of_at_most_128_characters() -> None:
    keys = [case["key"] for case in GOLDEN + GOLDEN_ALERTS + GOLDEN_EMAILS]
    explicit = [case["key"] for case in GOLDEN_EXPLICIT]
    assert len({*keys, *explicit}) == len(keys + explicit)
    assert [key for key in keys if not SAFE.fullmatch(key)] == []
    for key in keys + explicit:
        assert len(check_idempotency_key(key)) <= 128


def test_identities_that_collide_when_joined_stay_apart() -> None:
    names = ["a", "a.b", "b", "b.c", "c", "", "a\x1fb", '["a"]', '","', "a,b"]
    keys = {
        derive_key(namespace="", run_id="r", dag_id=dag_id, task_id=task_id, part=part)
        for dag_id, task_id, part in itertools.product(names, repeat=3)
    }
    assert len(keys) == len(names) ** 3


def test_the_context_of_an_old_airflow() -> None:
    assert task_key(context(map_index=None), namespace="") == task_key(context(), namespace="")
    assert task_generation(context(max_tries=None)) == 0


@pytest.mark.parametrize(
    ("key", "shown"),
    [("", "empty"), (" ", "empty"), ("None", "empty"), (None, "empty"), (True, "empty"), ("a\nb", "line break")],
)
def test_bad_explicit_keys(key: Any, shown: str) -> None:
    with pytest.raises(FluxomailValidationError, match=shown):
        explicit_key(key, context())
