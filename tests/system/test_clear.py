"""Retry, clear, new run: the table of ``docs/guides/sending.md`` on a real Airflow, counted by the sandbox.

Each case has two tasks, ``send`` with the default and ``resend`` with ``resend_on_clear=True``; numbers are given in
this order. All cases run at the same time on one Airflow, for most of their time is waiting.
"""

from __future__ import annotations

import concurrent.futures
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.system.airflows import AIRFLOW_2, DAGS, RUNNER, connection, home, servers, start
from tests.system.clearing import ATTEMPTS, LIMIT, TASKS, Field, Run

pytestmark = pytest.mark.timeout(2 * LIMIT)

#: Copies of ``clears_edited.py``, one for each test that edits it.
EDITED: Final = ("clears_new_text", "clears_more_retries", "clears_fewer_retries", "clears_lowered_retries")
CASES: Final[dict[str, Callable[[Field], None]]] = {}

Cases = dict[str, concurrent.futures.Future[None]]


def at_once(case: Callable[[Field], None]) -> Callable[[Cases], None]:
    """Make a test of a case that runs beside all others; the test reports how it ended."""

    def test(cases: Cases) -> None:
        cases[case.__name__].result()

    # Not wrapped: pytest would read the arguments of the case.
    for name in ("__name__", "__qualname__", "__doc__", "__module__"):
        setattr(test, name, getattr(case, name))
    CASES[case.__name__] = case
    return test


@pytest.fixture(scope="module")
def field(request: pytest.FixtureRequest) -> Iterator[Field]:
    """A sandbox and an Airflow that sends to it."""
    with home(request) as folder, servers(folder) as (sandbox, postgres):
        environment = {
            "AIRFLOW_CONN_FLUXOMAIL_DEFAULT": connection(sandbox, timeout=300, max_attempts=ATTEMPTS, max_wait=2),
            "AIRFLOW__API__MAXIMUM_PAGE_LIMIT": "1000",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL": "1",
            "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "1",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres.url,
        }
        copies = []
        for dag_id in EDITED:
            copies.append(folder / f"{dag_id}.py")
            shutil.copy(DAGS / "clears_edited.py", copies[-1])
        dags = [DAGS / "clears.py", *copies]
        with RUNNER(folder / "airflow", dags=dags, environment=environment) as airflow:
            start(airflow, "clears", *EDITED)
            yield Field(airflow, sandbox)


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest, field: Field) -> Iterator[Cases]:
    """The cases of all tests that were selected, begun at once."""
    names = [item.name for item in request.session.items if item.name in CASES]
    pool = concurrent.futures.ThreadPoolExecutor(len(names))
    yield {name: pool.submit(CASES[name], field) for name in names}
    field.over.set()
    pool.shutdown(cancel_futures=True)


# Retries and deferrals


@at_once
def test_promise_2_a_retry_after_a_lost_response_sends_no_second_email(field: Field) -> None:
    run = field.run("lost-responses", lost_responses=1)
    run.ends()
    assert (run.mails(), run.reused(), run.tries()) == ([1, 1], [True, True], [2, 2])
    assert (run.explained("send"), run.explained("resend")) == ([], []), "a retry is no clear"


@at_once
def test_promise_2_a_deferral_sends_no_second_email(field: Field) -> None:
    waiting = field.run("delivered-late", "clears_waiting")
    waiting.reaches("deferred")
    assert waiting.mails() == [1, 1]
    waiting.deliver()
    waiting.ends()
    assert (waiting.mails(), waiting.reused(), waiting.tries()) == ([1, 1], [False, False], [1, 1])


# Clears


@at_once
def test_promise_2_a_finished_task_that_is_cleared_sends_again_only_if_asked(field: Field) -> None:
    run = field.run("finished")
    run.ends()
    assert (run.mails(), run.reused()) == ([1, 1], [False, False])
    for times in (2, 3):
        run.clear()
        run.ends()
        assert (run.mails(), run.reused(), run.tries()) == ([1, times], [True, False], [times, times])
    assert (run.explained("send"), run.explained("resend")) == ([2, 3], [])


@at_once
def test_promise_2_retries_and_deferrals_after_a_clear_send_nothing_more(field: Field) -> None:
    run = field.run("busy", long_429=1, lost_responses=1)
    run.ends()
    assert (run.mails(), run.reused()) == ([1, 1], [True, True])
    assert run.tries() == [2, 2], "the 429 deferred the task, the lost response was retried"
    run.fail(long_429=1, lost_responses=2)
    run.clear()
    run.ends()
    assert (run.mails(), run.reused(), run.tries()) == ([1, 2], [True, True], [5, 5])


