"""What tests ask of the sandbox, over its control API."""

from __future__ import annotations

import json
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

SEND = {"method": "POST", "path": "/api/v1/emails/send"}
TIMELINE = {"method": "GET", "path": "/api/v1/sends/*"}


class Sandbox:
    """One sandbox, as a test drives it."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self._http = httpx.Client(base_url=f"{url}/_sandbox/", trust_env=False)
        self._monkeypatch = monkeypatch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def _post(self, path: str, payload: dict[str, Any]) -> Any:
        answer = self._http.post(path, json=payload)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def reset(self) -> None:
        self._post("reset", {})

    def connect(self, conn_id: str = "fluxomail_default", *, key: str = "fm_sandbox", **fields: Any) -> None:
        """Define an Airflow connection; ``fields`` named like extras become extras."""
        host = fields.pop("host", self.url)
        extra = {"timeout": 2, **fields}
        value = {"conn_type": "fluxomail", "password": key, "host": host, "extra": extra}
        self._monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(value))

    def fault(self, kind: str, times: int = 1, match: dict[str, str] | None = None, **details: Any) -> None:
        self._post("faults", {"kind": kind, "times": times, "match": match or SEND, **details})

    def key(self, key: str, **fields: Any) -> None:
        self._post("keys", {"key": key, **fields})

    def pause(self, paused: bool = True) -> None:
        self._post("pause", {"paused": paused})

    def settings(self, **fields: Any) -> None:
        self._post("settings", fields)

    def advance(self, seconds: float) -> None:
        self._post("clock", {"advance_seconds": seconds})

    def now(self) -> float:
        """The sandbox's clock, epoch seconds."""
        return float(self._post("clock", {"advance_seconds": 0})["now"])

    @staticmethod
    def http_date(moment: float) -> str:
        return formatdate(moment, usegmt=True)

    def attachment(self, send_id: str, index: int) -> bytes:
        return self._http.get(f"messages/{send_id}/attachments/{index}").content

    def event(self, send_id: str, type_: str, **fields: Any) -> None:
        self._post(f"messages/{send_id}/events", {"type": type_, **fields})

    def messages(self, **query: str) -> list[dict[str, Any]]:
        found = self._http.get("messages", params=query).json()
        assert found["count"] == len(found["messages"])
        messages: list[dict[str, Any]] = found["messages"]
        return messages

    def requests(self, method: str = "") -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self._http.get("requests").json()["requests"]
        return [request for request in answer if request["method"].startswith(method)]
