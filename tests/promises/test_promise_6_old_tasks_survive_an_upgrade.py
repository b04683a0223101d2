"""Promise 6: old tasks survive an upgrade. What a released version has stored or derived stays valid."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final, get_args

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_fluxomail import triggers
from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION
from airflow_provider_fluxomail.asset_events.cursor import Cursor, CursorStore, digest
from airflow_provider_fluxomail.client import addresses
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.watching.wait import Status, WaitOutcome
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.batch.progress import Progress
from airflow_provider_fluxomail.sending.idempotency_key import (
    derive_key,
    explicit_key,
    named_part,
    notification_key,
    operator_part,
    recipient_part,
    task_key,
)
from airflow_provider_fluxomail.sending.position import Position
from airflow_provider_fluxomail.sending.send_record import StoredRecord
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support import cursors, emails, golden_keys
from tests.support.failure_mails import RECORD
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.ways import MESSAGE


def test_promise_6_a_cursor_of_an_old_version_is_found_and_read() -> None:
    store = CursorStore(None, ["fluxomail_default", None, ["bounced", "complained"]])
    assert store.key == "fluxomail_events_dba878b5d8d9fd26"
    kept = {"since_ms": 1767225612345, "began_ms": 1767225600000, "seen": ["RGZw8vy7"]}
    assert Cursor.parse(kept) == Cursor(since_ms=1767225612345, began_ms=1767225600000, seen=("RGZw8vy7",))
    assert digest(cursors.event(1)) == "9kAt-l40"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Ada@X.org", "ada@x.org"),
        (" a@x.org ", "a@x.org"),
        ('"Doe, Jane" <J@x.org>', "j@x.org"),
        # Could be read in two ways: as it is.
        ("a@x.org <b@x.org>", "a@x.org <b@x.org>"),
    ],
)
def test_promise_6_how_an_address_is_normalised_never_changes(text: str, same: str) -> None:
    assert addresses.normalised(text) == same


@pytest.mark.parametrize("case", golden_keys.GOLDEN, ids=lambda case: case["name"])
def test_promise_6_keys_never_change(case: dict[str, Any]) -> None:
    assert derive_key(**case["identity"]) == case["key"]


# A task has no generation that is text: that case is there to stay apart from the number.
@pytest.mark.parametrize(
    "case",
    [case for case in golden_keys.GOLDEN if case["identity"]["generation"] != "5"],
    ids=lambda case: case["name"],
)
def test_promise_6_the_running_task_gets_the_same_key(case: dict[str, Any]) -> None:
    """How a task's identity is read is as much a part of the key as the digest."""
    identity = case["identity"]
    generation = identity["generation"]
    ti = {name: identity[name] for name in ("dag_id", "run_id", "task_id", "map_index")}
    asked = generation != ""
    task = golden_keys.context(**ti, max_tries=generation if asked else 3)
    assert task_key(task, namespace=identity["namespace"], resend_on_clear=asked, part=identity["part"]) == case["key"]


@pytest.mark.parametrize("case", golden_keys.GOLDEN_EXPLICIT, ids=lambda case: case["name"])
def test_promise_6_explicit_keys_never_change(case: dict[str, Any]) -> None:
    assert (
        explicit_key(case["given"], golden_keys.context(**case["task"]), resend_on_clear=case["resend_on_clear"])
        == case["key"]
    )


@pytest.mark.parametrize("case", golden_keys.GOLDEN_PARTS, ids=lambda case: case["name"])
def test_promise_6_parts_never_change(case: dict[str, Any]) -> None:
    """They are hashed into the keys of a batch's messages and of sends by hand."""
    part = named_part(case["named"]) if "named" in case else recipient_part(case["recipient"], case["ordinal"])
    assert part == case["part"]


def test_promise_6_parts_of_operators_that_run_by_hand_never_change() -> None:
    task, position = made("FluxomailSendOperator"), Position(2, None)
    assert operator_part(task, position, recipient="Ops <OPS@example.org>") == "operator:task:to:ops@example.org:2"
    assert operator_part(task, position, "to:ops@example.org:0") == "operator:task:2:to:ops@example.org:0"
    position.of_task = True
    assert operator_part(task, position, recipient="ops@example.org") == ""
    assert operator_part(task, position, "key:a") == "key:a"


@pytest.mark.parametrize("case", golden_keys.GOLDEN_ALERTS, ids=lambda case: case["name"])
def test_promise_6_keys_of_alerts_never_change(case: dict[str, Any]) -> None:
    assert notification_key(**case["identity"]) == case["key"]


