"""Sends Airflow's own email with Fluxomail: set ``[email] email_backend`` to :func:`send_email` of this module.

Airflow calls it for a task's failure and retry emails, outside of the task, and code calls it through
``airflow.utils.email.send_email``.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import logging
import re
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import AirflowNotFoundException, BaseHook
from airflow_provider_fluxomail.client.addresses import all_addresses, recipients
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage, text_from_html
from airflow_provider_fluxomail.client.text_fields import header_text
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sending.attachments import read_attachments
from airflow_provider_fluxomail.sending.idempotency_key import content_part, email_key
from airflow_provider_fluxomail.sending.replay import is_foreign
from airflow_provider_fluxomail.sending.send_once import Identity, send_once

if TYPE_CHECKING:
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection

log = logging.getLogger(__name__)

#: What Airflow passes if ``[email] email_conn_id`` is not set.
_UNSET_CONN_ID: Final = "smtp_default"
#: What Airflow passes to backends by default.
_USUAL: Final[Mapping[str, str]] = {
    "mime_subtype": "mixed", "mime_charset": "utf-8", "from_email": "airflow@airflow",
}  # fmt: skip

_QUOTED: Final = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
# One field of a model's repr, as pydantic writes it.
_FIELD: Final = re.compile(
    rf"(?P<name>[a-z_]+)=(?P<value>{_QUOTED}|<(?:{_QUOTED}|[^<>'\"])*>|[\w.]*\((?:{_QUOTED}|[^()'\"])*\)"
    rf"|\{{(?:{_QUOTED}|[^{{}}'\"])*\}}|[^\s'\"<({{]+)(?:\s+|$)"
)
_TASK_REPR: Final = re.compile(r"id=UUID\('[0-9a-f-]{36}'\)\s+task_id=")
#: Calls that failed after some emails were accepted: a digest of the call and the positions of those emails, by error.
_failed_calls: Final[weakref.WeakKeyDictionary[BaseException, tuple[str, frozenset[int]]]] = weakref.WeakKeyDictionary()


def send_email(
    to: str | Iterable[str],
    subject: str,
    html_content: str,
    files: Iterable[Any] | None = None,
    dryrun: bool = False,
    cc: str | Iterable[str] | None = None,
    bcc: str | Iterable[str] | None = None,
    mime_subtype: str = "mixed",
    mime_charset: str = "utf-8",
    conn_id: str | None = None,
    from_email: str | None = None,
    custom_headers: Mapping[str, Any] | None = None,
    *,
    sandbox_mode: bool = False,
    resend_on_clear: bool = False,
    **kwargs: Any,
) -> None:
    """Send an email to each recipient, as Airflow's ``[email] email_backend``::

        [email]
        email_backend = airflow_provider_fluxomail.email_backend.send_email
        email_conn_id = fluxomail_default

    The same email is sent once: in a running task once per task, however often it is retried; elsewhere once per clock
    hour. Two emails are the same if recipients, subject, body and attachments are equal.

    .. seealso:: :doc:`/guides/email-backend`

    :param to: addresses, as a list or with commas or semicolons between them. Each gets an email of its own.
    :param subject: Airflow's record of a task instance in it (3.2 and later) is shortened to ``dag.task run [failed]
        try 2``.
    :param html_content: HTML; the text is derived from it.
    :param files: attachments, see :class:`.FluxomailSendOperator`.
    :param dryrun: check everything, send nothing.
    :param cc: addresses that get a copy of the first email, visible to its recipient.
    :param bcc: addresses that get a copy of the first email, visible to nobody.
    :param mime_subtype: ignored: Fluxomail builds the email.
    :param mime_charset: ignored: emails are UTF-8.
    :param conn_id: id of a connection of type ``fluxomail``. ``fluxomail_default`` replaces a connection of another
        type, a missing ``smtp_default``, and ``None``.
    :param from_email: ignored: Fluxomail sends from the organization's From identity.
    :param custom_headers: ``Reply-To``, in any case, is where replies go; others are ignored.
    :param sandbox_mode: SendGrid's name of ``dryrun``.
    :param resend_on_clear: in a task: send again after a person cleared it.
    :param kwargs: other backends' arguments (``from_name``, ``categories``...), ignored. One INFO line names each
        argument that was given and is ignored.
    :raises FluxomailError: an email was not accepted. After an error that may concern one recipient only, the others
        are sent first; of several errors, a transient one is raised.
    """
    reply_to, headers = _reply_to(custom_headers)
    others = {"from_email": from_email, "mime_subtype": mime_subtype, "mime_charset": mime_charset, **kwargs}
    if ignored := list(_ignored(others, headers)):
        log.info(
            "Ignored arguments: %s. Fluxomail sends from the organization's From identity and builds the email itself.",
            ", ".join(ignored),
        )
    call = hashlib.sha256(repr((to, cc, bcc, subject)).encode("utf-8", "surrogatepass")).hexdigest()
    messages = _messages(to, readable_subject(subject), html_content, cc=cc, bcc=bcc, files=files, reply_to=reply_to)
    # A traceback that shows local variables would show them.
    del to, subject, html_content, files, cc, bcc, custom_headers, kwargs, from_email, reply_to, headers, others
    if dryrun or sandbox_mode:
        for message in messages:
            if isinstance(message, FluxomailError):
                raise message
        how = "dryrun" if dryrun else "sandbox_mode"
        log.info("Checked %d emails and sent none of them: %s is set.", len(messages), how)
        return
    accepted = _accepted_before(call)
    try:
        with contextlib.closing(FluxomailHook(_fluxomail_conn_id(conn_id))) as hook, contextlib.ExitStack() as whole:
            _send_each(messages, hook, accepted, whole, resend_on_clear=resend_on_clear)
    except FluxomailError as error:
        _failed_calls[error] = (call, frozenset(accepted))
        raise


def _messages(
    to: object, subject: str, html_content: str, *, cc: object, bcc: object, files: object, reply_to: str | None
) -> list[EmailMessage | FluxomailError]:
    """Return the message of each recipient, or what is wrong with it: the others are sent all the same."""
    people = recipients(to)
    if not people:
        raise FluxomailValidationError("to is empty: give one address or more")
    line = " ".join(subject.split()) or "(no subject)"
    fields: dict[str, Any] = {
        "subject": line,
        # An email of an image alone has no text.
        "content": text_from_html(html_content) or line,
        "html_content": html_content,
        "attachments": read_attachments(files),
        "extra_fields": {"replyTo": reply_to} if reply_to else {},
    }
    copies: dict[str, Any] = {"cc": all_addresses(cc, "cc"), "bcc": all_addresses(bcc, "bcc")}
    messages: list[EmailMessage | FluxomailError] = []
    for recipient in people:
        try:
            messages.append(EmailMessage(to=recipient, **fields, **copies))
        except FluxomailError as error:
            messages.append(error.with_traceback(None))
        copies = {}
    return messages


def _reply_to(custom_headers: Mapping[str, Any] | None) -> tuple[str | None, Mapping[str, Any]]:
    """Return the reply address of an email's own headers, and the headers that have no effect."""
    if custom_headers and not isinstance(custom_headers, Mapping):
        raise FluxomailValidationError("custom_headers must be a mapping of names to values")
    others = {name: value for name, value in (custom_headers or {}).items() if value not in (None, "")}
    for name in others:
        if str(name).strip().casefold() == "reply-to":
            return header_text(others.pop(name), "custom_headers['Reply-To']"), others
    return None, others


