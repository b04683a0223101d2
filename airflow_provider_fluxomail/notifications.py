"""The notifier: alerts by email, from every callback that Airflow has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.airflow_compat import BaseNotifier, NotifierRenderMixin
from airflow_provider_fluxomail.alerts import TIME_LIMIT
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.configuration.old_arguments import NOTIFIER, RefusesOldArguments

if TYPE_CHECKING:
    from collections.abc import Generator

    from airflow_provider_fluxomail.airflow_compat import Context


class FluxomailNotifier(RefusesOldArguments, NotifierRenderMixin, BaseNotifier):
    """Sends alerts from task, Dag, deadline and human-in-the-loop callbacks; one email even if Airflow calls twice::

        from airflow.sdk import DAG

        from airflow_provider_fluxomail.notifications import FluxomailNotifier

        with DAG("nightly", default_args={"on_failure_callback": FluxomailNotifier(to="ops@example.org")}):
            ...

    Everything is rendered for each call, so one instance may serve any number of tasks. It never raises: an alert that
    could not be sent is an ERROR in the log of the process that ran the callback.

    .. seealso:: :doc:`/guides/alerts`

    :param to: one address, several with commas or semicolons between them, or a list. Each gets an email of its own.
        (templated)
    :param subject: one line, or the name of a template file (one word that ends in ``.txt``, ``.md``, ``.html``,
        ``.j2`` or ``.jinja2``); default: what happened. (templated)
    :param content: plain text, or the name of a template file. Without ``html_content``, the email is plain text only.
        (templated)
    :param html_content: HTML, or the name of a template file. Without ``content``, the plain text is derived from it;
        without both, they say what happened. (templated)
    :param policy_key: name of a sending policy. (templated)
    :param extra_fields: further fields of the request, such as ``replyTo``. (templated)
    :param part: tells this alert apart from one that is otherwise the same. (templated)
    :param time_limit: most seconds that a call may take; a message that is not sent by then times out. It cannot cut
        short what Airflow does: render templates and, unless the callback is asynchronous, look up the connection.
    :param fluxomail_conn_id: id of the connection. (templated)
    :param context: passed by Airflow in deadline alerts.
    """

    argument_names = NOTIFIER
    template_fields: Sequence[str] = (
        "to", "subject", "content", "html_content", "policy_key", "extra_fields", "part", "fluxomail_conn_id",
    )  # fmt: skip
    # Airflow must not read template files: it has no Dag to search for them when the notifier is created.
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
        # Airflow before 3.1 does not accept the context here.
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
        """Send the alert of a callback. Airflow's own method renders in place, which would repeat the first text.

        :param args: the context; on Airflow 2, the arguments of an SLA callback.
        """
        if len(args) == 1:
            self.notify(args[0])
        else:
            names = ["dag", "task_list", "blocking_task_list", "slas", "blocking_tis"]
            self.notify(dict(zip(names, args, strict=False)))  # type: ignore[arg-type]

    def __await__(self) -> Generator[Any, Any, None]:
        """Send the alert of a deadline, in a triggerer."""
        return self.async_notify(self.context).__await__()

    # The callback imports the code that sends, so that parsing a Dag stays cheap.

    def notify(self, context: Context) -> None:
        """Send the alert, and wait for it for at most ``time_limit`` seconds. Never raises.

        :param context: as Airflow passes it to callbacks.
        """
        from airflow_provider_fluxomail.alerts.sending import send_alert

        send_alert(self, context)

    async def async_notify(self, context: Context) -> None:
        """Send the alert from an event loop, see :meth:`notify`."""
        from airflow_provider_fluxomail.alerts.sending import asend_alert

        await asend_alert(self, context)
