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
from airflow_provider_fluxomail.client.retries import spread
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
@pytest.mark.parametrize(
    ("seconds", "shortest", "longest"),
    [(0.5, 0.5, 1.5), (60, 60, 75), (80000, 80000, 86400), (1e12, 86400, 86400), (float("inf"), 86400, 86400)],
)
def test_the_delay_is_what_the_server_asks_for_and_a_little(
    monkeypatch: pytest.MonkeyPatch, seconds: float, shortest: float, longest: float
) -> None:
    for draw, expected in ((0.0, shortest), (1.0, longest)):
        monkeypatch.setattr(retries, "spread", functools.partial(spread, draw=itertools.repeat(draw).__next__))
        for kind in EVERY_ERROR:
            if not kind.permanent:
                action, delay = decision(kind("no", retry_after=seconds))
                assert action == "retry"
                assert delay == pytest.approx(expected), kind


@since_3_3
@pytest.mark.parametrize(
    "error",
    [*(errors.FluxomailRateLimitError("no", retry_after=seconds) for seconds in (None, 0, -5)),
     ValueError("no"), KeyboardInterrupt()],
    ids=repr,
)  # fmt: skip
def test_other_errors_and_delays_are_airflows(error: BaseException) -> None:
    assert decision(error) == ("default", None)


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
    # The error that was raised last decides.
    assert decision(caused(busy, refused))[0] == "retry"
    assert decision(caused(RuntimeError("no"), KeyError("no"))) == ("default", None)
    assert decision(caused(first := RuntimeError("no"), ValueError("no"), first)) == ("default", None)
    only_while_ours_was_handled = RuntimeError("the database is away")
    only_while_ours_was_handled.__context__ = refused
    assert decision(only_while_ours_was_handled) == ("default", None)


@since_3_3
def test_the_reason_says_nothing_private() -> None:
    policy = FluxomailRetryPolicy()
    for error in (errors.FluxomailAuthError("veiled"), errors.FluxomailServerError("veiled", retry_after=3)):
        reason = policy.evaluate(error, 1, 3).reason
        assert reason
        assert type(error).__name__ in reason
        assert "veiled" not in reason


@each_class
def test_our_tasks_use_the_policy_unless_the_author_sets_another(
    kind: type[BaseOperator], arguments: dict[str, Any]
) -> None:
    task: Any = kind(task_id="task", **arguments)
    if not HAS_RETRY_POLICIES:
        assert not hasattr(task, "retry_policy")
        return
    from airflow.sdk import ExceptionRetryPolicy

    assert isinstance(task.retry_policy, FluxomailRetryPolicy)
    own = ExceptionRetryPolicy(rules=[])
    of_task: Any = kind(task_id="task", retry_policy=own, **arguments)
    with DAG(dag_id="dag", schedule=None, start_date=START, default_args={"retry_policy": own}):
        of_dag: Any = kind(task_id="task", **arguments)
    assert of_task.retry_policy is of_dag.retry_policy is own


@since_3_3
def test_mapped_tasks_use_the_policy_and_their_dag_can_be_stored_and_loaded() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    with DAG(dag_id="dag", schedule=None, start_date=START) as dag:
        for kind, arguments in CLASSES:
            kind(task_id=kind.__name__, **arguments)
        mapped: Any = FluxomailSendOperator.partial(task_id="mapped", subject="Hi", content="x").expand(to=["a@x.org"])
        BaseOperator(task_id="other", retry_policy=FluxomailRetryPolicy())
    assert isinstance(mapped.unmap({"to": "a@x.org"}).retry_policy, FluxomailRetryPolicy)
    loaded = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert {task.task_id: task.has_retry_policy for task in loaded.tasks} == {
        **{kind.__name__: True for kind, _ in CLASSES}, "other": True, "mapped": False,
    }  # fmt: skip