def _ignored(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> Iterator[str]:
    """Name what was given and has no effect, without its value."""
    for name, value in arguments.items():
        if value and str(value).lower() != _USUAL.get(name):
            yield _printable(name)
    for name in headers:
        yield f"custom_headers[{_printable(str(name))!r}]"


def _printable(name: str) -> str:
    return re.sub(r"[^\x21-\x7e]", "?", name)[:60]


def _send_each(
    messages: Sequence[EmailMessage | FluxomailError],
    hook: FluxomailHook,
    accepted: set[int],
    whole: contextlib.ExitStack,
    *,
    resend_on_clear: bool,
) -> None:
    """Send the messages that are not accepted yet, until an error concerns them all. Raise a transient error first."""
    errors: list[FluxomailError] = []
    for number, message in enumerate(messages):
        if number in accepted:
            continue
        try:
            if isinstance(message, FluxomailError):
                raise message
            identity = _identity(message, hook.get_options(), resend_on_clear=resend_on_clear)
            # If one of them fails, the caller may repeat the whole call, so then none has used its position up.
            whole.enter_context(identity.call)
            sent = send_once(message, identity, hook.get_conn())
        except FluxomailError as error:
            text = "Email %d of %d was not accepted: %s: %s"
            log.warning(text, number + 1, len(messages), type(error).__name__, error)
            errors.append(error)
            if not error.concerns_one_message:
                break
        else:
            accepted.add(number)
            how = "had already accepted" if is_foreign(sent) else "accepted"
            log.info("Fluxomail %s send %s (idempotency key %s).", how, sent.send_id, sent.idempotency_key)
    if errors:
        raise next((error for error in errors if not error.permanent), errors[0])


def _identity(message: EmailMessage, connection: FluxomailConnection, *, resend_on_clear: bool) -> Identity:
    if named := content_part(message):
        identity = Identity.of_running_task(message, connection, part=named[0], resend_on_clear=resend_on_clear)
        return dataclasses.replace(identity, position=named[1])
    return Identity(key=email_key(message, namespace=connection.idempotency_namespace, now=datetime.now(UTC)))


def readable_subject(subject: str) -> str:
    """Shorten Airflow's record of a task instance in a subject to ``dag.task run [failed] try 2``.

    From 3.2 on, the default subject contains it, with some 700 characters. What cannot be read stays as it is.
    """
    start = _TASK_REPR.search(subject)
    if start is None:
        return subject
    fields: dict[str, str] = {}
    position = start.start()
    while field := _FIELD.match(subject, position):
        fields[field["name"]] = field["value"]
        position = field.end()
    # After a field that cannot be read, nothing tells where the record ends.
    rest = "" if re.match(r"[a-z_]+=", subject[position:]) else subject[position:]
    try:
        dag_id, task_id, run_id = (ast.literal_eval(fields[name]) for name in ("dag_id", "task_id", "run_id"))
        try_number, map_index = int(fields["try_number"]), int(fields.get("map_index") or -1)
    except (KeyError, ValueError, SyntaxError):
        return subject
    mapped = [f"map_index={map_index}"] if map_index >= 0 else []
    state = re.findall(r"'(\w+)'", fields.get("state", ""))[:1]
    known = [f"{dag_id}.{task_id}", run_id, *mapped, *(f"[{name}]" for name in state), f"try {try_number}"]
    return " ".join([subject[: start.start()].strip(), *known, rest.strip()]).strip()


def _accepted_before(call: str) -> set[int]:
    """Return the positions of the emails that were accepted before this call, if it repeats one that failed.

    Airflow before 3.2 treats any error from the backend as a template error and calls it a second time with a different
    text, while it handles that error. ``call`` is a digest of what both calls have in common.
    """
    error = sys.exception()
    if not isinstance(error, FluxomailError):
        return set()
    failed_call, accepted = _failed_calls.get(error, ("", frozenset()))
    return set(accepted) if failed_call == call else set()


def _fluxomail_conn_id(conn_id: str | None) -> str:
    default = airflow_cfg.default_conn_id()
    if not conn_id:
        return default
    try:
        kind = BaseHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException:
        if conn_id != _UNSET_CONN_ID:
            raise
        return default
    if kind == FluxomailHook.conn_type:
        return conn_id
    log.info("Connection %r is of type %r: using %r instead.", conn_id, kind, default)
    return default
