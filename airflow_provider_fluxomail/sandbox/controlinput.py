"""Reading the input of the control API: every mistake names the field and the cure."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.sandbox import faults
from airflow_provider_fluxomail.sandbox.config import MAX_DELAY_SECONDS
from airflow_provider_fluxomail.sandbox.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")
_FRAMING_HEADERS: Final = frozenset(("content-length", "transfer-encoding", "connection"))
_MAX_NAME: Final = 256


class ControlError(Exception):
    """A control call that can't be done; the text names the field and the cure.

    :param status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def only(fields: Mapping[str, Any], allowed: Sequence[str], where: str = "") -> None:
    """Refuse a field that would silently do nothing, such as a misspelt one."""
    unknown = sorted(set(fields) - set(allowed))
    if unknown:
        names = ", ".join(where + name for name in unknown)
        raise ControlError(f"unknown field {names}: this call takes {', '.join(allowed)}")


def text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A text that is not empty."""
    value = fields.get(name, default)
    if value is None:
        raise ControlError(f"{name} is missing: give a text")
    if not isinstance(value, str) or not value or len(value) > _MAX_NAME:
        raise ControlError(f"{name} must be a text of 1 to {_MAX_NAME} characters")
    return value


def choice(fields: Mapping[str, Any], name: str, choices: Sequence[str]) -> str:
    """One of the given words."""
    value = fields.get(name)
    if value not in choices:
        raise ControlError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return str(value)


def flag(fields: Mapping[str, Any], name: str) -> bool:
    """``true`` or ``false``."""
    value = fields.get(name)
    if not isinstance(value, bool):
        raise ControlError(f"{name} must be true or false")
    return value


def number(fields: Mapping[str, Any], name: str, *, maximum: float = MAX_DELAY_SECONDS) -> float:
    """A number from 0 to a maximum."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ControlError(f"{name} must be a number of seconds")
    if not 0 <= value <= maximum:
        raise ControlError(f"{name} must be between 0 and {maximum:.0f}, not {value}")
    return float(value)


def whole(fields: Mapping[str, Any], name: str, minimum: int, maximum: int, default: int | None = None) -> int:
    """A whole number in a range."""
    value = fields.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
        raise ControlError(f"{name} must be a whole number between {minimum} and {maximum}, not {value!r}")
    return value


def query_whole(query: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    """A whole number of the query string."""
    value = query.get(name, str(default))
    parsed = int(value) if re.fullmatch(r"-?[0-9]{1,12}", value) else value
    return whole({name: parsed}, name, minimum, maximum)


def scopes(fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The scopes of a key: None for all of them."""
    value = fields.get("scopes")
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > 100 or not all(isinstance(item, str) and item for item in value):
        raise ControlError("scopes must be a list of texts, or null for all scopes")
    return tuple(value)


_FAULT_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    faults.STATUS: ("status", "retry_after", "body", "headers"),
    faults.DELAY: ("seconds",),
}


def fault(fields: Mapping[str, Any]) -> Fault:
    """A fault, without a number yet."""
    kind = choice(fields, "kind", faults.KINDS)
    only(fields, ("kind", "times", "match", *_FAULT_FIELDS.get(kind, ())))
    times = whole(fields, "times", 1, 1_000_000, default=1)
    match = fields.get("match") or {}
    if not isinstance(match, dict):
        raise ControlError("match must be an object with method and path")
    only(match, ("method", "path"), "match.")
    made = Fault(
        number=0,
        kind=kind,
        times=times,
        remaining=times,
        method=text(match, "method").upper() if match.get("method") is not None else None,
        path=text(match, "path") if match.get("path") is not None else None,
    )
    if kind == faults.DELAY:
        made.seconds = number(fields, "seconds")
    if kind == faults.STATUS:
        made.status = whole(fields, "status", 200, 599)
        made.retry_after = _retry_after(fields.get("retry_after"))
        made.body = fields.get("body")
        made.headers = _headers(fields.get("headers"))
    return made


def _retry_after(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and _HEADER_VALUE.fullmatch(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or not math.isfinite(value):
        raise ControlError("retry_after must be a number of seconds, not negative, or a text that is sent as it is")
    return str(value)


def _headers(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ControlError("headers must be an object of texts")
    for name, content in value.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING_HEADERS:
            raise ControlError(f"headers: {name!r} can't be set; use a header name that does not frame the answer")
        if not isinstance(content, str) or not _HEADER_VALUE.fullmatch(content):
            raise ControlError(f"headers.{name} must be a text of printable ASCII")
    return value