def changes(of: Callable[[Any], dict[str, Any]], cases: list[Any]) -> list[tuple[str, ...]]:
    """In which fields each golden case differs from the first one."""
    first = of(cases[0])
    return [tuple(name for name, value in of(case).items() if value != first.get(name)) for case in cases]


def identity(case: Any) -> dict[str, Any]:
    """What a golden key is derived from."""
    found: dict[str, Any] = case["identity"]
    return found


@pytest.mark.parametrize("cases", [golden_keys.GOLDEN, golden_keys.GOLDEN_ALERTS], ids=["tasks", "alerts"])
def test_promise_6_every_field_of_an_identity_is_golden(cases: list[Any]) -> None:
    """For each there is a case that differs from the first one in this field alone."""
    assert {names[0] for names in changes(identity, cases) if len(names) == 1} == set(identity(cases[0]))


def test_promise_6_every_kind_of_alert_is_golden() -> None:
    kinds = {identity(case)["kind"] for case in golden_keys.GOLDEN_ALERTS}
    assert kinds >= {"failure", "retry", "dag_failure", "deadline", "sla"}


@pytest.mark.parametrize("case", golden_keys.GOLDEN_EMAILS, ids=lambda case: case["name"])
def test_promise_6_keys_of_airflows_own_emails_never_change(case: dict[str, Any]) -> None:
    assert golden_keys.an_email_key(case) == case["key"]


def test_promise_6_every_field_of_airflows_own_email_is_golden() -> None:
    names = {"to", "subject", "html_content", "cc", "bcc", "attachments"}
    found = changes(lambda case: case["message"], golden_keys.GOLDEN_EMAILS)
    assert set(found) == {(), *((name,) for name in names)}
    assert {case["namespace"] for case in golden_keys.GOLDEN_EMAILS} == {"", "eu-prod"}
    assert len({case["now"][:13] for case in golden_keys.GOLDEN_EMAILS}) == 2


def test_promise_6_every_kind_of_key_is_golden() -> None:
    assert any(len(names) > 3 for names in changes(identity, golden_keys.GOLDEN)), "several at once"
    combinations = {(case["task"]["map_index"] >= 0, case["resend_on_clear"]) for case in golden_keys.GOLDEN_EXPLICIT}
    assert combinations == set(itertools.product((False, True), repeat=2))
    assert {case["key"] == str(case["given"]) for case in golden_keys.GOLDEN_EXPLICIT} == {False, True}
    assert {case.get("ordinal", 0) for case in golden_keys.GOLDEN_PARTS} == {0, 1}
    assert {"named" in case for case in golden_keys.GOLDEN_PARTS} == {False, True}
    parts = {identity(case)["part"] for case in golden_keys.GOLDEN}
    assert {case["part"] for case in golden_keys.GOLDEN_PARTS} & parts


def test_promise_6_a_reply_address_leaves_the_key_as_it_is(sandbox: Sandbox) -> None:
    for headers in (None, {"Reply-To": "answers@example.org"}):
        send_email(emails.PEOPLE[0], f"Airflow alert: {RECORD}", "<p>Replies</p>", custom_headers=headers)
    sandbox.assert_sent(1)


PACKAGE: Final = "airflow_provider_fluxomail"
STATES, EVENTS, TRIGGERS = map(golden_keys.golden, ("states", "events", "triggers"))


def loaded(path: str) -> Any:
    """What a dotted path in the package names."""
    parts = path.split(".")
    return functools.reduce(getattr, parts[1:], importlib.import_module(f"{PACKAGE}.{parts[0]}"))


#: Airflow 2 has no asset watchers.
KNOWN = {name for name in triggers.__all__ if AIRFLOW_VERSION >= (3, 0) or name != "FluxomailEventTrigger"}


@pytest.mark.parametrize(
    "case", [case for case in TRIGGERS if case["path"].split(".")[-1] in KNOWN], ids=lambda case: case["name"]
)
def test_promise_6_serialized_triggers_still_load(case: dict[str, Any]) -> None:
    """Airflow stores the path and arguments of a trigger, and the name of the method that the task resumes with."""
    trigger = loaded(case["path"].removeprefix(f"{PACKAGE}."))
    assert trigger(**case["kwargs"]).serialize()[1].items() >= case["kwargs"].items()
    # A watcher of an asset belongs to no task.
    assert case["resumes"] or case["path"].endswith("FluxomailEventTrigger")
    for path in case["resumes"]:
        assert "event" in inspect.signature(loaded(path)).parameters


