"""Removes addresses and private text from what servers say: error texts end up in task logs, alerts and tickets.

Servers quote what they refuse: a 400 names the address, the reason of a bounce holds the whole recipient.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

#: Longest piece of a server's text that an error prints, in characters.
MAX_TEXT: Final = 300
#: Longest id or name that a server gives, in characters.
MAX_ID: Final = 512

#: This many characters in a row that also occur in a private string are a quotation of it.
_QUOTE: Final = 12
#: Shorter private strings are not hidden: they occur in ordinary words.
_SHORTEST: Final = 4
# Both are compiled on first use: a Dag parse imports the errors.
# A match begins where a word does: looking for one from each character would take quadratic time.
_ADDRESS: Final = r"""(?<![^\s<>"'(),;:\[\]])[^\s<>"'(),;:\[\]]+@[^\s<>"'(),;\[\]]+"""

#: Control characters, halves of characters, and characters that change the direction of text.
_UNPRINTABLE: Final = "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"


def redact(text: str, private: Iterable[str] = ()) -> str:
    """Return ``text`` on one line, cut, without control characters, addresses, ``private`` strings or parts of them."""
    text = text[: 4 * MAX_TEXT]
    hidden = _quotations(text, private)
    if any(hidden):
        for address in re.finditer(_ADDRESS, text):
            # Hiding only the quoted domain of another person's address would leave the name.
            start, end = address.span()
            if any(hidden[start:end]):
                hidden[start:end] = b"\1" * (end - start)
        runs = itertools.groupby(zip(text, hidden, strict=True), key=lambda pair: pair[1])
        text = "".join("***" if is_hidden else "".join(character for character, _ in run) for is_hidden, run in runs)
    text = re.sub(_UNPRINTABLE, "?", " ".join(without_addresses(text).split()))
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def identifier(value: object, longest: int = MAX_ID) -> str | None:
    """Return ``value`` if it is text that can be an id, a name or a cursor: not empty, printable, on one line."""
    if not isinstance(value, str) or len(value) > longest or not value.strip() or not value.isprintable():
        return None
    # U+FFFD stands for what was no text in the response.
    return None if "\ufffd" in value else value


def without_addresses(text: str) -> str:
    """Return ``text`` with ``<address>`` in place of each address."""
    return re.sub(_ADDRESS, "<address>", text)


def without_markup(raw: str) -> str:
    """Return a proxy's HTML page as one readable line."""
    if "<html" in raw[:1024].lower() or "<!doctype" in raw[:1024].lower():
        title = re.search(r"<title[^>]*>(.*?)</title>", raw[:4096], re.IGNORECASE | re.DOTALL)
        return f"an HTML page{f' titled {title.group(1).strip()!r}' if title else ''}"
    return raw


def _quotations(text: str, private: Iterable[str]) -> bytearray:
    """Mark the characters of ``text`` that quote a private string, in time linear in the length of all of them."""
    # A server that quotes JSON quotes it escaped.
    forms = {
        form
        for value in private
        for form in (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
        if len(form) >= _SHORTEST
    }
    hidden = bytearray(len(text))
    for size in {min(len(form), _QUOTE) for form in forms}:
        # A quotation holds at least one whole block of half its size, so only every ``block``-th position is looked up.
        block = size // 2
        blocks, pieces = set(_pieces(text, block)), set(_pieces(text, size))
        near = {
            form[max(0, start - block) : start + size]
            for form in forms
            if min(len(form), _QUOTE) == size
            for start in range(0, len(form) - block + 1, block)
            if form[start : start + block] in blocks
        }
        quoted = pieces.intersection(piece for part in near for piece in _pieces(part, size))
        for start, piece in enumerate(_pieces(text, size)):
            if piece in quoted:
                hidden[start : start + size] = b"\1" * size
    return hidden


def _pieces(text: str, size: int) -> Iterator[str]:
    return (text[start : start + size] for start in range(len(text) - size + 1))
