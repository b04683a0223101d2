"""What Airflow reads of the provider. Every Airflow process imports this module, so it imports next to nothing."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.configuration.options import OPTIONS, Option

PACKAGE: Final = "airflow_provider_fluxomail"


def provider_info() -> dict[str, Any]:
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
        "hooks": [{"integration-name": integration, "python-modules": [f"{PACKAGE}.hooks"]}],
        "operators": [{"integration-name": integration, "python-modules": [f"{PACKAGE}.operators"]}],
        "sensors": [{"integration-name": integration, "python-modules": [f"{PACKAGE}.sensors"]}],
        "triggers": [{"integration-name": integration, "python-modules": [f"{PACKAGE}.triggers"]}],
        "task-decorators": [
            {"name": "fluxomail_send", "class-name": f"{PACKAGE}.decorators.fluxomail_send_task"},
        ],
        "email-backends": [f"{PACKAGE}.email_backend.send_email"],
        "extra-links": [f"{PACKAGE}.links.FluxomailTimelineLink"],
        "notifications": [f"{PACKAGE}.notifications.FluxomailNotifier"],
        "connection-types": [
            {
                "connection-type": "fluxomail",
                "hook-class-name": f"{PACKAGE}.hooks.FluxomailHook",
                "hook-name": "Fluxomail",
                "ui-field-behaviour": {
                    "hidden-fields": ["login", "schema", "port"],
                    "relabeling": {"password": "API key", "host": "Base URL"},
                    "placeholders": {"host": "https://api.fluxomail.com", **_placeholders()},
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


def _field(name: str, option: Option) -> dict[str, Any]:
    """Describe an extra to the connection form.

    Without a default: a form stores that with the connection, which would then outrank ``[fluxomail]``.
    """
    default = option.default_text
    if option.example:
        default = f"[fluxomail] {name}, else {default}"
    return {
        "label": option.label,
        "description": f"{option.help} Default: {default}." if default else option.help,
        "schema": {"type": [option.type, "null"], **option.schema},
    }


def _placeholders() -> dict[str, str]:
    """Show the defaults that hold everywhere in the empty fields; Airflow before 3 does."""
    return {
        name: option.default_text
        for name, option in OPTIONS.items()
        if option.label and option.type != "boolean" and option.default_text and not option.example
    }


def _setting(option: Option) -> dict[str, Any]:
    """Describe an option of the section to Airflow."""
    return {
        "description": option.help,
        "version_added": "0.1.0",
        "type": {"number": "float"}.get(option.type, option.type),
        "default": option.default_text,
        "example": option.example,
    }


#: The extras of a ``fluxomail`` connection, as Airflow's form shows them.
CONNECTION_FIELDS: dict[str, dict[str, Any]] = {
    name: _field(name, option) for name, option in OPTIONS.items() if option.label
}

#: The section ``[fluxomail]`` of Airflow's configuration, as Airflow shows it.
CONFIGURATION: dict[str, dict[str, Any]] = {
    name: _setting(option) for name, option in OPTIONS.items() if option.example
}
