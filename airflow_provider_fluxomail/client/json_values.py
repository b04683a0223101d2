"""Values that go into a request unchanged, as JSON holds them."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.text_fields import field_name, unicode_text

#: JSON parsers may read a number as a double, whose range ends there.
_MAX_BITS: Final = 1024
_MAX_DEPTH: Final = 50


def json_value(value: object, path: str) -> Any:
    """Return a copy of ``value`` that has a JSON form: dates and times in ISO 8601, ``Decimal`` and ``UUID`` as text.

    :param path: names the value in errors.
    :raises FluxomailValidationError: names the path of what has no JSON form, without its value.
    """
    return _converted(value, path, ())


def _converted(value: Any, path: str, parents: tuple[int, ...]) -> Any:
    if isinstance(value, enum.Enum):
        return _converted(value.value, path, parents)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return unicode_text(str(value), path)
    if isinstance(value, int) and value.bit_length() <= _MAX_BITS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, uuid.UUID) or (isinstance(value, decimal.Decimal) and value.is_finite()):
        return str(value)
    # pandas' NaT is a date that is not equal to itself.
    if isinstance(value, datetime.date | datetime.time) and value == value:
        return value.isoformat()
    if id(value) in parents:
        raise FluxomailValidationError(f"{path} contains itself: JSON cannot hold that")
    if len(parents) == _MAX_DEPTH:
        raise FluxomailValidationError(f"{path} is nested too deeply: {_MAX_DEPTH} levels at most")
    parents = (*parents, id(value))
    if isinstance(value, Mapping):
        for number, name in enumerate(value, start=1):
            if not isinstance(name, str):
                raise FluxomailValidationError(
                    f"{path}: the name of field {number} is {type(name).__name__}: JSON has names of text only"
                )
            unicode_text(name, f"{path}: the name of field {number}")
        return {
            str(name): _converted(inner, f"{path}.{field_name(name, number)}", parents)
            for number, (name, inner) in enumerate(value.items(), start=1)
        }
    if isinstance(value, list | tuple):
        return [_converted(inner, f"{path}[{index}]", parents) for index, inner in enumerate(value)]
    kind = "a number that JSON does not have" if isinstance(value, int | float | decimal.Decimal) else ""
    raise FluxomailValidationError(
        f"{path} is {kind or type(value).__name__ + ', which has no JSON form'}: give text, a number that is finite, "
        "true or false, a date, a list or a mapping of these"
    )
