"""What the text fields of a message may hold: one line in a header, any Unicode text in a body."""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_fluxomail.client.errors import FluxomailValidationError

#: C0, DEL, C1 and the Unicode line ends; a tab is harmless.
UNSAFE_IN_HEADER: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NOT_IN_LINE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters. Joiners and emoji of any Unicode version stay."""
    return " ".join(_NOT_IN_LINE.sub(" ", text).split())


#: What a text is that a template made of nothing.
CAME_OUT_AS_NONE: Final = (
    "came out as None: its template refers to an XCom, a parameter or a variable that is None or missing. Fix that, or "
    "give a default with 'or'"
)


def header_text(value: object, field: str) -> str:
    """Check text of a header: one line, not empty. A line break would let it add headers of its own."""
    if not isinstance(value, str):
        raise FluxomailValidationError(_not_text(value, field))
    if not value.strip():
        raise FluxomailValidationError(f"{field} is empty: every message needs one")
    _not_none(value, field)
    if UNSAFE_IN_HEADER.search(value):
        raise FluxomailValidationError(f"{field} holds a line break or control character: give one line of text")
    return _unicode(value, field)


def body_text(value: object, field: str) -> str | None:
    """Check a body; ``None`` if it is empty."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise FluxomailValidationError(_not_text(value, field))
    _not_none(value, field)
    return _unicode(value, field) if value.strip() else None


def _not_text(value: object, field: str) -> str:
    native = ": does the Dag render native objects?" if isinstance(value, int | float) else ""
    return f"{field} must be text, not {type(value).__name__}{native}"


def _not_none(value: str, field: str) -> None:
    if value.strip() == "None":
        raise FluxomailValidationError(f"{field} {CAME_OUT_AS_NONE}")


def _unicode(value: str, field: str) -> str:
    # Without an error of the codec, which quotes the text.
    if _SURROGATE.search(value):
        raise FluxomailValidationError(
            f"{field} holds half a Unicode character (a lone surrogate): decode the text again from its source"
        )
    return value
