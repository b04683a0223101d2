"""The package's pytest fixture keeps every client on the sandbox; some tests look at clients for other servers."""

from __future__ import annotations

import pytest

from airflow_provider_fluxomail.client import settings


def end_isolation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients have the servers of their connections, for a test that makes no request to them."""
    monkeypatch.delenv(settings.TEST_SERVER_VARIABLE)
    monkeypatch.setattr(settings, "kept_test_server", "")
