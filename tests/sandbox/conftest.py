from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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
    with Api(server.url) as client:
        client.control("reset")
        yield client


@pytest.fixture(scope="session", params=["httptools", "h11"])
def server_on_each_http(request: pytest.FixtureRequest) -> Iterator[SandboxServer]:
    """A sandbox on each HTTP implementation of uvicorn."""
    kind: Literal["httptools", "h11"] = request.param
    pytest.importorskip(kind)
    with SandboxServer(http=kind) as running:
        yield running


@pytest.fixture
def on_each_http(server_on_each_http: SandboxServer) -> Iterator[Api]:
    """A client of each of them, just reset."""
    with Api(server_on_each_http.url) as client:
        client.control("reset")
        yield client
