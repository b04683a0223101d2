"""The retry policy: its table of errors, and who has it."""

from __future__ import annotations

import datetime
import functools
import itertools
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import (
    HAS_RETRY_POLICIES,
    AirflowOptionalProviderFeatureException,
    BaseOperator,
)
from airflow_provider_fluxomail.client import errors, retries
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.retry_policy import FluxomailRetryPolicy
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG
from tests.support.retry_policies import EVERY_ERROR, decision, since_3_3

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
CLASSES: list[tuple[type[BaseOperator], dict[str, Any]]] = [
    (FluxomailSendOperator, {"to": "ops@example.org", "subject": "Hi", "content": "Text"}),
    (FluxomailSendBatchOperator, {"messages": []}),
    (FluxomailDeliverySensor, {"send_id": "sends_1"}),
    (FluxomailSendDecoratedOperator, {"python_callable": list}),
]
each_class = pytest.mark.parametrize(("kind", "arguments"), CLASSES, ids=[kind.__name__ for kind, _ in CLASSES])


@pytest.mark.skipif(HAS_RETRY_POLICIES, reason="what older versions of Airflow say")
def test_before_3_3_it_says_what_to_do_instead() -> None:
    with pytest.raises(AirflowOptionalProviderFeatureException, match=r"3\.3.*retry_delay"):
        FluxomailRetryPolicy()


@since_3_3
@pytest.mark.parametrize("kind", [kind for kind in EVERY_ERROR if not kind.permanent])
@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        (0.5, 0.5, 1.5),
        (3, 3, 4),
        (60, 60, 75),
        (80000, 80000, 86400),
        (1e12, 86400, 86400),
        (float("inf"), 86400, 86400),
    ],
)
def test_what_the_server_asks_for_is_the_delay_and_a_little(
    monkeypatch: pytest.MonkeyPatch,
    kind: type[errors.FluxomailError],
    share: float,
    asked: float,
    least: float,
    most: float,
) -> None:
    monkeypatch.setattr(retries, "spread", functools.partial(retries.spread, draw=lambda: share))
    action, delay = decision(kind("no", retry_after=asked))
    assert action == "retry"
    assert delay == pytest.approx(most if share else least)


@since_3_3
@pytest.mark.parametrize("asked", [None, 0, 0.0, -5])
def test_no_time_is_airflows_to_choose(asked: float | None) -> None:
    assert decision(errors.FluxomailRateLimitError("no", retry_after=asked)) == ("default", None)


def caused(*errors_: BaseException) -> BaseException:
    """The first of some errors, each raised from the next."""
    for error, cause in itertools.pairwise(errors_):
        error.__cause__ = cause
    return errors_[0]


@since_3_3
def test_an_error_of_the_author_that_was_raised_from_ours() -> None:
    refused, busy = errors.FluxomailAuthError("no"), errors.FluxomailServerError("no", retry_after=3)
    assert decision(caused(RuntimeError("no"), refused)) == ("fail", None)
    assert decision(caused(RuntimeError("no"), ValueError("no"), refused)) == ("fail", None)
    assert decision(caused(RuntimeError("no"), busy))[0] == "retry"
    # What was raised last knows most.
    assert decision(caused(busy, refused))[0] == "retry"
    assert decision(caused(RuntimeError("no"), KeyError("no"))) == ("default", None)
    assert decision(caused(first := RuntimeError("no"), ValueError("no"), first)) == ("default", None)


@since_3_3
def test_an_error_that_only_happened_while_ours_was_handled_is_airflows() -> None:
    error = RuntimeError("the database is away")
    error.__context__ = errors.FluxomailAuthError("no")
    assert decision(error) == ("default", None)


@since_3_3
@pytest.mark.parametrize("error", [RuntimeError("no"), ValueError("no"), KeyboardInterrupt()])
def test_other_errors_are_airflows(error: BaseException) -> None:
    assert decision(error) == ("default", None)


@since_3_3
def test_the_reason_tells_nothing_private() -> None:
    policy = FluxomailRetryPolicy()
    for error in (errors.FluxomailAuthError("veiled"), errors.FluxomailServerError("veiled", retry_after=3)):
        reason = policy.evaluate(error, 1, 3).reason
        assert reason
        assert type(error).__name__ in reason
        assert "veiled" not in reason


@each_class
def test_our_tasks_have_it(kind: type[BaseOperator], arguments: dict[str, Any]) -> None:
    task: Any = kind(task_id="task", **arguments)
    if HAS_RETRY_POLICIES:
        assert isinstance(task.retry_policy, FluxomailRetryPolicy)
    else:
        assert not hasattr(task, "retry_policy")


@since_3_3
@each_class
def test_unless_the_author_gives_another(kind: type[BaseOperator], arguments: dict[str, Any]) -> None:
    from airflow.sdk import ExceptionRetryPolicy

    own = ExceptionRetryPolicy(rules=[])
    task: Any = kind(task_id="task", retry_policy=own, **arguments)
    assert task.retry_policy is own
    with DAG(dag_id="dag", schedule=None, start_date=START, default_args={"retry_policy": own}):
        of_dag: Any = kind(task_id="task", **arguments)
    assert of_dag.retry_policy is own


@since_3_3
def test_mapped_tasks_have_it_too() -> None:
    with DAG(dag_id="dag", schedule=None, start_date=START):
        mapped: Any = FluxomailSendOperator.partial(task_id="task", subject="Hi", content="x").expand(to=["a@x.org"])
    task = mapped.unmap({"to": "a@x.org"})
    assert isinstance(task.retry_policy, FluxomailRetryPolicy)


@since_3_3
def test_a_dag_with_it_can_be_stored_and_loaded() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG(dag_id="dag", schedule=None, start_date=START) as dag:
        for kind, arguments in CLASSES:
            kind(task_id=kind.__name__, **arguments)
        FluxomailSendOperator.partial(task_id="mapped", subject="Hi", content="x").expand(to=["a@x.org"])
        BaseOperator(task_id="other", retry_policy=FluxomailRetryPolicy())
    loaded = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert {task.task_id: task.has_retry_policy for task in loaded.tasks} == {
        **{kind.__name__: True for kind, _ in CLASSES}, "other": True, "mapped": False,
    }  # fmt: skip
