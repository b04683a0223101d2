"""Apache Airflow provider for the Fluxomail transactional-email API.

Airflow imports this module in every process to discover the provider, so it imports nothing itself.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "get_provider_info"]

__version__ = "0.1.0"

#: The connection that is used where none is named.
DEFAULT_CONN_NAME = "fluxomail_default"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow (entry point ``apache_airflow_provider``).

    ``package-name`` must be the distribution's name: Airflow refuses every command when they differ.
    """
    integration = "Fluxomail"
    return {
        "package-name": "airflow-provider-fluxomail",
        "name": "Fluxomail",
        "description": "Send transactional email with Fluxomail exactly once, and wait until it is delivered.",
        "versions": [__version__],
        "integrations": [{"integration-name": integration, "external-doc-url": "https://docs.fluxomail.com"}],
        "hooks": [{"integration-name": integration, "python-modules": [f"{__name__}.hooks"]}],
        "operators": [{"integration-name": integration, "python-modules": [f"{__name__}.operators"]}],
        "sensors": [{"integration-name": integration, "python-modules": [f"{__name__}.sensors"]}],
        "triggers": [{"integration-name": integration, "python-modules": [f"{__name__}.triggers"]}],
        "task-decorators": [
            {"name": "fluxomail_send", "class-name": f"{__name__}.decorators.fluxomail_send_task"},
        ],
        "email-backends": [f"{__name__}.email_backend.send_email"],
        "extra-links": [f"{__name__}.links.FluxomailTimelineLink"],
        "notifications": [f"{__name__}.notifications.FluxomailNotifier"],
        "connection-types": [
            {
                "connection-type": "fluxomail",
                "hook-class-name": f"{__name__}.hooks.FluxomailHook",
                "hook-name": "Fluxomail",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {"host": "https://api.fluxomail.com"},
                },
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "config": {
            "fluxomail": {
                "description": "Settings of this deployment for all Fluxomail connections; an extra of a connection "
                "outranks the setting of the same name.",
                "options": CONFIGURATION,
            }
        },
    }


def _field(label: str, description: str, kind: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": [kind, "null"], **schema}}


#: The extras of a ``fluxomail`` connection, as Airflow's form shows them. Documented in ``docs/connection.md``.
CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    "timeout": _field(
        "Timeout", "Seconds to connect, and to wait for each part of an answer (15).", "number", default=15, minimum=0
    ),
    "max_attempts": _field(
        "Attempts", "Requests made at most for one call, all with one key (4).", "integer", default=4, minimum=1
    ),
    "max_wait": _field(
        "Longest wait", "Seconds one call may wait inside a worker (60).", "number", default=60, minimum=0
    ),
    "idempotency_namespace": _field(
        "Idempotency namespace", "Give each Airflow deployment that shares an organization its own.", "string"
    ),
    "key_retention_hours": _field(
        "Key retention", "Hours Fluxomail remembers an idempotency key (24).", "number", default=24, minimum=0
    ),
    "api_version": _field("API version", "The Fluxomail-Version header; a dash sends none.", "string"),
    "verify": _field("Verify TLS", "true, false, or the path of a CA bundle.", "string"),
    "proxies": _field(
        "Proxies",
        'JSON object of proxy URLs by scheme, e.g. {"https": "http://proxy:3128"}.',
        "string",
        format="password",
    ),
    "allow_http": _field("Allow http://", "Send the API key unencrypted to another machine.", "boolean", default=False),
    "poll_share": _field(
        "Share for waiting",
        "The part of the key's cap that waiting may use (0.5).",
        "number",
        default=0.5,
        minimum=0,
        maximum=1,
    ),
    "redirect_to": _field("Redirect to", "Staging: all mail that is not allowed goes to this address.", "string"),
    "allowed_recipient_domains": _field(
        "Allowed recipient domains", "Staging: comma-separated; mail to others is refused, or redirected.", "string"
    ),
}


def _option(description: str, kind: str, default: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "default": default,
        "example": example,
    }


#: The section ``[fluxomail]`` of Airflow's configuration. Documented in ``docs/connection.md``.
CONFIGURATION: dict[str, dict[str, Any]] = {
    "default_conn_id": _option(
        "The connection that operators, sensor and hook use where none is named.",
        "string",
        DEFAULT_CONN_NAME,
        "mail_production",
    ),
    "max_wait": _option("Seconds that one call may wait inside a worker.", "float", "60", "20"),
    "poll_share": _option(
        "The part of a key's cap that the deferred waits of a triggerer may use together, above 0 and at most 1.",
        "float",
        "0.5",
        "0.25",
    ),
    "follow_events": _option(
        "Whether many deferred waits on one key follow the organization's event stream; else all read timelines.",
        "boolean",
        "True",
        "False",
    ),
    "inbox_link": _option(
        "The page that the link 'Fluxomail timeline' of tasks opens, with {send_id} where the id of the send belongs. "
        "Connections to a sandbox need none: it has a page of its own.",
        "string",
        "",
        "https://mail.example.com/sends/{send_id}",
    ),
}
