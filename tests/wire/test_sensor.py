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
from tests.support.sensors import MODES, TIMELINE, deferred, quick_sensors, send, sensor
from tests.support.timing import wait_timing

__all__ = ["quick_sensors"]
pytestmark = pytest.mark.usefixtures("quick_sensors")


@pytest.mark.parametrize("mode", MODES)
def test_never_fail_skips_in_every_mode(sandbox: Sandbox, mode: str) -> None:
    sandbox.settings(event_delay=0.2)
    for to in ("bounced", "never"):
        run = Run(sensor(mode, send_id=send(f"{to}@example.org"), never_fail=True, timeout=1))
        assert run.kind == "AirflowSkipException", run.error


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fail_on", [(), ("complained",)])
def test_fail_on_says_what_fails(sandbox: Sandbox, mode: str, fail_on: tuple[str, ...]) -> None:
    run = Run(sensor(mode, send_id=send("bounced@example.org"), fail_on=fail_on, timeout=0.5))
    assert run.kind == "AirflowSensorTimeout"
    assert "last event: bounced" in str(run.error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"send_id": None}, "send_id came out empty"),
        ({"send_id": ""}, "send_id came out empty"),
        ({"send_id": "None"}, "send_id came out empty"),
        ({"send_id": {"send_id": "x"}}, "send.output['send_id']"),
        ({"target": "arrived"}, "unknown target 'arrived'"),
        ({"fail_on": ["exploded"]}, "unknown event 'exploded'"),
    ],
)
@pytest.mark.parametrize("soft_fail", [False, True])
def test_bad_input_fails_at_once_soft_fail_or_not(
    sandbox: Sandbox, mode: str, fields: dict[str, Any], told: str, soft_fail: bool
) -> None:
    run = Run(sensor(mode, **{"send_id": "s1", "soft_fail": soft_fail, **fields}))
    assert run.kind == "AirflowFailException"
    assert told in str(run.error)
    assert sandbox.requests() == []


@pytest.mark.parametrize("name", ["timeout", "poke_interval"])
def test_negative_times_are_refused_when_the_dag_is_parsed(name: str) -> None:
    with pytest.raises(Exception, match="non-negative"):
        sensor("poke", send_id="s1", **{name: -1})
    assert sensor("poke", send_id="s1", **{name: timedelta(seconds=3)})


@pytest.mark.parametrize("mode", MODES)
def test_a_connection_without_a_key_fails_at_once(sandbox: Sandbox, mode: str) -> None:
    sandbox.connect(key="")
    run = Run(sensor(mode, send_id="s1"))
    assert run.kind == "AirflowFailException"
    assert "no API key" in str(run.error)


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_until_the_deadline_times_out_and_says_so(sandbox: Sandbox, mode: str) -> None:
    send_id = send()
    sandbox.fail_next(503, times=1000, path=TIMELINE)
    run = Run(sensor(mode, send_id=send_id, timeout=0.5))
    assert run.kind == "AirflowSensorTimeout"
    assert "the last poll failed" in str(run.error)


