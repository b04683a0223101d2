"""Each log line that ``docs/operate/troubleshooting.md`` quotes is provoked here, and compared."""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pytest

from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.pacing import Pacer
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.email_backend import send_email
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import send_record
from airflow_provider_fluxomail.sending.batch import batch
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
from tests.support.airflow_names import DAG
from tests.support.bad_servers import answers, head
from tests.support.flaky_storage import flaky_storage  # noqa: F401 - a fixture
from tests.support.isolation import end_isolation
from tests.support.running import Run
from tests.support.state_store import StateError, Store
from tests.support.timing import quick_retries, quick_waits, wait_timing
from tests.wire.test_bad_servers import certificate, tls_url  # noqa: F401 - fixtures
from tests.wire.test_log_lines import running

PAGE: Final = (Path(__file__).parents[2] / "docs" / "operate" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGE: Final[dict[str, Any]] = {"to": "ops@example.org", "subject": "Report", "content": "Text"}
DEV: Final = {"to": "dev@example.org"}
ERRORS: Final = {
    name
    for module in (errors, send_record, batch)
    for name, kind in vars(module).items()
    if inspect.isclass(kind) and issubclass(kind, FluxomailError) and kind is not FluxomailError
}
RETRY, CLEAR = running(2, 3), running(2, 4)


class Scene:
    """A sandbox, tasks, and what is logged."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self.fixture = request.getfixturevalue
        self.sandbox: Sandbox = self.fixture("sandbox")
        self.serve = self.fixture("serve")
        self.monkeypatch = pytest.MonkeyPatch()
        self.log = logging.getLogger("troubleshooting")

    def provoke(
        self,
        *,
        connection: dict[str, Any] | None = None,
        fault: dict[str, Any] | None = None,
        send: Iterable[dict[str, Any]] = (),
        wait: Iterable[dict[str, Any]] = (),
        batch: Iterable[dict[str, Any]] = (),
    ) -> None:
        """Run tasks one after the other.

        :param connection: its extras, key and host.
        :param fault: of the next requests.
        :param send: arguments of operators.
        :param wait: arguments of sensors.
        :param batch: messages of a batch operator.
        """
        if connection is not None:
            self.sandbox.connect(**connection)
        if fault:
            self.sandbox.fail_next(**{"kind": "status", **fault})
        for fields in send:
            self.send(**fields)
        for fields in wait:
            self.wait(**fields)
        if batch:
            self.run(FluxomailSendBatchOperator(task_id="report", messages=[{**MESSAGE, **row} for row in batch]))

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
            self.log_error(run.error)

    def log_error(self, error: BaseException) -> None:
        self.log.error("%s: %s", type(error).__name__, error)

    @contextlib.contextmanager
    def logging_errors(self) -> Any:
        try:
            yield
        except (FluxomailError, TypeError) as error:
            self.log_error(error)


def refused(status: int, error: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    """A fault of the sandbox: the API refuses a request."""
    return {"status": status, "body": {"error": error, **({"code": code} if code else {})}, **more}


NO_READ: Final = refused(403, "Forbidden: missing scope read_sends", "missing_scope", path="/api/v1/sends")
#: Arguments of :meth:`Scene.provoke`.
TROUBLES: Final[dict[str, dict[str, Any]]] = {
    # The API's own refusals
    "wrong key": {"connection": {"key": "fm_wrong"}, "send": [{}]},
    "missing scope": {
        "fault": refused(403, "Forbidden: missing scope send_email", "missing_scope"),
        "send": [{}],
    },
    "key that may not read": {"fault": NO_READ, "wait": [{}]},
    "plan": {"fault": refused(402, "Attachments are not in your plan", "plan_required"), "send": [{}]},
    "refused by the server": {"fault": refused(400, "Missing required fields", "validation_error"), "send": [{}]},
    "another 4xx": {"fault": refused(413, "Request entity too large"), "send": [{}]},
    "rate limit": {"fault": {"status": 429, "retry_after": 90}, "send": [{}]},
    "rate limit in the worker": {"fault": {"status": 429, "retry_after": 0.2}, "send": [{}]},
    "server error": {
        "connection": {"max_attempts": 2},
        "fault": refused(500, "Internal error", "internal_error", times=2),
        "send": [{}],
    },
    # The way to the server
    "too slow": {
        "connection": {"timeout": 0.3, "max_attempts": 1},
        "fault": {"kind": "slow_first_byte", "seconds": 2},
        "send": [{}],
    },
    "no certificate file": {"connection": {"verify": "/etc/ssl/corporate.pem"}, "send": [{}]},
    "SOCKS proxy": {"connection": {"proxies": {"https": "socks5://proxy:1080"}}, "send": [{}]},
    # The connection
    "no key": {"connection": {"key": ""}, "send": [{}]},
    "misspelt guard": {"connection": {"redirct_to": "qa@example.org"}, "send": [{}]},
    "what may be a guard": {"connection": {"mail_to": "qa@example.org"}, "send": [{}]},
    # Input
    "input from a template": {
        "send": [{"to": "a@example.org, b@example.org"}, {"to": "None"}, {"content": None}],
        "wait": [{"send_id": None}],
    },
    # Nothing was sent
    "replay of a retry": {"send": [{}, {"ctx": RETRY}]},
    "cleared": {"send": [{}, {"ctx": CLEAR}]},
    "redirected": {"connection": {"redirect_to": "qa@example.org"}, "send": [{}], "batch": [{}, DEV]},
    "not allowed": {"connection": {"allowed_recipient_domains": "example.com"}, "send": [{}]},
    "wrong replay": {"send": [{"idempotency_key": "weekly"}, {"idempotency_key": "weekly", **DEV}]},
    "conflict": {
        "fault": refused(409, "Idempotency key reused", "idempotency_conflict", times=None),
        "send": [{}],
    },
    # Batches
    "refused message": {"fault": refused(400, "Invalid recipient", "validation_error", **DEV), "batch": [{}, DEV]},
    "unknown outcomes": {
        "connection": {"max_attempts": 1},
        "fault": {"status": 500, "times": None, **DEV},
        "batch": [{}, DEV],
    },
    "bad rows": {"batch": [{}, {**DEV, "subject": None, "content": None}]},
    # Waits
    "bounced": {"wait": [{"to": "bounced@example.org"}, {"to": "bounced@example.org", "soft_fail": True}]},
    "never delivered": {"wait": [{"to": "never@example.org", "timeout": 1}]},
    "outage": {"fault": {"status": 503, "path": "/api/v1/sends"}, "wait": [{}]},
    "text is not tracked": {"send": [{"wait_for": "opened"}]},
}
#: What takes more than that.
SCENARIOS: Final[dict[str, Callable[[Scene], None]]] = {}


def scenario(function: Callable[[Scene], None]) -> Callable[[Scene], None]:
    SCENARIOS[function.__name__] = function
    return function


@scenario
def paused(scene: Scene) -> None:
    scene.sandbox.pause()
    scene.send()


@scenario
def not_found(scene: Scene) -> None:
    wait_timing(scene.monkeypatch, not_found_grace=0.0)
    scene.wait(send_id="snd_unknown")
    with scene.logging_errors():
        FluxomailHook().get_timeline("snd_unknown")


@scenario
def rate_limit_deferred(scene: Scene) -> None:
    task = FluxomailSendOperator(task_id="report", deferrable=True, max_rate_limit_wait=3600, **MESSAGE)
    limited = {"status": 429, "retry_after": 90}
    scene.provoke(fault=limited)
    # Deferred, which ends this try.
    with contextlib.suppress(BaseException):
        task.execute(running(1, 3))
    scene.provoke(fault=limited, send=[{"deferrable": True, "max_rate_limit_wait": 60}])


@scenario
def servers_that_are_not_fluxomail(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    page = b"<html><title>Sign in</title></html>"
    login = answers(head(Content_Type="text/html", Content_Length=len(page)) + page)
    moved = answers(head("301 Moved Permanently", Location="https://www.example.com/x", Content_Length=0))
    for host in (closed, scene.fixture("tls_url"), scene.serve(login).url, scene.serve(moved).url):
        scene.provoke(connection={"host": host, "max_attempts": 1}, send=[{}])


@scenario
def environment(scene: Scene) -> None:
    end_isolation(scene.monkeypatch)
    proxies = {"http": "http://127.0.0.1:9"}
    scene.sandbox.connect(host="http://mail.example", allow_http=True, proxies=proxies, max_attempts=1)
    scene.send()
    scene.sandbox.connect(host="https://mail.example")
    scene.monkeypatch.setenv("HTTPS_PROXY", "socks5h://proxy:1080")
    scene.send()
    scene.monkeypatch.setenv("AIRFLOW_CONN_FLUXOMAIL_DEFAULT", '{"conn_type": "smtp", "host": "localhost"}')
    scene.send()


@scenario
def input_that_is_constant(scene: Scene) -> None:
    with scene.logging_errors(), DAG("reports", schedule=None):
        FluxomailSendOperator(task_id="report", **MESSAGE, wait_for="sent")
    with scene.logging_errors():
        FluxomailSendOperator(task_id="report", **MESSAGE, files=["rows.csv"])


@scenario
def storage_that_does_not_respond(scene: Scene) -> None:
    storage = scene.fixture("flaky_storage")
    storage.error, storage.at = ConnectionResetError(104, "Connection reset by peer"), "info"
    scene.send(attachments=[storage.url(Path("/data/rows.csv"))])


@scenario
def fault_of_a_watcher(scene: Scene) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("a fault")

    quick_waits(scene.monkeypatch)
    scene.monkeypatch.setattr(Pacer, "delay", broken)
    scene.monkeypatch.setattr(FluxomailDeliveryTrigger, "log", logging.getLogger("triggerer"))
    scene.wait("never@example.org", deferrable=True, timeout=1)


@scenario
def cleared_batch(scene: Scene) -> None:
    task = FluxomailSendBatchOperator(task_id="report", messages=[MESSAGE])
    scene.run(task)
    scene.run(task, CLEAR)


@scenario
def nothing_but_checked(scene: Scene) -> None:
    send_email("ops@example.org", "Report", "<p>Text</p>", sandbox_mode=True)


@scenario
def mapping_in_another_order(scene: Scene) -> None:
    store = Store()
    scene.send(running(1, 3, store=store))
    scene.send(running(2, 3, store=store), **DEV)


@scenario
def late_retries(scene: Scene) -> None:
    """Of a send that was accepted, and of one whose response was lost."""
    scene.sandbox.connect(max_attempts=1)
    stores = [Store(), Store()]
    scene.send(running(1, 3, store=stores[0]))
    scene.sandbox.fail_next("response_lost_after_store")
    scene.send(running(1, 3, store=stores[1]), **DEV)
    scene.sandbox.key("other")
    scene.sandbox.connect(key="other")
    scene.send(running(2, 3, store=stores[0]))
    scene.sandbox.connect(max_attempts=1)
    scene.monkeypatch.setattr(wait, "now", functools.partial(later, 30 * 3600, wait.now))
    scene.send(running(2, 3, store=stores[0]))
    scene.send(running(2, 3, store=stores[1]), **DEV)


def later(seconds: float, now: Callable[[], float]) -> float:
    return now() + seconds


@scenario
def cleared_while_running(scene: Scene) -> None:
    store = Store()
    store.error = StateError(404)
    scene.send(running(1, 3, store=store))


@scenario
def store_out_of_order(scene: Scene) -> None:
    store = Store()
    store.error = StateError(500)
    scene.send(running(1, 3, store=store))


@scenario
def key_that_may_only_send(scene: Scene) -> None:
    scene.send()
    scene.provoke(fault=NO_READ, send=[{"ctx": RETRY}])


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
    with scene.logging_errors():
        callback(ctx)


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
def test_what_the_page_quotes_is_what_is_logged(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene(request)
    logged: list[str] = []
    not_on_the_page: dict[str, list[str]] = {}
    tables: dict[str, Callable[[Scene], None]] = {
        name: functools.partial(Scene.provoke, **arguments) for name, arguments in TROUBLES.items()
    }
    for name, provoke in {**tables, **SCENARIOS}.items():
        scene.sandbox.reset()
        scene.sandbox.connect()
        caplog.clear()
        with pytest.MonkeyPatch.context() as scene.monkeypatch:
            wait_timing(scene.monkeypatch, least_interval=0.05)
            quick_retries(scene.monkeypatch)
            for kind in (FluxomailDeliverySensor, FluxomailSendOperator, FluxomailNotifier):
                scene.monkeypatch.setattr(kind, "log", logging.getLogger("task"), raising=False)
            provoke(scene)
        lines = [record.getMessage() for record in caplog.records]
        logged += lines
        if not any(pattern(quote).fullmatch(line) for quote in QUOTES for line in lines):
            not_on_the_page[name] = lines
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