@at_once
def test_promise_2_a_task_that_is_cleared_while_it_waits_for_its_retry(field: Field) -> None:
    run = field.run("up-for-retry", "clears_retried_later", lost_responses=1)
    run.reaches("up_for_retry")
    assert run.mails() == [1, 1]
    run.clear()
    run.ends()
    assert (run.mails(), run.reused()) == ([1, 2], [True, False])
    assert (run.explained("send"), run.explained("resend")) == ([2], [])


@at_once
def test_promise_2_a_task_that_is_cleared_while_it_runs_sends_one_more_or_none(field: Field) -> None:
    run = field.run("running", slow_responses=1)
    field.until("both are stored and unanswered", lambda: run.mails() == [1, 1])
    run.reaches("running")
    before = run.instances("resend")[0]["max_tries"]
    for task in TASKS:
        run.clear(task)
    run.ends()
    raised = run.instances("resend")[0]["max_tries"] > before
    assert run.mails() == [1, 2 if raised else 1]
    assert run.reused() == [True, not raised]


@at_once
def test_promise_2_a_task_that_is_cleared_while_it_is_deferred(field: Field) -> None:
    run = field.run("deferred", "clears_waiting")
    run.reaches("deferred")
    run.clear()
    field.until("the second mail of the one that may", lambda: run.mails() == [1, 2])
    run.deliver()
    run.ends()
    assert (run.mails(), run.reused()) == ([1, 2], [True, False])


@at_once
def test_promise_2_a_run_that_is_cleared(field: Field) -> None:
    run = field.run("whole-run")
    run.ends()
    field.airflow.clear_run(run.dag_id, run.run_id)
    run.ends()
    assert (run.mails(), run.reused(), run.tries()) == ([1, 2], [True, False], [2, 2])


@at_once
def test_promise_2_an_upstream_task_that_is_cleared_with_downstream(field: Field) -> None:
    run = field.run("upstream", "clears_upstream")
    run.ends()
    run.clear("prepare", include_downstream=True)
    run.ends()
    assert (run.mails(), run.reused(), run.tries()) == ([1, 2], [True, False], [2, 2])


@at_once
def test_promise_2_a_task_that_is_marked_failed_and_cleared(field: Field) -> None:
    run = field.run("marked-failed")
    run.ends()
    for task in TASKS:
        field.airflow.mark_failed(run.dag_id, run.run_id, task)
    run.reaches("failed")
    assert run.mails() == [1, 1]
    run.clear()
    run.ends()
    assert (run.mails(), run.reused()) == ([1, 2], [True, False])


@at_once
def test_promise_2_one_of_mapped_tasks_that_is_cleared(field: Field) -> None:
    run = field.run("mapped", "clears_mapped")
    run.ends()
    for task in TASKS:
        assert [len(run.messages(task, index)) for index in range(3)] == [1, 1, 1]
    run.clear(map_index=1)
    run.ends()
    assert [len(run.messages("send", index)) for index in range(3)] == [1, 1, 1]
    assert [len(run.messages("resend", index)) for index in range(3)] == [1, 2, 1]
    assert run.tries() == [1, 2, 1, 1, 2, 1]


@at_once
def test_promise_1_a_mapping_in_another_order_after_a_clear_fails_instead_of_passing_for_sent(field: Field) -> None:
    run = field.run("remapped", "clears_remapped")
    run.ends()
    for task in TASKS:
        assert [len(run.messages(task, index)) for index in range(3)] == [1, 1, 1]
    run.clear(*(f"people_{task}" for task in TASKS), include_downstream=True)
    run.reaches("success", "resend")
    field.until(
        "the tasks that stand for another recipient now have failed, the one in the middle has not",
        lambda: [row["state"] for row in run.instances("send")] == ["failed", "success", "failed"],
    )
    assert [len(run.messages("send", index)) for index in range(3)] == [1, 1, 1]
    assert [len(run.messages("resend", index)) for index in range(3)] == [2, 2, 2]
    assert run.tries() == [2] * 6, "a retry cannot fix it"


# Runs


