"""FluxomailDeliverySensor: one outcome table for poke, reschedule and deferrable, cell by cell (promise 3)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.configuration import connection
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger, FluxomailRetryAfterTrigger
from tests.support.running import Run, context, fire, rebuilt
from tests.support.sensors import MODES, deferred, quick_sensors, send, sensor
from tests.support.timing import wait_timing

__all__ = ["quick_sensors"]
pytestmark = pytest.mark.usefixtures("quick_sensors")


@pytest.mark.parametrize("mode", MODES)
def test_never_fail_and_fail_on(sandbox: Sandbox, mode: str) -> None:
    sandbox.settings(event_delay=0.2)
    bounced = send("bounced@example.org")
    for send_id in (bounced, send("never@example.org")):
        run = Run(sensor(mode, send_id=send_id, never_fail=True, timeout=1))
        assert run.kind == "AirflowSkipException", run.error
    for fail_on in ((), ("complained",)):
        run = Run(sensor(mode, send_id=bounced, fail_on=fail_on, timeout=0.5))
        assert run.kind == "AirflowSensorTimeout"
        assert "last event: bounced" in str(run.error)


@pytest.mark.parametrize("mode", MODES)
def test_bad_input_fails_at_once_soft_fail_or_not(sandbox: Sandbox, mode: str) -> None:
    """Each kind of it: ``test_parsing.py``."""
    for soft_fail in (False, True):
        run = Run(sensor(mode, send_id={"send_id": "x"}, soft_fail=soft_fail))
        assert run.kind == "AirflowFailException"
        assert "send.output['send_id']" in str(run.error)
    assert sandbox.requests() == []


def test_negative_times_are_refused_when_the_dag_is_parsed() -> None:
    for name in ("timeout", "poke_interval"):
        with pytest.raises(Exception, match="non-negative"):
            sensor("poke", send_id="s1", **{name: -1})
        assert sensor("poke", send_id="s1", **{name: timedelta(seconds=3)})


def fired(send_id: str, *, started: float | None = None, lasts: float = 50.0, **fields: Any) -> Any:
    """What a delivery trigger fires."""
    began = wait.now() if started is None else started
    trigger = FluxomailDeliveryTrigger(send_id=send_id, started=began, deadline=began + lasts, **fields)
    return asyncio.run(asyncio.wait_for(fire(trigger), 20))


@pytest.fixture
def rotated(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Key rotation: the connection holds a key that Fluxomail refuses, and from its second reading on a good one."""
    read: list[str] = []
    sandbox.connect(key="old")
    real, real_async = FluxomailHook.get_options, connection.read_connection

    def note() -> None:
        if read:
            sandbox.connect()
        read.append("read")

    def get_options(hook: FluxomailHook) -> Any:
        if hook._connection is None:
            note()
        return real(hook)

    async def read_connection(conn_id: str) -> Any:
        note()
        return await real_async(conn_id)

    monkeypatch.setattr(FluxomailHook, "get_options", get_options)
    monkeypatch.setattr(connection, "read_connection", read_connection)
    return read


