"""Triggers: the part of a wait that holds no worker. They only read and wait; they never send.

Airflow stores their class paths and arguments as plain text in its database, and serialized triggers of released
versions still load. No API key, body or recipient is among the arguments.
"""

from __future__ import annotations

from airflow_provider_fluxomail.triggers.delivery import FluxomailDeliveryTrigger
from airflow_provider_fluxomail.triggers.events import FluxomailEventTrigger
from airflow_provider_fluxomail.triggers.rate_limit import FluxomailRetryAfterTrigger

__all__ = ["FluxomailDeliveryTrigger", "FluxomailEventTrigger", "FluxomailRetryAfterTrigger"]
