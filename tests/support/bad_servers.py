"""Servers that respond as Fluxomail never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.settings import ClientSettings
from tests.wire.conftest import Handler, RawServer

MESSAGE = EmailMessage(to="ops@example.org", subject="Hi", content="Text")
Serve = Callable[..., RawServer]


def head(status: str = "200 OK", **headers: object) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def answers(data: bytes) -> Handler:
    return lambda connection, request: connection.sendall(data)


def settings(url: str, **fields: Any) -> ClientSettings:
    return ClientSettings(**{"api_key": "fm_secret", "base_url": url, "timeout": 10, "max_attempts": 1, **fields})
