"""Every fault of the sandbox against a wait (promise 3): it is waited out, and ends at its deadline if it stays."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.running import Run
from tests.support.ways import PASSING, TIMELINE, Fault, by_hook, connect, quick

__all__ = ["quick"]
pytestmark = [
    pytest.mark.usefixtures("quick"),
    pytest.mark.parametrize("deferrable", [False, True], ids=["poke", "deferrable"]),
    # An answer to a read never had a sendId to miss.
    pytest.mark.parametrize("fault", [fault for fault in PASSING if fault.kind != "missing_send_id"], ids=str),
]


def wait(deferrable: bool, timeout: float) -> Run:
    (sent,) = by_hook(1)
    assert sent.send_id
    return Run(
        FluxomailDeliverySensor(
            task_id="wait", send_id=sent.send_id, deferrable=deferrable, poke_interval=0.1, timeout=timeout
        )
    )


def test_promise_3_a_wait_survives_a_fault(fluxomail_sandbox: FluxomailSandbox, deferrable: bool, fault: Fault) -> None:
    connect(fluxomail_sandbox, fault)
    fluxomail_sandbox.fail_next(fault.kind, times=2, path=TIMELINE, **fault.options)
    run = wait(deferrable, timeout=60)
    assert run.kind == "success", run.error
    assert fluxomail_sandbox.faults() == []


def test_promise_3_a_wait_ends_though_a_fault_stays(
    fluxomail_sandbox: FluxomailSandbox, deferrable: bool, fault: Fault
) -> None:
    connect(fluxomail_sandbox, fault)
    fluxomail_sandbox.fail_next(fault.kind, times=None, path=TIMELINE, **fault.options)
    run = wait(deferrable, timeout=0.5)
    assert run.kind == "AirflowSensorTimeout", run.error
    fluxomail_sandbox.assert_sent(1)
