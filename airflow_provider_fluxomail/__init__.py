"""Apache Airflow provider for the Fluxomail transactional-email API.

Airflow imports this module in every process to discover the provider, so it imports nothing itself.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__", "get_provider_info"]

__version__ = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow (entry point ``apache_airflow_provider``)."""
    from airflow_provider_fluxomail.provider_info import provider_info

    return provider_info()
