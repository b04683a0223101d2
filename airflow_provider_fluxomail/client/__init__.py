"""The Fluxomail API for any Python program: nothing here imports Airflow.

::

    from airflow_provider_fluxomail.client import ClientSettings, EmailMessage, FluxomailClient

    with FluxomailClient(ClientSettings(api_key="...")) as client:
        message = EmailMessage(to="ops@example.org", subject="Nightly load", content="Loaded 20 rows.")
        client.send(message, idempotency_key="nightly-load-2026-01-01")

Each name is imported from its module on first use: importing this package alone costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.aio import (
        AsyncFluxomailClient as AsyncFluxomailClient,
        EventStream as EventStream,
    )
    from airflow_provider_fluxomail.client.batch_counts import BatchCounts as BatchCounts
    from airflow_provider_fluxomail.client.errors import (
        FluxomailAuthError as FluxomailAuthError,
        FluxomailBatchError as FluxomailBatchError,
        FluxomailBatchUnfinishedError as FluxomailBatchUnfinishedError,
        FluxomailClearedError as FluxomailClearedError,
        FluxomailConnectionError as FluxomailConnectionError,
        FluxomailDeliveryError as FluxomailDeliveryError,
        FluxomailError as FluxomailError,
        FluxomailIdempotencyConflictError as FluxomailIdempotencyConflictError,
        FluxomailNotFoundError as FluxomailNotFoundError,
        FluxomailPermissionError as FluxomailPermissionError,
        FluxomailPlanRequiredError as FluxomailPlanRequiredError,
        FluxomailRateLimitError as FluxomailRateLimitError,
        FluxomailRequestError as FluxomailRequestError,
        FluxomailResponseError as FluxomailResponseError,
        FluxomailServerError as FluxomailServerError,
        FluxomailStateError as FluxomailStateError,
        FluxomailStorageError as FluxomailStorageError,
        FluxomailTenantPausedError as FluxomailTenantPausedError,
        FluxomailUnknownOutcomeError as FluxomailUnknownOutcomeError,
        FluxomailValidationError as FluxomailValidationError,
        FluxomailWatcherError as FluxomailWatcherError,
    )
    from airflow_provider_fluxomail.client.event_types import (
        EVENT_TYPES as EVENT_TYPES,
        FAILURES as FAILURES,
        TARGETS as TARGETS,
    )
    from airflow_provider_fluxomail.client.events import (
        EventFilter as EventFilter,
        EventPage as EventPage,
        FeedEvent as FeedEvent,
    )
    from airflow_provider_fluxomail.client.html_text import text_from_html as text_from_html
    from airflow_provider_fluxomail.client.messages import (
        Attachment as Attachment,
        EmailMessage as EmailMessage,
    )
    from airflow_provider_fluxomail.client.models import (
        Event as Event,
        Outcome as Outcome,
        SendResult as SendResult,
        Timeline as Timeline,
    )
    from airflow_provider_fluxomail.client.observer import Observer as Observer
    from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard as RecipientGuard
    from airflow_provider_fluxomail.client.settings import ClientSettings as ClientSettings
    from airflow_provider_fluxomail.client.sync import FluxomailClient as FluxomailClient
    from airflow_provider_fluxomail.client.timeline import judge as judge

# The public names by module; the same as above, which only type checkers read.
_EXPORTS: Final = {
    "aio": ("AsyncFluxomailClient", "EventStream"),
    "batch_counts": ("BatchCounts",),
    "errors": (
        "FluxomailAuthError",
        "FluxomailBatchError",
        "FluxomailBatchUnfinishedError",
        "FluxomailClearedError",
        "FluxomailConnectionError",
        "FluxomailDeliveryError",
        "FluxomailError",
        "FluxomailIdempotencyConflictError",
        "FluxomailNotFoundError",
        "FluxomailPermissionError",
        "FluxomailPlanRequiredError",
        "FluxomailRateLimitError",
        "FluxomailRequestError",
        "FluxomailResponseError",
        "FluxomailServerError",
        "FluxomailStateError",
        "FluxomailStorageError",
        "FluxomailTenantPausedError",
        "FluxomailUnknownOutcomeError",
        "FluxomailValidationError",
        "FluxomailWatcherError",
    ),
    "event_types": ("EVENT_TYPES", "FAILURES", "TARGETS"),
    "events": ("EventFilter", "EventPage", "FeedEvent"),
    "html_text": ("text_from_html",),
    "messages": ("Attachment", "EmailMessage"),
    "models": ("Event", "Outcome", "SendResult", "Timeline"),
    "observer": ("Observer",),
    "recipient_guard": ("RecipientGuard",),
    "settings": ("ClientSettings",),
    "sync": ("FluxomailClient",),
    "timeline": ("judge",),
}
_MODULES: Final = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
