"""The sandbox for tests: the pytest plugin's :class:`FluxomailSandbox` and the records that its methods return."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.testing.records import (
        Attachment,
        Contact,
        Event,
        Fault,
        Message,
        Request,
        RequestList,
        Webhook,
    )
    from airflow_provider_fluxomail.sandbox.testing.sandbox import FluxomailSandbox

__all__ = [
    "Attachment",
    "Contact",
    "Event",
    "Fault",
    "FluxomailSandbox",
    "Message",
    "Request",
    "RequestList",
    "Webhook",
]


def __getattr__(name: str) -> Any:
    """Import on use: pytest imports this package at startup in every project that has it installed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from airflow_provider_fluxomail.sandbox.testing import records, sandbox

    return getattr(sandbox if name == "FluxomailSandbox" else records, name)
