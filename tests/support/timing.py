"""How long the steps of waits and event sources take in tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from airflow_provider_fluxomail.asset_events import source
from airflow_provider_fluxomail.client import retries
from airflow_provider_fluxomail.client.watching import wait
from airflow_provider_fluxomail.sandbox.testing import FluxomailSandbox
from airflow_provider_fluxomail.sending.batch import outcomes


def retry_timing(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Change the timing of retries for one test.

    :param fields: of :class:`.RetryTiming`.
    """
    monkeypatch.setattr(retries, "_timing", dataclasses.replace(retries.retry_timing(), **fields))


def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every wait before a request is retried for which the server names no time."""
    quick = retries.Backoff(first=0.01, longest=1.0), retries.Backoff(first=0.02, longest=0.02)
    retry_timing(monkeypatch, backoff=quick[0], conflict=quick[1])


def wait_timing(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Change the timing of waits for one test.

    :param fields: of :class:`.WaitTiming`.
    """
    monkeypatch.setattr(wait, "_timing", dataclasses.replace(wait.timing(), **fields))


def quick_waits(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Poll once in the worker, defer and resume at once: outside a scheduler nothing kills a task for that."""
    quick: dict[str, Any] = {
        "worker_polls": (0.0,),
        "resume_after": 0.0,
        "least_interval": 0.05,
        "rate_limit_spread": 0.1,
        **fields,
    }
    wait_timing(monkeypatch, **quick)


def event_timing(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Change the timing of event sources and event triggers for one test.

    :param fields: of :class:`.EventTiming`.
    """
    monkeypatch.setattr(source, "_timing", dataclasses.replace(source.event_timing(), **fields))


def batch_timing(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> None:
    """Change the timing of batches for one test.

    :param fields: of :class:`.BatchTiming`.
    """
    monkeypatch.setattr(outcomes, "_timing", dataclasses.replace(outcomes.batch_timing(), **fields))


def enter_window(sandbox: FluxomailSandbox) -> None:
    """Move the sandbox's clock to 12 s into a minute, so that no window of the rate limit ends in the test."""
    sandbox.advance(72 - sandbox.now() % 60)
