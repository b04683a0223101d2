"""Every option once: an extra of a ``fluxomail`` connection, an option of the section ``[fluxomail]``, or both.

The connection form, the reader of connections, the configuration section and the documentation's table are made from
:data:`OPTIONS`. Airflow imports this module in every process, so it imports nothing but constants.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from airflow_provider_fluxomail.client import defaults

#: The connection that is used where none is named.
DEFAULT_CONN_NAME = "fluxomail_default"


class Option(NamedTuple):
    """One option: an extra of a ``fluxomail`` connection, an option of the section ``[fluxomail]``, or both.

    :param type: ``string``, ``boolean``, ``integer`` or ``number``.
    :param default: what holds where nothing else is set; ``None``: nothing does.
    :param help: what it is, without the default. Form and section add that.
    :param label: its name in the connection form; empty: it is no extra.
    :param example: a value for ``[fluxomail]``; empty: it is not in the section.
    :param schema: further JSON schema of the form's field.
    """

    type: str
    default: str | float | bool | None
    help: str
    label: str = ""
    example: str = ""
    schema: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def default_text(self) -> str:
        """The default as a person writes it; empty if there is none."""
        if self.default is None:
            return ""
        if isinstance(self.default, bool | str):
            return str(self.default).lower() if isinstance(self.default, bool) else self.default
        return f"{self.default:g}"


#: Every option once: form, reader and section are made from this table. Documented in ``docs/connection.md``.
OPTIONS: dict[str, Option] = {
    "timeout": Option(
        "number",
        defaults.TIMEOUT,
        "Seconds to connect, and to wait for each part of a response.",
        "Timeout",
        schema={"minimum": 0},
    ),
    "max_attempts": Option(
        "integer",
        defaults.MAX_ATTEMPTS,
        "Requests made at most for one call, all with one key.",
        "Attempts",
        schema={"minimum": 1},
    ),
    "max_wait": Option(
        "number",
        defaults.MAX_WAIT,
        "Seconds that one call may wait inside a worker.",
        "Longest wait",
        "20",
        {"minimum": 0},
    ),
    "idempotency_namespace": Option(
        "string",
        "",
        "Give each Airflow deployment that shares an organization its own.",
        "Idempotency namespace",
    ),
    "key_retention_hours": Option(
        "number", 24.0, "Hours that Fluxomail remembers an idempotency key.", "Key retention", schema={"minimum": 0}
    ),
    "api_version": Option(
        "string", defaults.API_VERSION, "The Fluxomail-Version header; a dash sends none.", "API version"
    ),
    "verify": Option("string", True, "true, false, or the path of a CA bundle.", "Verify TLS"),
    "proxies": Option(
        "string",
        None,
        'JSON object of proxy URLs by scheme, e.g. {"https": "http://proxy:3128"}.',
        "Proxies",
        schema={"format": "password"},
    ),
    "allow_http": Option("boolean", False, "Send the API key unencrypted to another machine.", "Allow http://"),
    "poll_share": Option(
        "number",
        defaults.POLL_SHARE,
        "The part of a key's rate limit that the deferred waits of a triggerer may use, above 0 and at most 1.",
        "Share for waiting",
        "0.25",
        {"minimum": 0, "maximum": 1},
    ),
    "redirect_to": Option("string", None, "Staging: all mail that is not allowed goes to this address.", "Redirect to"),
    "allowed_recipient_domains": Option(
        "string",
        None,
        "Staging: comma-separated; mail to others is refused, or redirected.",
        "Allowed recipient domains",
    ),
    "default_conn_id": Option(
        "string",
        DEFAULT_CONN_NAME,
        "The connection that operators, sensor and hook use where none is named.",
        example="mail_production",
    ),
    "follow_events": Option(
        "boolean",
        True,
        "Whether many deferred waits on one key follow the organization's event stream; else all read timelines.",
        example="False",
    ),
    "inbox_link": Option(
        "string",
        "",
        "The page that the link 'Fluxomail timeline' of tasks opens, with {send_id} where the id of the send belongs. "
        "Connections to a sandbox need none: it has a page of its own.",
        example="https://mail.example.com/sends/{send_id}",
    ),
}

#: The extras of a ``fluxomail`` connection.
EXTRAS: Final = tuple(name for name, option in OPTIONS.items() if option.label)
