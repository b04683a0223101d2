"""Every option once: an extra of a ``fluxomail`` connection, an option of the section ``[fluxomail]``, or both.

The connection form, the reader of connections, the configuration section and the documentation's tables
(``docs/operate/connection.md``) are made from :data:`OPTIONS`.

Airflow imports this module in every process, so it imports nothing but constants.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from airflow_provider_fluxomail.client import defaults

#: The connection that is used if none is named.
DEFAULT_CONN_NAME: Final = "fluxomail_default"


class Option(NamedTuple):
    """One option.

    :param type: ``text``, ``boolean``, ``integer`` or ``number``; or what a reader makes of a text: ``verify``,
        ``proxies``, ``address``, ``domains``.
    :param default: the value if nothing else is set; ``None`` for no default.
    :param help: what it is, without the default. Form, section and documentation add that.
    :param unit: the unit or form of a value, for the documentation; empty if its type says it.
    :param label: its name in the connection form; empty if it is not an extra.
    :param example: a value for ``[fluxomail]``; empty if it is not in the section.
    :param schema: further JSON schema of the form's field.
    """

    type: str
    default: str | float | bool | None
    help: str
    unit: str = ""
    label: str = ""
    example: str = ""
    schema: dict[str, Any] = {}  # noqa: RUF012 - never changed

    @property
    def json_type(self) -> str:
        """The type of the value in JSON; whatever is made of a text is a text."""
        return self.type if self.type in ("boolean", "integer", "number") else "string"

    @property
    def default_text(self) -> str:
        """The default as a person writes it; empty if there is none."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return f"{self.default:g}" if isinstance(self.default, int | float) else self.default or ""


OPTIONS: Final[dict[str, Option]] = {
    "timeout": Option(
        "number",
        defaults.TIMEOUT,
        "Longest time to connect, to wait for each part of a response, and to read one response whole.",
        unit="seconds",
        label="Timeout",
        schema={"minimum": 0},
    ),
    "max_attempts": Option(
        "integer",
        defaults.MAX_ATTEMPTS,
        "Requests made at most for one call, all with the same idempotency key.",
        unit="requests",
        label="Attempts",
        schema={"minimum": 1},
    ),
    "max_wait": Option(
        "number",
        defaults.MAX_WAIT,
        "Longest time that one call waits between its attempts, all together, inside a worker.",
        unit="seconds",
        label="Longest wait",
        example="20",
        schema={"minimum": 0},
    ),
    "idempotency_namespace": Option(
        "text",
        "",
        "Part of every derived idempotency key. Give each Airflow deployment that shares a Fluxomail organization its "
        "own.",
        label="Idempotency namespace",
    ),
    "key_retention_hours": Option(
        "number",
        24.0,
        "How long Fluxomail remembers an idempotency key.",
        unit="hours",
        label="Key retention",
        schema={"minimum": 0},
    ),
    "api_version": Option(
        "text", defaults.API_VERSION, "The Fluxomail-Version header; a dash sends none.", label="API version"
    ),
    "verify": Option(
        "verify",
        True,
        "Check TLS certificates: true, false, or the path of a CA bundle.",
        unit="true, false or a path",
        label="Verify TLS",
    ),
    "proxies": Option(
        "proxies",
        None,
        'Proxy URLs by scheme, as JSON: {"https": "http://proxy:3128"}. Empty: the environment\'s proxy variables.',
        unit="JSON object",
        label="Proxies",
        schema={"format": "password"},
    ),
    "allow_http": Option(
        "boolean",
        False,
        "Allow http:// to a host that is not this machine. The API key then travels unencrypted.",
        label="Allow http://",
    ),
    "poll_share": Option(
        "number",
        defaults.POLL_SHARE,
        "The part of a key's rate limit that the deferred waits of a triggerer may use, above 0 and at most 1.",
        unit="fraction",
        label="Share for waiting",
        example="0.25",
        schema={"minimum": 0, "maximum": 1},
    ),
    "redirect_to": Option(
        "address",
        None,
        "Staging: email goes to this address instead of its recipients.",
        unit="one address",
        label="Redirect to",
    ),
    "allowed_recipient_domains": Option(
        "domains",
        None,
        "Staging: email to other domains is refused, or redirected if redirect_to is set.",
        unit="list, or comma-separated text",
        label="Allowed recipient domains",
    ),
    "default_conn_id": Option(
        "text",
        DEFAULT_CONN_NAME,
        "The connection that is used if none is named. Read when Dags are parsed, so workers, triggerers and Dag "
        "processors must agree.",
        example="mail_production",
    ),
    "follow_events": Option(
        "boolean",
        True,
        "Whether deferred waits follow the organization's event stream, one for all waits on one key. If not, all of "
        "them poll timelines.",
        example="False",
    ),
    "inbox_link": Option(
        "text",
        "",
        "The page that the link 'Fluxomail timeline' of tasks opens: a URL with {send_id} for the id of the send. "
        "Without it, the link of a connection to a sandbox (http://) opens the sandbox's own page.",
        unit="URL",
        example="https://mail.example.com/sends/{send_id}",
    ),
}

#: The extras of a ``fluxomail`` connection.
EXTRAS: Final = tuple(name for name, option in OPTIONS.items() if option.label)
#: The options of the section ``[fluxomail]``.
SECTION: Final = tuple(name for name, option in OPTIONS.items() if option.example)
