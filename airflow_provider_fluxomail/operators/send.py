"""The operator that sends one message."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_fluxomail import tasks
from airflow_provider_fluxomail.airflow_compat import AirflowFailException, Asset, BaseOperator, conf, storable_result
from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailRateLimitError,
    FluxomailValidationError,
)

# Whatever else a worker needs is imported where it is used: every parse of a Dag pays for what is imported here.
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.old_arguments import RefusesOldMappedArguments
from airflow_provider_fluxomail.links import FluxomailTimelineLink, keep_link
from airflow_provider_fluxomail.operators.unrecorded import Unrecorded, unwrap
from airflow_provider_fluxomail.retry_policy import give_retry_policy

if TYPE_CHECKING:
    from jinja2 import Environment

    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.messages import Attachment, EmailMessage
    from airflow_provider_fluxomail.client.watching.wait import Ending
    from airflow_provider_fluxomail.client.wire import SendResult
    from airflow_provider_fluxomail.hooks import FluxomailHook

#: What asset events carry of a result.
_IN_EVENTS: Final = ("send_id", "message_id")


class FluxomailSendOperator(RefusesOldMappedArguments, BaseOperator):
    """Sends one message with Fluxomail, and waits for its delivery if asked.

    However often Airflow retries the task, one message goes out: its idempotency key is derived from Dag, run, task and
    map index. Permanent errors fail the task without using up its retries. A rate limit that asks for a longer wait
    than the connection's ``max_wait`` gives the worker slot back: the task is deferred until then when ``deferrable``,
    else retried by Airflow.

    .. seealso:: :doc:`/sending`, and https://docs.fluxomail.com/api-reference/fluxomail/send-email

    :param to: one address, plain or as ``Name <address>``. (templated)
    :param subject: one line. (templated)
    :param content: plain text, or the name of a ``.txt``, ``.md`` or ``.html`` template file (one word without white
        space); derived from ``html_content`` when left out. (templated)
    :param html_content: HTML, or the name of a template file. (templated)
    :param cc: addresses that all recipients see. (templated)
    :param bcc: addresses that nobody sees. (templated)
    :param attachments: paths of files, on this machine or as a URL that ``ObjectStoragePath`` opens;
        ``ObjectStoragePath`` and ``pathlib.Path``; :class:`.Attachment`; or mappings of its fields. At most 5, together
        10 MiB. (templated)
    :param policy_key: name of a sending policy. (templated)
    :param extra_fields: sent as they are, for what the API takes but does not document. (templated)
    :param idempotency_key: replaces the derived key; a mapped task appends its map index. (templated)
    :param resend_on_clear: send again when a person clears the task. A retry never does.
    :param durable: keep the send in the task state store (Airflow 3.3 and later), so that no try sends again after the
        key's retention, nor one whose task was cleared. ``False`` leaves it to the key alone.
    :param wait_for: ``delivered``, ``opened`` or ``clicked``: end when the timeline shows it, fail when the message
        bounces. ``opened`` and ``clicked`` need ``html_content``.
    :param wait_timeout: seconds or ``timedelta`` that the wait may take.
    :param poll_interval: seconds or ``timedelta`` between looks at the timeline, with jitter.
    :param deferrable: wait in the triggerer, both for the delivery and for a long rate limit.
    :param max_rate_limit_wait: seconds or ``timedelta`` of deferral, all together, that a rate limit may cost.
    :param fluxomail_conn_id: id of the connection. (templated)
    :return: ``send_id``, ``message_id``, ``status``, ``reused``, ``idempotency_key``, ``request_id``; with ``wait_for``
        also ``event`` and ``time`` of what was reached. Each is an XCom of its own as well.
    :raises AirflowFailException: the message, the key or the connection is wrong, the message bounced, or the wait for
        it timed out. Airflow does not retry these.
    :raises FluxomailError: what a retry may mend.
    """

    template_fields: Sequence[str] = (
        "to", "subject", "content", "html_content", "cc", "bcc", "attachments", "policy_key", "extra_fields",
        "idempotency_key", "fluxomail_conn_id",
    )  # fmt: skip
    template_ext: Sequence[str] = (".html", ".txt", ".md")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "content": "md",
        "html_content": "html",
        "attachments": "json",
        "extra_fields": "json",
    }
    operator_extra_links = (FluxomailTimelineLink(),)
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
        self.max_rate_limit_wait = max_rate_limit_wait
        self.fluxomail_conn_id = fluxomail_conn_id
        tasks.check_while_parsing(self, self._check_constants)

    def execute(self, context: Context) -> dict[str, Any]:
        """Send, and wait if asked."""
        self.timeline_link = ""
        return self._told(context, self._run(context, give_up_at=None))

    def send_after_rate_limit(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Send after a deferral for a rate limit. Rendered anew, with the same key."""
        from airflow_provider_fluxomail.waiting import worker

        self.timeline_link = ""
        return self._told(context, self._run(context, give_up_at=worker.give_up_time(event), resumed=True))

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """End the wait as the trigger found."""
        from airflow_provider_fluxomail.waiting import worker

        ending = worker.ending_of(event)
        result = event.get("result")
        return self._told(context, {**(result if isinstance(result, Mapping) else {}), **self._conclude(ending)})

    def resolve_template_files(self) -> None:
        """Leave file names in place: only a worker reads them, so that no body is stored with the Dag.

        Airflow calls this for each task of a Dag that has been parsed: no argument is set any more.
        """
        self.prepare_template()
        tasks.check_while_parsing(self, self._check_constants, complete=True)

    def _check_constants(self, constants: tasks.Constants) -> None:
        """Check the constants among the arguments.

        :raises FluxomailValidationError: as in the worker.
        """
        from airflow_provider_fluxomail.client.event_types import check_target

        for name in ("wait_timeout", "poll_interval", "max_rate_limit_wait"):
            if name in constants:
                tasks.check_seconds(getattr(self, name), name)
        if self.wait_for is not None and "wait_for" in constants:
            check_target(self.wait_for)
        if self.idempotency_key is not None and "idempotency_key" in constants:
            tasks.check_key_text(self.idempotency_key)
        self._check_constant_message(constants)

    def _check_constant_message(self, constants: tasks.Constants) -> None:
        # Some 2 ms, for Dags that have such a task.
        from airflow_provider_fluxomail.client.messages import check_bodies, check_fields

        check_fields({name: value for name, value in self._fields().items() if name in constants})
        if constants.complete and "content" in constants and "html_content" in constants:
            check_bodies(unwrap(self.content), unwrap(self.html_content))
        if constants.complete and "html_content" in constants and "wait_for" in constants:
            self._check_tracked(unwrap(self.html_content))

    def render_template(
        self, content: Any, context: Context, jinja_env: Environment | None = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render, taking only bodies for the names of template files.

        Airflow takes any field's value for one by its ending: an address in Moldova (``.md``), an attachment's path.
        """
        if isinstance(content, Unrecorded):
            # A new one: mapped tasks and, in one process, later tries share the one that the Dag holds.
            return Unrecorded(self.render_template(content.text, context, jinja_env, seen_oids))
        if isinstance(content, str) and content.endswith(tuple(self.template_ext)) and not self._is_file(content):
            # An empty comment changes the ending, not the text.
            content += "{##}"
        return super().render_template(content, context, jinja_env, seen_oids)

    def _is_file(self, text: str) -> bool:
        bodies = (self.content, self.html_content)
        wrapped = tuple(body.text for body in bodies if isinstance(body, Unrecorded))
        return text in (*bodies, *wrapped) and not re.search(r"\s|://", text)

    def _told(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """Say which message it was in the events of the assets that the task changes, and return the result."""
        events = context.get("outlet_events")
        for outlet in self.outlets or ():
            if events is not None and isinstance(outlet, Asset):
                events[outlet].extra.update(self._event_extra(result))
        return storable_result(self, result)

    def _event_extra(self, result: Any) -> dict[str, Any]:
        """Return what an asset event carries of a result."""
        return {name: result.get(name) for name in _IN_EVENTS}

    def _run(self, context: Context, *, give_up_at: float | None, resumed: bool = False) -> dict[str, Any]:
        from airflow_provider_fluxomail.client.watching.wait import now
        from airflow_provider_fluxomail.hooks import FluxomailHook
        from airflow_provider_fluxomail.sending.idempotency_key import is_first_try
        from airflow_provider_fluxomail.waiting import worker

        with contextlib.closing(FluxomailHook(self.fluxomail_conn_id)) as hook:
            try:
                message, key = self._message(), self._key(context, hook)
                wait_timeout = tasks.check_seconds(self.wait_timeout, "wait_timeout")
                interval = tasks.check_seconds(self.poll_interval, "poll_interval")
                longest = tasks.check_seconds(self.max_rate_limit_wait, "max_rate_limit_wait")
                try:
                    sent = self._send(context, hook, message, key, first_try=is_first_try(context) and not resumed)
                except FluxomailRateLimitError as error:
                    self._defer_rate_limit(error, give_up_at or now() + longest)
                    raise
            except FluxomailError as error:
                worker.fail_or_retry(error)
            keep_link(self, context, hook.get_options().settings.base_url, sent.send_id)
            result = self._result(sent)
            if self.wait_for is None:
                return result
            return self._await_delivery(hook, result, timeout=wait_timeout, interval=interval)

    def _send(
        self,
        context: Context,
        hook: FluxomailHook,
        message: EmailMessage,
        key: str,
        *,
        first_try: bool,
        name: str | None = None,
    ) -> SendResult:
        """Send a message of the task; ``name`` tells it from the task's other messages."""
        from airflow_provider_fluxomail.client.watching.wait import now
        from airflow_provider_fluxomail.sending import replay
        from airflow_provider_fluxomail.sending.idempotency_key import is_first_try_after_clear
        from airflow_provider_fluxomail.sending.send_record import SendState, state_store

        options = hook.get_options()
        # The recipient is in no variable: a traceback that shows local variables would show it.
        store = state_store(context) if self.durable else None
        state = SendState(store, key, options.settings.guard.apply(message).to, name=name)
        if earlier := state.begin(now(), retention=options.key_retention_hours * 3600):
            sent = self._sent_earlier(hook, message, key, earlier)
        else:
            try:
                sent = hook.send_once(message, key, first_try=first_try)
            except FluxomailError as error:
                if not error.ambiguous:
                    state.refused()
                raise
            state.sent(sent.send_id)
        replay.explain_clear(sent, cleared=not self.resend_on_clear and is_first_try_after_clear(context))
        return sent

    def _sent_earlier(self, hook: FluxomailHook, message: EmailMessage, key: str, send_id: str) -> SendResult:
        """Return what an earlier try was answered; asking Fluxomail again, it might send again."""
        from airflow_provider_fluxomail.client.wire import SendResult

        self.log.warning(
            "Not sending: an earlier try did, so long ago that Fluxomail may have forgotten the idempotency key."
        )
        sent = SendResult(
            send_id=send_id, message_id=None, status=None, reused=True, idempotency_key=key, request_id=None
        )
        hook.check_replay(message, sent, first_try=False)
        return sent

    def _result(self, sent: SendResult) -> dict[str, Any]:
        self.log.info(
            "Fluxomail %s send %s (status %s, idempotency key %s, request id %s).",
            "had already accepted" if sent.reused else "accepted",
            sent.send_id,
            sent.status,
            sent.idempotency_key,
            sent.request_id,
        )
        result = dataclasses.asdict(sent)
        del result["own_replay"]
        return result

    def _message(self) -> EmailMessage:
        message = self._made_message()
        self._check_tracked(message.html_content)
        return message

    def _check_tracked(self, html_content: str | None) -> None:
        from airflow_provider_fluxomail.client.event_types import check_target

        if self.wait_for is not None and check_target(self.wait_for) != "delivered" and not html_content:
            raise FluxomailValidationError(
                f"wait_for={self.wait_for!r} needs html_content: a text-only mail is never tracked"
            )

    def _made_message(self) -> EmailMessage:
        from airflow_provider_fluxomail.client.messages import EmailMessage
        from airflow_provider_fluxomail.sending.attachments import read_attachments

        return EmailMessage(**self._fields(), attachments=read_attachments(self.attachments))

    def _fields(self) -> dict[str, Any]:
        """Return the fields of the message but for its attachments, which only a worker reads."""
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

    def _key(self, context: Context, hook: FluxomailHook) -> str:
        from airflow_provider_fluxomail.sending.idempotency_key import explicit_key, task_key

        if self.idempotency_key is not None:
            return explicit_key(self.idempotency_key, context, resend_on_clear=self.resend_on_clear)
        namespace = hook.get_options().idempotency_namespace
        return task_key(context, namespace=namespace, resend_on_clear=self.resend_on_clear)

    def _defer_rate_limit(self, error: FluxomailRateLimitError, give_up_at: float) -> None:
        """Give the worker slot back until the cap allows another try; return if that is not possible."""
        from airflow_provider_fluxomail.triggers import FluxomailRetryAfterTrigger
        from airflow_provider_fluxomail.waiting import worker

        if self.deferrable and (
            resume_at := worker.rate_limit_resume(error.retry_after, give_up_at, conn_id=self.fluxomail_conn_id)
        ):
            self.defer(
                trigger=FluxomailRetryAfterTrigger(resume_at=resume_at, give_up_at=give_up_at),
                method_name=self.send_after_rate_limit.__name__,
                timeout=worker.backstop(resume_at),
            )

    def _await_delivery(
        self, hook: FluxomailHook, result: dict[str, Any], *, timeout: float, interval: float
    ) -> dict[str, Any]:
        from airflow_provider_fluxomail.client.watching.wait import Wait, now
        from airflow_provider_fluxomail.triggers import FluxomailDeliveryTrigger
        from airflow_provider_fluxomail.waiting import worker

        started = now()
        wait = Wait(result["send_id"], target=str(self.wait_for), started=started, deadline=started + timeout)
        if ending := worker.poll_until_ended(hook, wait, interval, deferrable=self.deferrable):
            ending = worker.ended(ending, conn_id=self.fluxomail_conn_id, began=started)
            return {**result, **self._conclude(ending)}
        self.defer(
            trigger=FluxomailDeliveryTrigger.of(
                wait, self, conn_id=self.fluxomail_conn_id, interval=interval, result=result
            ),
            method_name=self.execute_complete.__name__,
            timeout=worker.backstop(wait.deadline),
        )

    def _conclude(self, ending: Ending) -> dict[str, Any]:
        """End the task; a time-out fails it without retries, which would only send the same key and wait again."""
        from airflow_provider_fluxomail.waiting import worker

        if ending.status == "timeout":
            raise AirflowFailException(ending.message)
        return worker.conclude(ending)
