"""FluxomailDeliverySensor: one outcome table for poke, reschedule and deferrable, cell by cell (promise 3)."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import json
import logging
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_fluxomail import triggers
from airflow_provider_fluxomail.airflow_compat import AIRFLOW_VERSION
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.configuration import connection
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger, FluxomailRetryAfterTrigger
from tests.support.running import Run, context, fire, rebuilt
from tests.support.timing import quick_waits, wait_timing

PACKAGE = "airflow_provider_fluxomail"
TIMELINE = "/api/v1/sends"
GOLDEN = json.loads((Path(__file__).parent / "golden_triggers.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_waits(monkeypatch)


def send(to: str = "ops@example.org", **fields: Any) -> str:
    hook = FluxomailHook()
    message = {"to": to, "subject": "Hi", "content": "Text", "html_content": "<p>Hi</p>", **fields}
    sent = hook.send(message, idempotency_key=str(uuid.uuid4()))
    hook.close()
    return sent.send_id


def sensor(mode: str, **fields: Any) -> FluxomailDeliverySensor:
    how: dict[str, Any] = {"deferrable": True} if mode == "deferrable" else {"mode": mode, "deferrable": False}
    return FluxomailDeliverySensor(task_id="task", **{"poke_interval": 0.1, "timeout": 20, **how, **fields})


MODES = ["poke", "deferrable"]  # reschedule needs Airflow around it: see test_dags.py


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("to", "target", "kind", "told"),
    [
        ("ops@example.org", "delivered", "success", "delivered"),
        ("opened@example.org", "delivered", "success", "delivered"),
        ("opened@example.org", "opened", "success", "opened"),
        ("clicked@example.org", "clicked", "success", "clicked"),
        ("bounced@example.org", "delivered", "AirflowFailException", "550"),
        ("complained@example.org", "opened", "AirflowFailException", "complained of"),
        ("complained@example.org", "delivered", "success", "delivered"),
        ("dropped@example.org", "delivered", "AirflowFailException", "was dropped"),
        ("failed@example.org", "delivered", "AirflowFailException", "failed"),
        ("never@example.org", "delivered", "AirflowSensorTimeout", "not delivered within 1 s"),
        ("ops@example.org", "opened", "AirflowSensorTimeout", "not opened within 1 s; last event: delivered"),
    ],
)
@pytest.mark.parametrize("soft_fail", [False, True])
def test_promise_3_the_outcome_table(
    sandbox: Sandbox, mode: str, to: str, target: str, kind: str, told: str, soft_fail: bool
) -> None:
    sandbox.settings(event_delay=0.2)
    timeout = 1 if kind == "AirflowSensorTimeout" else 30
    run = Run(sensor(mode, send_id=send(to), target=target, timeout=timeout, soft_fail=soft_fail))
    if soft_fail and kind != "success":
        assert run.kind == "AirflowSkipException", run.error
        return
    assert run.kind == kind, run.error
    if kind == "success":
        assert run.result["event"] == told
        assert run.result["time"].endswith("Z")
    else:
        assert told in str(run.error)
    # On a slow machine the event may be there at the first look.
    assert bool(run.deferrals) is (mode == "deferrable" and len(sandbox.requests("GET")) > 1)


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
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 429, "retry_after": 0.2},
        {"kind": "status", "status": 408},
        {"kind": "status", "status": 200, "body": "<html>"},
        {"kind": "response_lost_after_store"},
    ],
)
def test_promise_3_outages_are_waited_out(
    sandbox: Sandbox,
    mode: str,
    fault: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FluxomailDeliveryTrigger, "log", logging.getLogger("triggerer"))
    send_id = send()
    sandbox.fail_next(times=6, path=TIMELINE, **fault)
    run = Run(sensor(mode, send_id=send_id))
    assert run.kind == "success", run.error
    assert len(sandbox.requests("GET")) == 7
    warned = [record for record in caplog.records if "still waiting" in record.getMessage()]
    assert len(warned) == (1 if mode == "poke" else 2), "each change once, in worker and triggerer"


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_until_the_deadline_times_out_and_says_so(sandbox: Sandbox, mode: str) -> None:
    send_id = send()
    sandbox.fail_next(503, times=1000, path=TIMELINE)
    run = Run(sensor(mode, send_id=send_id, timeout=0.5))
    assert run.kind == "AirflowSensorTimeout"
    assert "the last poll failed" in str(run.error)


@pytest.mark.parametrize("mode", MODES)
def test_promise_4_retry_after_holds_the_next_look(sandbox: Sandbox, mode: str) -> None:
    send_id = send()
    sandbox.fail_next(429, times=2, path=TIMELINE, retry_after=0.7)
    assert Run(sensor(mode, send_id=send_id, poke_interval=0.01)).kind == "success"
    looks = sandbox.requests("GET")
    assert len(looks) == 3
    assert looks.gaps[1] >= 0.7


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


def deferred(sandbox: Sandbox, **fields: Any) -> Any:
    task = sensor("deferrable", **{"send_id": send("never@example.org"), **fields})
    with pytest.raises(BaseException) as caught:
        task.execute(context())
    return caught.value


def test_a_deferral_does_not_resume_before_airflow_can_take_it(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, resume_after=8.0)
    assert deferred(sandbox).trigger.resume_after == pytest.approx(wait.now() + 8, abs=1)


def test_promise_4_a_long_retry_after_defers_at_once_and_holds_the_trigger_too(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_timing(monkeypatch, worker_polls=wait.WaitTiming().worker_polls)
    sandbox.fail_next(429, times=9, path=TIMELINE, retry_after=600)
    started = wait.now()
    trigger = deferred(sandbox, timeout=9999).trigger
    assert wait.now() - started < 5, "the worker does not sit it out"
    assert len(sandbox.requests("GET")) == 1
    assert trigger.next_look == pytest.approx(started + 600, abs=5)
    trigger.next_look = wait.now() + 0.5
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(fire(trigger), 0.3))
    assert len(sandbox.requests("GET")) == 1


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


def loaded(path: str) -> Any:
    """What a dotted path in the package names."""
    parts = path.split(".")
    return functools.reduce(getattr, parts[1:], importlib.import_module(f"{PACKAGE}.{parts[0]}"))


#: Airflow 2 has no asset watchers.
KNOWN = {name for name in triggers.__all__ if AIRFLOW_VERSION >= (3, 0) or name != "FluxomailEventTrigger"}


@pytest.mark.parametrize(
    "case", [case for case in GOLDEN if case["path"].split(".")[-1] in KNOWN], ids=lambda case: case["name"]
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
        cases = [case["kwargs"] for case in GOLDEN if case["path"] == f"{triggers.__name__}.{name}"]
        assert cases, one
        assert {name for kwargs in cases for name in kwargs} == set(one(**cases[0]).serialize()[1])


def test_promise_5_no_secret_and_no_person_in_a_trigger(sandbox: Sandbox) -> None:
    kwargs = json.dumps(deferred(sandbox).trigger.serialize())
    for private in ("fm_sandbox", "example.org", "Text"):
        assert private not in kwargs
