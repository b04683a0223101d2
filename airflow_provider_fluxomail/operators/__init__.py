"""The operators, which send each message exactly once."""

from __future__ import annotations

from airflow_provider_fluxomail.operators.batch import FluxomailSendBatchOperator
from airflow_provider_fluxomail.operators.send import FluxomailSendOperator
from airflow_provider_fluxomail.operators.templates import Unrecorded

__all__ = ["FluxomailSendBatchOperator", "FluxomailSendOperator", "Unrecorded"]
