"""The section ``[fluxomail]`` of Airflow's configuration."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

import pytest

from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.provider_info import CONFIGURATION
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.running import fire
from tests.support.watcher_pools import trigger
from tests.support.watching import Mail, reads, send, streams, until


def put(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"AIRFLOW__FLUXOMAIL__{name.upper()}", value)


def test_a_value_that_cannot_be_used_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in [
        *(("max_wait", "soon"), ("poll_share", "half"), ("follow_events", "maybe")),
        *(("inbox_link", "https://mail.example.com/sends"), ("inbox_link", "javascript:alert('{send_id}')")),
    ]:
        put(monkeypatch, name, value)
        with pytest.raises(Exception, match=name) as caught:
            airflow_cfg.inbox_link() if name == "inbox_link" else airflow_cfg.read(name)
        assert type(caught.value).__name__ == "AirflowConfigException"
    for name, value, usable in (("max_wait", "-1", "1"), ("poll_share", "2", "0.5")):
        put(monkeypatch, "poll_share", "0.5")
        put(monkeypatch, name, value)
        with pytest.raises(Exception, match=f"{name} must be"):
            FluxomailHook().get_options()
        put(monkeypatch, name, usable)


async def test_many_waits_read_timelines_where_the_section_says_so(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, "follow_events", "False")
    sent = send(sandbox, 40)
    mail = Mail(sandbox)
    for send_id in sent:
        mail.event("delivered", send_id)
    tasks = [asyncio.create_task(fire(trigger(send_id, seen=None))) for send_id in sent]
    ended: list[Any] = await asyncio.wait_for(asyncio.gather(*tasks), 60)
    assert {one["status"] for one in ended} == {"reached"}
    await until(lambda: reads(sandbox) == 40)
    assert streams(sandbox) == 0


def test_airflow_knows_the_section() -> None:
    from airflow.providers_manager import ProvidersManager

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        manager: Any = ProvidersManager
        found = dict(manager().provider_configs)["airflow-provider-fluxomail"]
    assert set(found["fluxomail"]["options"]) == set(CONFIGURATION)
