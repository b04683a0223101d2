"""The notifier: alerts by mail, from every callback that Airflow has."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from airflow_provider_fluxomail.airflow_compat import BaseNotifier, NotifierRenderMixin
from airflow_provider_fluxomail.client.errors import (
    FluxomailError,
    FluxomailIdempotencyConflictError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.redaction import redact

# Whatever else a callback needs is imported where it is used: every parse of a Dag pays for what is imported here.
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.old_arguments import NOTIFIER, RefusesOldArguments

if TYPE_CHECKING:
    from collections.abc import Generator

    from jinja2 import Environment

    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.alerts.alert import Alert
    from airflow_provider_fluxomail.alerts.sending import Mail, Result
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection

TIME_LIMIT: Final = 30.0
_FILES: Final = (".html", ".txt", ".md", ".j2", ".jinja2")


class FluxomailNotifier(RefusesOldArguments, NotifierRenderMixin, BaseNotifier):
    """Sends an alert with Fluxomail, from any callback: of tasks, Dags, deadlines, and tasks that wait for a person.

    What it says is made anew for each call, so one instance may serve any number of tasks. Airflow fires some callbacks
    twice; the second time sends nothing. It never raises: an alert that could not be sent is an ERROR in the log of
    the process that ran the callback.

    .. seealso:: :doc:`/guides/alerts`

    :param to: one address, several with commas or semicolons between them, or a list. Each gets a mail of its own.
        (templated)
    :param subject: one line, or the name of a template file (one word that ends in ``.txt``, ``.md``, ``.html``,
        ``.j2`` or ``.jinja2``); made from what happened when left out. (templated)
    :param content: plain text, or the name of a template file. Given without ``html_content``, the mail is plain text
        alone. (templated)
    :param html_content: HTML, or the name of a template file. Without ``content``, the plain text is made from it.
        Left out with ``content``, both are made from what happened. (templated)
    :param policy_key: name of a sending policy. (templated)
    :param extra_fields: sent as they are, such as ``replyTo``. (templated)
    :param part: tells this alert from another one that is otherwise the same. (templated)
    :param time_limit: seconds that a call may take; what is not sent by then is given up. The time that Airflow takes
        to look up the connection (in a callback that is not asynchronous) and that templates take cannot be cut short.
    :param fluxomail_conn_id: id of the connection. (templated)
    :param context: given by Airflow in deadline alerts.
    """

    face = NOTIFIER
    template_fields: Sequence[str] = (
        "to", "subject", "content", "html_content", "policy_key", "extra_fields", "part", "fluxomail_conn_id",
    )  # fmt: skip
    # Airflow must not read files: it has no Dag to look for them when the notifier is made.
    template_ext: Sequence[str] = ()

    def __init__(
        self,
        *,
        to: str | Sequence[str],
        subject: str | None = None,
        content: str | None = None,
        html_content: str | None = None,
        policy_key: str | None = None,
        extra_fields: Mapping[str, Any] | None = None,
        part: str | None = None,
        time_limit: float = TIME_LIMIT,
        fluxomail_conn_id: str = airflow_cfg.default_conn_id(),
        context: Context | None = None,
    ) -> None:
        # Without the context, which Airflow before 3.1 does not take.
        super().__init__()
        self.context = context or {}
        self.to = to
        self.subject = subject
        self.content = content
        self.html_content = html_content
        self.policy_key = policy_key
        self.extra_fields = extra_fields
        self.part = part
        self.time_limit = time_limit
        self.fluxomail_conn_id = fluxomail_conn_id

    def __call__(self, *args: Any) -> None:
        """Send the alert of a callback. Airflow's own form of this renders in place: the next task would say the same.

        :param args: the context; the arguments of an SLA callback on Airflow 2.
        """
        if len(args) == 1:
            self.notify(args[0])
        else:
            names = ["dag", "task_list", "blocking_task_list", "slas", "blocking_tis"]
            self.notify(dict(zip(names, args, strict=False)))  # type: ignore[arg-type]

    def __await__(self) -> Generator[Any, Any, None]:
        """Send the alert of a deadline, in a triggerer."""
        return self.async_notify(self.context).__await__()

    def notify(self, context: Context) -> None:
        """Send the alert.

        :param context: as Airflow gives it to callbacks.
        """
        until = self._until()
        with self._contained():
            from airflow_provider_fluxomail.alerts import sending
            from airflow_provider_fluxomail.hooks import FluxomailHook

            draft = _Draft(self, context)
            # In this thread: Airflow answers one question of a process at a time.
            options = FluxomailHook(draft.conn_id).get_options()
            mails = draft.mails(options)
            self._report(draft.alert, mails, sending.send(mails, options.settings, until))

    async def async_notify(self, context: Context) -> None:
        """Send the alert from an event loop, see :meth:`notify`."""
        until = self._until()
        with self._contained():
            from airflow_provider_fluxomail.alerts import sending
            from airflow_provider_fluxomail.hooks import FluxomailHook

            draft = _Draft(self, context)
            lookup = asyncio.ensure_future(FluxomailHook(draft.conn_id).aget_options())
            # Not cancelled: others on this loop ask Airflow over the same channel.
            lookup.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait({lookup}, timeout=until - time.monotonic())
            if not lookup.done():
                raise TimeoutError("Airflow did not give the connection in time")
            mails = draft.mails(lookup.result())
            results = await sending.asend(mails, lookup.result().settings, until)
            self._report(draft.alert, mails, results)

    def _until(self) -> float:
        limit = self.time_limit
        if not isinstance(limit, int | float) or isinstance(limit, bool) or not (0 < limit < math.inf):
            self.log.warning("time_limit must be a number of seconds, more than 0: taking %g.", TIME_LIMIT)
            limit = TIME_LIMIT
        return time.monotonic() + limit

    @contextlib.contextmanager
    def _contained(self) -> Iterator[None]:
        """Let nothing into the callback: a mail that fails must not change what becomes of a task or a run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - see above
            self.log.error("The alert was not sent: %s", _told(error))  # noqa: TRY400 - a traceback shows values

    def _report(self, alert: Alert, mails: Sequence[Mail], results: Mapping[int, Result]) -> None:
        """Say what became of each mail, without its recipient."""
        what = f"{alert.kind} of {alert.name}"
        for number, mail in enumerate(mails):
            which = f" to recipient {number + 1} of {len(mails)}" if len(mails) > 1 else ""
            result = mail.error or results.get(number)
            if result is None:
                self.log.error(
                    "The alert (%s)%s was given up: it took longer than time_limit. It may have been sent.", what, which
                )
            elif isinstance(result, FluxomailIdempotencyConflictError):
                self.log.info("The alert (%s)%s has been sent before: the callback was fired twice.", what, which)
            elif isinstance(result, BaseException):
                self.log.error("The alert (%s)%s was not sent: %s", what, which, _told(result))
            else:
                how = "had already accepted" if result.reused and not result.own_replay else "accepted"
                self.log.info("Fluxomail %s the alert (%s)%s as send %s.", how, what, which, result.send_id)