def test_promise_6_every_trigger_and_every_argument_is_golden() -> None:
    names = {name for name, one in vars(triggers).items() if isinstance(one, type) and issubclass(one, BaseTrigger)}
    assert names - {"BaseTrigger"} == set(triggers.__all__)
    for name in KNOWN:
        one = getattr(triggers, name)
        cases = [case["kwargs"] for case in TRIGGERS if case["path"] == f"{triggers.__name__}.{name}"]
        assert cases, one
        assert {name for kwargs in cases for name in kwargs} == set(one(**cases[0]).serialize()[1])


def made(name: str) -> Any:
    """The task whose keys and digests the golden files hold."""
    if name == FluxomailDeliverySensor.__name__:
        return FluxomailDeliverySensor(task_id="task", send_id="sends_1")
    if name == FluxomailSendOperator.__name__:
        return FluxomailSendOperator(task_id="task", **MESSAGE)
    messages = [{**MESSAGE, "to": f"p{number}@example.org"} for number in range(4)]
    return FluxomailSendBatchOperator(task_id="task", messages=messages, deferrable=False)


def ending(run: Run) -> str:
    """The name of what a task raised: this package's own error where it was the cause."""
    cause = run.error.__cause__ if run.error else None
    return type(cause).__name__ if isinstance(cause, FluxomailError) else run.kind


@pytest.mark.parametrize("case", STATES, ids=lambda case: case["name"])
def test_promise_6_a_retry_reads_what_an_old_version_stored(sandbox: Sandbox, case: dict[str, Any]) -> None:
    """In Airflow's task state store. The time of the first request lies behind every retention."""
    run = Run(made(case["operator"]), {**context(try_number=2), "task_state_store": Store(case["store"])})
    assert ending(run) == case["ends"], run.error
    assert sorted(mail.to for mail in sandbox.messages()) == case["asks"]
    assert len(sandbox.requests("POST")) == len(case["asks"])


@pytest.mark.parametrize(
    ("case", "resumes"),
    [(case, resumes) for case in EVENTS for resumes in case["resumes"]],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_promise_6_a_task_resumes_with_what_an_old_trigger_fired(
    sandbox: Sandbox, case: dict[str, Any], resumes: str
) -> None:
    """The event is stored: the trigger may have fired before the upgrade, and the task resume after it."""
    name, method = resumes.split(".")
    task = made(name)
    run = Run(SimpleNamespace(execute=lambda ctx: task.resume_execution(method, {"event": case["event"]}, ctx)))
    wanted = case["resumes"][resumes]
    if isinstance(wanted, str):
        assert run.kind == wanted, run.error
        assert case["event"]["message"] in str(run.error)
    else:
        assert run.kind == "success", run.error
        assert run.result.items() >= wanted.items()
    assert sorted(mail.to for mail in sandbox.messages()) == case.get("asks", [])


def test_promise_6_every_kind_of_event_and_state_is_golden(sandbox: Sandbox) -> None:
    waits = [case["event"] for case in EVENTS if "status" in case["event"]]
    assert {event["status"] for event in waits} == set(get_args(Status))
    fields = {field.name for field in dataclasses.fields(WaitOutcome)}
    assert all(set(event) == fields | {"result"} for event in waits)
    methods = {path.partition(".")[2] for case in TRIGGERS for path in case["resumes"]}
    assert {resumes for case in EVENTS for resumes in case["resumes"]} == methods
    (state,) = (case["event"]["state"] for case in EVENTS if case["event"].get("state"))
    assert set(state) == set(Progress().state())
    kept = [case["store"] for case in STATES]
    batches = [one["fluxomail_batch"] for one in kept if "fluxomail_batch" in one]
    assert all(set(one) - {"asked"} == set(state) for one in batches)
    # Only a batch that has requested something has it.
    written = Store()
    Run(made("FluxomailSendBatchOperator"), {**context(), "task_state_store": written})
    (asked,) = (one["asked"] for one in batches if "asked" in one)
    assert set(asked) == set(written["fluxomail_batch"]["asked"])
    names = {field.name for field in dataclasses.fields(StoredRecord)}
    assert all(set(one["fluxomail_send"]) - {"account"} == names for one in kept if "fluxomail_send" in one)
    assert {name for one in kept for name in one} == {"fluxomail_send", "fluxomail_batch"}
