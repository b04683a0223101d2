"""Derives plain text from HTML, and shortens bodies that are too long. Output stays in proportion to the input.

::

    text_from_html("<p>Loaded <b>20</b> rows.</p>")  # "Loaded 20 rows."
    shortened(page, 10_000, note="(see the log)", markup=True)
"""

from __future__ import annotations

import html
import re
from typing import Any, Final

#: Characters of a text that is derived from HTML, and of the HTML that it is derived from, at most.
MAX_DERIVED_TEXT: Final = 512 * 1024
_MAX_MARKUP: Final = 4 * 1024 * 1024
#: Characters of a table's cell that is laid out in a column, and padded, at most. Each element in it counts as one.
_MAX_COLUMN: Final = 100
#: Elements that are read, at most: they take some 50 microseconds each.
_MAX_ELEMENTS: Final = 50_000
#: The attributes that the text depends on.
_ATTRIBUTES: Final = ("align", "alt", "href", "name", "style", "title", "valign")
#: Deeper elements become siblings: libxml2 drops what is nested 255 deep, and Python's recursion is limited.
_MAX_DEPTH: Final = 100
#: Encloses the number of a cell that is too wide for a column. Unicode reserves it: no text holds it.
_MARK: Final = "\ufdd0"
_MARKED: Final = re.compile(rf"{_MARK}(\d+){_MARK}")
#: Characters that XML does not have, and the mark.
_NOT_XML: Final = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff{_MARK}]")
_SEE_HTML: Final = "see the HTML version of this email"
#: Elements whose text is not shown; a cut within one would hide what follows.
_HIDDEN: Final = ("<!--", "<style", "<script", "<title", "<textarea")


def text_from_html(markup: str) -> str:
    """Return the text that a reader of ``markup`` sees; link targets, tables and lists stay readable."""
    if not markup.strip():
        return ""
    tree, whole = _tree(markup[:_MAX_MARKUP])
    text = "\n".join(line.rstrip() for line in _text(tree).splitlines()).strip()
    if text and (not whole or len(markup) > _MAX_MARKUP):
        text += f"\n\n[The rest is left out here: {_SEE_HTML}]"
    return shortened(text, MAX_DERIVED_TEXT, note=_SEE_HTML)


def shortened(text: str, most: int, *, note: str = "", markup: bool = False) -> str:
    """Return about ``most`` characters of a body: its start and its end, where links often are, and a note between.

    :param note: follows the number of characters that are left out.
    :param markup: whether it is HTML: neither a tag nor an entity is cut in two, and no end falls within a comment.
    """
    if len(text) <= most:
        return text
    start, end = text[: most * 3 // 4], text[len(text) - most // 4 :]
    if markup:
        for opening in ("<", *_HIDDEN):
            closing = {"<": ">", "<!--": "-->"}.get(opening, f"</{opening[1:]}")
            if (last := start.lower().rfind(opening)) > start.lower().rfind(closing):
                start = start[:last]
        start = re.sub(r"&#?\w{0,31}\Z", "", start)
        end = re.sub(r"\A[^<>]{0,2000}>|\A#?\w{0,31};", "", end)
    left_out = f"[{len(text) - len(start) - len(end):,} characters are left out here{f': {note}' if note else ''}]"
    return f"{start}<p>{html.escape(left_out)}</p>{end}" if markup else f"{start}\n\n{left_out}\n\n{end}"


def without_surrogates(text: str) -> str:
    """Return ``text`` with a replacement character for each half of a Unicode character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tree(markup: str) -> tuple[Any, bool]:
    """Return the elements of ``markup``, and whether these are all of them."""
    # Imported here: lxml takes some 50 ms, which an email with its own text does not need.
    from lxml import etree

    # Bytes: lxml refuses text that declares an encoding. With a body at least, the tree is never empty.
    data = f"<body>{without_surrogates(markup)}</body>".encode()
    parser: Any = etree.HTMLParser(target=_Shallow(), huge_tree=True, encoding="utf-8")
    found: tuple[Any, bool] = etree.fromstring(data, parser)
    return found


class _Shallow:
    """Builds a tree that is not deeper than :data:`_MAX_DEPTH`, and has no more than :data:`_MAX_ELEMENTS`."""

    def __init__(self) -> None:
        from lxml import etree

        self._builder = etree.TreeBuilder()
        self._open: list[str] = []
        self._depth = self._deepest = 0
        self._elements = self._hidden = 0

    def start(self, tag: str, attributes: Any) -> None:
        self._depth += 1
        self._elements += 1
        if self.full:
            # From here on the text has no layout.
            self._hidden += tag in ("script", "style")
            self.data(" ")
            return
        if len(self._open) == _MAX_DEPTH:
            self._builder.end(self._open.pop())
        self._deepest = self._depth
        # libxml2 accepts names that its trees do not.
        tag = tag if tag.isascii() and tag.isalnum() else "span"
        known = {name: _NOT_XML.sub("", attributes[name] or "") for name in _ATTRIBUTES if name in attributes}
        self._builder.start(tag, known)
        self._open.append(tag)

    def end(self, tag: str) -> None:
        # What follows the end of the body is still shown.
        if tag in ("html", "body"):
            return
        if self.full:
            self._hidden -= tag in ("script", "style")
        elif self._depth <= _MAX_DEPTH or self._depth == self._deepest:
            self._close(min(self._depth, _MAX_DEPTH))
        self._depth -= 1

    def data(self, text: str) -> None:
        if not self._hidden:
            self._builder.data(_NOT_XML.sub("", text))

    def close(self) -> tuple[Any, bool]:
        self._close(1)
        return self._builder.close(), not self.full

    @property
    def full(self) -> bool:
        return self._elements > _MAX_ELEMENTS

    def _close(self, level: int) -> None:
        while len(self._open) >= level:
            self._builder.end(self._open.pop())


def _text(tree: Any) -> str:
    """Return the text of a tree. Cells that are too wide for a column are put in when their table is laid out."""
    wide: dict[int, str] = {}

    def put_in(text: str) -> str:
        return _MARKED.sub(lambda mark: wide.pop(int(mark[1]), ""), text)

    # Inner tables first.
    for number, cell in enumerate(reversed(list(tree.iter("td", "th")))):
        if len(cell.xpath("normalize-space()")) + sum(1 for _ in cell.iter()) > _MAX_COLUMN:
            content = cell.makeelement("div")
            content.text = cell.text
            content.extend(list(cell))
            wide[number] = put_in(_laid_out(content).strip())
            cell.text = f"{_MARK}{number}{_MARK}"
    return put_in(_laid_out(tree))


def _laid_out(tree: Any) -> str:
    from inscriptis.html_engine import Inscriptis
    from inscriptis.model.config import ParserConfig

    text: str = Inscriptis(tree, ParserConfig(display_links=True)).get_text()
    return text
