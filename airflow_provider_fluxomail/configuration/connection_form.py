"""The connection form for Airflow before 3.2, which asks the hook for it.

It is made from the provider's metadata, which later releases read themselves, so that the two cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def field_behaviour(connection_type: Mapping[str, Any]) -> dict[str, Any]:
    """Return which of Airflow's own fields the form shows, and how it names them.

    :param connection_type: the metadata.
    """
    return {name.replace("-", "_"): value for name, value in connection_type["ui-field-behaviour"].items()}


def widgets(connection_type: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form's own fields.

    :param connection_type: the metadata.
    :raises ImportError: Flask-AppBuilder is not installed: only web servers of Airflow 2 have it.
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from flask_babel import lazy_gettext
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional

    # Airflow 2 drops a hook whose form has fields of any other class, so fractions are entered as text.
    kinds = {"boolean": BooleanField, "number": StringField, "integer": IntegerField, "string": StringField}
    fields = {}
    for name, field in connection_type["conn-fields"].items():
        schema = field["schema"]
        arguments: dict[str, Any] = {"description": field["description"]}
        kind = kinds[schema["type"][0]]
        if kind is not BooleanField:
            secret = schema.get("format") == "password"
            kind = PasswordField if secret else kind
            arguments["widget"] = (BS3PasswordFieldWidget if secret else BS3TextFieldWidget)()
            arguments["validators"] = [Optional()]
        fields[name] = kind(lazy_gettext(field["label"]), **arguments)
    return fields
