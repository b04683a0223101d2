"""The path prefix under which browsers and clients reach the sandbox, as behind a proxy: ``--root-path /mail``.

Every URL in a page is relative, so the pages work under any prefix. The prefix is only needed where a whole URL is
shown, and where a proxy passes it on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from starlette.types import Scope

_KEY: Final = "fluxomail.prefix"
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_MAX_LENGTH: Final = 200


def check_root_path(root_path: str) -> str:
    """The prefix without a slash at its end.

    :raises ValueError: it is not a path such as ``/mail``.
    """
    root_path = root_path.rstrip("/")
    if root_path and not _is_prefix(root_path):
        raise ValueError(f"root_path must be a path such as /mail, of letters, digits and ._~-, not {root_path!r}")
    return root_path


def without_prefix(scope: Scope, root_path: str) -> Scope:
    """The scope of a request with the path that the routes know.

    A proxy may pass the prefix on or leave it out. ``X-Forwarded-Prefix`` names the prefix that a proxy has left out;
    anything that is no path is ignored.

    :param root_path: of this sandbox, without a slash at its end; may be empty.
    """
    sent = next((value for name, value in scope["headers"] if name == b"x-forwarded-prefix"), b"").decode("latin-1")
    forwarded = sent.strip().rstrip("/")
    prefix = forwarded if _is_prefix(forwarded) else root_path
    path, raw = scope["path"], scope.get("raw_path") or scope["path"].encode()
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        path, raw = path[len(root_path) :] or "/", raw[len(root_path) :] or b"/"
    return {**scope, "path": path, "raw_path": raw, _KEY: prefix}


def prefix_of(scope: Scope) -> str:
    """The prefix of a request, without a slash at its end; empty without one."""
    prefix: str = scope.get(_KEY, "")
    return prefix


def to_root(scope: Scope) -> str:
    """The relative URL that leads from the page of a request to the root of the sandbox, with a slash at its end."""
    # The raw path: to a browser, %2F is no slash.
    return "../" * (scope["raw_path"].count(b"/") - 1) or "./"


def _is_prefix(text: str) -> bool:
    return len(text) <= _MAX_LENGTH and _PREFIX.fullmatch(text) is not None and "/." not in text
