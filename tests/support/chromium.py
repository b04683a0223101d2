"""A browser for a test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from scripts.testbed.browser import Browser, find_chromium

if TYPE_CHECKING:
    from pathlib import Path


def chromium(profile: Path) -> Browser:
    """A headless Chromium. Where CI runs it must be installed; elsewhere the test is skipped without it.

    :param profile: an empty folder.
    """
    program = find_chromium()
    if program is None:
        assert not os.environ.get("CI"), "Chromium is not installed: apt-get install chromium"
        pytest.skip("Chromium is not installed: apt-get install chromium")
    return Browser(program, profile)