class _Draft:
    """One call's own values of all that is templated."""

    def __init__(self, notifier: FluxomailNotifier, context: Context) -> None:
        from airflow_provider_fluxomail.alerts import alert

        self._notifier = notifier
        self.alert = alert.read(context, notifier)
        # A copy: what Airflow's own notifiers put into the context, the next callback finds there.
        # Not dict(), which looks at all of it: Airflow 2 warns of each old name that is looked at.
        self._context: Any = copy.copy(cast("Any", context))
        self._context["alert"] = self.alert
        # A Dag as it is stored, which dag.test() has for its callbacks, has no environment.
        dag = context.get("dag")
        self._environment: Environment = notifier.get_template_env(dag if hasattr(dag, "get_template_env") else None)
        self.conn_id = str(self._rendered(notifier.fluxomail_conn_id))

    def mails(self, options: FluxomailConnection) -> list[Mail]:
        """Return one mail for each recipient. Those that cannot be made carry the error: the others are sent."""
        from airflow_provider_fluxomail.client.addresses import recipients

        people = recipients(self._rendered(self._notifier.to))
        if not people:
            raise FluxomailValidationError("to came out empty: give an address")
        fields = self._fields()
        return [self._mail(recipient, fields, options.idempotency_namespace) for recipient in people]

    def _mail(self, recipient: Any, fields: Mapping[str, Any], namespace: str) -> Mail:
        from airflow_provider_fluxomail.alerts.sending import Mail
        from airflow_provider_fluxomail.client.messages import EmailMessage
        from airflow_provider_fluxomail.sending.idempotency_key import notification_key

        alert, notifier = self.alert, self._notifier
        configuration = {
            name: value
            for name in ("subject", "content", "html_content", "policy_key", "extra_fields", "fluxomail_conn_id")
            if (value := getattr(notifier, name)) is not None
        }
        try:
            message = EmailMessage(to=recipient, **fields)
            key = notification_key(
                namespace=namespace,
                dag_id=alert.dag_id,
                run_id=alert.run_id,
                task_id=alert.task_id,
                map_index=alert.map_index,
                occasion=alert.occasion,
                kind=alert.kind,
                recipient=message.to,
                configuration=configuration,
                part=str(self._rendered(notifier.part) or ""),
            )
            return Mail(message, key)
        except Exception as error:  # noqa: BLE001 - of this recipient alone
            return Mail(None, error=error)

    def _fields(self) -> dict[str, Any]:
        from airflow_provider_fluxomail.alerts.alert import one_line, page

        notifier = self._notifier
        subject = one_line(self._text("subject")) or self.alert.subject
        text, html = self._text("content"), self._text("html_content")
        if not text.strip() and not html.strip():
            text, html = page("alert.txt", self.alert), page("alert.html", self.alert)
        return {
            "subject": subject,
            "content": text or None,
            "html_content": html or None,
            "policy_key": self._rendered(notifier.policy_key) or None,
            "extra_fields": self._rendered(notifier.extra_fields) or {},
        }

    def _text(self, field: str) -> str:
        """Render a subject or body; an empty text if that fails: an alert in other words is better than none."""
        from airflow_provider_fluxomail.alerts.alert import masked

        template = getattr(self._notifier, field)
        try:
            text = str(self._rendered(self._template_of(template))) if template else ""
            return masked(text, otherwise=text)
        except Exception as error:  # noqa: BLE001 - whatever a template does
            self._notifier.log.warning("The alert says its own words, %s can't be rendered: %s", field, _told(error))
            return ""

    def _template_of(self, value: Any) -> Any:
        """Return the text of a template file, found as operators find theirs; an absolute path without a Dag too."""
        if not isinstance(value, str) or not value.endswith(_FILES) or re.search(r"\s|://|\{", value):
            return value
        if Path(value).is_absolute():
            return Path(value).read_text(encoding="utf-8")
        if self._environment.loader is None:
            raise FluxomailValidationError("there is no Dag here to find template files with: give an absolute path")
        return self._environment.loader.get_source(self._environment, value)[0]

    def _rendered(self, value: Any) -> Any:
        return self._notifier.render_template(value, self._context, self._environment)


def _told(error: BaseException) -> str:
    """Say an error without idempotency key, recipient and body."""
    if not isinstance(error, FluxomailError):
        return f"{type(error).__name__}: {redact(str(error)) or 'no text'}"
    facts = {"status": error.status, "request id": error.request_id}
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value is not None)
    return f"{type(error).__name__}: {error.message}{f' ({told})' if told else ''}"
