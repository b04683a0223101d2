"""Airflow's own e-mail, sent with Fluxomail: set ``[email] email_backend`` to :func:`send_email` of this module.

Airflow calls it with a task's failure and retry mails, and for ``airflow.utils.email.send_email``. Only the latter may
have a running task around it; a failure mail says what task it is about in Airflow's default words, or not at all.
"""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import html
import logging
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_fluxomail.airflow_compat import AirflowNotFoundException, BaseHook
from airflow_provider_fluxomail.client.addresses import all_addresses, normalised, recipients
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage, text_from_html
from airflow_provider_fluxomail.client.text_fields import header_text
from airflow_provider_fluxomail.configuration import airflow_cfg
from airflow_provider_fluxomail.hooks import FluxomailHook
from airflow_provider_fluxomail.sending.attachments import read_attachments
from airflow_provider_fluxomail.sending.idempotency_key import content_digest, content_part, derive_key
from airflow_provider_fluxomail.sending.send_each import send_each

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.models import SendResult

log = logging.getLogger(__name__)

#: What Airflow passes where nobody has set ``[email] email_conn_id``.
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
# Airflow before 3.2 takes any error of a failure mail for one of its words, and calls again with others. Who got the
# mail before that error is remembered by the process, so that nobody gets both.
_told: Final[collections.deque[tuple[TaskFailure, str]]] = collections.deque(maxlen=1000)
_TASK_REPR: Final = re.compile(r"id=UUID\('(?P<id>[0-9a-f-]{36})'\)\s+task_id=")
# Airflow 2's own body. What the exception says stands before the link, so the last one is Airflow's.
_AIRFLOW_2_BODY: Final = re.compile(
    r"Try (?P<try_number>\d+) out of \d+<br>.*"
    r'Log: <a href="(?P<link>[^"]+/dags/(?P<dag_id>[^/"]+)/grid\?[^"]+)">Link</a>',
    re.DOTALL,
)


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
    """Send a mail to each recipient, as Airflow's ``[email] email_backend``.

    Two calls send one mail only if something tells that both mean the same mail: each word and file is equal, and they
    come from the same running task, or name the same try of a task (as Airflow's default subject does from 3.2 on, and
    Airflow 2's default body). All other mails get a key of their own, which the requests of this call share.

    .. seealso:: :doc:`/guides/email-backend`

    :param to: addresses, as a list or with commas or semicolons between them. Each gets a mail of its own.
    :param subject: where it holds Airflow's whole record of a task (3.2 and later), that becomes ``dag.task run
        [failed] try 2``.
    :param html_content: HTML; the text is derived from it.
    :param files: attachments, see :class:`.FluxomailSendOperator`.
    :param dryrun: check all, and send nothing.
    :param cc: addresses that get a copy of the first mail, and that its recipient sees.
    :param bcc: addresses that get a copy of the first mail, and that nobody sees.
    :param mime_subtype: ignored: Fluxomail builds the mail.
    :param mime_charset: ignored: mails are UTF-8.
    :param conn_id: id of a connection of type ``fluxomail``. ``fluxomail_default`` takes the place of one of another
        type, of ``smtp_default`` if there is none, and of ``None``.
    :param from_email: ignored: the mail comes from the organization's From identity.
    :param custom_headers: ``Reply-To``, in any case, is where replies go; others are ignored.
    :param sandbox_mode: the same as ``dryrun``, by SendGrid's name.
    :param resend_on_clear: within a task: send again when a person has cleared it.
    :param kwargs: other backends' arguments (``from_name``, ``categories``...), ignored. One INFO line names each
        argument that was given and is ignored.
    :raises FluxomailError: a mail was not accepted. After an error that may be about one recipient alone the others are
        tried first; one that a retry may mend is raised before others.
    """
    reply_to, headers = _reply_to(custom_headers)
    others = {"from_email": from_email, "mime_subtype": mime_subtype, "mime_charset": mime_charset, **kwargs}
    if ignored := list(_ignored(others, headers)):
        log.info(
            "Ignored arguments: %s. Fluxomail sends from the organization's From identity and builds the email itself.",
            ", ".join(ignored),
        )
    failure = TaskFailure.told_by(subject) or TaskFailure.told_by_body(html_content, subject=subject)
    mails = _mails(
        to, failure.subject if failure else subject, html_content, cc=cc, bcc=bcc, files=files, reply_to=reply_to
    )
    # A traceback that shows local variables would show them.
    del to, subject, html_content, files, cc, bcc, custom_headers, kwargs, from_email, reply_to, headers, others
    if dryrun or sandbox_mode:
        for mail in mails:
            if isinstance(mail, FluxomailError):
                raise mail
        how = "dryrun" if dryrun else "sandbox_mode"
        log.info("Checked %d emails and sent none of them: %s is set.", len(mails), how)
        return
    accepted: list[EmailMessage] = []
    if failure is not None:
        mails = [mail for mail in mails if isinstance(mail, FluxomailError) or failure.to(mail) not in _told]
    try:
        with contextlib.closing(FluxomailHook(_fluxomail_conn_id(conn_id))) as hook:
            send_each(mails, partial(_send, hook, failure, resend_on_clear, accepted))
    except FluxomailError:
        if failure is not None:
            _told.extend(failure.to(mail) for mail in accepted)
        raise


