"""``@task.fluxomail_send``: a function that returns the message, or the messages, to send."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import (
    DecoratedOperator,
    DecoratedOutputMixin,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow_provider_fluxomail.configuration.old_arguments import DECORATOR, refuse
from airflow_provider_fluxomail.operators.send import FluxomailSendOperator

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context, TaskDecorator
    from airflow_provider_fluxomail.sending.batch.batch import Batch


class FluxomailSendDecoratedOperator(DecoratedOperator, FluxomailSendOperator, DecoratedOutputMixin):
    """Calls a function and sends the message, or the messages, that it returns: the class of ``@task.fluxomail_send``.

    >>> @task.fluxomail_send(wait_for="delivered")  # from airflow.sdk import task; Airflow 2: airflow.decorators
    ... def report(rows: int) -> dict:
    ...     return {"to": "ada@example.org", "subject": "Report", "content": f"{rows} rows were loaded."}

    One message has the key that :class:`.FluxomailSendOperator` would give it. A list is sent as by
    :class:`.FluxomailSendBatchOperator`, with the keys that it would give them. What the function returns is sent
    unchanged: it is not a template.

    .. seealso:: :doc:`/guides/taskflow`

    :param python_callable: the function. It returns a mapping with the fields of :class:`.EmailMessage`, or such a
        message, or a list of these, in which a mapping may also have a ``key`` that names it.
    :param op_args: its arguments. (templated)
    :param op_kwargs: its arguments by name. (templated)
    :param kwargs: of :class:`.FluxomailSendOperator`, except the fields of the message. ``wait_for`` and
        ``idempotency_key`` are for functions that return one message.
    :return: what :class:`.FluxomailSendOperator` returns; for a list, a list of that without XComs of their own.
    :raises AirflowFailException: as :class:`.FluxomailSendOperator`, or for a list as
        :class:`.FluxomailSendBatchOperator`; or the function returned no message.
    """

    argument_names = DECORATOR
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, "idempotency_key", "fluxomail_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {**DecoratedOperator.template_fields_renderers}
    # Arguments are not bodies, so none is the name of a template file.
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
        # Airflow derives multiple_outputs from the function's return type, but the task returns something else.
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            to="",
            subject="",
            multiple_outputs=True,
            **kwargs,
        )
        self.running_batch: Batch | None = None

    def on_kill(self) -> None:
        """Stop a list that is being sent."""
        if self.running_batch is not None:
            self.running_batch.stop()

    def _run(self, context: Context, *, resumed: Mapping[str, Any] | None = None) -> Any:
        from airflow_provider_fluxomail.operators import run

        return run.send_returned(self, context, resumed=resumed)

    def call(self, context: Context) -> Any:
        """Call the function, a coroutine function too."""
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        value = self.python_callable(*self.op_args, **kwargs)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    def _check_constant_message(self, constants: tasks.Constants) -> None:
        """Check nothing: the function returns the message in the worker."""


def fluxomail_send_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that returns a message into a task. Airflow calls it for ``@task.fluxomail_send``.

    :param python_callable: the function.
    :param kwargs: see :class:`FluxomailSendDecoratedOperator`.
    """
    # Checked here, because in a mapped task they would fail only when it runs.
    refuse(FluxomailSendDecoratedOperator, DECORATOR, kwargs)
    decorator: TaskDecorator = task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=FluxomailSendDecoratedOperator, **kwargs
    )
    return decorator
