"""Other links in an HTML body, and something at its end. The rest stays byte for byte, however malformed it is.

::

    rewritten('<a href="https://example.org/?a=1&amp;b=2">Report</a>', target, tail)
    # target("https://example.org/?a=1&b=2", "report") returns the new URL, or None to leave the link alone

lxml decides what is a link and what is the text of a comment, a script or a value. But a document that lxml writes is
not the one that it read. So it reads a copy in which every place that may be a link or the end of the body has a
number, and the original is changed in the places whose numbers it finds.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, Final, NamedTuple

_MARK: Final = f"m{secrets.token_hex(6)}"
"""The name of numbers in the copy: an attribute and an element. One per process: libxml2 keeps every name it sees."""
_IN_VALUE: Final = re.compile(rf" {_MARK}=\d+ ")
"""A number within a value, where it is text."""
_HREF: Final = re.compile(rb"href(?=\s*=)")
_VALUE: Final = re.compile(rb"""\s*=\s*("[^"]*"|'[^']*'|[^\s"'>][^\s>]*)""")
_END_TAG: Final = re.compile(rb"</(?:body|html)(?=[\s/>])")
_LINKS: Final = ("a", "area")
_LABEL_BYTES: Final = 300
_WEB: Final = re.compile(r"https?://[^/]", re.IGNORECASE)
_BREAKS: Final = str.maketrans("", "", "\t\r\n")
_AROUND: Final = "".join(map(chr, range(33)))
"""What browsers strip from a URL: space and control characters."""

Target = Callable[[str, str], str | None]


class _Place(NamedTuple):
    """A place that may be a link or the end of the body.

    :param start: where the number goes; ``end`` is the end of the name.
    :param name: of the attribute; empty for an end tag.
    """

    start: int
    end: int
    name: str


def rewritten(html: str, target: Target, tail: str) -> str:
    """The document with other links, and with more HTML at the end of its body.

    :param target: returns the URL in place of that of a link, which begins with ``http``; None leaves the link alone.
        It gets the URL as a browser reads it, and the source of the link's text in lower case.
    :param tail: the HTML to add.
    """
    source = html.encode()
    lowered = source.lower()
    places = sorted([*_attributes(lowered), *_end_tags(lowered)])
    found = _read(_numbered(source, places)) if places else []
    parts, done, end = [], 0, _end(lowered, [places[number] for number, _ in found if not places[number].name])
    for number, attributes in found:
        place = places[number]
        # Only here: the values of what are attributes do not overlap, so that this takes no longer than the document.
        value = _VALUE.match(source, place.end) if place.name else None
        url = None if value is None else _url(value[1], attributes[place.name])
        if value is not None and url is not None:
            start, stop = value.span(1)
            label = lowered[stop : max(stop, lowered.find(b"</a", stop, stop + _LABEL_BYTES))]
            other = target(url, label.decode(errors="replace"))
            if other is not None:
                parts.append((start, stop, f'"{escape(other)}"'.encode()))
    made = []
    # The parser reports a tag where it ends, which is in the order of the source.
    for start, stop, text in sorted([*parts, (end, end, tail.encode())]):
        made += [source[done:start], text]
        done = stop
    return b"".join([*made, source[done:]]).decode()


def _attributes(lowered: bytes) -> Iterator[_Place]:
    # Without the flag to ignore case, and with the name first, the search is ten times as fast.
    for match in _HREF.finditer(lowered):
        at, name = match.start(), "href"
        if lowered.endswith(b"xlink:", 0, at):
            at, name = at - 6, "xlink:href"
        # An attribute follows white space, a value in quotes, or the name of the tag.
        if (at and lowered[at - 1] in b" \t\r\n\f\"'") or lowered.endswith((b"<a/", b"<area/"), 0, at):
            yield _Place(at, match.end(), name)


def _end_tags(lowered: bytes) -> Iterator[_Place]:
    for match in _END_TAG.finditer(lowered):
        yield _Place(*match.span(), "")


def _numbered(source: bytes, places: list[_Place]) -> bytes:
    """The copy. The end tags are not in it: libxml2 would take what follows them for something else."""
    pieces, done = [], 0
    for number, place in enumerate(places):
        pieces.append(source[done : place.start])
        if place.name:
            pieces.append(f" {_MARK}={number} ".encode())
            done = place.start
        else:
            pieces.append(f"<{_MARK} {_MARK}={number}></{_MARK}".encode())
            done = place.end
    # For some releases of libxml2, NUL is the end of a document.
    return b"".join([*pieces, source[done:]]).replace(b"\0", "\ufffd".encode())


class _Reader:
    """A target for lxml's parser that keeps no tree, so that it has no limit to its depth."""

    def __init__(self) -> None:
        self.found: list[tuple[int, dict[str, str]]] = []

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if (tag in _LINKS or tag == _MARK) and _MARK in attributes:
            self.found.append((int(attributes[_MARK]), attributes))

    def close(self) -> None:
        pass


def _read(copy: bytes) -> list[tuple[int, dict[str, str]]]:
    """The numbers of the places that are links and end tags, each with the attributes of its element."""
    # Imported here: lxml takes some 50 ms, which a sandbox without HTML does not need.
    from lxml import etree

    reader = _Reader()
    parser: Any = etree.HTMLParser(target=reader, huge_tree=True, encoding="utf-8")
    try:
        etree.fromstring(copy, parser)
    except etree.LxmlError:
        pass  # It gave up on a malformed document: what it did not read stays as it is.
    return reader.found


def _end(lowered: bytes, tags: list[_Place]) -> int:
    """The last end of a body, else that of the document."""
    bodies = [tag.start for tag in tags if lowered.startswith(b"</body", tag.start)]
    return max(bodies or [tag.start for tag in tags], default=len(lowered))


def _url(source: bytes, value: str) -> str | None:
    """The URL of a link, if it is one of the web; None if what the parser read is not what is in this place.

    :param source: its value in the source, quotes included.
    :param value: the value that the parser read.
    """
    url = _clean(_IN_VALUE.sub("", value) if _MARK in value else value)
    if _WEB.match(url) is None:
        return None
    raw = source.decode()
    raw = raw[1:-1] if raw[0] in "\"'" else raw
    return url if "&" in raw or raw == url or _clean(raw) == url else None


def _clean(url: str) -> str:
    return url if url.isprintable() and " " not in url else url.strip(_AROUND).translate(_BREAKS)
