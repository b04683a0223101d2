"""The link from a task to its message's timeline."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_fluxomail import links
from airflow_provider_fluxomail.airflow_compat import XCom
from airflow_provider_fluxomail.decorators import FluxomailSendDecoratedOperator
from airflow_provider_fluxomail.links import FluxomailTimelineLink, keep_link, timeline_url
from airflow_provider_fluxomail.operators import FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.running import Run, context
from tests.support.watching import send

MAIL: Any = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}
TEMPLATE = "https://mail.example.com/sends/{send_id}?tab=timeline"


def configure(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    monkeypatch.setenv("AIRFLOW__FLUXOMAIL__INBOX_LINK", template)


@pytest.mark.parametrize("wait_for", [None, "delivered"])
def test_a_send_leads_to_the_sandboxes_inbox(sandbox: Sandbox, wait_for: str | None) -> None:
    ctx = context()
    run = Run(FluxomailSendOperator(task_id="task", wait_for=wait_for, **MAIL), ctx)
    link = ctx["ti"].pushed[links.XCOM_KEY]
    assert ctx["ti"].pushed == {links.XCOM_KEY: f"{sandbox.url}/inbox/{run.result['send_id']}"}
    page = httpx.get(link)
    assert page.status_code == 200
    assert run.result["idempotency_key"] in page.text


@pytest.mark.parametrize("mode", ["poke", "deferrable"])
@pytest.mark.parametrize("outcome", ["delivered", "bounced", "never"])
def test_a_wait_has_its_link_however_it_ends(sandbox: Sandbox, mode: str, outcome: str) -> None:
    """A worker that defers has kept it, so that a wait may end in the triggerer."""
    (sent,) = send(sandbox, to=f"{outcome}@example.org")
    ctx = context()
    task = FluxomailDeliverySensor(
        task_id="wait", send_id=sent, deferrable=mode == "deferrable", timeout=0.5, poke_interval=0.1
    )
    assert (Run(task, ctx).kind == "success") is (outcome == "delivered")
    assert ctx["ti"].pushed == {links.XCOM_KEY: f"{sandbox.url}/inbox/{sent}"}


@pytest.mark.parametrize("returned", [MAIL, [MAIL], None], ids=["sent", "a list", "refused"])
def test_one_message_has_a_link_which_the_end_of_the_task_does_not_read_again(
    sandbox: Sandbox, returned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 logs an error when a worker reads an XCom that does not exist, as of a list or a failure."""
    monkeypatch.setattr(XCom, "get_value", lambda **_: pytest.fail("read"))
    ctx = context()
    task = FluxomailSendDecoratedOperator(task_id="task", python_callable=lambda: returned)
    assert Run(task, ctx).kind == ("success" if returned else "AirflowFailException")
    assert list(ctx["ti"].pushed) == ([links.XCOM_KEY] if returned is MAIL else [])
    assert FluxomailTimelineLink().get_link(task, ti_key=None) == ctx["ti"].pushed.get(links.XCOM_KEY, "")


def test_a_task_that_resumed_reads_what_was_kept_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(XCom, "get_value", lambda **_: "http://127.0.0.1/inbox/s1")
    task = FluxomailDeliverySensor(task_id="wait", send_id="s1")
    assert FluxomailTimelineLink().get_link(task, ti_key=None) == "http://127.0.0.1/inbox/s1"


def test_elsewhere_the_configuration_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    assert timeline_url("https://api.fluxomail.com", "s1") is None
    configure(monkeypatch, TEMPLATE)
    assert timeline_url("https://api.fluxomail.com", "s1") == "https://mail.example.com/sends/s1?tab=timeline"
    url = timeline_url("https://api.fluxomail.com", "../a?b=c")
    assert url == "https://mail.example.com/sends/..%2Fa%3Fb%3Dc?tab=timeline"


def test_the_configuration_wins_over_a_sandboxes_address(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may know a sandbox by a name that a browser cannot open."""
    assert timeline_url("http://sandbox:8026", "s1") == "http://sandbox:8026/inbox/s1"
    configure(monkeypatch, f"{sandbox.url.replace('127.0.0.1', 'localhost')}/inbox/{{send_id}}")
    ctx = context()
    run = Run(FluxomailSendOperator(task_id="task", **MAIL), ctx)
    link = ctx["ti"].pushed[links.XCOM_KEY]
    assert link == f"{sandbox.url.replace('127.0.0.1', 'localhost')}/inbox/{run.result['send_id']}"
    assert httpx.get(link).status_code == 200


def test_nothing_about_a_link_fails_a_task(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    ctx = context()
    task = FluxomailSendOperator(task_id="task", **MAIL)
    configure(monkeypatch, "https://mail.example.com/")
    with caplog.at_level(logging.WARNING):
        keep_link(task, ctx, "https://api.fluxomail.com", "s1")
    assert ctx["ti"].pushed == {}
    assert "inbox_link must be a URL with {send_id}" in caplog.text

    def broken(**_: Any) -> None:
        raise RuntimeError("no database")

    configure(monkeypatch, "")
    ctx["ti"].xcom_push = broken
    keep_link(task, ctx, "http://127.0.0.1:8026", "s1")
    assert "no database" in caplog.text


@pytest.mark.parametrize(("kept", "shown"), [("http://127.0.0.1/inbox/s1", "http://127.0.0.1/inbox/s1"), (None, "")])
def test_airflow_gets_what_the_task_kept(kept: str | None, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    where: Any = SimpleNamespace(dag_id="dag", task_id="task", run_id="run", map_index=-1, try_number=1)
    wanted: dict[str, Any] = {}

    def get_value(**fields: Any) -> str | None:
        wanted.update(fields)
        return kept

    monkeypatch.setattr(XCom, "get_value", get_value)
    operator: Any = None
    assert FluxomailTimelineLink().get_link(operator, ti_key=where) == shown
    assert wanted == {"ti_key": where, "key": links.XCOM_KEY}


def test_airflow_knows_the_link() -> None:
    name = f"{FluxomailTimelineLink.__module__}.{FluxomailTimelineLink.__name__}"
    manager: Any = ProvidersManager
    assert name in manager().extra_links_class_names
    assert getattr(FluxomailTimelineLink(), "xcom_key", links.XCOM_KEY) == links.XCOM_KEY
    for task in (FluxomailSendOperator, FluxomailDeliverySensor):
        assert [type(link) for link in task.operator_extra_links] == [FluxomailTimelineLink]
