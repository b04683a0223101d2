"""A batch that is tried again when Fluxomail may have forgotten its keys (promise 1)."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailBatchUnfinishedError
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending.batch import requested
from tests.support.batches import operator, people, posts, quick_batches, run
from tests.support.durable_sends import HOUR, advance_clock, store
from tests.support.running import Run, context
from tests.support.state_store import StateError, Store
from tests.support.timing import batch_timing

__all__ = ["advance_clock", "quick_batches", "store"]

pytestmark = pytest.mark.usefixtures("quick_batches")

ROWS = people(12)
RETRY, CLEAR = {"try_number": 2}, {"try_number": 2, "max_tries": 4}
LOST = "response_lost_after_store"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "BLOCK", 5)


def in_doubt(late: Run) -> int:
    """How many rows the task's error says may have been sent."""
    text = str(late.error)
    assert late.kind == "AirflowFailException", late.error
    assert "FluxomailUnknownOutcomeError" in text
    return int(text.split(". ")[-1].split()[0])


@dataclasses.dataclass(frozen=True)
class Case:
    """What a first try meets, and a later one.

    :param lost: rows whose response is lost.
    :param rows: of the later try.
    :param sent: rows that both tries send.
    :param doubt: rows that the later try must not request.
    """

    lost: tuple[int, ...] = (3, 4, 9)
    hours: float = 25.0
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=lambda: ROWS)
    key: str | None = None
    ctx: dict[str, Any] = dataclasses.field(default_factory=lambda: RETRY)
    sent: int = 12
    doubt: int = 3


CASES = {
    "soon": Case(hours=1, doubt=0),
    "after the retention": Case(),
    "just inside the retention": Case(hours=23.95),
    "after a clear": Case(ctx=CLEAR),
    "nothing lost": Case(lost=(), doubt=0),
    "with rows at the end": Case(rows=[*ROWS, *people(15)[12:]], sent=15),
    "with rows at the end, nothing lost": Case(lost=(), rows=[*ROWS, *people(15)[12:]], sent=15, doubt=0),
    "in another order": Case(rows=ROWS[::-1], doubt=12),
    "in another order, soon": Case(rows=ROWS[::-1], hours=1, doubt=0),
    "another API key": Case(hours=0.1, key="other"),
    "another API key, nothing lost": Case(lost=(), hours=0.1, key="other", doubt=0),
    "another API key and order": Case(hours=0.1, key="other", rows=ROWS[::-1], doubt=12),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_row_is_requested_whose_key_fluxomail_may_have_forgotten(
    sandbox: Sandbox, store: Store, advance_clock: Any, case: Case
) -> None:
    sandbox.connect(max_attempts=1)
    for number in case.lost:
        sandbox.fail_next(LOST, to=ROWS[number]["to"])
    assert (run(ROWS, store=store).kind == "success") == (not case.lost)
    advance_clock(case.hours * HOUR)
    before = len(sandbox.requests("POST"))
    if case.key:
        sandbox.key(case.key)
        sandbox.connect(key=case.key)
    for number in range(2):
        late = run(case.rows, store=store, ctx={**case.ctx, "try_number": 2 + number})
        if case.doubt:
            assert in_doubt(late) == case.doubt
        else:
            assert late.kind == "success", late.error
    sandbox.assert_sent(case.sent)
    if case.doubt:
        assert len(sandbox.requests("POST")) - before == case.sent - len(ROWS), "only what was never requested"


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_try_that_was_killed_leaves_no_request_unknown(
    sandbox: Sandbox, store: Store, advance_clock: Any, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Of the writes before requests, the last one that a kill leaves names every request until then."""
    batch_timing(monkeypatch, save=1e9)
    writes: list[tuple[Store, int]] = []
    write = store.set

    def recorded(name: str, value: Any) -> None:
        write(name, value)
        writes.append((copy.deepcopy(store), len(sandbox.requests("POST"))))

    monkeypatch.setattr(store, "set", recorded)
    run(ROWS, store=store, concurrency=1)
    killed = writes[kept - 1][0]
    most = min(kept * 5, len(ROWS))
    advance_clock(25 * HOUR)
    late = run(ROWS, store=killed, ctx=RETRY)
    requested_again = posts(sandbox)
    assert all(requested_again[key] == 1 for key in list(requested_again)[:most])
    assert in_doubt(late) >= most - (kept - 1) * 5
    assert sum(requested_again.values()) == len(ROWS) + len(ROWS) - most, "what comes after was never requested"


@pytest.mark.parametrize(("name", "tries"), [("get", [2]), ("set", [1, 2])])
def test_a_store_that_is_out_of_order_ends_the_batch_before_it_sends(
    sandbox: Sandbox, store: Store, advance_clock: Any, monkeypatch: pytest.MonkeyPatch, name: str, tries: list[int]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise StateError(500)

    sandbox.connect(max_attempts=1)
    sandbox.fail_next(LOST, to=ROWS[0]["to"], times=2)
    for number in (1, 2):
        with monkeypatch.context() as patch:
            if number in tries:
                patch.setattr(store, name, broken)
            before = len(sandbox.messages())
            late = run(ROWS, store=store, ctx={"try_number": number})
            if number in tries:
                assert late.kind == "FluxomailStateError", late.error
                assert len(sandbox.messages()) == before
        advance_clock(25 * HOUR)
    run(ROWS, store=store, ctx={"try_number": 3})
    sandbox.assert_sent(12)


def test_a_trigger_that_loses_the_state_does_not_lose_what_was_requested(
    sandbox: Sandbox, store: Store, advance_clock: Any
) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(LOST, to=ROWS[0]["to"])
    run(ROWS, store=store)
    advance_clock(25 * HOUR)
    ctx: Any = {**context(), "task_state_store": store}
    with pytest.raises(FluxomailBatchUnfinishedError, match="1 with unknown outcome"):
        operator(ROWS).send_after_rate_limit(ctx, None)
    sandbox.assert_sent(12)


def test_what_was_never_requested_is_sent_after_the_retention(
    sandbox: Sandbox, store: Store, advance_clock: Any
) -> None:
    sandbox.connect(max_attempts=1, max_wait=0)
    sandbox.fail_next(429, retry_after=100, to=ROWS[6]["to"])
    assert run(ROWS, store=store, concurrency=1).kind == "FluxomailRateLimitError"
    advance_clock(25 * HOUR)
    assert run(ROWS, store=store, ctx=RETRY).kind == "success"
    sandbox.assert_sent(12)


def test_a_clear_that_sends_again_has_keys_of_its_own(sandbox: Sandbox, store: Store, advance_clock: Any) -> None:
    sandbox.connect(max_attempts=1)
    sandbox.fail_next(LOST, to=ROWS[0]["to"])
    run(ROWS, store=store, resend_on_clear=True)
    advance_clock(25 * HOUR)
    assert run(ROWS, store=store, resend_on_clear=True, ctx=CLEAR).kind == "success"
    sandbox.assert_sent(24)


@pytest.mark.parametrize("asked", [{}, [], 7, {"scope": 1}, {"since": "now"}])
def test_what_other_code_wrote_is_ignored(sandbox: Sandbox, store: Store, asked: Any) -> None:
    run(ROWS, store=store)
    store["fluxomail_batch"]["asked"] = asked
    assert run(ROWS, store=store, ctx=RETRY).kind == "success"
    sandbox.assert_sent(12)