@at_once
def test_promise_2_a_run_that_is_deleted_and_made_again_with_its_id(field: Field) -> None:
    run = field.run("deleted")
    run.ends()
    field.airflow.delete_run(run.dag_id, run.run_id)
    run = field.run("deleted")
    run.ends()
    # Not the tries: Airflow may take the end of the deleted run's task for that of the new one, and retry it.
    assert (run.mails(), run.reused()) == ([1, 1], [True, True])
    run.clear()
    run.ends()
    assert (run.mails(), run.reused()) == ([1, 2], [True, False])


@at_once
def test_promise_2_a_backfill_and_the_same_one_again(field: Field) -> None:
    days = ("2026-01-01", "2026-01-02")
    runs = [Run(field, "clears_dated", f"backfill__{day}T00:00:00+00:00") for day in days]
    for again, mails, tries in ((False, [1, 1], [1, 1]), (False, [1, 1], [1, 1]), (True, [1, 2], [2, 2])):
        field.airflow.backfill("clears_dated", *days, again=again, timeout=LIMIT)
        for run in runs:
            run.ends()
            assert (run.mails(), run.tries()) == (mails, tries)


@at_once
def test_promise_2_dags_test_makes_a_new_run_except_for_the_same_date_on_airflow_2(field: Field) -> None:
    def test(*date: str) -> str:
        field.airflow.command("dags", "test", "clears_tested", *date, timeout=LIMIT)
        runs = field.airflow.call("GET", "dags/clears_tested/dagRuns")["dag_runs"]
        return str(max(runs, key=lambda run: run["end_date"])["dag_run_id"])

    made = [test("2026-02-01"), test("2026-02-01"), test()]
    if AIRFLOW_2:
        assert made[0] == made[1] == "manual__2026-02-01T00:00:00+00:00"
    assert len(set(made)) == (2 if AIRFLOW_2 else 3)
    for run_id in made:
        assert Run(field, "clears_tested", run_id).mails() == [1, 1]
    assert not (field.airflow.logs / "tasks" / "dag_id=clears_tested").exists(), "a worker ran its tasks too"


# Edited Dags


def edited(field: Field, dag_id: str, **lines: Any) -> None:
    """Edit a Dag file and wait until Airflow has read it again."""
    file = field.airflow.dags_folder / f"{dag_id}.py"
    text = file.read_text()
    for name, value in lines.items():
        before = next(line for line in text.splitlines() if line.startswith(f"{name} = "))
        text = text.replace(before, f"{name} = {value!r}")
    # At once: a half-written file could be read.
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(file)
    task = f"dags/{dag_id}/tasks/send"
    field.until(
        f"{dag_id} is read anew",
        lambda: field.airflow.call("GET", task)["retry_delay"]["seconds"] == lines["RETRY_DELAY"],
    )


@at_once
def test_promise_2_a_dag_with_another_text_between_run_and_clear(field: Field) -> None:
    run = field.run("new-text", "clears_new_text")
    run.ends()
    edited(field, run.dag_id, SUBJECT="Second", RETRY_DELAY=1)
    run.clear()
    run.ends()
    assert [message["subject"] for message in run.messages("send")] == ["First"]
    assert [message["subject"] for message in run.messages("resend")] == ["First", "Second"]
    assert run.reused() == [True, False]


def other_retries(field: Field, dag_id: str, retries: int) -> None:
    run = field.run("other-retries-" + str(retries), dag_id, lost_responses=1)
    run.reaches("up_for_retry")
    edited(field, dag_id, RETRIES=retries, RETRY_DELAY=1)
    run.ends()
    assert (run.mails(), run.reused(), run.tries()) == ([1, 1], [True, True], [2, 2])


@at_once
def test_promise_2_more_retries_between_two_tries(field: Field) -> None:
    other_retries(field, "clears_more_retries", 5)


@at_once
def test_promise_2_fewer_retries_between_two_tries(field: Field) -> None:
    other_retries(field, "clears_fewer_retries", 1)


@at_once
def test_promise_2_fewer_retries_and_then_a_clear_sends_one_more_or_none(field: Field) -> None:
    run = field.run("lowered", "clears_lowered_retries")
    run.ends()
    before = run.instances("resend")[0]["max_tries"]
    edited(field, run.dag_id, RETRIES=2, RETRY_DELAY=1)
    run.clear()
    run.ends()
    raised = run.instances("resend")[0]["max_tries"] > before
    assert run.mails() == [1, 2 if raised else 1]
    assert run.reused() == [True, not raised]
