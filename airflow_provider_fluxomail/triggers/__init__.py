"""Triggers: what goes on while no worker is held. They only read and wait; they never send.

Their class paths and arguments are stored in plain text in Airflow's database, and serialized triggers of released
versions still load. No key, body or recipient is among the arguments.
"""

from __future__ import annotations

from airflow_provider_fluxomail.triggers.delivery import FluxomailDeliveryTrigger
from airflow_provider_fluxomail.triggers.events import FluxomailEventTrigger
from airflow_provider_fluxomail.triggers.rate_limit import FluxomailRetryAfterTrigger

__all__ = ["FluxomailDeliveryTrigger", "FluxomailEventTrigger", "FluxomailRetryAfterTrigger"]
