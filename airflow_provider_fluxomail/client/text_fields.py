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
#: One line that ends like a text or template file, without markup, template or URL in it.
_FILE_NAME: Final = re.compile(r"[^\r\n<>{}]{1,250}\.(x?html?|te?xt|md|markdown|j2|jinja2?|tmpl|tpl)", re.IGNORECASE)
#: A sentence that ends with the name of a file: five words or more, or punctuation between two of them.
_SENTENCE: Final = re.compile(r"(?:\S+\s+){4}|.*[,;:.!?]\s")
#: The name of a field that an error may quote: anything else may be an address, or text.
_QUOTABLE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")


def header_text(value: object, field: str) -> str:
    """Check text of a header: one line, not empty. A line break would let it add headers of its own."""
    if not isinstance(value, str):
        raise FluxomailValidationError(_not_text(value, field))
    if not value.strip():
        raise FluxomailValidationError(f"{field} is empty: every message needs one")
    not_none(value, field)
    if UNSAFE_IN_HEADER.search(value):
        raise FluxomailValidationError(f"{field} holds a line break or control character: give one line of text")
    return unicode_text(value, field)


def body_text(value: object, field: str) -> str | None:
    """Check a body; ``None`` if it is empty."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise FluxomailValidationError(_not_text(value, field))
    not_none(value, field)
    if names_file(value, field):
        raise FluxomailValidationError(
            f"{field} is the name of a file, not a text: give the text itself. Operators and notifiers read template "
            "files if the name is written in the Dag"
        )
    return unicode_text(value, field) if value.strip() else None


def may_name_file(text: object) -> bool:
    """Return whether a text may be the name of a text or template file: a worker looks for that file."""
    return isinstance(text, str) and bool(_FILE_NAME.fullmatch(text := text.strip())) and "://" not in text


def names_file(text: str, field: str) -> bool:
    """Return whether a body can only be the name of a file, even if there is none: one word that ends like it.

    HTML may have blanks too, unless it reads like a sentence: HTML without any markup is rarely meant.
    """
    blanks = _SENTENCE.match(text.strip()) if field == "html_content" else re.search(r"\s", text.strip())
    return may_name_file(text) and not blanks


def field_name(name: object, number: int) -> str:
    """Return the name of a field for an error; only its number if it may be something private."""
    return name if isinstance(name, str) and _QUOTABLE.fullmatch(name) else f"(field {number})"


def _not_text(value: object, field: str) -> str:
    native = ": does the Dag render native objects?" if isinstance(value, int | float) else ""
    return f"{field} must be text, not {type(value).__name__}{native}"


def not_none(value: str, field: str) -> None:
    """Raise an error for what a template made of None."""
    if value.strip() == "None":
        raise FluxomailValidationError(f"{field} {CAME_OUT_AS_NONE}")


def unicode_text(value: str, field: str) -> str:
    """Return a text; one with a lone surrogate is an error, as UTF-8 cannot hold it."""
    # Without an error of the codec, which quotes the text.
    if _SURROGATE.search(value):
        raise FluxomailValidationError(
            f"{field} holds half a Unicode character (a lone surrogate): decode the text again from its source"
        )
    return value
