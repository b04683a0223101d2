"""Each log line that ``docs/operate/troubleshooting.md`` quotes is provoked here, and compared."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from airflow_provider_fluxomail.client import errors, retries
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import send_record
from airflow_provider_fluxomail.sending.batch import batch
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG
from tests.support.bad_servers import answers, head
from tests.support.running import Run
from tests.support.state_store import StateError, Store
from tests.support.timing import quick_waits, wait_timing
from tests.wire.test_bad_servers import certificate, tls_url  # noqa: F401 - fixtures
from tests.wire.test_log_lines import running

PAGE: Final = (Path(__file__).parents[2] / "docs" / "operate" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGE: Final[dict[str, Any]] = {"to": "ops@example.org", "subject": "Report", "content": "Text"}
ERRORS: Final = {
    name
    for module in (errors, send_record, batch)
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and issubclass(kind, FluxomailError) and kind is not FluxomailError
}
#: Provokes what a section of the page is about.
Scenario = Callable[["Scene"], None]
SCENARIOS: Final[list[Scenario]] = []


class Scene:
    """A sandbox, a task, and what is logged."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.fixture = request.getfixturevalue
        self.sandbox: Sandbox = self.fixture("sandbox")
        self.serve = self.fixture("serve")
        self.monkeypatch = pytest.MonkeyPatch()
        self.log = logging.getLogger("troubleshooting")

    def send(self, ctx: Any = None, **fields: Any) -> None:
        """Run the operator."""
        fields = {"deferrable": False, "poll_interval": 0.1, **MESSAGE, **fields}
        self.run(FluxomailSendOperator(task_id="report", **fields), ctx)

    def wait(self, to: str = "ops@example.org", **fields: Any) -> None:
        """Run the sensor."""
        hook = FluxomailHook()
        send_id = hook.send({**MESSAGE, "to": to}, idempotency_key=to).send_id
        hook.close()
        fields = {"send_id": send_id, "poke_interval": 0.1, "timeout": 30, "deferrable": False, **fields}
        self.run(FluxomailDeliverySensor(task_id="wait", **fields))

    def run(self, task: Any, ctx: Any = None) -> None:
        """Run a task; the error that ends it is logged as Airflow logs it, by its class and text."""
        run = Run(task, ctx or running(1, 3))
        if run.error is not None:
            self.log.error("%s: %s", type(run.error).__name__, run.error)

    def fails(self, status: int, body: Any = None, **fault: Any) -> None:
        """Let the next request be refused."""
        self.sandbox.fail_next(status, **({} if body is None else {"body": body}), **fault)


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


# The API's own refusals


@scenario
def wrong_key(scene: Scene) -> None:
    scene.sandbox.connect(key="fm_wrong")
    scene.send()


@scenario
def key_without_scope(scene: Scene) -> None:
    scene.fails(403, {"error": "Forbidden: missing scope send_email", "code": "missing_scope"})
    scene.send()


@scenario
def key_that_may_not_read(scene: Scene) -> None:
    scene.fails(403, {"error": "Forbidden: missing scope read_sends", "code": "missing_scope"}, path="/api/v1/sends")
    scene.wait()


@scenario
def paused(scene: Scene) -> None:
    scene.sandbox.pause()
    scene.send()


@scenario
def plan(scene: Scene) -> None:
    scene.fails(402, {"error": "Attachments are not in your plan", "code": "plan_required"})
    scene.send()


@scenario
def refused_by_the_server(scene: Scene) -> None:
    scene.fails(400, {"error": "Missing required fields", "code": "validation_error"})
    scene.send()


@scenario
def not_found(scene: Scene) -> None:
    wait_timing(scene.monkeypatch, not_found_grace=0.0)
    scene.wait(send_id="snd_unknown")


@scenario
def not_found_at_once(scene: Scene) -> None:
    try:
        FluxomailHook().get_timeline("snd_unknown")
    except FluxomailError as error:
        scene.log.error("%s: %s", type(error).__name__, error)


