"""A thin HTTP client of the sandbox: both of its APIs, as any program would call them."""

from __future__ import annotations

from typing import Any

import httpx

BASE: dict[str, Any] = {"to": "ops@example.org", "subject": "Nightly load", "content": "Loaded 20 rows."}
KEY = "fm_sandbox"


class Api:
    """Calls over real HTTP; every answer is returned as it came."""

    def __init__(self, url: str) -> None:
        # Without TLS settings, which are slow to load and of no use on loopback.
        self.http = httpx.Client(base_url=url, timeout=10, verify=False, trust_env=False)

    def close(self) -> None:
        self.http.close()

    def send(
        self,
        *,
        idempotency_key: str | None = None,
        api_key: str = KEY,
        path: str = "send",
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> httpx.Response:
        """Send a valid message with some fields changed; a field set to None is left out."""
        body = {name: value for name, value in (BASE | fields).items() if value is not None}
        sent = {"Authorization": f"Bearer {api_key}"} | (headers or {})
        if idempotency_key is not None:
            sent["Idempotency-Key"] = idempotency_key
        return self.http.post(f"/api/v1/emails/{path}", json=body, headers=sent)

    def send_id(self, **fields: Any) -> str:
        answer = self.send(**fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["sendId"])

    def timeline(self, send_id: str, api_key: str = KEY) -> httpx.Response:
        return self.http.get(f"/api/v1/sends/{send_id}", headers={"Authorization": f"Bearer {api_key}"})

    def types(self, send_id: str) -> list[str]:
        return [event["type"] for event in self.timeline(send_id).json()["events"]]

    def post(self, call: str, /, **fields: Any) -> httpx.Response:
        """A control call that may fail."""
        return self.http.post(f"/_sandbox/{call}", json=fields)

    def control(self, call: str, /, **fields: Any) -> Any:
        """A control call that must succeed."""
        answer = self.post(call, **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, call: str, /, **query: Any) -> Any:
        answer = self.http.get(f"/_sandbox/{call}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def count(self, **query: Any) -> int:
        return int(self.get("messages", **query)["count"])

    def enter_window(self) -> None:
        """Move the clock to 12 s into a new rate window, so that none ends in the middle of a test."""
        self.advance(72 - self.advance(0) % 60)

    def advance(self, seconds: float) -> float:
        return float(self.control("clock", advance_seconds=seconds)["now"])
