"""Emails of Airflow's ``send_email``."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

import pytest
from airflow.utils import email

from airflow_provider_fluxomail import email_backend
from tests.support.timing import quick_retries

PEOPLE = ["ada@example.org", "bob@example.org"]
BACKEND = "airflow_provider_fluxomail.email_backend.send_email"


@pytest.fixture
def backend_emails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__EMAIL__EMAIL_BACKEND", BACKEND)
    quick_retries(monkeypatch)


class Clock:
    """The time of the backend, which stands still unless a test moves it: no test depends on when it runs."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, 12, 20, tzinfo=UTC)

    def now(self, zone: tzinfo) -> datetime:
        return self.moment.astimezone(zone)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(email_backend, "datetime", clock)
    return clock


def airflows_send_email(*args: Any, **kwargs: Any) -> None:
    """Airflow's own function, which calls the backend that the configuration names."""
    send: Any = email.send_email
    send(*args, **kwargs)
