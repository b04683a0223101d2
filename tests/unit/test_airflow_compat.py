"""Airflow's names on the Airflow that is installed; `make matrix` runs this on each supported one."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail import airflow_compat
from tests.support.airflow_facts import RELEASE

SINCE_3_3 = {"RetryDecision", "SharedStreamProducer"}


@pytest.mark.parametrize("name", sorted(airflow_compat._PLACES))
def test_every_name_is_where_the_table_says(name: str) -> None:
    if name in SINCE_3_3 and RELEASE < (3, 3):
        with pytest.raises(AttributeError, match="does not have it"):
            getattr(airflow_compat, name)
    else:
        assert getattr(airflow_compat, name) is not None


def test_a_name_that_no_airflow_has() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'BaseOperater'"):
        _ = airflow_compat.BaseOperater


def test_a_result_keeps_what_this_airflow_can_store() -> None:
    result: dict[str, Any] = {"send_id": "sends_1", "message_id": None}
    pushes_each: Any = SimpleNamespace(multiple_outputs=True)
    pushes_one: Any = SimpleNamespace(multiple_outputs=False)
    kept = {"send_id": "sends_1"} if (3, 0) <= RELEASE < (3, 1) else result
    assert airflow_compat.storable_result(pushes_each, result) == kept
    assert airflow_compat.storable_result(pushes_one, result) == result
    assert airflow_compat.storable_result(pushes_each, [None]) == [None]


def test_private_names_that_are_overridden_exist() -> None:
    """An override of a method that Airflow no longer calls would do nothing, and no test would fail."""
    sensor, notifier = airflow_compat.BaseSensorOperator, airflow_compat.BaseNotifier
    parameters = list(inspect.signature(sensor._get_next_poke_interval).parameters)
    assert parameters == ["self", "started_at", "run_duration", "poke_count"]
    assert list(inspect.signature(notifier._render).parameters)[:3] == ["self", "template", "context"]
    task = airflow_compat.BaseOperator(task_id="task", post_execute=lambda *_: None)
    assert airflow_compat.has_post_execute_hook(task)
    assert not airflow_compat.has_post_execute_hook(airflow_compat.BaseOperator(task_id="other"))


def test_the_status_of_the_api_servers_response() -> None:
    error = SimpleNamespace(error=SimpleNamespace(detail={"status_code": 404}))
    assert airflow_compat.api_error_status(error) == 404  # type: ignore[arg-type]
    assert airflow_compat.api_error_status(ValueError("another")) is None
