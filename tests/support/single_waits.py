"""A wait and its timeline."""

from __future__ import annotations

from airflow_provider_fluxomail.client.models import Timeline
from airflow_provider_fluxomail.client.watching.wait import Wait

MS = 1767225612345


def wait(**fields: float) -> Wait:
    return Wait("s1", **{"started": 1000.0, "deadline": 1100.0, **fields})  # type: ignore[arg-type]


def timeline(*types: str) -> Timeline:
    return Timeline.parse("s1", {"events": [{"type": name, "ts": MS + n} for n, name in enumerate(types)]})
