"""Attachments of a task."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"id\n1\n")
    return path
