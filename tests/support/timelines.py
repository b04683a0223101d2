"""Moments of a timeline."""

from __future__ import annotations

from airflow_provider_fluxomail.client.models import Timeline

MS = 1767225612345


def at(*events: tuple[str, int | None]) -> Timeline:
    return Timeline.parse("s1", {"events": [{"type": kind, **({"ts": ts} if ts else {})} for kind, ts in events]})
