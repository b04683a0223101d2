"""A request with and without an idempotency key."""

from __future__ import annotations

from airflow_provider_fluxomail.client.models import Request

KEYED = Request(method="POST", path="/", idempotency_key="k")