@scenario
def other_4xx(scene: Scene) -> None:
    scene.fails(413, {"error": "Request entity too large"})
    scene.send()


@scenario
def rate_limit(scene: Scene) -> None:
    scene.fails(429, retry_after=90)
    scene.send()


@scenario
def rate_limit_in_the_worker(scene: Scene) -> None:
    scene.fails(429, retry_after=0.2)
    scene.send()


@scenario
def rate_limit_deferred(scene: Scene) -> None:
    task = FluxomailSendOperator(task_id="report", deferrable=True, max_rate_limit_wait=3600, **MESSAGE)
    scene.fails(429, retry_after=90)
    # Deferred, which ends this try.
    with contextlib.suppress(BaseException):
        task.execute(running(1, 3))
    scene.fails(429, retry_after=90)
    scene.send(deferrable=True, max_rate_limit_wait=60)


@scenario
def server_error(scene: Scene) -> None:
    scene.sandbox.connect(max_attempts=2)
    scene.fails(500, {"error": "Internal error", "code": "internal_error"}, times=2)
    scene.send()


# The way to the server


@scenario
def nobody_listens(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    scene.sandbox.connect(host=f"http://127.0.0.1:{port}", max_attempts=1)
    scene.send()


@scenario
def too_slow(scene: Scene) -> None:
    scene.sandbox.connect(timeout=0.3, max_attempts=1)
    scene.sandbox.fail_next("slow_first_byte", seconds=2)
    scene.send()


@scenario
def unknown_certificate(scene: Scene) -> None:
    scene.sandbox.connect(host=scene.fixture("tls_url"), max_attempts=1)
    scene.send()


@scenario
def certificate_file_that_is_not_there(scene: Scene) -> None:
    scene.sandbox.connect(verify="/etc/ssl/corporate.pem")
    scene.send()


@scenario
def proxy_that_is_not_there(scene: Scene) -> None:
    scene.sandbox.connect(
        host="http://mail.example", allow_http=True, proxies={"http": "http://127.0.0.1:9"}, max_attempts=1
    )
    scene.send()


@scenario
def proxy_of_another_kind(scene: Scene) -> None:
    scene.sandbox.connect(proxies={"https": "socks5://proxy:1080"})
    scene.send()


@scenario
def proxy_of_another_kind_in_the_environment(scene: Scene) -> None:
    scene.sandbox.connect(host="https://mail.example")
    scene.monkeypatch.setenv("HTTPS_PROXY", "socks5h://proxy:1080")
    scene.send()


@scenario
def login_page(scene: Scene) -> None:
    page = b"<html><title>Sign in</title></html>"
    server = scene.serve(answers(head(Content_Type="text/html", Content_Length=len(page)) + page))
    scene.sandbox.connect(host=server.url, max_attempts=1)
    scene.send()


@scenario
def redirect_of_the_server(scene: Scene) -> None:
    server = scene.serve(answers(head("301 Moved Permanently", Location="https://www.example.com/x", Content_Length=0)))
    scene.sandbox.connect(host=server.url, max_attempts=1)
    scene.send()


# The connection


@scenario
def connection_without_a_key(scene: Scene) -> None:
    scene.sandbox.connect(key="")
    scene.send()


@scenario
def connection_of_another_type(scene: Scene) -> None:
    scene.monkeypatch.setenv("AIRFLOW_CONN_FLUXOMAIL_DEFAULT", '{"conn_type": "smtp", "host": "localhost"}')
    scene.send()


@scenario
def misspelt_guard(scene: Scene) -> None:
    scene.sandbox.connect(redirct_to="qa@example.org")
    scene.send()
    scene.sandbox.connect(mail_to="qa@example.org")
    scene.send()


# Input


@scenario
def input_from_a_template(scene: Scene) -> None:
    scene.send(to="a@example.org, b@example.org")
    scene.send(to="None")
    scene.send(content=None)
    scene.wait(send_id=None)


@scenario
def input_that_is_constant(scene: Scene) -> None:
    try:
        with DAG("reports", schedule=None):
            FluxomailSendOperator(task_id="report", **MESSAGE, wait_for="sent")
    except FluxomailError as error:
        scene.log.error("%s: %s", type(error).__name__, error)
    try:
        FluxomailSendOperator(task_id="report", **MESSAGE, files=["rows.csv"])
    except TypeError as error:
        scene.log.error("%s: %s", type(error).__name__, error)


# Nothing was sent


@scenario
def replay_of_a_retry(scene: Scene) -> None:
    scene.send()
    scene.send(running(2, 3))


@scenario
def cleared(scene: Scene) -> None:
    scene.send()
    scene.send(running(2, 4))


@scenario
def fault_of_a_watcher(scene: Scene) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a fault")

    quick_waits(scene.monkeypatch)
    scene.monkeypatch.setattr(AsyncFluxomailClient, "get_timeline", broken)
    scene.wait("never@example.org", deferrable=True)


@scenario
def cleared_batch(scene: Scene) -> None:
    task = FluxomailSendBatchOperator(task_id="report", messages=[MESSAGE])
    scene.run(task)
    scene.run(task, running(2, 4))


@scenario
def redirected(scene: Scene) -> None:
    scene.sandbox.connect(redirect_to="qa@example.org")
    scene.send()
    scene.run(FluxomailSendBatchOperator(task_id="report", messages=[MESSAGE, {**MESSAGE, "to": "dev@example.org"}]))


@scenario
def nothing_but_checked(scene: Scene) -> None:
    send_email("ops@example.org", "Report", "<p>Text</p>", sandbox_mode=True)


@scenario
def not_allowed(scene: Scene) -> None:
    scene.sandbox.connect(allowed_recipient_domains="example.com")
    scene.send()


@scenario
def wrong_replay(scene: Scene) -> None:
    scene.send(idempotency_key="weekly-report")
    scene.send(idempotency_key="weekly-report", to="dev@example.org")


@scenario
def conflict(scene: Scene) -> None:
    scene.monkeypatch.setattr(retries, "CONFLICT_BACKOFF", retries.Backoff(first=0.02, longest=0.02))
    scene.fails(409, {"error": "Idempotency key reused", "code": "idempotency_conflict"}, times=None)
    scene.send()


@scenario
def mapping_in_another_order(scene: Scene) -> None:
    store = Store()
    scene.send(running(1, 3, store=store))
    scene.send(running(2, 3, store=store), to="dev@example.org")


@scenario
def unknown_outcome(scene: Scene) -> None:
    scene.sandbox.connect(max_attempts=1)
    store = Store()
    scene.sandbox.fail_next("response_lost_after_store")
    scene.send(running(1, 3, store=store))
    hours = 30
    scene.monkeypatch.setattr(wait, "now", functools.partial(_later, hours * 3600, wait.now))
    scene.send(running(2, 3, store=store))


def _later(seconds: float, now: Callable[[], float]) -> float:
    return now() + seconds


@scenario
def late_retry(scene: Scene) -> None:
    store = Store()
    scene.send(running(1, 3, store=store))
    scene.monkeypatch.setattr(wait, "now", functools.partial(_later, 30 * 3600, wait.now))
    scene.send(running(2, 3, store=store))


@scenario
def cleared_while_running(scene: Scene) -> None:
    store = Store()
    store.error = StateError(404)
    scene.send(running(1, 3, store=store))


@scenario
def key_that_may_only_send(scene: Scene) -> None:
    scene.send()
    scene.fails(403, {"error": "Forbidden: missing scope read_sends", "code": "missing_scope"}, path="/api/v1/sends")
    scene.send(running(2, 3))


# Batches


@scenario
def batch_with_a_refused_message(scene: Scene) -> None:
    scene.fails(400, {"error": "Invalid recipient", "code": "validation_error"}, to="dev@example.org")
    rows = [MESSAGE, {**MESSAGE, "to": "dev@example.org"}]
    scene.run(FluxomailSendBatchOperator(task_id="report", messages=rows))


@scenario
def batch_with_unknown_outcomes(scene: Scene) -> None:
    scene.sandbox.connect(max_attempts=1)
    scene.fails(500, times=None, to="dev@example.org")
    rows = [MESSAGE, {**MESSAGE, "to": "dev@example.org"}]
    scene.run(FluxomailSendBatchOperator(task_id="report", messages=rows))


@scenario
def batch_with_bad_rows(scene: Scene) -> None:
    scene.run(FluxomailSendBatchOperator(task_id="report", messages=[MESSAGE, {"to": "dev@example.org"}]))


# Waits


@scenario
def bounced(scene: Scene) -> None:
    scene.wait("bounced@example.org")
    scene.wait("bounced@example.org", soft_fail=True)


@scenario
def never_delivered(scene: Scene) -> None:
    scene.wait("never@example.org", timeout=1)


@scenario
def wait_through_an_outage(scene: Scene) -> None:
    scene.sandbox.settings(event_delay=0)
    scene.fails(503, path="/api/v1/sends")
    scene.wait()


@scenario
def text_is_not_tracked(scene: Scene) -> None:
    scene.send(wait_for="opened")


# Alerts


@scenario
def alerts(scene: Scene) -> None:
    ctx = {**running(1, 3)}
    FluxomailNotifier(to="ops@example.org")(ctx)
    scene.sandbox.connect(key="fm_wrong")
    FluxomailNotifier(to="ops@example.org")(ctx)
    scene.sandbox.connect(timeout=5)
    scene.sandbox.fail_next("slow_first_byte", seconds=2)
    FluxomailNotifier(to="dba@example.org", time_limit=0.3)(ctx)
    FluxomailNotifier(to="")(ctx)
    FluxomailNotifier(to="ops@example.org", subject="{{ nothing.here }}")(ctx)
    callback: Any = FluxomailNotifier
    try:
        callback(ctx)
    except TypeError as error:
        scene.log.error("%s: %s", type(error).__name__, error)


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request)


