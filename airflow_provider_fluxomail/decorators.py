"""``@task.fluxomail_send``: a function that returns what is to be sent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import (
    DecoratedOperator,
    DecoratedOutputMixin,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.configuration.old_arguments import DECORATOR, refuse
from airflow_provider_fluxomail.operators.send import FluxomailSendOperator

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context, TaskDecorator
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.sending.batch.rows import Row


class FluxomailSendDecoratedOperator(DecoratedOperator, FluxomailSendOperator, DecoratedOutputMixin):
    """Calls a function and sends the message, or the messages, that it returns; what ``@task.fluxomail_send`` makes.

    One message has the key that :class:`.FluxomailSendOperator` would give it, those of a list the keys that
    :class:`.FluxomailSendBatchOperator` would give them. What the function returns is sent as it is: it is no template.

    .. seealso:: :doc:`/taskflow`

    :param python_callable: the function. It returns a mapping with the fields of :class:`.EmailMessage`, or such a
        message, or a list of these, in which a mapping may also have a ``key`` that names it.
    :param op_args: its arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    :param kwargs: of :class:`.FluxomailSendOperator`, but for the fields of the message. ``wait_for`` and
        ``idempotency_key`` are for functions that return one message.
    :return: what :class:`.FluxomailSendOperator` returns; for a list, a list of that without XComs of their own.
    :raises AirflowFailException: as :class:`.FluxomailSendOperator`; or the function returned no message.
    """

    face = DECORATOR
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, "idempotency_key", "fluxomail_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    # Arguments are no bodies: none is the name of a template file.
    template_ext: Sequence[str] = ()
    custom_operator_name = "@task.fluxomail_send"

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        # Airflow derives multiple_outputs from what the function returns, which is not what the task returns.
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            to="",
            subject="",
            multiple_outputs=True,
            **kwargs,
        )
        self._returned: EmailMessage | None = None

    def _run(self, context: Context, *, give_up_at: float | None, resumed: bool = False) -> Any:
        from airflow_provider_fluxomail.waiting import worker

        # At once what prints nothing of itself: a traceback that shows local variables would show the message.
        try:
            mails = _messages(self._call(context))
        except FluxomailValidationError as error:
            worker.fail_or_retry(error)
        if isinstance(mails, list):
            self.multiple_outputs = False
            return self._run_each(context, mails, give_up_at=give_up_at, resumed=resumed)
        self._returned = mails
        return super()._run(context, give_up_at=give_up_at, resumed=resumed)

    def _call(self, context: Context) -> Any:
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        value = self.python_callable(*self.op_args, **kwargs)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    def _check_constant_message(self, constants: tasks.Constants) -> None:
        """Leave the message to the worker: the function returns it."""

    def _made_message(self) -> EmailMessage:
        assert self._returned is not None
        return self._returned

    def _event_extra(self, result: Any) -> dict[str, Any]:
        """Return lists for a list."""
        if not isinstance(result, list):
            return super()._event_extra(result)
        each = [super(FluxomailSendDecoratedOperator, self)._event_extra(one) for one in result]
        return {name: [one[name] for one in each] for name in super()._event_extra({})}

    def _run_each(
        self, context: Context, rows: list[Row], *, give_up_at: float | None, resumed: bool
    ) -> list[dict[str, Any]]:
        from airflow_provider_fluxomail.client.watching.wait import now
        from airflow_provider_fluxomail.hooks import FluxomailHook
        from airflow_provider_fluxomail.sending.send_each import send_each
        from airflow_provider_fluxomail.waiting import worker

        with contextlib.closing(FluxomailHook(self.fluxomail_conn_id)) as hook:

            def send(row: Row) -> Any:
                # A name of its own for each: a clear must find what an earlier try kept of this one.
                name = hashlib.sha256(row.part.encode()).hexdigest()[:32]
                return self._send(context, hook, row.message, part=row.part, resumed=resumed, name=name)

            try:
                self._check_for_many()
                longest = tasks.check_seconds(self.max_rate_limit_wait, "max_rate_limit_wait")
                try:
                    sent = send_each(rows, send)
                except FluxomailRateLimitError as error:
                    self._defer_rate_limit(error, give_up_at or now() + longest)
                    raise
            except FluxomailError as error:
                worker.fail_or_retry(error)
        return [self._result(one) for one in sent]

    def _check_for_many(self) -> None:
        if self.wait_for is not None:
            raise FluxomailValidationError(
                "wait_for is for a function that returns one message: map the task, or wait with a sensor"
            )
        if self.idempotency_key is not None:
            raise FluxomailValidationError(
                "idempotency_key is for a function that returns one message: give each message of a list its own 'key'"
            )


def _messages(value: Any) -> EmailMessage | list[Row]:
    """Return what a function returned, checked.

    :raises FluxomailValidationError: it is not what can be sent; says what to return.
    """
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.sending.attachments import read_attachments
    from airflow_provider_fluxomail.sending.batch.rows import Rows

    if isinstance(value, EmailMessage):
        return value
    if isinstance(value, Mapping):
        fields = {name: field for name, field in value.items() if field is not None}
        if "attachments" in fields:
            fields["attachments"] = read_attachments(fields["attachments"])
        return EmailMessage.of(fields)
    if isinstance(value, list | tuple | Iterator):
        return list(Rows(list(value)).check())
    if value is None:
        raise FluxomailValidationError(
            "the function returned nothing: return a message, or a list of messages. To send none, return an empty "
            "list, or raise AirflowSkipException, which skips the tasks after it too"
        )
    raise FluxomailValidationError(
        f"the function returned {type(value).__name__}: return a mapping of a message's fields, an EmailMessage, or a "
        "list of them"
    )


def fluxomail_send_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a task of a function that returns a message: what Airflow calls for ``@task.fluxomail_send``.

    :param python_callable: the function.
    :param kwargs: see :class:`FluxomailSendDecoratedOperator`.
    """
    # A mapped task would only show them when it runs.
    refuse(FluxomailSendDecoratedOperator, DECORATOR, kwargs)
    decorator: TaskDecorator = task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=FluxomailSendDecoratedOperator, **kwargs
    )
    return decorator
