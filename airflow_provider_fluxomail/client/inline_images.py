"""Warns of images that a body expects within the message (``cid:``): Fluxomail has no inline images."""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.messages import EmailMessage

log = logging.getLogger(__name__)

# Only in an attribute or a style: text may mention "cid:" too.
_REFERENCE: Final = re.compile(
    r"""(?:\b(?:src|background|href|poster)\s*=|\burl\()(?:[\s"']|&quot;|&\#39;)*cid:([^\s"'<>()&]+)""", re.IGNORECASE
)
#: Images that one warning names at most.
MAX_NAMED: Final = 10


class InlineImageWarning:
    """Warns of each inline image once, however many messages refer to it. The clients of one task may share it."""

    def __init__(self) -> None:
        self._named: set[str] = set()
        self._lock = threading.Lock()

    def check(self, message: EmailMessage) -> None:
        """Log a warning if ``html_content`` refers to images by a content id that was not named before."""
        found = dict.fromkeys(_REFERENCE.findall(message.html_content or ""))
        with self._lock:
            new = [image for image in found if image not in self._named]
            self._named.update(new)
        if not new:
            return
        shown = [re.sub(r"[^\x21-\x7e]", "?", f"cid:{image}")[:80] for image in new[:MAX_NAMED]]
        if len(new) > MAX_NAMED:
            shown.append(f"and {len(new) - MAX_NAMED} more")
        log.warning(
            "html_content refers to images by content id (%s). Fluxomail has no inline images, so they will not be "
            "shown: refer to them by a URL that starts with https://.",
            ", ".join(shown),
        )
