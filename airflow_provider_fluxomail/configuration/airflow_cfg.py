"""Settings of a whole deployment: the section ``[fluxomail]`` of Airflow's configuration.

A connection's extras outrank them. ``airflow providers configs`` lists them.
"""

from __future__ import annotations

from typing import Final

from airflow_provider_fluxomail.airflow_compat import AirflowConfigException, conf
from airflow_provider_fluxomail.configuration.options import OPTIONS

_SECTION = "fluxomail"
#: What ``inbox_link`` has in place of the send.
SEND_ID: Final = "{send_id}"


def default_conn_id() -> str:
    """Return the connection that is used where none is named."""
    default = _default("default_conn_id")
    return str(conf.get(_SECTION, "default_conn_id", fallback=default)).strip() or default


def max_wait() -> float:
    """Return how long one call may wait inside a worker, in seconds.

    :raises AirflowConfigException: it is no number.
    """
    return _number("max_wait")


def poll_share() -> float:
    """Return the part of a key's cap that waiting may use.

    :raises AirflowConfigException: it is no number.
    """
    return _number("poll_share")


def follow_events() -> bool:
    """Return whether many waits follow the event stream.

    :raises AirflowConfigException: it is neither true nor false.
    """
    return bool(conf.getboolean(_SECTION, "follow_events", fallback=_default("follow_events")))


def inbox_link() -> str:
    """Return the URL of the page that shows a send, with :data:`SEND_ID` in place of its id; empty if none is known.

    :raises AirflowConfigException: it is no such URL.
    """
    template = str(conf.get(_SECTION, "inbox_link", fallback=_default("inbox_link"))).strip()
    if template and not (template.startswith(("https://", "http://")) and SEND_ID in template):
        raise AirflowConfigException(
            f"[{_SECTION}] inbox_link must be a URL with {SEND_ID} where the id of the send belongs, not {template!r}"
        )
    return template


def _number(name: str) -> float:
    return float(conf.getfloat(_SECTION, name, fallback=_default(name)))


def _default(name: str) -> str:
    return OPTIONS[name].default_text
