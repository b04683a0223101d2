"""The sandbox as a process of its own, with its control API."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from scripts.testbed.processes import ManagedProcess, loopback_environment

if TYPE_CHECKING:
    from pathlib import Path

API_KEY: Final = "fm_sandbox"
SEND_PATH: Final = "/api/v1/emails/send"


class Sandbox:
    """The sandbox as a process, and its control API. A context manager.

    :param folder: where its log goes.
    :param event_delay: seconds from a send to its outcome.
    """

    def __init__(self, folder: Path, *, event_delay: float) -> None:
        options = ["--port", "0", "--api-key", API_KEY, "--event-delay", str(event_delay)]
        self.process = ManagedProcess(
            "the sandbox",
            [sys.executable, "-m", "airflow_provider_fluxomail.sandbox", *options],
            log=folder / "sandbox.log",
            environment=loopback_environment() | {"PYTHONUNBUFFERED": "1"},
        )
        self.url = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def start(self) -> None:
        """Start it on a free port and wait until it listens."""
        self.process.log.unlink(missing_ok=True)
        self.process.start()
        self.url = self.process.wait_for_line("Fluxomail sandbox ready at ", timeout=30.0)

    def control(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Make one call of the control API."""
        with httpx.Client(base_url=self.url, timeout=15.0, trust_env=False) as client:
            answer = client.request(method, f"/_sandbox/{path}", **options)
            answer.raise_for_status()
            fields: dict[str, Any] = answer.json()
            return fields

    def stored(self, **query: str) -> tuple[int, list[dict[str, Any]]]:
        """Count and list the stored messages, all or those of a ``to`` or an ``idempotency_key``."""
        found = self.control("GET", "messages", params=query)
        return int(found["count"]), found["messages"]

    def sends(self, idempotency_key: str) -> list[dict[str, Any]]:
        """The requests to send that carried a key."""
        rows: list[dict[str, Any]] = self.control("GET", "requests")["requests"]
        return [
            row
            for row in rows
            if (row["method"], row["path"], row["idempotency_key"]) == ("POST", SEND_PATH, idempotency_key)
        ]
