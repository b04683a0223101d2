"""Promise 5: secrets and people stay private. All of the package is run, and everything it leaves behind is searched.

Each word of the message, each address and the key hold a word that nothing else holds.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

import pytest

from airflow_provider_fluxomail.alerts import alert
from airflow_provider_fluxomail.client import errors
from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.configuration import connection
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator, Unrecorded
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sending import idempotency_key
from airflow_provider_fluxomail.sending.batch.rows import Row
from airflow_provider_fluxomail.sending.batch.sender import Flight
from airflow_provider_fluxomail.sending.send_once import Identity
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger, FluxomailRetryAfterTrigger
from tests.support import (
    bad_servers,
    error_responses,
    event_triggers,
    notifiers,
    run_dag,
    send_operators,
    statsd_server,
)
from tests.support.airflow_facts import PRINTS_VALUES
from tests.support.airflow_runs import DagRuns
from tests.support.running import Run, context
from tests.support.state_store import Store
from tests.support.ways import (
    ALERTS,
    FACES,
    TIMELINE,
    TRANSPORTS,
    WAYS,
    Sent,
    Try,
    Way,
    by_hook,
    by_notifier,
    by_operator,
    decorated,
    run_batch,
)
from tests.wire.conftest import Transport

PACKAGE: Final = Path(__file__).parents[2] / "airflow_provider_fluxomail"
TESTS: Final = str(Path(__file__).parents[1])
KEY: Final = "fm_clandestine_0123456789"
#: In the key, and in every address, subject, body and file of every message.
SECRET, PERSON = re.compile("clandestine", re.IGNORECASE), re.compile("veiled", re.IGNORECASE)
TO: Final = "veiled-person@example.org"
MESSAGE: Final[dict[str, Any]] = {
    # A name that is shorter than what counts as a quotation of anything.
    "to": f"Veiled P <{TO}>",
    "subject": "Veiled subject",
    "content": "Veiled words\nof the body",
    "html_content": "<p>Veiled markup</p>",
    "cc": ["veiled-copy@example.org"],
    "bcc": ["veiled-blind@example.org"],
    "attachments": [{"filename": "veiled.txt", "content": "Veiled file"}],
    "extra_fields": {"replyTo": "veiled-reply@example.org", "variables": {"greeting": ["Veiled one"]}},
}
#: A server that quotes everything that it received.
QUOTE: Final = " | ".join(
    [
        *(KEY, f"Bearer {KEY}", TO, "veiled-2nd@example.org", "Veiled P", "Veiled one", "veiled.txt"),
        *(*MESSAGE["cc"], *MESSAGE["bcc"], *list(MESSAGE.values())[:4]),
    ]
)
#: The same for the response to a read: the reader does not know what was sent, only what an address looks like.
QUOTE_OF_READ: Final = " | ".join([KEY, TO, *MESSAGE["cc"], f"<{TO}>", f'"to": "{TO}"'])


@pytest.fixture
def private(sandbox: Sandbox) -> Sandbox:
    """The sandbox, with a connection whose key is unmistakable."""
    sandbox.key(KEY)
    sandbox.connect(key=KEY, timeout=10, max_attempts=2)
    return sandbox


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """All that is logged, from DEBUG up, by this package and by the libraries that it uses."""
    for one in (
        *(FluxomailHook, FluxomailSendOperator, FluxomailSendBatchOperator, FluxomailDeliverySensor),
        *(FluxomailDeliveryTrigger, FluxomailRetryAfterTrigger, FluxomailNotifier),
    ):
        monkeypatch.setattr(one, "log", logging.getLogger("airflow.task"))
    for name in (None, "airflow.task", "airflow_provider_fluxomail", "httpx", "httpcore", "urllib3", "requests"):
        caplog.set_level(logging.DEBUG, name)
    monkeypatch.setattr(logging.getLogger("airflow.task"), "propagate", True)
    return caplog


STORE: Final = Store()
PEOPLE: Final = [{**MESSAGE, "to": f"Veiled P <veiled-{number}@example.org>"} for number in range(3)]
#: Values that a way has no field for go into fields that it has: the server quotes all of them.
OF_ALERTS: Final = {"extra_fields": {**MESSAGE["extra_fields"], "file": "veiled.txt"}}
OF_WAYS: Final[dict[str, dict[str, Any]]] = {
    "email-backend": {"content": f"{MESSAGE['content']} Veiled one veiled-reply@example.org"},
    "notifier": OF_ALERTS,
    "notifier-async": OF_ALERTS,
}


def send(way: Way) -> Run:
    """Send by one way, and search its report, which is often kept for long and read by many."""
    sent = way.send(Try([{**MESSAGE, **OF_WAYS.get(way.name, {})}], store=STORE))
    return searched(sent.run, sent.report)


def searched(run: Run, report: str) -> Run:
    assert not SECRET.search(report), report
    assert not PERSON.search(report), report
    return run


def send_alert(**fields: Any) -> Run:
    return by_notifier(Try([{**MESSAGE, **OF_ALERTS, **fields}])).run


def task(try_number: int = 1, **fields: Any) -> Run:
    """Send by the operator."""
    return by_operator(Try([MESSAGE], try_number, STORE), **fields).run


def batch(messages: Any, **fields: Any) -> Run:
    return searched(*run_batch(messages, store=STORE, **fields))


def batch_of_file(name: str, text: str) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(text, "utf-8")
        return batch(str(path), defaults={"subject": MESSAGE["subject"], "content": MESSAGE["content"]})


def sensor(send_id: str | None = None, **fields: Any) -> Run:
    send_id = send_id or by_hook(Try([MESSAGE])).run.result.send_id
    how = {"poke_interval": 0.05, "timeout": 30, "deferrable": False, **fields}
    return Run(FluxomailDeliverySensor(task_id="wait", send_id=send_id, **how), context())


def quoted(status: int, body: Any = QUOTE, **fields: Any) -> dict[str, Any]:
    """A fault: the server quotes what it received."""
    return {"kind": "status", "status": status, "body": body, **fields}


def reading(status: int, body: Any = QUOTE_OF_READ, **fields: Any) -> dict[str, Any]:
    """The same when a timeline is read."""
    return quoted(status, body, path=TIMELINE, **fields)


#: The scenarios, by their result.
SCENARIOS: Final[dict[str, dict[str, Callable[[], Run]]]] = {
    "success": {
        "sent again after faults, then a wait": lambda: task(deferrable=True, wait_for="delivered", poll_interval=0.1),
        "a wait that meets faults": lambda: task(deferrable=True, wait_for="delivered", poll_interval=0.1),
        "a deferral for a rate limit": lambda: task(deferrable=True),
        "an alert": lambda: send_alert(),
        "an alert whose template breaks": lambda: send_alert(
            content="{{ 'veiled words'.nothing.more }}", subject="{{ veiled", html_content=None
        ),
        "a sensor that pokes": lambda: sensor(),
        "a sensor that defers": lambda: sensor(deferrable=True),
        "a test of the connection": lambda: calling("test_connection"),
        "a late retry of a send that cannot be read": lambda: late_retry(),
        "a batch that defers for a rate limit": lambda: batch(PEOPLE, deferrable=True),
    },
    "FluxomailResponseError": {"a timeline that is none": lambda: calling("get_timeline", "sends_1")},
    "RuntimeError": {"an alert to nobody": lambda: send_alert(to=["veiled person", "veiled-2nd"])},
    "AirflowFailException": {
        "a wait that ends with a bounce": lambda: task(
            to="veiled+bounced@example.org", wait_for="delivered", deferrable=True, poll_interval=0.1
        ),
        "a timeout": lambda: task(
            to="veiled+never@example.org", wait_for="delivered", wait_timeout=0.3, poll_interval=0.1
        ),
        "a sensor that defers and is refused": lambda: sensor(deferrable=True),
        "a sensor that pokes and meets a bounce": lambda: sensor(bounced(), deferrable=False),
        "a subject of two lines": lambda: task(subject="Veiled\nsubject"),
        "a recipient that is two": lambda: task(to=f"{TO}, veiled-2@example.org"),
        "a recipient that is none": lambda: task(to="veiled person"),
        "a copy to nobody": lambda: task(cc="veiled person"),
        "a file that does not exist": lambda: task(attachments=["/no/such/file.txt"]),
        "a guard": lambda: connected(allowed_recipient_domains=["example.com"]),
        "a redirected mail": lambda: connected(redirect_to="veiled-tester@example.org"),
        "the wrong replay": lambda: task() and task(to="veiled-other@example.org"),
        "a batch of which one is rejected": lambda: batch(PEOPLE),
        "a batch that meets the wrong replay": lambda: (
            batch([{**PEOPLE[0], "key": "one"}]) and batch([{**PEOPLE[1], "key": "one"}])
        ),
        "a batch of bad rows": lambda: batch(
            [*PEOPLE, {**MESSAGE, "to": "veiled person"}, {**MESSAGE, "attachments": "veiled"}, "veiled"]
        ),
        "a batch of bad lines": lambda: batch_of_file(
            "rows.jsonl", f'{{"to": "{TO}", "subject\n{{"to": "veiled person"}}\n["veiled"]\n'
        ),
        "a batch of bad cells": lambda: batch_of_file(
            "rows.csv", f'to,attachments\n{TO},[veiled\n{TO}\nveiled "person",\n"{TO}'
        ),
        "a batch of a file without names of columns": lambda: batch_of_file(
            "rows.csv", f"{TO},Veiled subject\n{TO},Veiled subject\n"
        ),
    },
}
#: What the requests of a scenario meet.
FAULTS: Final[dict[str, dict[str, Any]]] = {
    "sent again after faults, then a wait": {"kind": "response_lost_after_store"},
    "a wait that meets faults": reading(503, times=3),
    "a deferral for a rate limit": quoted(429, retry_after=0.1, times=3),
    "an alert": {"kind": "response_lost_after_store"},
    "a sensor that defers": reading(500, times=3),
    "a test of the connection": reading(401),
    "a late retry of a send that cannot be read": reading(404),
    "a batch that defers for a rate limit": quoted(429, retry_after=0.1, times=5),
    "a timeline that is none": reading(200, {"to": TO, "events": QUOTE}, times=None),
    "a sensor that defers and is refused": reading(403, skip=1, times=None),
    "a redirected mail": quoted(400, f"was for to: {MESSAGE['to']}; cc: {MESSAGE['cc'][0]}"),
    "a batch of which one is rejected": quoted(400, to="veiled-1@*", times=None),
}


def calling(method: str, *args: Any) -> Run:
    """Call one method of a hook."""

    def execute(_: Any) -> Any:
        hook = FluxomailHook()
        try:
            return getattr(hook, method)(*args)
        finally:
            hook.close()

    return Run(SimpleNamespace(execute=execute))


def connected(**extras: Any) -> Run:
    """Send with more extras in the connection."""
    value = json.loads(os.environ["AIRFLOW_CONN_FLUXOMAIL_DEFAULT"])
    value["extra"] |= extras
    os.environ["AIRFLOW_CONN_FLUXOMAIL_DEFAULT"] = json.dumps(value)
    return task()


def bounced() -> str:
    send_id: str = by_hook(Try([{**MESSAGE, "to": "veiled+bounced@example.org"}])).run.result.send_id
    return send_id


def late_retry() -> Run:
    """Try again when Fluxomail has forgotten the key."""
    assert task().kind == "success"
    STORE["fluxomail_send"]["asked"] -= 30 * 24 * 3600
    return task(try_number=2)


def check(run: Run, logged: pytest.LogCaptureFixture, sandbox: Sandbox) -> None:
    """Search all that a run left behind."""
    formatter = logging.Formatter("%(name)s %(message)s %(exc_text)s")
    for record in logged.records:
        line = formatter.format(record)
        assert not SECRET.search(line), line
        assert record.levelno < logging.INFO or not PERSON.search(line), line
    left = [json.dumps(deferral.trigger.serialize()) for deferral in run.deferrals]
    left += [json.dumps(deferral.kwargs) for deferral in run.deferrals]
    left += [json.dumps(STORE)]
    left += [f"{request.path}?{request.query}" for request in sandbox.requests()]
    if run.error is not None:
        left += [text for error in chain(run.error) for text in (str(error), repr(error))]
        left.append(shown(run.error))
    else:
        left.append(str(run.result))
    for text in left:
        assert not SECRET.search(text), text
        assert not PERSON.search(text), text


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error with its causes and contexts, whether a traceback shows them or not."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def shown(error: BaseException) -> str:
    """The traceback with variables as some formatters print it, and for our frames what it suppresses as well."""
    links = [(traceback.TracebackException.from_exception(error, capture_locals=True), True)]
    for link, visible in links:
        kept = [
            frame
            for frame in link.stack
            if frame.filename.startswith((str(PACKAGE), "<string>"))
            or (visible and not frame.filename.startswith(TESTS))
        ]
        link.stack = traceback.StackSummary.from_list(kept)
        links += [(link.__cause__, visible)] if link.__cause__ else []
        links += [(link.__context__, visible and not link.__suppress_context__)] if link.__context__ else []
    return "".join(line for link, _ in links for line in link.format(chain=False))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, runs in SCENARIOS.items() for name in runs])
def test_promise_5_nothing_private_is_left_behind(
    private: Sandbox, logged: pytest.LogCaptureFixture, kind: str, name: str
) -> None:
    STORE.clear()
    # Late enough for a wait to defer.
    private.settings(event_delay=4)
    if name in FAULTS:
        private.fail_next(**FAULTS[name])
    run = SCENARIOS[kind][name]()
    assert run.kind == kind, run.error
    assert not private.requests() or logged.records, "what is searched is the log"
    assert bool(run.deferrals) is ("defer" in name or "wait" in name)
    assert private.faults() == [] or None in [fault.remaining for fault in private.faults()]
    check(run, logged, private)


#: Every status and every form for both transports, a few for each way.
QUOTES: Final = [
    *((way, form, 400) for way in TRANSPORTS for form in ("text", "docs", "details")),
    *((way, "nested", status) for way in TRANSPORTS for status in (200, 400, 401, 403, 404, 409, 413, 422, 429, 503)),
    *(
        (way, form, status)
        for way in [*FACES, *ALERTS]
        if not (way.before or way.after or way.reads)
        for form, status in [("nested", 400), ("docs", 401), ("details", 422), ("text", 429)]
    ),
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("way", "form", "status"), QUOTES, ids=str)
def test_promise_5_what_a_server_quotes_is_not_shown(
    private: Sandbox, logged: pytest.LogCaptureFixture, way: Way, form: str, status: int
) -> None:
    body: Any = {
        "text": QUOTE,
        "docs": {"error": QUOTE, "code": KEY},
        "nested": {"error": {"message": QUOTE, "code": KEY, "details": [{"path": ["to"], "message": QUOTE}]}},
        "details": {"message": "refused", "details": {"to": MESSAGE["to"], "given": QUOTE}, "preview": QUOTE},
    }[form]
    STORE.clear()
    private.fail_next(status, body=body, times=None, headers={"X-Request-Id": "req_1"})
    run = send(way)
    assert run.error is not None
    assert private.requests("POST")
    check(run, logged, private)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", [way for way in WAYS if not (way.before or way.after or way.reads)], ids=str)
@pytest.mark.parametrize("how", ["a wrong key", "no server", "a cut connection"])
def test_promise_5_a_send_that_does_not_arrive(
    private: Sandbox, logged: pytest.LogCaptureFixture, way: Way, how: str
) -> None:
    STORE.clear()
    if how == "a wrong key":
        private.connect(key=KEY + "_wrong")
    elif how == "no server":
        private.connect(key=KEY, host="http://127.0.0.1:1", max_attempts=2)
    else:
        private.fail_next("cut_in_body", times=None)
    run = send(way)
    assert run.error is not None
    check(run, logged, private)


#: What is wrong with a message, and with a connection.
BAD_MESSAGES: Final[dict[str, dict[str, Any]]] = {
    "recipient": {"to": "veiled person"},
    "copy": {"cc": ["veiled person"]},
    "subject": {"subject": "Veiled \ud800 subject"},
    "body": {"content": "Veiled \ud800"},
    "no text": {"content": " ", "html_content": "<img src='veiled'>"},
    "file": {"attachments": [{"filename": "veiled.txt", "content": {"veiled": 1}}]},
    "files": {"attachments": [{"filename": "veiled.txt", "content": "Veiled file"}] * 6},
    "extra": {"extra_fields": {"to": "veiled-other@example.org"}},
    "policy": {"policy_key": "veiled\npolicy"},
}
PROXY: Final = "http://user:clandestine@proxy.example.org:3128"
BAD_CONNECTIONS: Final[dict[str, dict[str, Any]]] = {
    "key": {"password": f"{KEY}\n"},
    "SOCKS": {"extra": {"proxies": {"https": PROXY.replace("http", "socks5")}}},
    "another extra": {"extra": {"proxies": {"https": PROXY}, "timeout": "soon"}},
    "proxies as text": {"extra": {"proxies": PROXY}},
    "proxies twice": {"extra": f'{{"proxies": "{PROXY}", "Proxies": "{PROXY}"}}'},
    "no JSON": {"extra": f"proxies={PROXY}"},
    "type": {"conn_type": "http"},
    "a proxy that is down": {"extra": {"proxies": {"http": PROXY.replace("proxy.example.org:3128", "127.0.0.1:1")}}},
    "host": {"host": f"https://user:{KEY}@mail.example.org"},
    "unexpected": {"extra": {"proxies": {"https": PROXY}, "poll_share": 0.3}},
}
SENDING: Final = [
    *(way for way in WAYS if not (way.before or way.after or way.reads) and way.name != "decorator-of-many"),
    Way("a-list", lambda sending: Sent(Run(decorated(lambda: [*map(dict, sending.messages)]), sending.context), [])),
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", SENDING, ids=str)
@pytest.mark.parametrize("bad", BAD_MESSAGES)
def test_promise_5_an_invalid_message(private: Sandbox, logged: pytest.LogCaptureFixture, way: Way, bad: str) -> None:
    STORE.clear()
    run = way.send(Try([{**MESSAGE, **BAD_MESSAGES[bad]}], store=STORE)).run
    # What a way has no argument for, or makes good itself.
    if bad in {"email-backend": ("subject", "body", "no text", "extra", "policy")}.get(way.name, ()) or (
        way.alert and bad in ("copy", "subject", "body", "file", "files", "policy")
    ):
        return
    assert run.error is not None
    check(run, logged, private)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", SENDING, ids=str)
@pytest.mark.parametrize("bad", BAD_CONNECTIONS)
def test_promise_5_a_connection_that_is_wrong(
    private: Sandbox, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, way: Way, bad: str
) -> None:
    STORE.clear()
    value = json.loads(os.environ["AIRFLOW_CONN_FLUXOMAIL_DEFAULT"])
    change = BAD_CONNECTIONS[bad]
    if isinstance(change.get("extra"), dict):
        change = {"extra": {**value["extra"], **change["extra"]}}
    monkeypatch.setenv("AIRFLOW_CONN_FLUXOMAIL_DEFAULT", json.dumps({**value, **change}))
    if bad == "unexpected":
        monkeypatch.setattr(connection, "user_agent", lambda: [].pop())
    run = send(way)
    assert run.error is not None
    check(run, logged, private)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("way", SENDING, ids=str)
def test_promise_5_an_unexpected_error(
    private: Sandbox, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    STORE.clear()

    def fails(*args: Any) -> Any:
        raise LookupError("no such thing")

    monkeypatch.setattr(EmailMessage, "to_json", fails)
    run = way.send(Try([{**MESSAGE, **OF_WAYS.get(way.name, {})}], store=STORE)).run
    monkeypatch.undo()
    assert run.error is not None
    check(run, logged, private)


def test_promise_5_tracebacks_as_rich_prints_them() -> None:
    """It looks into containers and data classes, and cuts long texts."""
    rich = pytest.importorskip("rich.pretty")
    settings = ClientSettings(api_key="fm_clandestine" * 20, proxies={"https": PROXY})
    message = EmailMessage.of({**MESSAGE, "content": "Veiled words " * 50})
    row = Row("line 1", message, "veiled key", "veiled part")
    held = [
        settings,
        settings.api_key,
        settings.proxies,
        settings.proxy(),
        message,
        row,
        Flight(0, row, Identity(key="k")),
    ]
    printed = rich.pretty_repr(held, max_string=80)
    assert "line 1" in printed
    assert not SECRET.search(printed), printed
    assert not PERSON.search(printed), printed


def test_promise_5_positions_in_a_tasks_context_name_no_recipient(private: Sandbox) -> None:
    """Frames of Airflow and of the task hold the context; a traceback with local variables prints it."""
    ctx = context()
    with (
        mock.patch.object(idempotency_key, "_running_context", return_value=ctx),
        contextlib.closing(FluxomailHook()) as hook,
    ):
        for _ in range(2):
            hook.send({"to": "veiled@example.org", "subject": "Veiled subject", "content": "Veiled words"})
    assert len(private.messages()) == 2, "counted: they have two keys"
    assert not PERSON.search(repr(ctx))


#: Tables that hold what the author of a Dag wrote or rendered, which recipient, subject and body are part of.
AUTHORS: Final = {"dag_code", "serialized_dag", "rendered_task_instance_fields"}
#: The lines that Airflow 2, Airflow 3's console and its log files write at DEBUG.
DEBUG: Final = re.compile(r'^.*(?: DEBUG |\[debug *\]|"level": ?"debug").*\n', re.MULTILINE)
#: States of the Dag's tasks.
STATES: Final = {
    **dict.fromkeys(["plain", "tried_again", "rate_limited", "waits", "by_hand", "batch"], "success"),
    **dict.fromkeys(["sensor_poke", "sensor_reschedule", "sensor_deferrable"], "success"),
    **dict.fromkeys(["refused", "unauthorized", "bounces", "times_out", "invalid", "mistaken"], "failed"),
    **dict.fromkeys(["wrong_replay", "bad_batch"], "failed"),
}


@pytest.mark.timeout(500)  # Some 20 tasks, each in a process of Airflow's own.
def test_promise_5_a_whole_dag(private: Sandbox, airflow_db: Path, tmp_path: Path) -> None:
    """Output, log files, XComs, rendered fields, serialized triggers: all that a real run prints and stores."""
    private.connect(key=KEY, timeout=10, max_attempts=2, max_wait=2)
    quote = " | ".join([KEY, "veiled-refused+delivered@example.org", "veiled-2nd@example.org", "Veiled subject",
                        "Veiled words", "<p>Veiled markup</p>", "veiled-copy@example.org"])  # fmt: skip
    private.fail_next("response_lost_after_store", to="veiled-tried_again*", times=2)
    private.fail_next(400, to="veiled-refused*", times=None, body={"error": quote, "details": {"to": quote}})
    private.fail_next(401, to="veiled-unauthorized*", times=None, body={"error": quote})
    private.fail_next(429, to="veiled-rate_limited*", retry_after=2.1, body={"error": quote})
    private.fail_next(503, path=TIMELINE, to="veiled-waits*", times=2, body=QUOTE_OF_READ)
    # Wide: a wrapped line would hide what is searched for.
    environment = {"AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path), "COLUMNS": "1000"}
    output = run_dag.in_a_process(airflow_db, "privacy", AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG", **environment)
    dags = DagRuns(airflow_db)
    ((run_id,),) = dags.query("SELECT run_id FROM dag_run WHERE dag_id = 'privacy' ORDER BY id DESC LIMIT 1")
    rows = dags.query("SELECT task_id, state FROM task_instance WHERE dag_id = 'privacy' AND run_id = ?", run_id)
    assert dict(rows) == STATES, output[-20000:]
    assert len(private.messages("veiled-tried_again+delivered@example.org")) == 1

    logged = output + "".join(file.read_text("utf-8") for file in tmp_path.rglob("*") if file.is_file())
    # Airflow's own way to hide a connection's password in dag.test() is at DEBUG a line that holds it.
    logged = re.sub(r"MaskSecret\(value='[^']*'", "MaskSecret(", logged)
    if PRINTS_VALUES:
        logged = re.sub(r".*(SetRenderedFields|│).*", "", logged)
    assert not SECRET.search(logged), context_of(SECRET, logged)
    above_debug = DEBUG.sub("", logged)
    assert len(above_debug) < len(logged)
    assert "Fluxomail accepted send" in above_debug, "what is searched is the log"
    assert "FluxomailValidationError" in above_debug
    assert not PERSON.search(above_debug), context_of(PERSON, above_debug)
    for line in dags.database_dump().splitlines():
        assert not SECRET.search(line), line
    for table in tables(dags) - AUTHORS:
        stored = [str(row) for row in dags.query(f'SELECT * FROM "{table}"')]
        assert not [row for row in stored if PERSON.search(row)], table
    assert PERSON.search(str(dags.query("SELECT * FROM rendered_task_instance_fields"))), "the Dag was the right one"
    for request in private.requests():
        assert not PERSON.search(request.path + request.query)
        assert not SECRET.search(request.path + request.query)


def tables(dags: DagRuns) -> set[str]:
    return {name for (name,) in dags.query("SELECT name FROM sqlite_master WHERE type = 'table'")}


def context_of(what: re.Pattern[str], text: str) -> str:
    return "\n---\n".join(text[max(0, found.start() - 300) : found.end() + 200] for found in what.finditer(text))


def test_promise_5_settings_and_messages_do_not_print_what_they_hold() -> None:
    settings = repr(ClientSettings(api_key="fm_secret", proxies={"https": "http://user:pw@proxy"}))
    assert "fm_secret" not in settings
    assert "pw" not in settings
    message = EmailMessage(to=TO, subject="Veiled", content="Veiled", attachments=[Attachment("a", b"")])
    assert repr(message) == "<EmailMessage with 1 attachments>"
    assert "veiled" not in repr(Attachment("a", b"veiled"))


BODY = 'Dear Bob,\nyour code is "4711-secret"\nbye'


@pytest.mark.parametrize(
    "said",
    [
        {"message": "bad", "details": {"content": BODY}},
        {"message": f"cannot send {json.dumps({'content': BODY})}"},
        {"message": 'refused: Dear Bob,\\nyour code is \\"4711-secret'},
        {"message": "line 2 'your code is \"4711-secret\"' is too long"},
        [{"content": BODY}],
        BODY,
    ],
)
def test_promise_5_no_error_quotes_a_body_whole_in_part_or_escaped(said: object) -> None:
    assert "4711" not in str(error_responses.error(422, said, private=(BODY,)))


def test_promise_5_an_error_hides_other_addresses_at_the_recipients_domain() -> None:
    """The domain is a part of the recipient, and what is left of the address would be a name."""
    found = error_responses.error(
        422, {"message": "bob.miller@mail.example.org is suppressed"}, private=("ada@mail.example.org",)
    )
    assert "bob" not in str(found)
    assert "is suppressed" in str(found)


@pytest.mark.usefixtures("quick_event_triggers", "message_event_triggers")
@event_triggers.on_airflow_3_3
async def test_promise_5_event_triggers_log_no_key_and_no_recipient(
    sandbox: Sandbox,
    triggerers: Callable[..., event_triggers.Triggerer],
    moments: Iterator[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    triggerer, store = triggerers(), event_triggers.Stores()
    triggerer.start(store, types=["bounced", "opened"], domain="example.org")
    await event_triggers.live(triggerer, store)
    at = next(moments)
    sandbox.bounce(at=at, reason="550 no such user <never@example.org>")
    sandbox.advance(60)
    await triggerer.has(at)
    await triggerer.until(lambda: store.cursor["seen"] != [])
    known = caplog.text + json.dumps([triggerer.stored, store.values])
    for private in ("fm_sandbox", "never@", "Text"):
        assert private not in known
    assert "550 no such user" in triggerer.stored[0]["reason"]


def test_promise_5_metrics_hold_no_person_and_no_key(sandbox: Sandbox, statsd: statsd_server.StatsD) -> None:
    Run(statsd_server.operator(wait_for="delivered", idempotency_key="secret-key"))
    emitted = str(statsd.lines())
    for secret in ("ops", "Hi", "Text", "secret", sandbox.api_key):
        assert secret not in emitted


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_promise_5_exceptions_with_secrets_and_addresses(sandbox: Sandbox, log: pytest.LogCaptureFixture) -> None:
    from tests.support.airflow_names import mask_secret

    secret = "s3cr3t-of-the-warehouse"
    mask_secret(secret)
    notifier = FluxomailNotifier(
        to=notifiers.OPS, content="{{ exception }} {{ alert.exception }}", subject="{{ exception }}"
    )
    # One that lies over the end of what is shown, and of what is searched.
    for length in (0, alert.MAX_EXCEPTION - 20, 7_990):
        text = f"{'x ' * (length // 2)}password={secret} of ada.lovelace@example.org {'y' * 9000}"
        for one, part in ((notifier, str(length)), (FluxomailNotifier(to="b@example.org"), None)):
            one.part = part
            one(notifiers.context(exception=RuntimeError(text), try_number=length))
    for mail in sandbox.assert_sent(6):
        for said in (mail.subject, mail.content, str(mail.html_content)):
            assert not any(secret[:size] in said for size in range(6, len(secret) + 1))
            if mail.to == "b@example.org":
                assert "lovelace" not in said
                assert len(mail.content) < alert.MAX_EXCEPTION + 500
    assert "RuntimeError: password=*** of <address>" in sandbox.messages("b@example.org")[0].content
    FluxomailNotifier(to="c@example.org")(notifiers.context(exception=UnspeakableError()))
    assert "\nUnspeakableError\n" in sandbox.message("c@example.org").content


def test_promise_5_without_a_masker_no_exception_is_shown(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    def redact(_: object) -> None:
        raise RuntimeError("No SecretsMasker found!")

    monkeypatch.setattr("airflow_provider_fluxomail.airflow_compat.redact", redact, raising=False)
    FluxomailNotifier(to=notifiers.OPS)(notifiers.context(exception=ValueError("a secret")))
    mail = sandbox.message()
    assert "secret" not in mail.content.replace("secrets masker", "")
    assert "not shown" in mail.content


def test_promise_5_the_log_of_an_alert_names_no_recipient(
    sandbox: Sandbox, way: notifiers.Way, log: pytest.LogCaptureFixture
) -> None:
    sandbox.fail_next(400, to="b@example.org", body={"error": "b@example.org is blocked: Secret words"}, times=None)
    way(
        FluxomailNotifier(to=[notifiers.OPS, "b@example.org"], subject="Secret words", content="Secret words"),
        notifiers.context(),
    )
    accepted, refused = notifiers.log_lines(log, logging.INFO)
    assert accepted.startswith("Fluxomail accepted the alert (failure of load.copy) to recipient 1 of 2 as send ")
    assert refused.startswith("Alert (failure of load.copy) to recipient 2 of 2 was not sent: FluxomailValidationError")
    for private in ("example.org", "Secret", "af1:", sandbox.api_key):
        assert private not in accepted + refused


def test_promise_5_an_unrecorded_body_is_sent_but_not_shown(sandbox: Sandbox, tmp_path: Path) -> None:
    task = send_operators.render(
        send_operators.operator(content=Unrecorded("Code {{ word }}")), tmp_path, word="123456"
    )
    assert (str(task.content), repr(task.content)) == ("***", "***")
    Run(task)
    assert [mail.content for mail in sandbox.messages()] == ["Code 123456"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bad_servers.head("400 Bad Request", Content_Length=31) + b'{"error": "bad ada@example.org"}'[:31],
        bad_servers.head("500 Oops", Content_Length=4) + b"oops",
        bad_servers.head("302 Found", Location="https://x.example/?fm_secret"),
        bad_servers.head(Content_Length=2) + b"{}",
        bad_servers.head(Content_Encoding="gzip", Content_Length=7) + b"garbage",
    ],
)
def test_promise_5_a_traceback_with_local_variables_shows_no_key_and_no_message(
    call: Transport, serve: bad_servers.Serve, data: bytes
) -> None:
    """Some log formatters print the variables of every frame, those of the HTTP libraries included."""
    server = serve(bad_servers.answers(data))
    private = EmailMessage(to="ada@example.org", subject="Private subject", content="Private words")
    try:
        call(bad_servers.settings(server.url), "send", private, idempotency_key="k")
    except errors.FluxomailError as error:
        # Without this test's own frame, which holds them.
        shown = "".join(
            traceback.TracebackException(type(error), error, error.__traceback__.tb_next, capture_locals=True).format()  # type: ignore[union-attr]
        )
    assert "in send_flow" in shown
    for secret in ("fm_secret", "ada@example.org", "Private"):
        assert secret not in shown
