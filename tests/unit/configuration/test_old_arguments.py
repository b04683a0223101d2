"""The error for another vendor's argument, raised when the Dag is parsed."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pendulum
import pytest

from airflow_provider_fluxomail.airflow_compat import BaseOperator
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.configuration.old_arguments import (
    BATCH,
    DECORATOR,
    MESSAGE_FIELDS,
    NOTIFIER,
    OLD_ARGUMENTS,
    OPERATOR,
    ArgumentNames,
)
from airflow_provider_fluxomail.notifications import FluxomailNotifier
from airflow_provider_fluxomail.operators import FluxomailSendBatchOperator, FluxomailSendOperator
from tests.support.airflow_names import DAG, task

MAIL: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}
START = pendulum.datetime(2026, 1, 1, tz="UTC")


def parameters(function: Any) -> set[str]:
    named = inspect.signature(inspect.unwrap(function)).parameters.values()
    return {item.name for item in named if item.kind is not item.VAR_KEYWORD} - {"self"}


def operator(**arguments: Any) -> None:
    FluxomailSendOperator(task_id="send", **arguments)


def mapped(**arguments: Any) -> None:
    FluxomailSendOperator.partial(task_id="send", **MAIL, **arguments).expand(cc=["a@example.org"])


def batch(**arguments: Any) -> None:
    FluxomailSendBatchOperator(task_id="send", messages=[], **arguments)


def mapped_batch(**arguments: Any) -> None:
    FluxomailSendBatchOperator.partial(task_id="send", **arguments).expand(messages=[[], []])


def notifier(**arguments: Any) -> None:
    FluxomailNotifier(**{"to": "ops@example.org", **arguments})


def decorator(**arguments: Any) -> None:
    task.fluxomail_send(**arguments)(lambda: MAIL)()


def mapped_decorator(**arguments: Any) -> None:
    def send(to: str) -> dict[str, Any]:
        return {**MAIL, "to": to}

    task.fluxomail_send(**arguments)(send).expand(to=["a@example.org"])


FACES: dict[Callable[..., None], ArgumentNames] = {
    operator: OPERATOR, mapped: OPERATOR, batch: BATCH, mapped_batch: BATCH, notifier: NOTIFIER,
    decorator: DECORATOR, mapped_decorator: DECORATOR,
}  # fmt: skip


@pytest.mark.parametrize("make", FACES)
def test_every_class_names_what_to_write_instead(make: Callable[..., None]) -> None:
    with DAG("d", schedule=None, start_date=START) as dag:
        for name in {**OLD_ARGUMENTS, **FACES[make].refused}:
            with pytest.raises(TypeError) as caught:
                make(**{name: "secret"})
            advice = FACES[make].advice(name)
            assert f"has no such argument: {name!r}: {advice}" in str(caught.value)
            assert "{" not in advice.replace("{'replyTo': ...}", "")
            assert "secret" not in str(caught.value)
    assert dag.task_dict == {}


@pytest.mark.parametrize(
    ("make", "name", "shown"),
    [
        (operator, "files", "FluxomailSendOperator has no such argument: 'files': use 'attachments'"),
        (operator, "recipients", "'recipients': use 'to'"),
        (operator, "conn_id", "'conn_id': use 'fluxomail_conn_id', the id of a connection of type fluxomail"),
        (operator, "from_email", "leave it out: Fluxomail sends from the organization's From identity"),
        (operator, "reply_to", "use 'extra_fields': {'replyTo': ...}"),
        (operator, "body", "use 'content' for plain text, 'html_content' for HTML"),
        (batch, "files", "FluxomailSendBatchOperator has no such argument: 'files': use 'attachments' in each message"),
        (batch, "to", "'to': use 'to' in each message or in defaults"),
        (notifier, "files", "an alert has no attachments"),
        (notifier, "cc", "FluxomailNotifier has no such argument: 'cc': use 'to': each recipient of an alert gets"),
        (decorator, "files", "@task.fluxomail_send has no such argument: 'files': use 'attachments' in the message"),
        (mapped_decorator, "subject", "'subject': use 'subject' in the message that the function returns"),
    ],
)
def test_the_advice(make: Callable[..., None], name: str, shown: str) -> None:
    with DAG("d", schedule=None, start_date=START), pytest.raises(TypeError) as caught:
        make(**{name: "x"})
    assert shown in str(caught.value)


def test_errors_that_are_not_about_one_old_argument() -> None:
    with pytest.raises(TypeError, match=r"'files': use .*; 'mail_from': leave it out"):
        operator(files=["x"], mail_from="a@example.org")
    with pytest.raises(TypeError, match=r"FluxomailNotifier takes its arguments by name, such as to="):
        FluxomailNotifier("ops@example.org")  # type: ignore[call-arg]
    with pytest.raises(Exception, match="Invalid arguments"):
        operator(**MAIL, misspelt=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'misspelt'"):
        notifier(misspelt=1)


def test_none_of_them_is_an_argument_of_ours_or_of_airflow() -> None:
    airflows = parameters(BaseOperator.__init__)
    assert {"email", "email_on_failure", "task_id"} <= airflows
    for face in (OPERATOR, BATCH, DECORATOR):
        assert not airflows & {*OLD_ARGUMENTS, *face.refused}
    classes: list[Any] = [FluxomailSendOperator, FluxomailSendBatchOperator, FluxomailNotifier]
    for cls in classes:
        assert not parameters(cls.__init__) & {*OLD_ARGUMENTS, *cls.argument_names.refused}
    assert set(MESSAGE_FIELDS) == set(EmailMessage.__dataclass_fields__)


def test_arguments_of_airflow_and_default_args_of_other_tasks_are_accepted() -> None:
    defaults = {"conn_id": "http_default", "files": ["x"], "retries": 2}
    with DAG("d", schedule=None, start_date=START, default_args=defaults), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Airflow 3 deprecates the email of an operator
        made = FluxomailSendOperator(task_id="send", **MAIL, email="ops@example.org", email_on_failure=True)
    assert (made.email, made.retries) == ("ops@example.org", 2)


class CompanyMail(FluxomailSendOperator):
    """As people write them to keep old arguments."""

    def __init__(self, *, files: list[str] | None = None, **kwargs: Any) -> None:
        body = kwargs.pop("body", None)
        super().__init__(to=kwargs.pop("recipients"), attachments=files, content=body, **kwargs)


def test_a_subclass_may_have_such_arguments_of_its_own() -> None:
    made = CompanyMail(task_id="send", recipients="ops@example.org", subject="Hi", body="Text", files=["x.csv"])
    assert (made.to, made.content, made.attachments) == ("ops@example.org", "Text", ["x.csv"])
    with pytest.raises(TypeError, match="'mail_from': leave it out"):
        CompanyMail(task_id="other", recipients="ops@example.org", subject="Hi", mail_from="a@example.org")
    with DAG("d", schedule=None, start_date=START) as dag:
        CompanyMail.partial(task_id="send", to="ops@example.org", files=["a.csv"]).expand(subject=["Hi", "Ho"])
    assert "MappedOperator" in type(dag.task_dict["send"]).__name__


def test_tasks_and_notifiers_can_be_copied() -> None:
    made = FluxomailSendOperator(task_id="send", **MAIL)
    assert copy.deepcopy(made).to == copy.copy(made).to == MAIL["to"]
    alert = FluxomailNotifier(to="ops@example.org")
    assert copy.deepcopy(alert).to == pickle.loads(pickle.dumps(alert)).to == "ops@example.org"


@pytest.mark.parametrize("make", [mapped, mapped_batch, mapped_decorator])
def test_mapped_tasks_are_made(make: Callable[..., None]) -> None:
    with DAG("d", schedule=None, start_date=START, default_args={"files": ["x"]}) as dag:
        make()
    assert "MappedOperator" in type(dag.task_dict["send"]).__name__
