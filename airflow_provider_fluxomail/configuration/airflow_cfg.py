"""Settings of a whole deployment: the section ``[fluxomail]`` of Airflow's configuration.

An extra of a connection takes precedence over the option of the same name. ``airflow providers configs`` lists them.
"""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_fluxomail.airflow_compat import AirflowConfigException, conf
from airflow_provider_fluxomail.configuration.options import OPTIONS

_SECTION: Final = "fluxomail"
#: The placeholder for the id of the send in ``inbox_link``.
SEND_ID: Final = "{send_id}"


def read(name: str) -> Any:
    """Return the value of an option, in its type; a value of another type is an ``AirflowConfigException``."""
    option = OPTIONS[name]
    get = {"number": conf.getfloat, "boolean": conf.getboolean}.get(option.type, conf.get)
    value = get(_SECTION, name, fallback=option.default_text)
    return value if option.json_type != "string" else str(value).strip()


def default_conn_id() -> str:
    """Return the connection that is used if none is named."""
    return read("default_conn_id") or str(OPTIONS["default_conn_id"].default)


def follow_events() -> bool:
    """Return whether waits follow the event stream."""
    return bool(read("follow_events"))


def inbox_link() -> str:
    """Return the URL of the page that shows a send, with :data:`SEND_ID` for its id; empty if none is configured."""
    template = str(read("inbox_link"))
    if template and not (template.startswith(("https://", "http://")) and SEND_ID in template):
        raise AirflowConfigException(
            f"[{_SECTION}] inbox_link must be a URL with {SEND_ID} where the id of the send belongs, not {template!r}"
        )
    return template
