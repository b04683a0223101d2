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
    )
    from airflow_provider_fluxomail.client.aio import (
        EventStream as EventStream,
    )
    from airflow_provider_fluxomail.client.errors import (
        BatchCounts as BatchCounts,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailAuthError as FluxomailAuthError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailBatchError as FluxomailBatchError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailBatchUnfinishedError as FluxomailBatchUnfinishedError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailClearedError as FluxomailClearedError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailConnectionError as FluxomailConnectionError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailDeliveryError as FluxomailDeliveryError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailError as FluxomailError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailIdempotencyConflictError as FluxomailIdempotencyConflictError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailNotFoundError as FluxomailNotFoundError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailPermissionError as FluxomailPermissionError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailPlanRequiredError as FluxomailPlanRequiredError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailRateLimitError as FluxomailRateLimitError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailRequestError as FluxomailRequestError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailResponseError as FluxomailResponseError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailServerError as FluxomailServerError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailTenantPausedError as FluxomailTenantPausedError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailUnknownOutcomeError as FluxomailUnknownOutcomeError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailValidationError as FluxomailValidationError,
    )
    from airflow_provider_fluxomail.client.errors import (
        FluxomailWatcherError as FluxomailWatcherError,
    )
    from airflow_provider_fluxomail.client.event_types import (
        EVENT_TYPES as EVENT_TYPES,
    )
    from airflow_provider_fluxomail.client.event_types import (
        FAILURES as FAILURES,
    )
    from airflow_provider_fluxomail.client.event_types import (
        TARGETS as TARGETS,
    )
    from airflow_provider_fluxomail.client.events import (
        EventFilter as EventFilter,
    )
    from airflow_provider_fluxomail.client.events import (
        EventPage as EventPage,
    )
    from airflow_provider_fluxomail.client.events import (
        FeedEvent as FeedEvent,
    )
    from airflow_provider_fluxomail.client.messages import (
        Attachment as Attachment,
    )
    from airflow_provider_fluxomail.client.messages import (
        EmailMessage as EmailMessage,
    )
    from airflow_provider_fluxomail.client.messages import (
        text_from_html as text_from_html,
    )
    from airflow_provider_fluxomail.client.models import (
        Event as Event,
    )
    from airflow_provider_fluxomail.client.models import (
        Outcome as Outcome,
    )
    from airflow_provider_fluxomail.client.models import (
        SendResult as SendResult,
    )
    from airflow_provider_fluxomail.client.models import (
        Timeline as Timeline,
    )
    from airflow_provider_fluxomail.client.observer import Observer as Observer
    from airflow_provider_fluxomail.client.recipient_guard import RecipientGuard as RecipientGuard
    from airflow_provider_fluxomail.client.settings import ClientSettings as ClientSettings
    from airflow_provider_fluxomail.client.sync import FluxomailClient as FluxomailClient
    from airflow_provider_fluxomail.client.timeline import judge as judge

# The public names by module; the same as above, which only type checkers read.
_EXPORTS: Final = {
    "aio": (
        "AsyncFluxomailClient",
        "EventStream",
    ),
    "errors": (
        "BatchCounts",
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
        "FluxomailTenantPausedError",
        "FluxomailUnknownOutcomeError",
        "FluxomailValidationError",
        "FluxomailWatcherError",
    ),
    "event_types": (
        "EVENT_TYPES",
        "FAILURES",
        "TARGETS",
    ),
    "events": (
        "EventFilter",
        "EventPage",
        "FeedEvent",
    ),
    "messages": (
        "Attachment",
        "EmailMessage",
        "text_from_html",
    ),
    "models": (
        "Event",
        "Outcome",
        "SendResult",
        "Timeline",
    ),
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
