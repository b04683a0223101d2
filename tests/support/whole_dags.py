"""Dags that run in this process."""

from __future__ import annotations

import pytest

from tests.support.timing import quick_waits


@pytest.fixture
def quick_whole_dags(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_waits(monkeypatch, least_interval=0.2, not_found_grace=1.0)
