"""A mistake in a constant is an import error of the Dag, in the worker's words; anything else is left to the worker."""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
import textwrap
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor
from tests.support.airflow_names import DAG
from tests.support.running import Run

HEAD: Final = """
import datetime
from tests.support.airflow_names import DAG, task
from airflow_provider_fluxomail.operators import *
from airflow_provider_fluxomail.sensors import FluxomailDeliverySensor

MESSAGE = {"task_id": "task", "to": "ops@example.org", "subject": "Hi", "content": "Text"}

class Own(FluxomailSendOperator):
    def execute(self, context):
        self.to, self.content = "ops@example.org", "Text"
        return super().execute(context)

"""
MESSAGE: Final[dict[str, Any]] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}
ROWS: Final[dict[str, Any]] = {"messages": [MESSAGE]}
SEND_ID: Final[dict[str, Any]] = {"send_id": "snd_1", "deferrable": False}


def import_error(folder: Path, code: str, *, dag: str = "") -> str | None:
    """Let Airflow parse a Dag file with this code in the Dag, and return what the UI would show."""
    where = "airflow.dag_processing.dagbag"
    if importlib.util.find_spec(where) is None:  # Airflow 2.11
        where = "airflow.models.dagbag"
    body = textwrap.indent(textwrap.dedent(code), "    ")
    # A folder of its own: Python compiles a file of the same size that was written in the same second only once.
    folder = Path(tempfile.mkdtemp(dir=folder))
    (folder / "a_dag.py").write_text(f'{HEAD}with DAG("d", schedule=None, {dag}) as dag:\n{body}\n', encoding="utf-8")
    bag = importlib.import_module(where).DagBag(str(folder))
    assert bool(bag.import_errors) != ("d" in bag.dags)
    return next(iter(bag.import_errors.values()), None)


WRONG: Final[list[tuple[type, dict[str, Any], str]]] = [
    (FluxomailSendOperator, {"content": None}, "content is empty: give the text of the email, or html_content"),
    (FluxomailSendOperator, {"to": "a@example.org, b@example.org"}, "to holds more than one address"),
    (FluxomailSendOperator, {"to": ["a@example.org", "b@example.org"]}, "to holds 2 addresses"),
    (FluxomailSendOperator, {"to": "ops.md"}, "to is not an email address"),
    (FluxomailSendOperator, {"subject": 2026}, "subject must be text, not int"),
    (FluxomailSendOperator, {"cc": ["a@example.org", "b"]}, "cc[1] is not an email address"),
    (FluxomailSendOperator, {"bcc": "b"}, "bcc[0] is not an email address"),
    (FluxomailSendOperator, {"policy_key": "a\nb"}, "policy_key holds a line break"),
    (FluxomailSendOperator, {"extra_fields": {"to": "x"}}, "extra_fields holds 'to'"),
    (FluxomailSendOperator, {"idempotency_key": "a\nb"}, "idempotency_key holds a line break"),
    (FluxomailSendOperator, {"wait_for": "sent"}, "unknown target 'sent'"),
    (FluxomailSendOperator, {"wait_for": ["delivered"]}, "unknown target ['delivered']"),
    (FluxomailSendOperator, {"wait_for": "opened"}, "wait_for='opened' needs html_content"),
    (FluxomailSendOperator, {"wait_timeout": -1}, "wait_timeout must be a timedelta"),
    (FluxomailSendOperator, {"poll_interval": timedelta(seconds=-1)}, "poll_interval must be a timedelta"),
    (FluxomailSendOperator, {"max_rate_limit_wait": None}, "max_rate_limit_wait must be a timedelta"),
    (FluxomailSendBatchOperator, {"concurrency": 0}, "concurrency must be a whole number from 1 to 64"),
    (FluxomailSendBatchOperator, {"on_error": "ignore"}, "on_error must be 'continue' or 'stop'"),
    (FluxomailSendBatchOperator, {"max_rate_limit_wait": "x"}, "max_rate_limit_wait must be a timedelta"),
    (FluxomailSendBatchOperator, {"messages": "x", "file_format": "xml"}, "file_format must be jsonl or csv"),
    (FluxomailDeliverySensor, {"send_id": None}, "send_id came out empty"),
    (FluxomailDeliverySensor, {"send_id": {"send_id": "x"}}, "send_id must be text, not dict"),
    (FluxomailDeliverySensor, {"target": "arrived"}, "unknown target 'arrived'"),
    (FluxomailDeliverySensor, {"fail_on": ["exploded"]}, "unknown event 'exploded'"),
    (FluxomailDeliverySensor, {"fail_on": 3}, "fail_on must be a list of events"),
]
DEFAULTS: Final[dict[type, dict[str, Any]]] = {
    FluxomailSendOperator: MESSAGE,
    FluxomailSendBatchOperator: ROWS,
    FluxomailDeliverySensor: SEND_ID,
}


