"""What a StatsD server gets of Airflow's stats."""

from __future__ import annotations

import re
import socket
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from airflow_provider_fluxomail import metrics
from airflow_provider_fluxomail.client.watching.wait import Status
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.batches import SandboxTime, batch, people
from tests.support.running import Run, context
from tests.support.statsd_server import StatsD, operator, set_up, statsd
from tests.support.timing import enter_window, wait_timing
from tests.support.watching import Mail, send, timing, until, watching

__all__ = ["statsd"]

HOST = re.sub(r"[^A-Za-z0-9_-]", "_", socket.gethostname())
OPERATIONS = Path(__file__).parent.parent.parent / "docs" / "operate" / "operations.md"


def test_sends(sandbox: Sandbox, statsd: StatsD) -> None:
    ctx, counts = context(), {"sent": 1, "retried": 1}
    sandbox.fail_next("response_lost_after_store")
    assert Run(operator(), ctx).result["reused"], "a lost response is one send and one retry"
    assert statsd.counts() == counts
    assert Run(operator(), ctx).result["reused"]
    assert statsd.counts() == (counts := {**counts, "replayed": 1})
    sandbox.connect(max_attempts=1)
    for status, more in ((422, {"refused": 1}), (401, {"refused": 2}), (500, {"failed": 1})):
        sandbox.fail_next(status)
        assert Run(operator(), ctx).kind != "success"
        assert statsd.counts() == (counts := {**counts, **more})


def test_a_rate_limit_that_is_waited_out(sandbox: Sandbox, statsd: StatsD) -> None:
    sandbox.fail_next(429, retry_after=1)
    assert Run(operator()).kind == "success"
    assert statsd.counts() == {"sent": 1, "retried": 1, "rate_limited": 1}
    (held,) = statsd.timings("rate_limit_wait")
    assert 1.0 <= held <= 1.2


def test_a_rate_limit_that_defers(sandbox: Sandbox, statsd: StatsD, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, resume_after=0.2, rate_limit_spread=0.1)
    sandbox.connect(max_wait=0)
    sandbox.fail_next(429, retry_after=1)
    run = Run(operator(deferrable=True))
    assert (run.kind, len(run.deferrals)) == ("success", 1)
    assert statsd.counts() == {"sent": 1, "failed": 1, "rate_limited": 1}
    (held,) = statsd.timings("rate_limit_wait")
    assert 0.9 <= held <= 1.6


def test_a_batch(sandbox: Sandbox, statsd: StatsD) -> None:
    sandbox.fail_next(422, to="p1@example.org")
    sandbox.fail_next("response_lost_after_store", to="p2@example.org")
    Run(FluxomailSendBatchOperator(task_id="batch", messages=people(5)))
    assert statsd.counts() == {"sent": 4, "refused": 1, "retried": 1}


def test_a_batch_that_the_cap_slows_down(sandbox: Sandbox, statsd: StatsD) -> None:
    enter_window(sandbox)
    sandbox.key("capped", rate_limit_per_minute=60)
    sandbox.connect(key="capped")
    batch(sandbox, people(100), SandboxTime(sandbox)).run()
    assert statsd.counts()["sent"] == 100
    assert 20 <= sum(statsd.timings("rate_limit_wait")) <= 130


@pytest.mark.parametrize("mode", ["poke", "deferrable", "wait_for"])
@pytest.mark.parametrize("outcome", ["reached", "failed", "timeout"])
def test_a_wait_that_ends_in_the_worker(sandbox: Sandbox, statsd: StatsD, mode: str, outcome: str) -> None:
    to = {"reached": "ops@example.org", "failed": "bounced@example.org", "timeout": "never@example.org"}[outcome]
    limit = 0.5 if outcome == "timeout" else 30.0
    began = time.monotonic()
    if mode == "wait_for":
        Run(operator(to=to, wait_for="delivered", wait_timeout=limit, poll_interval=0.2, deferrable=False))
    else:
        (sent,) = send(sandbox, to=to)
        deferrable = mode == "deferrable"
        Run(FluxomailDeliverySensor(task_id="w", send_id=sent, deferrable=deferrable, timeout=limit, poke_interval=0.2))
    assert {name: count for name, count in statsd.counts().items() if name != "sent"} == {f"wait.{outcome}": 1}
    (took,) = statsd.timings("wait.duration")
    assert (0.5 if outcome == "timeout" else 0) <= took < time.monotonic() - began


