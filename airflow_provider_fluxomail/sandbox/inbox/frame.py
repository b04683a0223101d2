"""The HTML of a message for the frame of its page: as it was delivered, with its links on the address of the inbox."""

from __future__ import annotations

import re
from typing import Final

from airflow_provider_fluxomail.sandbox.store.records import StoredSend
from airflow_provider_fluxomail.sandbox.tracking import tokens
from airflow_provider_fluxomail.sandbox.tracking.delivery import CLICK_PATH, OPEN_PATH, UNSUBSCRIBE_PATH

_KINDS: Final[dict[str, tokens.Kind]] = {OPEN_PATH: "open", CLICK_PATH: "click", UNSUBSCRIBE_PATH: "unsubscribe"}
_LINK: Final = re.compile(rf"({'|'.join(map(re.escape, _KINDS))})\?token=([A-Za-z0-9_]+\.[0-9]+\.[0-9a-f]+)")
_MAX_BASE: Final = 600
_BASE: Final = re.compile(r"https?://[^\s\"'<>=?#]+$")


def is_tracked(html: str) -> bool:
    """Whether delivered HTML has a pixel."""
    return f"{OPEN_PATH}?token=" in html


def on_this_address(html: str, send: StoredSend, secret: bytes, root: str) -> str:
    """The HTML with the sandbox's own links relative to a page of the inbox.

    A sender may know the sandbox by a name that a browser does not, such as ``http://sandbox:8026``. Links that only
    look like the sandbox's own are left alone.

    :param root: the relative URL from the page to the root of the sandbox.
    """
    texts, at = [], 0
    for match in _LINK.finditer(html):
        subject = tokens.read(secret, _KINDS[match[1]], match[2])
        base = _BASE.search(html, max(at, match.start() - _MAX_BASE), match.start())
        if subject is None or subject.send_id != send.send_id or base is None:
            continue
        texts += [html[at : base.start()], root.rstrip("/")]
        at = match.start()
    return "".join([*texts, html[at:]])
