"""Run by hatchling at each build: the README becomes the package's description."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class ReadmeHook(MetadataHookInterface):
    """Makes the README's links absolute, as they have to be on a package index.

    They lead to ``[project.urls] Repository``. As long as that is empty they stay relative, which only a release minds
    (``make release-check``).
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the field ``readme``."""
        root = Path(self.root)
        text = (root / "README.md").read_text(encoding="utf-8")
        if repository := metadata.get("urls", {}).get("Repository"):
            rules = runpy.run_path(str(root / "scripts" / "readme.py"))
            text = rules["with_absolute_links"](text, repository, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
