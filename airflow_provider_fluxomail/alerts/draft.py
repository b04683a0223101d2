"""What an alert's messages are before they are sent: recipients, subject, bodies and their defaults."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from airflow_provider_fluxomail.alerts import callback_context
from airflow_provider_fluxomail.alerts.alert import MAX_ALERT_BODY, SEE_LOG, masked, one_line
from airflow_provider_fluxomail.client.addresses import identity, normalised, recipients
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailValidationError
from airflow_provider_fluxomail.client.html_text import shortened, without_surrogates
from airflow_provider_fluxomail.client.json_values import json_value
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.redaction import redact
from airflow_provider_fluxomail.client.text_fields import body_text, not_none
from airflow_provider_fluxomail.client.unexpected import unexpected
from airflow_provider_fluxomail.sending.idempotency_key import notification_key
from airflow_provider_fluxomail.tasks import with_template_file

if TYPE_CHECKING:
    from jinja2 import Environment

    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.notifications import FluxomailNotifier

#: Arguments that tell two notifiers apart; part of the idempotency key, as they were before rendering.
_CONFIGURATION: Final = ("subject", "content", "html_content", "policy_key", "extra_fields", "fluxomail_conn_id")


@dataclasses.dataclass(frozen=True, repr=False)
class Outgoing:
    """A message that is ready to send, and its idempotency key."""

    message: EmailMessage
    key: str


class Draft:
    """The messages of one call of a notifier.

    The notifier itself stays as it is: it may serve any number of tasks, and Airflow would render it only once.
    """

    def __init__(self, notifier: FluxomailNotifier, context: Context) -> None:
        self._notifier = notifier
        self.alert = callback_context.read(context, notifier)
        # A copy: the next callback gets the same context, with everything that notifiers put into it.
        # Not dict(), which reads every value: Airflow 2 warns about each deprecated name that is read.
        self._context: Any = copy.copy(cast("Any", context))
        self._context["alert"] = self.alert
        self._left_out: set[str] = set()
        # A serialized Dag, which dag.test() passes to its callbacks, has no template environment.
        dag = context.get("dag")
        self._environment: Environment = notifier.get_template_env(dag if hasattr(dag, "get_template_env") else None)
        self.conn_id = str(self._rendered(notifier.fluxomail_conn_id))

    def messages(self, namespace: str) -> list[Outgoing | Exception]:
        """Return the message of each recipient, or why it cannot be sent: the others are sent all the same."""
        people = recipients(self._rendered(self._notifier.to))
        if not people:
            raise FluxomailValidationError("to came out empty: give an address")
        fields = self._fields()
        names: set[str] = set()
        return [self._message(recipient, fields, namespace, names) for recipient in people]

    def _message(
        self, recipient: Any, fields: Mapping[str, Any], namespace: str, names: set[str]
    ) -> Outgoing | Exception:
        alert, notifier = self.alert, self._notifier
        try:
            message = EmailMessage.of({"to": [recipient], **fields})
            # Keys, which never change, have one name for straße.de and strasse.de: the second of them gets another.
            name = f"2 {identity(message.to)}" if normalised(message.to) in names else message.to
            names.add(normalised(message.to))
            key = notification_key(
                namespace=namespace,
                dag_id=alert.dag_id,
                run_id=alert.run_id,
                task_id=alert.task_id,
                map_index=alert.map_index,
                occasion=alert.occasion,
                kind=alert.kind,
                recipient=name,
                configuration={
                    name: given if name not in self._left_out else "left out"
                    for name in _CONFIGURATION
                    if (given := getattr(notifier, name)) is not None
                },
                part=str(self._rendered(notifier.part) or ""),
            )
        except Exception as error:  # noqa: BLE001 - about this recipient only
            return unexpected(error)
        return Outgoing(message, key)

    def _fields(self) -> dict[str, Any]:
        notifier = self._notifier
        subject = one_line(self._text("subject")) or self.alert.subject
        text, html = self._text("content"), self._text("html_content")
        if not text.strip() and not html.strip():
            text, html = self.alert.render("alert.txt"), self.alert.render("alert.html")
        return {
            "subject": subject,
            "content": self._bounded(text),
            "html_content": self._bounded(html, markup=True),
            "policy_key": self._rendered(notifier.policy_key) or None,
            "extra_fields": self._extra_fields(),
        }

    def _bounded(self, body: str, *, markup: bool = False) -> str | None:
        """Return a body that can be sent, whatever the exception in it is."""
        note = f"{SEE_LOG}{f' at {self.alert.url}' if self.alert.url else ''}"
        return without_surrogates(shortened(body, MAX_ALERT_BODY, note=note, markup=markup)) or None

    def _text(self, field: str) -> str:
        """Render a subject or body; empty if that fails: an alert with the default text is better than none."""
        template = getattr(self._notifier, field)
        try:
            if isinstance(template, str):
                template = with_template_file(template, field, self._environment)
            text = str(self._rendered(template)) if template else ""
            if field == "subject":
                not_none(text, field)
            else:
                text = body_text(text, field) or ""
            return masked(text, otherwise=text)
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            self._notifier.log.warning("Could not render %s, using the default text: %s", field, format_error(error))
            return ""

    def _extra_fields(self) -> Mapping[str, Any]:
        """Render the extra fields; none if that fails: an alert without them is better than none."""
        try:
            fields: Mapping[str, Any] = self._rendered(self._notifier.extra_fields) or {}
            json_value(fields, "extra_fields")
        except Exception as error:  # noqa: BLE001 - a template can raise anything
            self._notifier.log.warning("Sending without extra_fields: %s", format_error(error))
            self._left_out.add("extra_fields")
            return {}
        return fields

    def _rendered(self, value: Any) -> Any:
        return self._notifier.render_template(value, self._context, self._environment)


def format_error(error: BaseException) -> str:
    """Return an error for the log, without idempotency key, recipient and body."""
    if not isinstance(error, FluxomailError):
        try:
            text = redact(str(error))
        except Exception:  # noqa: BLE001 - an exception that cannot be printed must not hide the other outcomes
            text = ""
        return f"{type(error).__name__}: {text or 'no text'}"
    known = {"status": error.status, "request id": error.request_id}
    facts = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    return f"{type(error).__name__}: {error.message}{f' ({facts})' if facts else ''}"
