"""The operator that sends one message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import BaseOperator, conf
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.event_types import check_target
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.old_arguments import RefusesOldArguments
from airflow_provider_fluxomail.links import FluxomailTimelineLink
from airflow_provider_fluxomail.operators.templates import BODIES, RendersMessages, Unrecorded, unwrap
from airflow_provider_fluxomail.retry_policy import give_retry_policy

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.messages import Attachment


class FluxomailSendOperator(RefusesOldArguments, RendersMessages, BaseOperator):
    """Sends one message with Fluxomail, and waits for its delivery if asked.

    >>> FluxomailSendOperator(
    ...     task_id="report",
    ...     to="ada@example.org",
    ...     subject="Report of {{ ds }}",
    ...     content="All rows were loaded.",
    ...     wait_for="delivered",
    ... )
    <Task(FluxomailSendOperator): report>

    However often Airflow retries the task, one message is sent: its idempotency key is derived from Dag, run, task and
    map index. Permanent errors fail the task without using up its retries. If a rate limit requires a wait longer than
    the connection's ``max_wait``, a ``deferrable`` task is deferred until then; any other is retried by Airflow.

    .. seealso:: :doc:`/guides/sending`, and https://docs.fluxomail.com/api-reference/fluxomail/send-email

    :param to: one address, plain or as ``Name <address>``. (templated)
    :param subject: one line. (templated)
    :param content: plain text, or the name of a ``.txt``, ``.md`` or ``.html`` template file (one word without white
        space); derived from ``html_content`` when left out. (templated)
    :param html_content: HTML, or the name of a template file. (templated)
    :param cc: addresses that all recipients see. (templated)
    :param bcc: addresses that no recipient sees. (templated)
    :param attachments: paths of files, on this machine or as a URL that ``ObjectStoragePath`` opens;
        ``ObjectStoragePath`` and ``pathlib.Path``; :class:`.Attachment`; or mappings of its fields. At most 5, together
        10 MiB. (templated)
    :param policy_key: name of a sending policy. (templated)
    :param extra_fields: sent unchanged, for fields that the API accepts but does not document. (templated)
    :param idempotency_key: replaces the derived key; a mapped task appends its map index. (templated)
    :param resend_on_clear: send again when a person clears the task. A retry never does.
    :param durable: record the send in the task state store (Airflow 3.3 and later), so that no try sends again after
        the key's retention, nor an attempt that was cleared while it was running. ``False`` relies on the key alone.
    :param wait_for: ``delivered``, ``opened`` or ``clicked``: end when the timeline shows it, fail when the message
        bounces. ``opened`` and ``clicked`` need ``html_content``.
    :param wait_timeout: seconds or ``timedelta`` that the wait may take.
    :param poll_interval: seconds or ``timedelta`` between polls of the timeline, with jitter.
    :param deferrable: wait in the triggerer, both for the delivery and for a long rate limit.
    :param defer_at_once: with ``deferrable``, defer after the first poll of the timeline, instead of polling for a few
        seconds.
    :param max_rate_limit_wait: seconds or ``timedelta`` of deferral for rate limits, in total.
    :param fluxomail_conn_id: id of the connection. (templated)
    :return: ``send_id``, ``message_id``, ``status``, ``reused``, ``idempotency_key``, ``request_id``; with ``wait_for``
        also the ``event`` that was reached with its ``time``. Each is an XCom of its own as well.
    :raises AirflowFailException: the message, the key or the connection is wrong, the message bounced, or the wait for
        it timed out. Airflow does not retry these.
    :raises FluxomailError: a transient error.
    """

    template_fields: Sequence[str] = (
        "to", "subject", "content", "html_content", "cc", "bcc", "attachments", "policy_key", "extra_fields",
        "idempotency_key", "fluxomail_conn_id",
    )  # fmt: skip
    own_fields = template_fields
    template_ext: Sequence[str] = (".html", ".txt", ".md")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "content": "md",
        "html_content": "html",
        "attachments": "json",
        "extra_fields": "json",
    }
    operator_extra_links = (FluxomailTimelineLink(),)
    #: The link that this process stored: empty for no link, ``None`` if unknown.
    timeline_link: str | None = None
    ui_color = "#d6e9f8"

    def __init__(
        self,
        *,
        to: str,
        subject: str,
        content: str | Unrecorded | None = None,
        html_content: str | Unrecorded | None = None,
        cc: str | Sequence[str] | None = None,
        bcc: str | Sequence[str] | None = None,
        attachments: Sequence[str | Attachment | Mapping[str, Any] | Any] | None = None,
        policy_key: str | None = None,
        extra_fields: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        resend_on_clear: bool = False,
        durable: bool = True,
        wait_for: str | None = None,
        wait_timeout: timedelta | float = 3600.0,
        poll_interval: timedelta | float = 30.0,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        defer_at_once: bool = False,
        max_rate_limit_wait: timedelta | float = 3600.0,
        fluxomail_conn_id: str = airflow_cfg.default_conn_id(),
        multiple_outputs: bool = True,
        **kwargs: Any,
    ) -> None:
        give_retry_policy(kwargs)
        super().__init__(multiple_outputs=multiple_outputs, **kwargs)
        self.to = to
        self.subject = subject
        self.content = content
        self.html_content = html_content
        self.cc = cc
        self.bcc = bcc
        self.attachments = attachments
        self.policy_key = policy_key
        self.extra_fields = extra_fields
        self.idempotency_key = idempotency_key
        self.resend_on_clear = resend_on_clear
        self.durable = durable
        self.wait_for = wait_for
        self.wait_timeout = wait_timeout
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self.defer_at_once = defer_at_once
        self.max_rate_limit_wait = max_rate_limit_wait
        self.fluxomail_conn_id = fluxomail_conn_id
        tasks.check_while_parsing(self, self._check_constants)

    def execute(self, context: Context) -> Any:
        """Send, and wait if asked."""
        self.timeline_link = ""
        return self._run(context)

    def send_after_rate_limit(self, context: Context, event: Any = None) -> Any:
        """Send after a deferral for a rate limit. Rendered again, with the same key."""
        self.timeline_link = ""
        return self._run(context, resumed=event if isinstance(event, Mapping) else {})

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """End the wait with the trigger's event."""
        from airflow_provider_fluxomail.operators import run

        return run.finish_wait(self, context, event)

    def _run(self, context: Context, *, resumed: Mapping[str, Any] | None = None) -> Any:
        from airflow_provider_fluxomail.operators import run

        return run.send(self, context, resumed=resumed)

    def resolve_template_files(self) -> None:
        """Check the task: Airflow calls this for each task of a parsed Dag, when all arguments are set."""
        super().resolve_template_files()
        tasks.check_while_parsing(self, self._check_constants, complete=True)

    def _check_constants(self, constants: tasks.Constants) -> None:
        """Check the constants among the arguments, as the worker would."""
        for name in ("wait_timeout", "poll_interval", "max_rate_limit_wait"):
            if name in constants:
                tasks.check_seconds(getattr(self, name), name)
        if self.wait_for is not None and "wait_for" in constants:
            check_target(self.wait_for)
        if self.idempotency_key is not None and "idempotency_key" in constants:
            tasks.check_key_text(self.idempotency_key)
        self._check_constant_message(constants)

    def _check_constant_message(self, constants: tasks.Constants) -> None:
        # Costs about 2 ms, only in Dags that have such a task.
        from airflow_provider_fluxomail.client.messages import check_bodies, check_fields
        from airflow_provider_fluxomail.client.text_fields import may_name_file

        fields = {name: value for name, value in self.message_fields().items() if name in constants}
        for name in BODIES:
            if may_name_file(fields.get(name)):
                # Only a worker reads template files.
                del fields[name]
        check_fields(fields)
        if constants.complete and "content" in constants and "html_content" in constants:
            check_bodies(unwrap(self.content), unwrap(self.html_content))
        if constants.complete and "html_content" in constants and "wait_for" in constants:
            self.check_tracked(unwrap(self.html_content))

    def check_tracked(self, html_content: str | None) -> None:
        """Check that the event to wait for can happen."""
        if self.wait_for is not None and check_target(self.wait_for) != "delivered" and not html_content:
            raise FluxomailValidationError(
                f"wait_for={self.wait_for!r} needs html_content: a text-only email is never tracked"
            )

    def message_fields(self) -> dict[str, Any]:
        """Return the fields of the message without its attachments, which only a worker reads."""
        return {
            "to": self.to,
            "subject": self.subject,
            "content": unwrap(self.content),
            "html_content": unwrap(self.html_content),
            "cc": self.cc or (),
            "bcc": self.bcc or (),
            "policy_key": self.policy_key or None,
            "extra_fields": self.extra_fields or {},
        }
