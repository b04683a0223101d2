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
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.airflow_compat import AirflowNotFoundException, BaseHook
from airflow_provider_fluxomail.alerts.alert import MAX_ALERT_BODY, SEE_LOG, cut
from airflow_provider_fluxomail.client.addresses import addresses, all_addresses, identity, recipients
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailValidationError
from airflow_provider_fluxomail.client.html_text import shortened, text_from_html, without_surrogates
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.private import private
from airflow_provider_fluxomail.client.text_fields import header_text, one_line
from airflow_provider_fluxomail.client.unexpected import unexpected
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sending.attachments import read_attachments
from airflow_provider_fluxomail.sending.idempotency_key import content_part, email_key, is_task_running
from airflow_provider_fluxomail.sending.replay import is_foreign
from airflow_provider_fluxomail.sending.send_once import Identity, send_once

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection

log = logging.getLogger(__name__)

#: What Airflow passes if ``[email] email_conn_id`` is not set.
_UNSET_CONN_ID: Final = "smtp_default"
#: Most characters of a subject that is not a task's: as many as a line of an email may have.
_MAX_SUBJECT: Final = 998
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


@private
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
    :param html_content: HTML; the text is derived from it. Outside of tasks, more than 262,144 characters are shortened
        in the middle.
    :param files: attachments, see :class:`.FluxomailSendOperator`.
    :param dryrun: check everything, send nothing.
    :param cc: addresses that get a copy of the first email that is accepted, visible to its recipient. One that is in
        ``to`` gets no copy.
    :param bcc: the same, visible to nobody.
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
    :raises FluxomailError: an email was not accepted, or a copy is invalid. After an error that may concern one address
        only, the others are sent first; of several errors, a transient one is raised.
    """
    reply_to, headers = _reply_to(custom_headers)
    others = {"from_email": from_email, "mime_subtype": mime_subtype, "mime_charset": mime_charset, **kwargs}
    if ignored := list(_ignored(others, headers)):
        log.info(
            "Ignored arguments: %s. Fluxomail sends from the organization's From identity and builds the email itself.",
            ", ".join(ignored),
        )
    call = hashlib.sha256(repr((to, cc, bcc, subject)).encode("utf-8", "surrogatepass")).hexdigest()
    emails = _emails(to, subject, html_content, cc=cc, bcc=bcc, files=files, reply_to=reply_to)
    if dryrun or sandbox_mode:
        emails.raise_error()
        how = "dryrun" if dryrun else "sandbox_mode"
        log.info("Checked %d emails and sent none of them: %s is set.", emails.count, how)
        return
    emails.accepted |= _accepted_before(call)
    try:
        with contextlib.closing(FluxomailHook(_fluxomail_conn_id(conn_id))) as hook, contextlib.ExitStack() as whole:
            emails.send(hook, whole, resend_on_clear=resend_on_clear)
    except FluxomailError as error:
        _failed_calls[error] = (call, frozenset(emails.accepted))
        raise


def _emails(
    to: object, subject: object, html_content: object, *, cc: object, bcc: object, files: object, reply_to: str | None
) -> Emails:
    """Return the emails of a call. What is wrong with one of its addresses concerns that one only."""
    people = recipients(to)
    if not people:
        raise FluxomailValidationError("to is empty: give one address or more")
    if not isinstance(subject, str) or not isinstance(html_content, str):
        name, value = ("html_content", html_content) if isinstance(subject, str) else ("subject", subject)
        raise FluxomailValidationError(f"{name} must be text, not {type(value).__name__}")
    line = one_line(readable_subject(subject))
    if not is_task_running():
        # Airflow's own emails may quote an exception of any length. What a task sends is left as it is.
        line = cut(line, _MAX_SUBJECT)
        if len(html_content) > MAX_ALERT_BODY:
            log.warning("The HTML of this email is shortened: it has %d characters.", len(html_content))
        html_content = without_surrogates(shortened(html_content, MAX_ALERT_BODY, note=SEE_LOG, markup=True))
    line = line or "(no subject)"
    fields: dict[str, Any] = {
        "subject": line,
        # An email of an image alone has no text.
        "content": text_from_html(html_content) or line,
        "html_content": html_content,
        "attachments": read_attachments(files),
        "extra_fields": {"replyTo": reply_to} if reply_to else {},
    }
    emails = Emails(len(people))
    for number, recipient in enumerate(people):
        try:
            emails.messages[number] = EmailMessage.of({"to": [recipient], **fields})
        except Exception as error:  # noqa: BLE001 - about this recipient only
            emails.refuse(f"Email {number + 1} of {len(people)}", number, error)
    taken = {identity(person) for person in people if isinstance(person, str)}
    for field, value in (("cc", cc), ("bcc", bcc)):
        for name, address in _copies(value, field):
            if isinstance(address, Exception):
                emails.refuse("A copy", name, address)
            else:
                emails.given[field].append(address)
                if identity(address) not in taken:
                    taken.add(identity(address))
                    emails.copies[field].append((name, address))
    return emails


def _copies(value: object, field: str) -> Iterator[tuple[str, str | Exception]]:
    """Yield each copy with its name, or what is wrong with it."""
    try:
        found = all_addresses(value, field)
    except FluxomailValidationError as error:
        yield field, error
        return
    for index, address in enumerate(found):
        name = f"{field}[{index}]"
        try:
            yield from ((name, checked) for checked in addresses([address], field))
        except FluxomailValidationError as error:
            yield name, FluxomailValidationError(error.message.replace(f"{field}[0]", name, 1))


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
    """Yield the names of ignored arguments and headers, without their values."""
    for name, value in arguments.items():
        if value and str(value).lower() != _USUAL.get(name):
            yield _printable(name)
    for name in headers:
        yield f"custom_headers[{_printable(str(name))!r}]"


def _printable(name: str) -> str:
    return re.sub(r"[^\x21-\x7e]", "?", name)[:60]


class Emails:
    """The emails of one call: a message for each recipient, and copies that go with the first that is accepted.

    :ivar messages: by position of the recipient, without copies.
    :ivar given: the valid copies by field, as they are part of the first email's key.
    :ivar copies: those of them that are to be sent, with their names.
    :ivar errors: by position of the recipient or name of the copy.
    :ivar accepted: positions of the recipients whose email was accepted.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.messages: dict[int, EmailMessage] = {}
        self.given: dict[str, Any] = {"cc": [], "bcc": []}
        self.copies: dict[str, list[tuple[str, str]]] = {"cc": [], "bcc": []}
        self.errors: dict[int | str, FluxomailError] = {}
        self.accepted: set[int] = set()

    def refuse(self, what: str, name: int | str, error: Exception) -> None:
        """Log an error that concerns one address, and continue."""
        found = unexpected(error).with_traceback(None)
        log.warning("%s was not accepted: %s: %s", what, type(found).__name__, found)
        self.errors[name] = found

    def send(self, hook: FluxomailHook, whole: contextlib.ExitStack, *, resend_on_clear: bool) -> None:
        """Send what is not accepted yet, until an error concerns all of it. Raise the error that counts.

        :param whole: the call. If one of its emails fails, the caller may repeat it: no position is used up then.
        """
        connection, client = hook.get_options(), hook.get_conn()
        self._check_copies(connection.settings.guard)
        identities: dict[int, Identity] = {}

        def send(number: int, message: EmailMessage, **copies: Any) -> bool:
            try:
                if number not in identities:
                    named = message if number else dataclasses.replace(message, **self.given)
                    identities[number] = _identity(named, connection, resend_on_clear=resend_on_clear)
                    whole.enter_context(identities[number].call)
                sent = send_once(dataclasses.replace(message, **copies), identities[number], client)
            except Exception as error:  # noqa: BLE001 - about this recipient only, unless it says otherwise
                self.refuse(f"Email {number + 1} of {self.count}", number, error)
                return self.errors[number].concerns_one_message
            self.accepted.add(number)
            self.errors.pop(number, None)
            how = "had already accepted" if is_foreign(sent) else "accepted"
            log.info("Fluxomail %s send %s (idempotency key %s).", how, sent.send_id, sent.idempotency_key)
            return True

        # Once an email is accepted, or may be, its copies are out.
        left = {} if self.accepted else {field: [one for _, one in copies] for field, copies in self.copies.items()}
        for number, message in self.messages.items():
            if number in self.accepted:
                continue
            if not send(number, message, **left):
                break
            if number in self.accepted or self.errors[number].ambiguous:
                left = {}
        else:
            if any(left.values()):
                self._send_without_copies(send)
        self.raise_error()

    def raise_error(self) -> None:
        """Raise an error if there was one: of a recipient rather than a copy, and a transient one rather than both."""
        for name in sorted(self.errors, key=lambda name: (self.errors[name].permanent, isinstance(name, str), name)):
            raise self.errors[name]

    def _send_without_copies(self, send: Callable[[int, EmailMessage], bool]) -> None:
        """Send without copies what the server refused with them: the copies may be the reason."""
        refused = [number for number in self.messages if self.errors[number].status in (400, 422)]
        for number in refused:
            if not send(number, self.messages[number]):
                break
        if not self.accepted:
            log.warning("The copies (cc, bcc) were not sent: no email was accepted.")
            return
        for name in [name for copies in self.copies.values() for name, _ in copies]:
            self.refuse(
                "A copy", name, FluxomailValidationError(f"{name}: Fluxomail refuses the email with its copies")
            )

    def _check_copies(self, guard: RecipientGuard) -> None:
        """Leave out the copies that the connection does not allow."""
        for copies in self.copies.values():
            for name, address in list(copies):
                try:
                    guard.apply(EmailMessage(to=address, subject="-", content="-"))
                except FluxomailValidationError as error:
                    copies.remove((name, address))
                    why = error.message.removeprefix("to: ")
                    self.refuse("A copy", name, FluxomailValidationError(f"{name}: {why}"))


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
