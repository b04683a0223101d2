"""The rows of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.sending.batch.rows import Row, Rows

ADA: dict[str, Any] = {"to": "ada@example.org", "subject": "Hi", "content": "Text"}


def read(source: Any, **options: Any) -> list[Row]:
    rows = Rows(source, **options)
    checked = list(rows.check())
    assert checked == list(rows), "both passes see the same"
    return checked


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(FluxomailValidationError) as caught:
        read(source, **options)
    return str(caught.value)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path