@pytest.mark.parametrize("mode", MODES)
def test_not_found_is_tolerated_for_a_while_and_then_fails(
    sandbox: Sandbox, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_id = send()
    sandbox.fail_next(404, times=3, path=TIMELINE)
    assert Run(sensor(mode, send_id=send_id)).kind == "success"
    wait_timing(monkeypatch, not_found_grace=0.5)
    run = Run(sensor(mode, send_id="sends_unknown"))
    assert run.kind == "AirflowFailException"
    assert "was not found for" in str(run.error)


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


def test_a_401_reads_the_connection_anew_in_the_worker(sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    send_id = send()
    read = request.getfixturevalue("rotated")
    assert Run(sensor("poke", send_id=send_id, poke_interval=60)).kind == "success", "at once, not a look later"
    assert len(read) == 2


def test_a_401_reads_the_connection_anew_in_the_triggerer(sandbox: Sandbox, request: pytest.FixtureRequest) -> None:
    send_id = send()
    read = request.getfixturevalue("rotated")
    now = wait.now()
    trigger = FluxomailDeliveryTrigger(send_id=send_id, started=now, deadline=now + 50, poll_interval=60)
    assert asyncio.run(asyncio.wait_for(fire(trigger), 20))["status"] == "reached"
    assert len(read) == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_401_that_stays_fails(sandbox: Sandbox, mode: str) -> None:
    sandbox.connect(key="wrong")
    run = Run(sensor(mode, send_id="s1"))
    assert run.kind == "AirflowFailException"
    assert "401" in str(run.error)
    assert len(sandbox.requests()) == 2, "once, and once more with the connection read anew"


def test_a_401_that_begins_later_fails_in_the_triggerer_too(sandbox: Sandbox) -> None:
    sandbox.connect(key="wrong")
    now = wait.now()
    event = asyncio.run(fire(FluxomailDeliveryTrigger(send_id="s1", started=now, deadline=now + 50)))
    assert event["status"] == "error"
    assert "401" in event["message"]


@pytest.mark.parametrize("mode", MODES)
def test_a_403_fails_at_once(sandbox: Sandbox, mode: str) -> None:
    sandbox.key("sender", scopes=["send_email"])
    sandbox.connect(key="sender")
    run = Run(sensor(mode, send_id="s1"))
    assert run.kind == "AirflowFailException"
    assert "read_sends" in str(run.error)
    assert len(sandbox.requests()) == 1


def test_looks_carry_jitter(sandbox: Sandbox) -> None:
    Run(sensor("poke", send_id=send("never@example.org"), timeout=2, poke_interval=0.1))
    gaps = sandbox.requests("GET").gaps
    assert max(gaps[:-1]) - min(gaps[:-1]) > 0.01
    assert min(gaps[:-1]) >= 0.08


def test_most_waits_end_in_the_worker(sandbox: Sandbox) -> None:
    run = Run(sensor("deferrable", send_id=send()))
    assert run.result["event"] == "delivered"
    assert run.deferrals == []


def test_a_deferral_does_not_resume_before_airflow_can_take_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, resume_after=8.0)
    assert deferred(sandbox).trigger.resume_after == pytest.approx(wait.now() + 8, abs=1)


def test_the_hold_ends_at_the_deadline(sandbox: Sandbox) -> None:
    now = wait.now()
    trigger = FluxomailDeliveryTrigger(send_id=send(), started=now, deadline=now + 0.3, next_look=now + 999)
    assert asyncio.run(asyncio.wait_for(fire(trigger), 10))["status"] == "reached"


@pytest.mark.parametrize("mode", MODES)
def test_an_interval_of_zero_does_not_hammer(sandbox: Sandbox, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, least_interval=1.0)
    Run(sensor(mode, send_id=send("never@example.org"), poke_interval=0, timeout=1.5))
    assert len(sandbox.requests("GET")) <= 5


@pytest.mark.parametrize("mode", MODES)
def test_a_404_past_the_deadline_is_a_timeout(sandbox: Sandbox, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, not_found_grace=0.5)
    assert Run(sensor(mode, send_id="sends_unknown", timeout=0.5)).kind == "AirflowSensorTimeout"


@pytest.mark.parametrize("soft_fail", [False, True])
def test_airflows_own_timeout_of_a_deferral_is_a_sensor_timeout(sandbox: Sandbox, soft_fail: bool) -> None:
    """The backstop, should no triggerer run: Airflow 2.11 would retry it with a whole new wait."""
    task = sensor("deferrable", send_id="s1", soft_fail=soft_fail)
    with pytest.raises(Exception) as caught:
        task.resume_execution("__fail__", {"error": "Trigger timeout"}, context())
    assert type(caught.value).__name__ == ("AirflowSkipException" if soft_fail else "AirflowSensorTimeout")
    with pytest.raises(Exception) as caught:
        task.resume_execution("__fail__", {"error": "Trigger failure"}, context())
    assert type(caught.value).__name__ == ("AirflowSkipException" if soft_fail else "TaskDeferralError")


def test_a_deferral_survives_a_restart_of_the_triggerer(sandbox: Sandbox) -> None:
    deferral = deferred(sandbox, timeout=100)
    trigger = deferral.trigger
    assert rebuilt(trigger).serialize() == rebuilt(rebuilt(trigger)).serialize() == trigger.serialize()
    assert trigger.deadline == pytest.approx(wait.now() + 100, abs=5), "a moment: a restart does not extend it"
    assert deferral.timeout > timedelta(seconds=100), "Airflow's own time-out is only a backstop"


def test_a_trigger_of_the_past_fires_at_once(sandbox: Sandbox) -> None:
    trigger = FluxomailDeliveryTrigger(send_id=send("never@example.org"), started=1.0, deadline=2.0)
    assert asyncio.run(asyncio.wait_for(fire(trigger), 5))["status"] == "timeout"


def test_an_event_at_the_deadline_still_counts(sandbox: Sandbox) -> None:
    trigger = FluxomailDeliveryTrigger(send_id=send(), started=1.0, deadline=2.0)
    assert asyncio.run(asyncio.wait_for(fire(trigger), 5))["status"] == "reached"


def test_it_does_not_fire_before_airflow_can_take_it(sandbox: Sandbox) -> None:
    now = wait.now()
    trigger = FluxomailDeliveryTrigger(send_id=send(), started=now, deadline=now + 50, resume_after=now + 0.5)
    asyncio.run(fire(trigger))
    assert wait.now() >= now + 0.5


@pytest.mark.parametrize("problem", ["missing", "broken"])
def test_a_trigger_without_a_usable_connection_ends(sandbox: Sandbox, problem: str) -> None:
    if problem == "broken":
        sandbox.connect("gone", key="")
    now = wait.now()
    trigger = FluxomailDeliveryTrigger(send_id="s1", started=now, deadline=now + 50, fluxomail_conn_id="gone")
    event = asyncio.run(fire(trigger))
    assert event["status"] == "error"
    assert ("does not exist" if problem == "missing" else "no API key") in event["message"]


def test_airflows_own_outage_is_waited_out(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, failed_lookup=0.0)
    answers = iter([RuntimeError("no API server"), RuntimeError("no API server")])
    real = connection.read_connection

    async def sometimes(conn_id: str) -> Any:
        for error in answers:
            raise error
        return await real(conn_id)

    monkeypatch.setattr(connection, "read_connection", sometimes)
    now = wait.now()
    trigger = FluxomailDeliveryTrigger(send_id=send(), started=now, deadline=now + 50, poll_interval=0.1)
    assert asyncio.run(fire(trigger))["status"] == "reached"


def test_the_rate_limit_trigger_fires_at_its_moment() -> None:
    now = wait.now()
    trigger = FluxomailRetryAfterTrigger(resume_at=now + 0.3, give_up_at=now + 9, state={"done": 1})
    event = asyncio.run(fire(rebuilt(trigger)))
    assert wait.now() >= now + 0.3
    assert event == {"give_up_at": now + 9, "state": {"done": 1}}