@pytest.mark.parametrize(
    ("task", "arguments", "text"), WRONG, ids=[f"{task.__name__}-{arguments}" for task, arguments, _ in WRONG]
)
def test_a_mistake_in_a_constant_is_an_import_error_in_the_words_of_the_worker(
    sandbox: Sandbox, tmp_path: Path, task: Any, arguments: dict[str, Any], text: str
) -> None:
    given = {**DEFAULTS[task], **arguments}
    run = Run(task(task_id="task", **given))
    assert run.kind == "AirflowFailException"
    in_worker = str(run.error).removeprefix("FluxomailValidationError: ")
    assert text in in_worker
    assert sandbox.requests() == []
    error = import_error(tmp_path, f"{task.__name__}(task_id='task', **{given!r})")
    assert error is not None
    assert f"FluxomailValidationError: task 'task': {in_worker}" in error


RIGHT: Final = {
    "templates": """
        FluxomailSendOperator(
            task_id="task", to="{{ params.to }}", subject="{% if a %}b{% endif %}", content="{# nothing #}",
            cc=["{{ x }}", "a@example.org"], extra_fields={"{{ n }}": 1}, idempotency_key="{{ ds }}",
        )
        FluxomailDeliverySensor(task_id="wait", send_id="{{ x }}", target="{{ y }}")
    """,
    "template files": """
        FluxomailSendOperator(task_id="task", to="a@example.md", subject="report.txt", content="report.html")
    """,
    "a body that Airflow does not store": """
        FluxomailSendOperator(**{**MESSAGE, "content": None, "html_content": Unrecorded("")})
    """,
    "the output of another task": """
        first = FluxomailSendOperator(**MESSAGE)
        second = FluxomailSendOperator(
            task_id="second", to=first.output, subject=first.output["x"], html_content=first.output, wait_for="opened"
        )
        FluxomailDeliverySensor(task_id="wait", send_id=first.output["send_id"])
        FluxomailSendBatchOperator(task_id="batch", messages=first.output)
    """,
    "mapped": """
        FluxomailSendOperator.partial(task_id="task", subject="Hi", wait_for="x").expand(to=["", "a, b"], content=[""])
        FluxomailDeliverySensor.partial(task_id="wait", target="x").expand(send_id=[None])
        FluxomailSendBatchOperator.partial(task_id="batch", on_error="x").expand(messages=[[]])
    """,
    "a subclass that knows only when it runs": """
        Own(**{**MESSAGE, "to": "", "content": None, "wait_for": "x"})
    """,
    "a hook that sets the message when the task runs": """
        FluxomailSendOperator(**{**MESSAGE, "to": "", "content": None}, pre_execute=lambda context: None)
    """,
    "what is missing is set later": """
        mail = FluxomailSendOperator(**{**MESSAGE, "to": "", "content": None})
        mail.to, mail.html_content, mail.wait_for = "a@example.org", "<p>Hi</p>", "opened"
        wait = FluxomailDeliverySensor(task_id="wait", send_id="")
        wait.send_id = "snd_1"
    """,
    "a function that returns the message": """
        @task.fluxomail_send(wait_for="opened", wait_timeout=datetime.timedelta(hours=1))
        def mail():
            return {}
        mail()
    """,
    "run by hand": """
        @task
        def mail():
            FluxomailSendOperator(**{**MESSAGE, "to": "a, b", "wait_for": "x"})
        mail()
    """,
}


@pytest.mark.parametrize("what", RIGHT)
def test_what_only_a_worker_knows_is_left_to_it(tmp_path: Path, what: str) -> None:
    assert import_error(tmp_path, RIGHT[what]) is None


@pytest.mark.parametrize(
    "dag", ["jinja_environment_kwargs={'variable_start_string': '[['}", "render_template_as_native_obj=True"]
)
def test_a_dag_with_other_templates_is_left_to_the_worker(tmp_path: Path, dag: str) -> None:
    code = "FluxomailSendOperator(**{**MESSAGE, 'to': '[[ params.to ]]', 'subject': 7})"
    assert import_error(tmp_path, code, dag=dag) is None
    assert "wait_timeout" in str(import_error(tmp_path, "FluxomailSendOperator(**MESSAGE, wait_timeout='x')", dag=dag))


def test_defaults_of_the_dag_are_checked_where_they_end_up(tmp_path: Path) -> None:
    code = "FluxomailSendOperator(task_id='task', subject='Hi', content='Text')"
    dag = "default_args={'to': 'a@example.org, b@example.org'}"
    assert "to holds more than one address" in str(import_error(tmp_path, code, dag=dag))
    assert import_error(tmp_path, code, dag="default_args={'to': 'a@example.org'}") is None


def test_arguments_of_a_function_that_returns_the_message(tmp_path: Path) -> None:
    for argument, text in (("wait_for='sent'", "unknown target"), ("wait_timeout=-1", "wait_timeout")):
        code = f"@task.fluxomail_send({argument})\ndef mail():\n    return {{}}\nmail()"
        assert f"task 'mail': {text}" in str(import_error(tmp_path, code))


def test_a_mapped_task_fails_without_retries_in_the_worker(sandbox: Sandbox) -> None:
    with DAG("d", schedule=None):
        mapped: Any = FluxomailSendOperator.partial(task_id="task", subject="Hi", content="Text").expand(to=["a, b"])
    run = Run(mapped.unmap({"to": "a@example.org, b@example.org"}))
    assert run.kind == "AirflowFailException", "as any other task: no retry helps"
    assert "to holds more than one address" in str(run.error)
