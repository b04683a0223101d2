"""A valid message."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage

GOOD: dict[str, Any] = {"to": "ops@example.org", "subject": "Hi", "content": "Text"}


def message(**fields: Any) -> EmailMessage:
    return EmailMessage(**{**GOOD, **fields})


def refused(**fields: Any) -> str:
    with pytest.raises(FluxomailValidationError) as caught:
        message(**fields)
    return str(caught.value)
