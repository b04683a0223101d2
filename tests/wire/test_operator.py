"""FluxomailSendOperator against the sandbox, run as Airflow runs a task."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_fluxomail.airflow_compat import Asset
from airflow_provider_fluxomail.client.errors import FluxomailRateLimitError
from airflow_provider_fluxomail.client.watching.wait import now
from airflow_provider_fluxomail.operators import Unrecorded
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from tests.support.running import Run, context
from tests.support.send_operators import operator, render


def test_the_result(sandbox: Sandbox) -> None:
    run = Run(operator())
    (mail,) = sandbox.messages()
    assert set(run.result) == {"send_id", "message_id", "status", "reused", "idempotency_key", "request_id"}
    assert run.result["send_id"] == mail.send_id
    assert run.result["message_id"] == mail.message_id
    assert run.result["idempotency_key"] == mail.idempotency_key
    assert str(mail.idempotency_key).startswith("af1:dag.task:")
    assert json.loads(json.dumps(run.result)) == run.result


def deferred(**fields: Any) -> float:
    """Seconds for which an operator defers."""
    with pytest.raises(BaseException) as caught:
        operator(deferrable=True, **fields).execute(context())
    seconds: float = caught.value.trigger.resume_at - now()  # type: ignore[attr-defined]
    return seconds


def test_deferrals_for_a_rate_limit_are_spread_and_bounded(sandbox: Sandbox) -> None:
    sandbox.fail_next(429, retry_after=100, times=6)
    resumes = {round(deferred(), 3) for _ in range(5)}
    assert len(resumes) > 1
    assert min(resumes) > 99
    assert max(resumes) <= 126
    run = Run(operator(deferrable=True, max_rate_limit_wait=99))
    assert isinstance(run.error, FluxomailRateLimitError)
    assert run.deferrals == []


@pytest.mark.parametrize(
    ("seconds", "limit", "least", "most"),
    [
        (0.5, 3600, 7.5, 19),  # shorter would be too short for Airflow
        (3590, 3600, 3589.5, 3601),
        (None, 3600, 59, 76),
        # Longer than the task may wait: perhaps by mistake, so one more request shows.
        (86400, 3600, 599, 751),
        (1e308, 601, 599, 602),
    ],
)
def test_the_time_of_a_deferral(
    sandbox: Sandbox, seconds: float | None, limit: float, least: float, most: float
) -> None:
    sandbox.connect(max_wait=0, max_attempts=1)
    sandbox.fail_next(429, retry_after=seconds)
    assert least < deferred(max_rate_limit_wait=limit) <= most


def test_a_trigger_that_comes_back_with_nonsense_still_sends_once(sandbox: Sandbox) -> None:
    task = operator(deferrable=True)
    assert task.send_after_rate_limit(context(), event=None)["send_id"]
    assert task.send_after_rate_limit(context(), event={"give_up_at": "x"})["reused"]
    assert len(sandbox.messages()) == 1


def test_a_wait_does_not_go_green_on_nonsense(sandbox: Sandbox) -> None:
    events: list[Any] = [None, {}, {"status": "fine"}]
    for event in events:
        with pytest.raises(Exception, match="is not the outcome of a wait"):
            operator(wait_for="delivered").execute_complete(context(), event=event)


def test_every_message_field_is_templated(tmp_path: Path) -> None:
    names = ["to", "subject", "content", "html_content", "policy_key", "idempotency_key", "fluxomail_conn_id"]
    task = operator(
        **dict.fromkeys(names, "{{ word }}"),
        cc=["{{ word }}"],
        bcc="{{ word }}",
        attachments=["/tmp/{{ word }}.txt", {"filename": "{{ word }}", "content": "x"}],
        extra_fields={"replyTo": "{{ word }}"},
    )
    render(task, tmp_path, word="rendered")
    assert {getattr(task, name) for name in names} == {"rendered"}
    assert (task.cc, task.bcc, task.extra_fields) == (["rendered"], "rendered", {"replyTo": "rendered"})
    assert task.attachments == ["/tmp/rendered.txt", {"filename": "rendered", "content": "x"}]
    assert set(names) < set(task.template_fields)


def test_only_bodies_are_names_of_template_files(tmp_path: Path) -> None:
    (tmp_path / "mail.txt").write_text("Text for {{ word }}")
    (tmp_path / "mail.html").write_text("<p>{{ word }}</p>")
    task = operator(
        to="{{ word }}@example.md",
        subject="About report.txt",
        content="mail.txt",
        html_content=Unrecorded("mail.html"),
        attachments=["/data/rows.txt"],
        cc="a@example.md",
        idempotency_key="key.md",
    )
    render(task, tmp_path, word="Ada")
    assert (task.to, task.subject, task.cc) == ("Ada@example.md", "About report.txt", "a@example.md")
    assert (task.attachments, task.idempotency_key) == (["/data/rows.txt"], "key.md")
    assert task.content == "Text for Ada"
    assert task.html_content.text == "<p>Ada</p>"  # type: ignore[union-attr]


def test_an_unrecorded_body_is_rendered_for_each_task(tmp_path: Path) -> None:
    """Mapped tasks share the object that the Dag holds; one must not get the text of another."""
    shared = Unrecorded("Code {{ word }}")
    tasks = [render(operator(content=shared), tmp_path, word=word) for word in ("111111", "{{ 7 * 7 }}")]
    tasks.append(render(operator(content=shared), tmp_path, word="333333"))
    texts = [task.content.text for task in tasks]  # type: ignore[union-attr]
    assert texts == ["Code 111111", "Code {{ 7 * 7 }}", "Code 333333"]
    assert shared.text == "Code {{ word }}"


@pytest.mark.parametrize("wait_for", [None, "delivered"])
def test_events_of_outlets_say_which_message_it_was(sandbox: Sandbox, wait_for: str | None) -> None:
    class Events:
        """Airflow's accessor, which makes an entry for any key."""

        def __init__(self) -> None:
            self.made: dict[str, Any] = {}

        def __getitem__(self, asset: Any) -> Any:
            return self.made.setdefault(asset.uri, SimpleNamespace(extra={"own": 1}))

    events = Events()
    run = Run(operator(wait_for=wait_for, outlets=[Asset("x://sent")]), {**context(), "outlet_events": events})
    assert run.kind == "success", run.error
    sent = {name: run.result[name] for name in ("send_id", "message_id")}
    (made,) = events.made.values()
    assert made.extra == {"own": 1, **sent}
