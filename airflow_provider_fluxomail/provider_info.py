"""The dict that Airflow reads. Every Airflow process imports this module, so it imports next to nothing."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_fluxomail import __version__
from airflow_provider_fluxomail.configuration.form import CONNECTION_FIELDS, FIELD_BEHAVIOUR
from airflow_provider_fluxomail.configuration.options import OPTIONS, SECTION

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
                "ui-field-behaviour": FIELD_BEHAVIOUR,
                "conn-fields": CONNECTION_FIELDS,
            }
        ],
        "config": {
            "fluxomail": {
                "description": "Settings of this deployment for all Fluxomail connections; an extra of a connection "
                "takes precedence over the option of the same name.",
                "options": CONFIGURATION,
            }
        },
    }


def _setting(name: str) -> dict[str, Any]:
    """Describe an option of the section to Airflow."""
    option = OPTIONS[name]
    return {
        "description": option.help,
        "version_added": "0.1.0",
        "type": {"number": "float"}.get(option.json_type, option.json_type),
        "default": option.default_text,
        "example": option.example,
    }


#: The section ``[fluxomail]`` of Airflow's configuration, as Airflow shows it.
CONFIGURATION: Final[dict[str, dict[str, Any]]] = {name: _setting(name) for name in SECTION}
