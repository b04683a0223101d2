"""Promise 3: a wait ends, and survives any outage in between. Every mode has the same outcome table."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.running import Run
from tests.support.ways import MESSAGE, PASSING, TIMELINE, Fault, Try, by_hook, connect, quick

__all__ = ["quick"]

#: A response to a read never has a sendId to miss.
FAULTS_OF_A_READ = [fault for fault in PASSING if fault.kind != "missing_send_id"]
#: What a fault means to a wait depends on its class alone.
ONE_OF_EACH_CLASS = [
    next(fault for fault in FAULTS_OF_A_READ if fault.error is error)
    for error in (
        *(errors.FluxomailConnectionError, errors.FluxomailRateLimitError),
        *(errors.FluxomailServerError, errors.FluxomailResponseError),
    )
]
each_mode = pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"])


def wait(deferrable: bool, timeout: float) -> Run:
    """Send a message, and wait for its delivery."""
    send_id = by_hook(Try([MESSAGE])).run.result.send_id
    return Run(
        FluxomailDeliverySensor(
            task_id="wait", send_id=send_id, deferrable=deferrable, poke_interval=0.1, timeout=timeout
        )
    )


@pytest.mark.usefixtures("quick")
@each_mode
@pytest.mark.parametrize("fault", FAULTS_OF_A_READ, ids=str)
def test_promise_3_a_wait_survives_a_fault(fluxomail_sandbox: FluxomailSandbox, deferrable: bool, fault: Fault) -> None:
    connect(fluxomail_sandbox, fault)
    fluxomail_sandbox.fail_next(fault.kind, times=2, path=TIMELINE, **fault.options)
    run = wait(deferrable, timeout=60)
    assert run.kind == "success", run.error
    assert fluxomail_sandbox.faults() == []


@pytest.mark.usefixtures("quick")
@each_mode
@pytest.mark.parametrize("fault", ONE_OF_EACH_CLASS, ids=str)
def test_promise_3_a_wait_ends_though_a_fault_stays(
    fluxomail_sandbox: FluxomailSandbox, deferrable: bool, fault: Fault
) -> None:
    connect(fluxomail_sandbox, fault)
    fluxomail_sandbox.fail_next(fault.kind, times=None, path=TIMELINE, **fault.options)
    run = wait(deferrable, timeout=0.5)
    assert run.kind == "AirflowSensorTimeout", run.error
    fluxomail_sandbox.assert_sent(1)
