"""Calls of both clients."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.settings import ClientSettings
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox as Sandbox

MESSAGE = EmailMessage(to="ops@example.org", subject="Hi", content="Text")


@pytest.fixture
def settings(sandbox: Sandbox) -> ClientSettings:
    return with_key(sandbox)


def with_key(sandbox: Sandbox, key: str = "fm_sandbox", **fields: Any) -> ClientSettings:
    return ClientSettings(api_key=key, base_url=sandbox.url, **{"timeout": 10, **fields})


FAULTS: dict[str, dict[str, Any]] = {
    "500 before the store": {"kind": "error_before_store"},
    "500 after the store": {"kind": "error_after_store"},
    "response lost after the store": {"kind": "response_lost_after_store"},
    "429": {"kind": "status", "status": 429, "retry_after": 1},
    "429 without Retry-After": {"kind": "status", "status": 429},
    "503": {"kind": "status", "status": 503, "retry_after": "2"},
    "408": {"kind": "status", "status": 408},
    "409": {"kind": "status", "status": 409},
    "200 of a proxy": {"kind": "status", "status": 200, "body": "<html>hello</html>"},
    "200 without a sendId": {"kind": "status", "status": 200, "body": {"status": "sent"}},
}
