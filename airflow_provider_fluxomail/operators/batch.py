"""The operator that sends many messages."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import BaseOperator, conf, storable_result
from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)

# Whatever else a worker needs is imported where it is used: every parse of a Dag pays for what is imported here.
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.old_arguments import BATCH, RefusesOldMappedArguments
from airflow_provider_fluxomail.retry_policy import give_retry_policy

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.hooks import FluxomailHook
    from airflow_provider_fluxomail.sending import send_record
    from airflow_provider_fluxomail.sending.batch.batch import Batch
    from airflow_provider_fluxomail.sending.batch.progress import Ledger
    from airflow_provider_fluxomail.sending.batch.rows import Row

_STATE: Final = "fluxomail_batch"
_MAX_CONCURRENCY: Final = 64


class FluxomailSendBatchOperator(RefusesOldMappedArguments, BaseOperator):
    """Sends many messages, one for each row of a list or a file, each of them once however often the task is tried.

    A message's idempotency key is derived from the task and from the message's own ``key``, else its recipient, so the
    rows may come in another order in the next try. All rows are checked before the first is sent. Messages go out
    several at a time, paced to the cap of the API key; if that asks for a wait longer than the connection's
    ``max_wait``, the task gives its worker slot back when ``deferrable``, and goes on where it stopped.

    .. seealso:: :doc:`/batch`, and https://docs.fluxomail.com/api-reference/fluxomail/send-email

    :param messages: a list of mappings with the fields of :class:`.EmailMessage` (``to``, ``subject``, ``content``...)
        and perhaps ``key``, or of such messages; the output of a task that returns one; or the path of a file with one
        message a row: JSON Lines or CSV, on this machine or as a URL that ``ObjectStoragePath`` opens. (templated)
    :param defaults: fields that each message has unless its row brings its own. (templated)
    :param file_format: ``jsonl`` or ``csv``, where the name of the file does not tell.
    :param report_path: a file that gets a line of JSON for each message: what became of it, its send id, why it failed.
        (templated)
    :param concurrency: messages on their way at once, at most; 1 to 64.
    :param on_error: ``continue``: try all messages, then fail if any failed; ``stop``: end at the first that fails.
    :param resend_on_clear: send all again when a person clears the task. A retry never does.
    :param durable: keep in the task state store (Airflow 3.3 and later) which messages went out, so that a retry or a
        clear goes on from there. ``False``: it asks for all again, each with its key.
    :param deferrable: give the worker slot back for a long rate limit.
    :param max_rate_limit_wait: seconds or ``timedelta`` of deferral without a message sent in between, at most.
    :param fluxomail_conn_id: id of the connection. (templated)
    :return: ``total``, ``sent``, ``replayed`` (sent by an earlier try), ``rejected``, ``unknown`` and ``report``, the
        path. Each is an XCom of its own as well.
    :raises AirflowFailException: rows are bad, messages were rejected, or something holds for all of them, such as a
        wrong API key. Airflow does not retry these.
    :raises FluxomailBatchUnfinishedError: of some messages it is unknown whether they went out; a retry asks for these.
    :raises FluxomailError: what a retry may mend.
    """

    face = BATCH
    template_fields: Sequence[str] = ("messages", "defaults", "report_path", "fluxomail_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"messages": "json", "defaults": "json"}
    ui_color = "#d6e9f8"

    def __init__(
        self,
        *,
        messages: str | Sequence[Mapping[str, Any] | EmailMessage] | Any,
        defaults: Mapping[str, Any] | None = None,
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
        self.file_format = file_format
        self.report_path = report_path
        self.concurrency = concurrency
        self.on_error = on_error
        self.resend_on_clear = resend_on_clear
        self.durable = durable
        self.deferrable = deferrable
        self.max_rate_limit_wait = max_rate_limit_wait
        self.fluxomail_conn_id = fluxomail_conn_id
        self._running: Batch | None = None
        tasks.check_while_parsing(self, self._check_constants)

    def execute(self, context: Context) -> dict[str, Any]:
        """Send what is not known to be sent."""
        return self._run(context)

    def send_after_rate_limit(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Go on after a deferral for a rate limit, with the same keys."""
        from airflow_provider_fluxomail.waiting import worker

        state = event.get("state") if isinstance(event, Mapping) else None
        return self._run(context, give_up_at=worker.give_up_time(event), resumed=state or {})

    def on_kill(self) -> None:
        """End soon, with what is known written down. Airflow 3 does not interrupt a task that is told to end."""
        if self._running is not None:
            self._running.stop()

    def _run(
        self, context: Context, *, give_up_at: float | None = None, resumed: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run one leg.

        :param resumed: the state that a deferral brought back, ``None`` at the start of a try.
        """
        from airflow_provider_fluxomail.client.watching.wait import now
        from airflow_provider_fluxomail.hooks import FluxomailHook
        from airflow_provider_fluxomail.sending import send_record
        from airflow_provider_fluxomail.sending.batch.progress import Ledger
        from airflow_provider_fluxomail.sending.idempotency_key import is_first_try, is_first_try_after_clear
        from airflow_provider_fluxomail.waiting import worker

        store = send_record.state_store(context) if self.durable else None
        first_try = is_first_try(context) and resumed is None
        cleared = not self.resend_on_clear and is_first_try_after_clear(context)
        with contextlib.closing(FluxomailHook(self.fluxomail_conn_id)) as hook:
            try:
                self._check_arguments()
                longest = tasks.check_seconds(self.max_rate_limit_wait, "max_rate_limit_wait")
                kept = {} if store is None else send_record.load(store, _STATE)
                ledger = Ledger(kept) if resumed is None else Ledger(resumed, same_try=True)
                batch = self._running = self._batch(
                    context, hook, ledger, first_try=first_try, cleared=cleared, store=store
                )
                try:
                    counts = batch.run()
                except FluxomailRateLimitError as error:
                    if batch.progressed or give_up_at is None:
                        give_up_at = now() + longest
                    self._defer(error, give_up_at, batch)
                    raise
            except FluxomailError as error:
                worker.fail_or_retry(error)
        return storable_result(self, {**dataclasses.asdict(counts), "report": batch.report_path})

    def _batch(
        self,
        context: Context,
        hook: FluxomailHook,
        ledger: Ledger,
        *,
        first_try: bool,
        cleared: bool,
        store: send_record.StateStore | None,
    ) -> Batch:
        from airflow_provider_fluxomail.sending import send_record
        from airflow_provider_fluxomail.sending.batch.batch import Batch
        from airflow_provider_fluxomail.sending.batch.report import Report
        from airflow_provider_fluxomail.sending.batch.rows import Rows
        from airflow_provider_fluxomail.sending.idempotency_key import task_key

        options = hook.get_options()

        def key_of(row: Row) -> str:
            namespace = options.idempotency_namespace
            return task_key(context, namespace=namespace, resend_on_clear=self.resend_on_clear, part=row.part)

        def save(state: dict[str, Any]) -> None:
            if store is not None:
                send_record.save(store, _STATE, state)

        return Batch(
            Rows(self.messages, defaults=self.defaults, file_format=self.file_format),
            settings=options.settings,
            key_of=key_of,
            ledger=ledger,
            report=Report(self.report_path or None, fresh=first_try),
            save=save,
            concurrency=self.concurrency,
            stop_on_error=self.on_error == "stop",
            first_try=first_try,
            cleared=cleared,
        )

    def _defer(self, error: FluxomailRateLimitError, give_up_at: float, batch: Batch) -> None:
        """Give the worker slot back until the cap allows more; return if that is not possible."""
        from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger
        from airflow_provider_fluxomail.waiting import worker

        if not self.deferrable:
            return
        resume_at = worker.rate_limit_resume(error.retry_after, give_up_at, conn_id=self.fluxomail_conn_id)
        if resume_at is not None:
            self.defer(
                trigger=FluxomailRetryAfterTrigger(
                    resume_at=resume_at, give_up_at=give_up_at, state=batch.ledger.state()
                ),
                method_name=self.send_after_rate_limit.__name__,
                timeout=worker.backstop(resume_at),
            )

    def _check_constants(self, constants: tasks.Constants) -> None:
        if "max_rate_limit_wait" in constants:
            tasks.check_seconds(self.max_rate_limit_wait, "max_rate_limit_wait")
        if "on_error" in constants and "concurrency" in constants:
            self._check_arguments()
        if self.file_format and "file_format" in constants:
            # Some 15 ms, for Dags that have such a task.
            from airflow_provider_fluxomail.sending.batch.rows import check_format

            check_format(self.file_format)

    def _check_arguments(self) -> None:
        if self.on_error not in ("continue", "stop"):
            raise FluxomailValidationError("on_error must be 'continue' or 'stop'")
        whole = isinstance(self.concurrency, int) and not isinstance(self.concurrency, bool)
        if not whole or not 1 <= self.concurrency <= _MAX_CONCURRENCY:
            raise FluxomailValidationError(f"concurrency must be a whole number from 1 to {_MAX_CONCURRENCY}")