def test_a_401_reads_the_connection_again_in_the_worker(sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    send_id = send()
    read = request.getfixturevalue("rotated")
    assert Run(sensor("poke", send_id=send_id, poke_interval=60)).kind == "success", "at once, not a poll later"
    assert len(read) == 2


def test_a_401_reads_the_connection_again_in_the_triggerer(sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    send_id = send()
    read = request.getfixturevalue("rotated")
    assert fired(send_id, poll_interval=60)["status"] == "reached"
    assert len(read) == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_key_that_stays_refused_fails(sandbox: Sandbox, mode: str) -> None:
    sandbox.key("sender", scopes=["send_email"])
    for key, text, requests in (("wrong", "401", 2), ("sender", "read_sends", 3)):
        sandbox.connect(key=key)
        run = Run(sensor(mode, send_id="s1"))
        assert run.kind == "AirflowFailException"
        assert text in str(run.error)
        assert len(sandbox.requests()) == requests, "a 401 once more, with the connection read again"


@pytest.mark.parametrize(("heartbeat", "seconds"), [(None, 8), ("1", 8), ("10", 13)])
def test_a_deferral_does_not_resume_before_airflow_can_take_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, heartbeat: str | None, seconds: float
) -> None:
    if heartbeat:
        monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", heartbeat)
    wait_timing(monkeypatch, resume_after=wait.WaitTiming().resume_after)
    began = wait.now()
    resume_after = deferred(sandbox).trigger.resume_after
    assert began + seconds <= resume_after <= wait.now() + seconds


def test_the_hold_ends_at_the_deadline(sandbox: Sandbox) -> None:
    assert fired(send(), lasts=0.3, next_look=wait.now() + 999)["status"] == "reached"


@pytest.mark.parametrize("mode", MODES)
def test_an_interval_of_zero_does_not_hammer(sandbox: Sandbox, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, least_interval=1.0)
    Run(sensor(mode, send_id=send("never@example.org"), poke_interval=0, timeout=1.5))
    assert len(sandbox.requests("GET")) <= 5


@pytest.mark.parametrize("soft_fail", [False, True])
def test_airflows_own_timeout_of_a_deferral_is_a_sensor_timeout(sandbox: Sandbox, soft_fail: bool) -> None:
    """The backstop, should no triggerer run: Airflow 2.11 would retry it with a whole new wait."""
    task = sensor("deferrable", send_id="s1", soft_fail=soft_fail)
    for error, kind in (("Trigger timeout", "AirflowSensorTimeout"), ("Trigger failure", "TaskDeferralError")):
        with pytest.raises(Exception) as caught:
            task.resume_execution("__fail__", {"error": error}, context())
        assert type(caught.value).__name__ == ("AirflowSkipException" if soft_fail else kind)


def test_a_deferral_survives_a_restart_of_the_triggerer(sandbox: Sandbox) -> None:
    deferral = deferred(sandbox, timeout=100)
    trigger = deferral.trigger
    assert rebuilt(trigger).serialize() == rebuilt(rebuilt(trigger)).serialize() == trigger.serialize()
    assert trigger.deadline == pytest.approx(wait.now() + 100, abs=5), "a moment: a restart does not extend it"
    assert deferral.timeout > timedelta(seconds=100), "Airflow's own timeout is only a backstop"


def test_when_a_trigger_fires(sandbox: Sandbox) -> None:
    assert fired(send("never@example.org"), started=1.0, lasts=1.0)["status"] == "timeout", "the deadline has passed"
    assert fired(send(), started=1.0, lasts=1.0)["status"] == "reached", "an event before the deadline still counts"
    now = wait.now()
    fired(send(), resume_after=now + 0.5)
    assert wait.now() >= now + 0.5, "not before Airflow can take it"


def test_a_trigger_without_a_usable_connection_ends(sandbox: Sandbox) -> None:
    for text in ("does not exist", "no API key"):
        event = fired("s1", fluxomail_conn_id="gone")
        assert event["status"] == "error"
        assert text in event["message"]
        sandbox.connect("gone", key="")


def test_airflows_own_outage_is_waited_out(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, failed_lookup=0.0)
    outages = iter([RuntimeError("no API server"), RuntimeError("no API server")])
    real = connection.read_connection

    async def sometimes(conn_id: str) -> Any:
        for error in outages:
            raise error
        return await real(conn_id)

    monkeypatch.setattr(connection, "read_connection", sometimes)
    assert fired(send(), poll_interval=0.1)["status"] == "reached"


def test_the_rate_limit_trigger_fires_at_its_moment() -> None:
    now = wait.now()
    trigger = FluxomailRetryAfterTrigger(resume_at=now + 0.3, give_up_at=now + 9, state={"done": 1})
    event = asyncio.run(fire(rebuilt(trigger)))
    assert wait.now() >= now + 0.3
    assert event == {"give_up_at": now + 9, "state": {"done": 1}}