def _mails(
    to: object, subject: str, html_content: str, *, cc: object, bcc: object, files: object, reply_to: str | None
) -> list[EmailMessage | FluxomailError]:
    """Return a mail for each recipient, or what is wrong with it: one bad address must not silence the others."""
    people = recipients(to)
    if not people:
        raise FluxomailValidationError("to is empty: give one address or more")
    line = " ".join(subject.split()) or "(no subject)"
    fields: dict[str, Any] = {
        "subject": line,
        # An image alone has no text, and is no reason not to alert.
        "content": text_from_html(html_content) or line,
        "html_content": html_content,
        "attachments": read_attachments(files),
        "extra_fields": {"replyTo": reply_to} if reply_to else {},
    }
    copies: dict[str, Any] = {"cc": all_addresses(cc, "cc"), "bcc": all_addresses(bcc, "bcc")}
    mails: list[EmailMessage | FluxomailError] = []
    for recipient in people:
        try:
            mails.append(EmailMessage(to=recipient, **fields, **copies))
        except FluxomailError as error:
            mails.append(error.with_traceback(None))
        copies = {}
    return mails


def _reply_to(custom_headers: Mapping[str, Any] | None) -> tuple[str | None, Mapping[str, Any]]:
    """Return the reply address of an email's own headers, and the headers that have no effect.

    :raises FluxomailValidationError: they are not a mapping, or the reply address is not one line of text.
    """
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


def _send(
    hook: FluxomailHook,
    failure: TaskFailure | None,
    resend_on_clear: bool,
    accepted: list[EmailMessage],
    mail: EmailMessage | FluxomailError,
) -> SendResult:
    if isinstance(mail, FluxomailError):
        raise mail
    if failure is not None:
        sent = hook.send(mail, idempotency_key=failure.key(hook.get_options().idempotency_namespace, mail))
    elif part := content_part(mail):
        sent = hook.send(mail, part=part, resend_on_clear=resend_on_clear)
    else:
        # Nothing tells whether another mail of the same words is the same mail: two alerts must never become one.
        sent = hook.send(mail, idempotency_key=f"email:{uuid.uuid4().hex}")
    accepted.append(mail)
    log.info("Fluxomail accepted send %s (idempotency key %s).", sent.send_id, sent.idempotency_key)
    return sent


@dataclasses.dataclass(frozen=True)
class TaskFailure:
    """What a failure mail with Airflow's own words tells of the task.

    On Airflow 3.2 and later the subject does, with the whole record of a task instance: some 700 characters. On
    Airflow 2 the body does, with its link to the log.

    :param subject: the subject, with the record replaced by what a person wants to read.
    :param instance: id of the task instance, which is another one in each try; on Airflow 2 the date of the run.
    """

    subject: str = dataclasses.field(repr=False)
    instance: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int

    @classmethod
    def told_by(cls, subject: str) -> TaskFailure | None:
        """Read a subject; ``None`` if it does not hold the record of a task instance."""
        start = _TASK_REPR.search(subject)
        if start is None:
            return None
        fields: dict[str, str] = {}
        position = start.start()
        while field := _FIELD.match(subject, position):
            fields[field["name"]] = field["value"]
            position = field.end()
        # A field that can't be read ends what is known; then nothing tells where the record ends.
        rest = "" if re.match(r"[a-z_]+=", subject[position:]) else subject[position:]
        try:
            dag_id, task_id, run_id = (ast.literal_eval(fields[name]) for name in ("dag_id", "task_id", "run_id"))
            try_number, map_index = int(fields["try_number"]), int(fields.get("map_index") or -1)
        except (KeyError, ValueError, SyntaxError):
            return None
        told = [f"{dag_id}.{task_id}", run_id]
        if map_index >= 0:
            told.append(f"map_index={map_index}")
        if state := re.search(r"'(\w+)'", fields.get("state", "")):
            told.append(f"[{state[1]}]")
        told.append(f"try {try_number}")
        return cls(
            " ".join([subject[: start.start()].strip(), *told, rest.strip()]).strip(),
            start["id"], dag_id, task_id, run_id, map_index, try_number,
        )  # fmt: skip

    @classmethod
    def told_by_body(cls, html_content: str, *, subject: str) -> TaskFailure | None:
        """Read a body; ``None`` if it is not the one that Airflow 2 writes by itself.

        Its scheduler has one failure told several times: once for each look at a worker that is dead.
        """
        told = _AIRFLOW_2_BODY.match(html_content)
        if told is None:
            return None
        query = dict(parse_qsl(urlsplit(html.unescape(told["link"])).query))
        try:
            instance, task_id, run_id = (query[name] for name in ("base_date", "task_id", "dag_run_id"))
            map_index = int(query.get("map_index", -1))
        except (KeyError, ValueError):
            return None
        return cls(subject, instance, told["dag_id"], task_id, run_id, map_index, int(told["try_number"]))

    def to(self, message: EmailMessage) -> tuple[TaskFailure, str]:
        """Return what all mails about this try to the same recipient share, whatever their words."""
        return self, normalised(message.to)

    def key(self, namespace: str, message: EmailMessage) -> str:
        """Return the idempotency key of a mail about this try: another one for each word that differs.

        The record's id is in it, so that a run that is deleted and made again has mails of its own.
        """
        return derive_key(
            namespace=namespace,
            dag_id=self.dag_id,
            run_id=self.run_id,
            task_id=self.task_id,
            map_index=self.map_index,
            part=f"failure:{self.instance}:{self.try_number}:{content_digest(message)}",
        )


def _fluxomail_conn_id(conn_id: str | None) -> str:
    """Return the connection to use: whoever sets the backend only has Airflow's default for SMTP here."""
    if not conn_id:
        return airflow_cfg.default_conn_id()
    try:
        kind = BaseHook.get_connection(conn_id).conn_type
    except AirflowNotFoundException:
        if conn_id != _UNSET_CONN_ID:
            raise
        return airflow_cfg.default_conn_id()
    if kind == FluxomailHook.conn_type:
        return conn_id
    log.info("Connection %r is of type %r: using %r.", conn_id, kind, airflow_cfg.default_conn_id())
    return airflow_cfg.default_conn_id()
