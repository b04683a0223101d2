"""Which attachments a browser may show, by their bytes: what a sender calls them decides nothing."""

from __future__ import annotations

import codecs
import re
from typing import Final, NamedTuple

BEGINNING: Final = 1024
"""The bytes that are enough to tell."""

_IMAGES: Final = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "image/avif"),
)
"""Formats without scripts. SVG has them: it is shown as text."""
_NO_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]")


class Preview(NamedTuple):
    """How an attachment is shown: as ``image`` or ``text``, with the media type that the browser gets."""

    kind: str
    media_type: str


def preview_of(beginning: bytes) -> Preview | None:
    """The preview of a file that begins so; None for one that can only be downloaded."""
    for pattern, media_type in _IMAGES:
        if pattern.match(beginning):
            return Preview("image", media_type)
    if not beginning.strip() or _NO_TEXT.search(beginning) or beginning.startswith(b"%PDF-"):
        return None
    try:
        # The last character may be cut.
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return None
    return Preview("text", "text/plain; charset=utf-8")
