"""Other links in an HTML body, and something at its end. The rest stays byte for byte, however malformed it is.

::

    rewritten('<a href="https://example.org/?a=1&amp;b=2">Report</a>', target, tail)
    # target("https://example.org/?a=1&b=2", b">report") returns the new URL, or None to leave the link alone

lxml decides what is a link and what is the text of a comment, a script or a value. But a document that lxml writes is
not the one that it read. So it reads a copy in which every place that may be a link or the end of the body has a
number, and the original is changed in the places whose numbers it finds.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final

_MARK: Final = f"m{secrets.token_hex(6)}"
"""The name of numbers in the copy: an attribute and an element. One per process: libxml2 keeps every name it sees."""
_IN_VALUE: Final = re.compile(rf" {_MARK}=\d+ ")
"""A number within a value, where it is text."""
# An attribute follows white space, or a value in quotes. With literal text at the beginning of the pattern, and without
# the flag to ignore case, the search is ten times as fast.
_HREF: Final = re.compile(rb"""href(?:(?<=[ \t\r\n\f"']href)|(?<=[ \t\r\n\f"']xlink:href))(?=\s*=)""")
_VALUE: Final = re.compile(rb"""\s*=\s*("[^"]*"|'[^']*'|[^\s"'>][^\s>]*)""")
_END_TAG: Final = re.compile(rb"</(?:body|html)(?=[\s/>])")
_NUMBERED: Final = frozenset(("a", "area", _MARK))
_COLON: Final = ord(":")
_LABEL_BYTES: Final = 300
_WEB: Final = re.compile(r"https?://[^/]", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://[!-.0-~][!-~]*")
"""Most URLs of the web: there is nothing to clean."""
_BREAKS: Final = str.maketrans("", "", "\t\r\n")
_AROUND: Final = "".join(map(chr, range(33)))
"""What browsers strip from a URL: space and control characters."""

Target = Callable[[str, bytes], str | None]

_Place = tuple[int, int, str]
"""A place that may be a link or the end of the body: where the number goes, where the name ends, and the name of the
attribute, which is empty for an end tag. Tuples: a large document has thousands."""


def rewritten(html: str, target: Target, tail: str) -> str:
    """The document with other links, and with more HTML at the end of its body.

    :param target: returns the URL in place of that of a link, which begins with ``http``; None leaves the link alone.
        It gets the URL as a browser reads it, and the source of the link's text, in lower case and as bytes.
    :param tail: the HTML to add.
    """
    source = html.encode()
    lowered = source.lower()
    places = sorted([*_attributes(lowered), *_end_tags(lowered)])
    found = _read(_numbered(source, places), places) if places else []
    parts = []
    for number, value in found:
        if value is None:
            continue
        # Only here: the values of what are attributes do not overlap, so that this takes no longer than the document.
        match = _VALUE.match(source, places[number][1])
        if match is None or (url := _url(match[1], value)) is None:
            continue
        start, stop = match.span(1)
        label_end = lowered.find(b"</a", stop, stop + _LABEL_BYTES)
        other = target(url, lowered[stop:label_end] if label_end > 0 else b"")
        if other is not None:
            parts.append((start, stop, f'"{escape(other)}"'.encode()))
    end = _end(lowered, [places[number][0] for number, value in found if value is None])
    made: list[bytes] = []
    done = 0
    # The parser reports a tag where it ends, which is in the order of the source.
    for start, stop, text in sorted([*parts, (end, end, tail.encode())]):
        made += (source[done:start], text)
        done = stop
    return b"".join([*made, source[done:]]).decode()


def _attributes(lowered: bytes) -> Iterator[_Place]:
    for match in _HREF.finditer(lowered):
        start, end = match.span()
        yield (start - 6, end, "xlink:href") if lowered[start - 1] == _COLON else (start, end, "href")


def _end_tags(lowered: bytes) -> Iterator[_Place]:
    for match in _END_TAG.finditer(lowered):
        yield (*match.span(), "")


def _numbered(source: bytes, places: list[_Place]) -> bytes:
    """The copy. The end tags are not in it: libxml2 would take what follows them for something else."""
    pieces: list[bytes] = []
    done = 0
    attribute, element = (f" {_MARK}=%d ".encode(), f"<{_MARK} {_MARK}=%d></{_MARK}".encode())
    for number, (start, end, name) in enumerate(places):
        pieces += (source[done:start], (attribute if name else element) % number)
        done = start if name else end
    # For some releases of libxml2, NUL is the end of a document.
    return b"".join([*pieces, source[done:]]).replace(b"\0", "\ufffd".encode())


def _read(copy: bytes, places: list[_Place]) -> list[tuple[int, str | None]]:
    """The numbers of the places that are links, each with its value, and of those that are end tags, with None."""
    # Imported here: lxml takes some 50 ms, which a sandbox without HTML does not need.
    from lxml import etree

    reader = _Reader(places)
    parser: Any = etree.HTMLParser(target=reader, huge_tree=True, encoding="utf-8")
    try:
        etree.fromstring(copy, parser)
    except etree.LxmlError:
        pass  # It gave up on a malformed document: what it did not read stays as it is.
    return reader.found


class _Reader:
    """A target for lxml's parser that keeps no tree, so that it has no limit to its depth."""

    def __init__(self, places: list[_Place]) -> None:
        self.found: list[tuple[int, str | None]] = []
        self._places = places

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag in _NUMBERED and _MARK in attributes:
            number = int(attributes[_MARK])
            name = self._places[number][2]
            # Not the dict of attributes: to keep thousands of them makes Python's garbage collector slow.
            self.found.append((number, attributes.get(name, "") if name else None))

    def close(self) -> None:
        pass


def _end(lowered: bytes, tags: list[int]) -> int:
    """The last end of a body, else that of the document."""
    bodies = [start for start in tags if lowered.startswith(b"</body", start)]
    return max(bodies or tags, default=len(lowered))


def _url(source: bytes, value: str) -> str | None:
    """The URL of a link, if it is one of the web; None if what the parser read is not what is in this place.

    :param source: its value in the source, quotes included.
    :param value: the value that the parser read.
    """
    raw = source[1:-1] if source[0] in b"\"'" else source
    if _PLAIN.fullmatch(value) and (b"&" in raw or raw == value.encode()):
        return value
    url = _clean(_IN_VALUE.sub("", value) if _MARK in value else value)
    if _WEB.match(url) is None:
        return None
    return url if b"&" in raw or _clean(raw.decode()) == url else None


def _clean(url: str) -> str:
    return url if url.isprintable() and " " not in url else url.strip(_AROUND).translate(_BREAKS)