def test_a_wait_that_ends_in_the_trigger(sandbox: Sandbox, statsd: StatsD, monkeypatch: pytest.MonkeyPatch) -> None:
    wait_timing(monkeypatch, worker_polls=(0.0,), resume_after=0.1)
    sandbox.settings(event_delay=4)
    (sent,) = send(sandbox, to="ops@example.org")
    began = time.monotonic()
    run = Run(FluxomailDeliverySensor(task_id="wait", send_id=sent, deferrable=True, poke_interval=0.2))
    assert (run.kind, len(run.deferrals)) == ("success", 1)
    assert statsd.counts() == {"wait.reached": 1}
    (took,) = statsd.timings("wait.duration")
    assert 1 <= took < time.monotonic() - began


async def test_what_a_watcher_does(sandbox: Sandbox, statsd: StatsD) -> None:
    sent = send(sandbox, 5)
    mail = Mail(sandbox)

    def shown() -> tuple[float | None, ...]:
        return tuple(statsd.gauge(name) for name in ("waits.open", "watchers.timelines", "watchers.events"))

    sandbox.settings(events_in_plan=False)
    when = timing(retry_events=1.5)
    async with watching(sandbox, when, observer=metrics.Metrics("fluxomail_default")) as waits:
        waits.start(sent[:2])
        await until(lambda: shown() == (2, 1, 0), "two waits read timelines")
        sandbox.settings(events_in_plan=True)
        waits.start(sent[2:])
        await until(lambda: shown() == (5, 0, 1), "five follow the events")
        assert statsd.gauge(f"waits.open.{HOST}") == 5
        for send_id in sent:
            mail.event("delivered", send_id)
        await waits.all_ended()
    assert shown() == (0, 0, 0)


def test_tags(sandbox: Sandbox, statsd: StatsD, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED", "True")
    set_up(monkeypatch)
    sandbox.connect("other", max_attempts=1)
    sandbox.fail_next(422)
    Run(operator(fluxomail_conn_id="other"))
    assert statsd.counts() == {"refused,conn_id=other,error=FluxomailValidationError": 1}


@pytest.mark.parametrize("broken", ["stats", "statsd"])
def test_nothing_about_a_metric_fails_a_send(
    sandbox: Sandbox, statsd: StatsD, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "stats":
        monkeypatch.setattr(metrics, "airflow_stats", lambda: None)
    else:
        monkeypatch.setitem(sys.modules, "statsd", None)
        set_up(monkeypatch)
    assert Run(operator()).kind == "success"
    assert statsd.lines() == []


def test_no_time_is_too_long(statsd: StatsD) -> None:
    for seconds in (1.5, 1e300, float("inf"), float("nan")):
        metrics.Metrics("conn").held(seconds)
    assert statsd.timings("rate_limit_wait") == [1.5, 1e9]


def test_every_metric_is_documented() -> None:
    text = OPERATIONS.read_text(encoding="utf-8").partition("## Metrics")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `fluxomail\.([a-z_.]+)`", text, re.MULTILINE))
    code = Path(metrics.__file__).read_text(encoding="utf-8")
    used = set(
        re.findall(r"\"((?:wait|waits|watchers)\.[a-z]+|sent|replayed|refused|failed|retried|rate_[a-z_]+)\"", code)
    )
    assert rows == used | {f"wait.{outcome}" for outcome in get_args(Status)}
