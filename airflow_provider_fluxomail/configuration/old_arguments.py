"""Arguments of other vendors' operators and notifiers, and what to use instead.

::

    FluxomailSendOperator(task_id="report", to="ada@example.org", subject="Report", files=["report.csv"])
    # TypeError: FluxomailSendOperator has no such argument: 'files': use 'attachments'

Airflow itself only says "Invalid arguments were passed", or that another argument is missing. All classes share one
table; ``docs/guides/migrating-from-*.md`` describe each argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple

#: Fields of :class:`.EmailMessage`. Parsing a Dag need not import it.
MESSAGE_FIELDS: Final = (
    "to", "subject", "content", "html_content", "cc", "bcc", "attachments", "policy_key", "extra_fields",
)  # fmt: skip

_BODY: Final = "use {content} for plain text, {html_content} for HTML"
_CONN_ID: Final = "use 'fluxomail_conn_id', the id of a connection of type fluxomail"
_CONNECTION: Final = "leave it out: the connection of type fluxomail holds it"
_FROM: Final = "leave it out: Fluxomail sends from the organization's From identity"
_BUILT: Final = "leave it out: Fluxomail builds the email, in UTF-8"
_REPLY_TO: Final = "use {extra_fields}: {{'replyTo': ...}}"
_HEADERS: Final = f"leave it out, Fluxomail writes the headers; for Reply-To {_REPLY_TO}"
_BOUNCES: Final = "leave it out: bounces come back to Fluxomail, and fail a task that waits for the delivery"
_TEMPLATE: Final = "use {html_content}, with the name of a Jinja template file"
_VALUES: Final = "leave it out: bodies are Jinja templates that Airflow renders"
_LABELS: Final = "leave it out: Fluxomail has no labels; the Dag and task id are part of the idempotency key"
_NOTHING_SENT: Final = (
    "leave it out: for a run that sends nothing to anybody use fluxomail-sandbox, or a connection with redirect_to"
)

#: What to use instead of each old name. ``{to}`` and so on stands for how a class takes that field of a message. None
#: of them is an argument of ``BaseOperator``, whose ``email`` and ``email_on_failure`` keep their meaning.
OLD_ARGUMENTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("recipient", "recipients", "to_email", "to_emails", "to_address", "to_addresses", "email_to", "mail_to",
         "emails", "receiver", "receivers", "destination"),
        "use {to}",
    ),
    **dict.fromkeys(("cc_emails", "cc_addresses"), "use {cc}"),
    **dict.fromkeys(("bcc_emails", "bcc_addresses"), "use {bcc}"),
    **dict.fromkeys(("title", "subject_line", "email_subject"), "use {subject}"),
    **dict.fromkeys(("html", "html_body", "body_html", "html_text", "html_message"), "use {html_content}"),
    **dict.fromkeys(
        ("text", "text_body", "body_text", "text_content", "plain_text", "plain_text_content"), "use {content}"
    ),
    **dict.fromkeys(("body", "message", "msg", "email_body"), _BODY),
    **dict.fromkeys(("files", "file", "attachment", "attached_files"), "use {attachments}"),
    **dict.fromkeys(
        ("conn_id", "smtp_conn_id", "email_conn_id", "sendgrid_conn_id", "aws_conn_id", "ses_conn_id", "http_conn_id",
         "mailgun_conn_id", "postmark_conn_id"),
        _CONN_ID,
    ),
    **dict.fromkeys(
        ("from_email", "from_name", "from_address", "from_addr", "mail_from", "email_from", "sender", "sender_name",
         "source", "smtp_mail_from"),
        _FROM,
    ),
    **dict.fromkeys(("reply_to", "replyto", "reply_to_addresses"), _REPLY_TO),
    **dict.fromkeys(("custom_headers", "headers", "extra_headers"), _HEADERS),
    **dict.fromkeys(("return_path", "bounce_address"), _BOUNCES),
    **dict.fromkeys(("mime_subtype", "mime_charset", "charset", "encoding", "content_type"), _BUILT),
    **dict.fromkeys(("template", "html_content_template"), _TEMPLATE),
    "subject_template": "use {subject}, which is a Jinja template itself",
    **dict.fromkeys(
        ("template_id", "template_name", "template_data", "dynamic_template_data", "substitutions",
         "personalizations", "personalization_custom_args", "template_vars"),
        _VALUES,
    ),
    **dict.fromkeys(("categories", "category", "tags", "custom_args", "unique_args"), _LABELS),
    **dict.fromkeys(("configuration_set", "configuration_set_name"), "use {policy_key} for a sending policy"),
    **dict.fromkeys(("dryrun", "sandbox_mode"), _NOTHING_SENT),
    **dict.fromkeys(
        ("api_key", "smtp_host", "smtp_port", "smtp_user", "smtp_password", "smtp_starttls", "smtp_ssl", "auth_type",
         "disable_ssl", "disable_tls", "ssl_context", "region_name", "region", "verify", "botocore_config"),
        _CONNECTION,
    ),
    "retry_limit": "leave it out: Airflow's 'retries', and max_attempts of the connection",
}  # fmt: skip


class ArgumentNames(NamedTuple):
    """How a class that users import takes the fields of a message, for the advice on old arguments.

    :param name: for errors; by default the name of the class.
    :param place: where a field belongs; ``{}`` is its name.
    :param refused: further names that it does not take, and what to use instead.
    """

    name: str = ""
    place: str = "'{}'"
    refused: Mapping[str, str] = MappingProxyType({})

    def advice(self, name: str) -> str:
        """Return what to use instead of an argument."""
        text = self.refused.get(name) or OLD_ARGUMENTS[name]
        return text.format(**{field: self.place.format(field) for field in MESSAGE_FIELDS})


OPERATOR: Final = ArgumentNames()
BATCH: Final = ArgumentNames(
    place="'{}' in each message or in defaults",
    refused={name: f"use {{{name}}}" for name in MESSAGE_FIELDS}
    | {"rows": "use 'messages'", "emails": "use 'messages'"},
)
DECORATOR: Final = ArgumentNames(
    name="@task.fluxomail_send",
    place="'{}' in the message that the function returns",
    refused={name: f"use {{{name}}}" for name in MESSAGE_FIELDS},
)
_ONE_EACH: Final = "use 'to': each recipient of an alert gets an email of their own"
_NO_FILES: Final = "leave it out: an alert has no attachments, put a link into html_content"
NOTIFIER: Final = ArgumentNames(
    refused={
        **dict.fromkeys(("email", "email_list"), "use 'to'"),
        **dict.fromkeys(("cc", "bcc", "cc_emails", "cc_addresses", "bcc_emails", "bcc_addresses"), _ONE_EACH),
        **dict.fromkeys(("attachments", "files", "file", "attachment", "attached_files"), _NO_FILES),
        "idempotency_key": "use 'part' to keep two alerts about the same thing apart",
        "retry_limit": "leave it out: max_attempts of the connection",
    }
)


def refuse(cls: type, names: ArgumentNames, given: Iterable[str]) -> None:
    """Raise a ``TypeError`` that names each argument of another vendor's class, and what to use instead."""
    old = [name for name in given if name in OLD_ARGUMENTS or name in names.refused]
    if old:
        advice = "; ".join(f"{name!r}: {names.advice(name)}" for name in old)
        raise TypeError(f"{names.name or cls.__name__} has no such argument: {advice}")


def _is_ours(cls: Any) -> bool:
    """Return whether the class has the arguments of this package; a subclass may have others, with any name."""
    return str(cls.__init__.__module__).startswith("airflow_provider_fluxomail.")


class RefusesOldArguments:
    """Base class of operators and notifier: refuses other vendors' arguments, and names what to use instead."""

    argument_names: ClassVar[ArgumentNames] = OPERATOR

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Check before Airflow, which would only report a missing ``to`` if ``recipients`` is given."""
        if _is_ours(cls):
            if args:
                raise TypeError(f"{cls.__name__} takes its arguments by name, such as to=...")
            refuse(cls, cls.argument_names, kwargs)
        return super().__new__(cls)

    def __init__(self, **kwargs: Any) -> None:
        # The remaining arguments of a subclass.
        refuse(type(self), self.argument_names, kwargs)
        super().__init__(**kwargs)

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Start a mapped task, see Airflow's own ``partial``. Only operators have it."""
        if _is_ours(cls):
            refuse(cls, cls.argument_names, kwargs)
        return super().partial(**kwargs)  # type: ignore[misc]
