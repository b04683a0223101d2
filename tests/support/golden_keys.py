"""The golden files."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.sending.idempotency_key import email_key

FOLDER = Path(__file__).parents[1] / "golden"


def golden(name: str) -> Any:
    """What a golden file holds."""
    return json.loads((FOLDER / f"golden_{name}.json").read_text(encoding="utf-8"))


NAMES = ("keys", "explicit_keys", "parts", "alert_keys", "email_keys")
GOLDEN, GOLDEN_EXPLICIT, GOLDEN_PARTS, GOLDEN_ALERTS, GOLDEN_EMAILS = map(golden, NAMES)


def context(**fields: Any) -> Any:
    ti = {"dag_id": "dag", "run_id": "run", "task_id": "task", "map_index": -1, "max_tries": 3, "try_number": 1}
    return {"ti": SimpleNamespace(**{**ti, **fields})}


def an_email_key(case: dict[str, Any]) -> str:
    message = EmailMessage(**case["message"])
    return email_key(message, namespace=case["namespace"], now=datetime.fromisoformat(case["now"]))
