"""The operator that sends many messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import BaseOperator, conf, is_unmapped
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.old_arguments import BATCH, RefusesOldArguments
from airflow_provider_fluxomail.operators.templates import RendersMessages
from airflow_provider_fluxomail.retry_policy import give_retry_policy

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.sending.batch.batch import Batch

_MAX_CONCURRENCY: Final = 64


class FluxomailSendBatchOperator(RefusesOldArguments, RendersMessages, BaseOperator):
    """Sends many messages, one for each row of a list or a file, each of them once however often the task is tried.

    >>> FluxomailSendBatchOperator(
    ...     task_id="invite",
    ...     messages=[{"to": "ada@example.org"}, {"to": "bob@example.org", "subject": "Welcome back"}],
    ...     defaults={"subject": "Welcome", "content": "See you on Monday."},
    ... )
    <Task(FluxomailSendBatchOperator): invite>

    A message's idempotency key is derived from the task and from the message's own ``key``, or else its recipient, so
    the rows may come in another order in the next try. Different messages to one recipient need keys. All rows are
    checked before the first is sent. Several messages are sent at a time, as fast as the rate limit of the API key
    allows. If that requires a wait longer than the connection's ``max_wait``, a ``deferrable`` task frees its worker
    slot, and continues later where it stopped.

    .. seealso:: :doc:`/guides/batch`, and https://docs.fluxomail.com/api-reference/fluxomail/send-email

    :param messages: a list of mappings with the fields of :class:`.EmailMessage` (``to``, ``subject``, ``content``...)
        and optionally ``key``, or of such messages; the output of a task that returns one; or the path of a file with
        one message a row: JSON Lines or CSV, on this machine or as a URL that ``ObjectStoragePath`` opens. (templated)
        A ``content`` or ``html_content`` that is written in the Dag may be the name of a template file.
    :param defaults: fields that each message has unless its row has its own. (templated)
    :param attachment_folder: the folder, on this machine or as a URL that ``ObjectStoragePath`` opens, that paths of
        attachments in rows begin at and must lie below. Rows from a file or from another task need it to attach files
        by their paths; rows and defaults that are written in the Dag may name any file. (templated)
    :param file_format: ``jsonl`` or ``csv``, if the name of the file does not show it.
    :param report_path: a file that gets a line of JSON for each message: its outcome, its send id, why it failed.
        (templated)
    :param concurrency: messages in flight at once, at most; 1 to 64.
    :param on_error: ``continue``: try all messages, then fail if any failed; ``stop``: end at the first that fails.
    :param resend_on_clear: send all again when a person clears the task. A retry never does.
    :param durable: keep in the task state store (Airflow 3.3 and later) which messages were sent, so that a retry or a
        clear continues from there. ``False``: it requests all again, each with its key.
    :param deferrable: free the worker slot for a long rate limit.
    :param max_rate_limit_wait: seconds or ``timedelta`` of deferral without a message sent in between, at most.
    :param fluxomail_conn_id: id of the connection. (templated)
    :return: ``total``, ``sent``, ``replayed`` (sent by an earlier try), ``rejected``, ``unknown`` and ``report``, the
        path. Each is an XCom of its own as well.
    :raises AirflowFailException: rows are invalid, messages were rejected, or an error concerns all of them, such as a
        wrong API key. Airflow does not retry these.
    :raises FluxomailBatchUnfinishedError: the outcome of some messages is unknown; a retry requests these again.
    :raises FluxomailError: a transient error.
    """

    argument_names = BATCH
    template_fields: Sequence[str] = (
        "messages", "defaults", "attachment_folder", "report_path", "fluxomail_conn_id",
    )  # fmt: skip
    own_fields = template_fields
    fields_of_messages = ("messages", "defaults")
    template_ext: Sequence[str] = (".html", ".txt", ".md")
    template_fields_renderers: ClassVar[dict[str, str]] = {"messages": "json", "defaults": "json"}
    ui_color = "#d6e9f8"

    def __init__(
        self,
        *,
        messages: str | Sequence[Mapping[str, Any] | EmailMessage] | Any,
        defaults: Mapping[str, Any] | None = None,
        attachment_folder: str | Any | None = None,
        file_format: str | None = None,
        report_path: str | Any | None = None,
        concurrency: int = 8,
        on_error: str = "continue",
        resend_on_clear: bool = False,
        durable: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        max_rate_limit_wait: timedelta | float = 3600.0,
        fluxomail_conn_id: str = airflow_cfg.default_conn_id(),
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        give_retry_policy(kwargs)
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.messages = messages
        self.defaults = defaults
        self.attachment_folder = attachment_folder
        # Now, before Airflow renders the output of other tasks into them. A mapped task has that output already.
        mapped = is_unmapped(self)
        self.own_rows = not mapped and isinstance(messages, list | tuple) and all(map(_names_its_files, messages))
        self.own_defaults = not mapped and _names_its_files(defaults)
        self.file_format = file_format
        self.report_path = report_path
        self.concurrency = concurrency
        self.on_error = on_error
        self.resend_on_clear = resend_on_clear
        self.durable = durable
        self.deferrable = deferrable
        self.max_rate_limit_wait = max_rate_limit_wait
        self.fluxomail_conn_id = fluxomail_conn_id
        self.running_batch: Batch | None = None
        tasks.check_while_parsing(self, self._check_constants)

    def execute(self, context: Context) -> dict[str, Any]:
        """Send every message that is not known to be sent."""
        from airflow_provider_fluxomail.operators import run

        return run.send_batch(self, context)

    def send_after_rate_limit(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Continue after a deferral for a rate limit, with the same keys."""
        from airflow_provider_fluxomail.operators import run

        return run.send_batch(self, context, resumed=event if isinstance(event, Mapping) else {})

    def on_kill(self) -> None:
        """Stop soon and save the progress. Airflow 3 does not interrupt a task that it stops."""
        if self.running_batch is not None:
            self.running_batch.stop()

    def _check_constants(self, constants: tasks.Constants) -> None:
        if "max_rate_limit_wait" in constants:
            tasks.check_seconds(self.max_rate_limit_wait, "max_rate_limit_wait")
        if "on_error" in constants and "concurrency" in constants:
            self.check_arguments()
        if self.file_format and "file_format" in constants:
            # Costs about 15 ms, only in Dags that have such a task.
            from airflow_provider_fluxomail.sending.batch.row_files import check_format

            check_format(self.file_format)

    def check_arguments(self) -> None:
        """Check ``on_error`` and ``concurrency``."""
        if self.on_error not in ("continue", "stop"):
            raise FluxomailValidationError("on_error must be 'continue' or 'stop'")
        whole = isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool)
        if not whole or not 1 <= self.concurrency <= _MAX_CONCURRENCY:
            raise FluxomailValidationError(f"concurrency must be a whole number from 1 to {_MAX_CONCURRENCY}")


def _names_its_files(message: object) -> bool:
    """Return whether the attachments of a message are written in the Dag, rather than returned by another task."""
    if not isinstance(message, Mapping):
        return message is None or hasattr(message, "html_content")
    files = message.get("attachments")
    return not any(
        hasattr(item, "iter_references") for item in (files, *(files if isinstance(files, list | tuple) else ()))
    )
