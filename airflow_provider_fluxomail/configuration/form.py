"""The connection form, made from :data:`~airflow_provider_fluxomail.configuration.options.OPTIONS`.

Airflow 3.2 and later read it from the provider's metadata. Earlier versions get it from the hook, as widgets of
Flask-AppBuilder (FAB). Airflow imports this module in every process, so it imports next to nothing.
"""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_fluxomail.configuration.options import EXTRAS, OPTIONS, SECTION


def _field(name: str) -> dict[str, Any]:
    """Describe an extra for the form.

    Without a default: a form stores that with the connection, and it would then take precedence over ``[fluxomail]``.
    """
    option = OPTIONS[name]
    default = f"[fluxomail] {name}, else {option.default_text}" if name in SECTION else option.default_text
    return {
        "label": option.label,
        "description": f"{option.help} Default: {default}." if default else option.help,
        "schema": {"type": [option.json_type, "null"], **option.schema},
    }


#: The extras of a connection, as the form shows them.
CONNECTION_FIELDS: Final[dict[str, dict[str, Any]]] = {name: _field(name) for name in EXTRAS}

#: Defaults in empty fields, as Airflow 2 shows them; not those that ``[fluxomail]`` may replace.
_PLACEHOLDERS: Final = {
    name: OPTIONS[name].default_text
    for name in EXTRAS
    if OPTIONS[name].type != "boolean" and OPTIONS[name].default_text and name not in SECTION
}
#: What the form does with Airflow's own fields.
FIELD_BEHAVIOUR: Final[dict[str, Any]] = {
    "hidden-fields": ["login", "schema", "port"],
    "relabeling": {"password": "API key", "host": "Base URL"},
    "placeholders": {"host": "https://api.fluxomail.com", **_PLACEHOLDERS},
}


def fab_widgets() -> dict[str, Any]:
    """Return :data:`CONNECTION_FIELDS` as FAB widgets, for Airflow before 3.2."""
    # Only a web server with FAB calls this.
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    # Airflow 2 drops a hook whose form has fields of any other class, so fractions are text fields.
    kinds = {"boolean": BooleanField, "number": StringField, "integer": IntegerField, "string": StringField}
    widgets = {}
    for name, field in CONNECTION_FIELDS.items():
        schema = field["schema"]
        arguments: dict[str, Any] = {"description": field["description"]}
        kind = PasswordField if schema.get("format") == "password" else kinds[schema["type"][0]]
        if kind is not BooleanField:
            arguments["widget"] = (BS3PasswordFieldWidget if kind is PasswordField else BS3TextFieldWidget)()
            arguments["validators"] = [Optional()]
        widgets[name] = kind(lazy_gettext(field["label"]), **arguments)
    return widgets
