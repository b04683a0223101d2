"""The guide "Sending transactional", followed line by line with curl.

https://docs.fluxomail.com/guides/sending-transactional
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from .helpers import KEY
from .test_tracking import track

if TYPE_CHECKING:
    from .helpers import Api

pytestmark = pytest.mark.skipif(
    not shutil.which("curl") and "CI" not in os.environ, reason="curl is not installed (apt-get install curl)"
)

BODY = {"to": "ada@example.org", "subject": "Your receipt", "content": "Thank you, Ada."}
HTML = BODY | {"htmlContent": '<p>Thank you. <a href="https://shop.example/orders/1">Your order</a></p>'}


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


def curl(url: str, *arguments: str, key: str | None = KEY) -> Response:
    """Run curl as a person types it, with the response's headers in front of the body."""
    authorization = ["-H", f"Authorization: Bearer {key}"] if key else []
    command = ["curl", "--silent", "--show-error", "--include", "--noproxy", "*", url, *authorization, *arguments]
    output = subprocess.run(command, capture_output=True, check=True, timeout=30).stdout.decode(errors="replace")
    head, _, body = output.partition("\r\n\r\n")
    status, *lines = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Response(
        int(status.split()[1]), headers, json.loads(body) if "json" in headers.get("content-type", "") else {}
    )


def send(api: Api, body: dict[str, Any], *arguments: str, key: str | None = KEY) -> Response:
    json_type = ["-H", "Content-Type: application/json"]
    data = ["-d", json.dumps(body)]
    return curl(f"{api.url}/api/v1/emails/send", "-X", "POST", *json_type, *data, *arguments, key=key)


def test_send_and_send_again_with_the_same_key(api: Api) -> None:
    once = ["-H", "Idempotency-Key: receipt-1"]
    first, second = (send(api, HTML, *once) for _ in range(2))
    assert first.status == second.status == 200
    assert first.body["status"] == "sent"
    assert first.body.keys() >= {"sendId", "messageId"}
    assert second.body == first.body | {"reused": True}
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert second.headers["idempotency-key"] == "receipt-1"
    assert len(api.messages()) == 1


def test_the_other_header_for_the_key(api: Api) -> None:
    assert send(api, BODY, "-H", f"x-api-key: {KEY}", key=None).status == 200


def test_read_the_timeline_after_the_email_was_opened_and_a_link_followed(api: Api) -> None:
    send_id = send(api, HTML).body["sendId"]
    opened, clicked = (curl(api.url + track(api, send_id, f"track/{kind}"), key=None) for kind in ("open", "click"))
    assert (opened.status, opened.headers["content-type"]) == (200, "image/gif")
    assert (clicked.status, clicked.headers["location"]) == (302, "https://shop.example/orders/1")
    # Delivered after the delay of the sandbox.
    api.advance(5)
    timeline = curl(f"{api.url}/api/v1/sends/{send_id}").body
    assert {event["type"] for event in timeline["events"]} == {"sent", "delivered", "opened", "clicked"}


def test_each_error_of_the_guide(api: Api) -> None:
    for field in ("to", "subject", "content"):
        left = {name: value for name, value in BODY.items() if name != field}
        missing = send(api, left)
        assert (missing.status, missing.body["error"]) == (400, "Missing required fields")
    for key in ("fm_wrong", None):
        unknown = send(api, BODY, key=key)
        assert (unknown.status, unknown.body["error"]) == (401, "Invalid API key")
    api.control("keys", key="fm_reads", scopes=["read_sends"])
    scope = send(api, BODY, key="fm_reads")
    assert (scope.status, scope.body["error"]) == (403, "Forbidden: missing scope send_email")
    api.control("keys", key="fm_none", scopes=[])
    assert send(api, BODY, key="fm_none").status == 200, "a key without scopes may send"


def test_a_paused_organization(api: Api) -> None:
    api.control("pause", paused=True)
    paused = send(api, BODY)
    assert (paused.status, paused.body["error"]) == (403, "Tenant paused for this organization")
    api.control("pause", paused=False)
    assert send(api, BODY).status == 200


def test_a_rate_limit_and_an_error_are_tried_again_with_the_same_key(api: Api) -> None:
    once = ["-H", "Idempotency-Key: receipt-2"]
    api.enter_window()
    api.control("keys", key="fm_slow", rate_limit_per_minute=1)
    assert send(api, BODY, key="fm_slow").status == 200
    limited = send(api, BODY, *once, key="fm_slow")
    assert limited.status == 429
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    api.advance(int(limited.headers["retry-after"]))
    api.control("faults", kind="status", status=500)
    assert send(api, BODY, *once, key="fm_slow").status == 500
    api.advance(60)
    again = send(api, BODY, *once, key="fm_slow")
    assert (again.status, again.body.get("reused")) == (200, None)
    assert len(api.messages()) == 2
