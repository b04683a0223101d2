"""The tokens of tracking and unsubscribe links: they name a message and a link, and cannot be guessed."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

Kind = Literal["open", "click", "unsubscribe"]

_TOKEN: Final = re.compile(r"([A-Za-z0-9_]{1,64})\.([0-9]{1,9})\.([0-9a-f]{32})")
_SIGNATURE_BYTES: Final = 16


class Subject(NamedTuple):
    """What a token is about.

    :param link: the number of the link in its message, from 0 on; 0 for tokens that are about no link.
    """

    send_id: str
    link: int = 0


def maker(secret: bytes, kind: Kind, send_id: str) -> Callable[[int], str]:
    """Makes the tokens for one kind of link of a message, by the number of the link: they are of no use for another."""
    signed = hashlib.blake2b(f"{kind}.{send_id}.".encode(), key=secret, digest_size=_SIGNATURE_BYTES)

    def make(link: int) -> str:
        signature = signed.copy()
        signature.update(b"%d" % link)
        return f"{send_id}.{link}.{signature.hexdigest()}"

    return make


def read(secret: bytes, kind: Kind, token: str) -> Subject | None:
    """What a token is about; None if it was not made with this secret and for this kind."""
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    subject = Subject(match[1], int(match[2]))
    expected = maker(secret, kind, subject.send_id)(subject.link)
    return subject if hmac.compare_digest(expected, token) else None
