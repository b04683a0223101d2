"""The links of the README: relative in a checkout, absolute on a package index.

Builds run this, so it needs the standard library only.
"""

from __future__ import annotations

import re
from typing import Final

#: Code is left alone; of other text, the target of ``![text](target)``, ``[text](target)`` and ``[label]: target``.
_CODE_OR_TARGET: Final = re.compile(
    r"(?P<code>^```.*?^```|`[^`\n]+`(?!\]\())|"
    r"(?P<before>(?P<image>!\[[^\]]*)?\]\(|^\[[^\]\n]+\]:[ ]+)(?P<target>[^)\s]+)",
    re.DOTALL | re.MULTILINE,
)
_ABSOLUTE: Final = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def is_relative(target: str) -> bool:
    """Whether a link leads to a file beside the README."""
    return not target.startswith("#") and not _ABSOLUTE.match(target)


def relative_links(text: str) -> list[str]:
    """The targets of the relative links of a Markdown text."""
    targets = (match["target"] for match in _CODE_OR_TARGET.finditer(text))
    return [target for target in targets if target and is_relative(target)]


def with_absolute_links(text: str, repository: str, version: str) -> str:
    """Let relative links lead to the files of a version, by its tag ``v...``, and images to the files' bytes.

    :param repository: such as ``https://github.com/owner/name``; GitLab redirects the same path.
    """
    repository = repository.rstrip("/")

    def replaced(match: re.Match[str]) -> str:
        target = match["target"]
        if not target or not is_relative(target):
            return match[0]
        view = "raw" if match["image"] else "blob"
        return f"{match['before']}{repository}/{view}/v{version}/{target.removeprefix('./')}"

    return _CODE_OR_TARGET.sub(replaced, text)