QUOTES: Final = [
    line.strip()
    for block in re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def pattern(quote: str) -> re.Pattern[str]:
    """What a quoted line stands for: ``...`` is anything."""
    return re.compile(".*".join(re.escape(part) for part in quote.split("...")), re.DOTALL)


@pytest.mark.timeout(300)
def test_what_the_page_quotes_is_what_troubles_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logged: list[str] = []
    not_on_the_page: dict[str, list[str]] = {}
    for function in SCENARIOS:
        scene.sandbox.reset()
        scene.sandbox.connect()
        caplog.clear()
        with pytest.MonkeyPatch.context() as scene.monkeypatch:
            wait_timing(scene.monkeypatch, least_interval=0.05)
            scene.monkeypatch.setattr(retries, "BACKOFF", retries.Backoff(first=0.01, longest=1.0))
            for kind in (FluxomailDeliverySensor, FluxomailSendOperator, FluxomailNotifier):
                scene.monkeypatch.setattr(kind, "log", logging.getLogger("task"), raising=False)
            function(scene)
        lines = [record.getMessage() for record in caplog.records]
        logged += lines
        if not any(pattern(quote).fullmatch(line) for quote in QUOTES for line in lines):
            not_on_the_page[function.__name__] = lines
    assert not_on_the_page == {}
    assert len(QUOTES) > 50
    assert [quote for quote in QUOTES if not any(pattern(quote).fullmatch(line) for line in logged)] == []


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_each_error_has_a_section_that_says_why_and_what_to_do(name: str) -> None:
    sections = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"{name}\n")]
    quotes, _, cure = section.partition("Why:")
    assert "```text\n" in quotes
    assert "What to do:" in cure
