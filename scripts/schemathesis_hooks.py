"""What makes a request valid and an OpenAPI document cannot say; schemathesis loads it (``hooks`` in the .toml).

A valid request that the sandbox refuses is a finding, so these rules are kept here instead of accepting a 400 or 404.
Requests that are invalid on purpose are sent as they were generated.
"""

from __future__ import annotations

import os
from importlib import import_module
from itertools import count
from typing import Any, Final

import httpx

# Not imported: mypy runs where it may be missing.
schemathesis: Final[Any] = import_module("schemathesis")

API: Final = httpx.Client(
    base_url=os.environ["SANDBOX_URL"], headers={"Authorization": f"Bearer {os.environ['SANDBOX_KEY']}"}
)
CONTACT: Final = "contact@example.org"
NUMBERS: Final = count()


def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:  # noqa: ARG001
    """Complete a valid request."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    path = case.operation.path
    if "{send_id}" in path:
        case.path_parameters["send_id"] = send()
    if path == "/api/v1/contacts/sync" and not (case.headers.get("Idempotency-Key") or "").strip():
        # One of header and body: either a key, or an eventId in each contact.
        case.headers["Idempotency-Key"] = f"key-{next(NUMBERS)}"
    if path == "/api/v1/preferences":
        # One of two parameters, and a contact and categories that exist.
        given = case.query if case.method == "GET" else case.body
        if not given.get("token"):
            given["email"] = sync()
        for subscription in given.get("subscriptions", ()):
            subscription["categoryKey"] = "marketing"


schemathesis.hook(before_call)


def send() -> str:
    """Send a message; return its id."""
    attachments = [{"filename": "rows.csv", "contentBase64": "YQ=="}]
    message = {"to": "ops@example.org", "subject": "Rows", "content": "20 rows.", "attachments": attachments}
    response = API.post("/api/v1/emails/send", json=message)
    if not response.is_success:
        # A control call has changed what the sandbox accepts.
        API.post("/_sandbox/reset").raise_for_status()
        response = API.post("/api/v1/emails/send", json=message).raise_for_status()
    return str(response.json()["sendId"])


def sync() -> str:
    """Sync a contact; return its address."""
    contact = {"email": CONTACT, "eventId": f"event-{next(NUMBERS)}"}
    API.post("/api/v1/contacts/sync", json={"contacts": [contact]}).raise_for_status()
    return CONTACT
