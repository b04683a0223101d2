"""A local Fluxomail server for demos, tests and CI: the v1 API, its failures, and a clock that can be moved.

It needs the ``sandbox`` extra (``pip install 'airflow-provider-fluxomail[sandbox]'``). Importing this module
imports neither FastAPI nor uvicorn; starting a server does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.limits import Bounds
    from airflow_provider_fluxomail.sandbox.server import SandboxServer, SandboxStartError

__all__ = ["Bounds", "SandboxServer", "SandboxStartError"]


def __getattr__(name: str) -> Any:
    """Import on use: pytest imports this package at its start, wherever it is installed, and asyncio takes 0.1 s."""
    if name == "Bounds":
        from airflow_provider_fluxomail.sandbox.limits import Bounds

        return Bounds
    if name in __all__:
        from airflow_provider_fluxomail.sandbox import server

        return getattr(server, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
