from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_fluxomail.sandbox import SandboxServer

from .helpers import Api

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[SandboxServer]:
    with SandboxServer() as running:
        yield running


@pytest.fixture
def api(server: SandboxServer) -> Iterator[Api]:
    """A client of a sandbox that was just reset."""
    client = Api(server.url)
    client.control("reset")
    yield client
    client.close()
