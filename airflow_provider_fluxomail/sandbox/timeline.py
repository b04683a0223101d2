"""The answer of ``GET /api/v1/sends/{id}`` in both forms. https://docs.fluxomail.com/api-reference/fluxomail/get-send"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.sandbox.delivery import CLICKED, OPENED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_fluxomail.sandbox.delivery import PlannedEvent
    from airflow_provider_fluxomail.sandbox.records import StoredSend

FROM_EMAIL = "no-reply@sandbox.example"
"""The sender: in the service it is the organization's active From identity."""


def timeline(send: StoredSend, events: Sequence[PlannedEvent], form: str) -> dict[str, Any]:
    """The timeline of a send.

    :param events: those that have happened, in the order of their time.
    :param form: ``docs`` for short rows with times in ms, ``spec`` for envelopes with ISO times.
    """
    answer: dict[str, Any] = {
        "send": {
            "_id": send.send_id,
            "toEmail": send.recipient,
            "subject": send.subject,
            "status": "sent",
            "idempotencyKey": send.idempotency_key,
            "createdAt": send.created_ms,
            "updatedAt": max([send.created_ms, *(event.at_ms for event in events)]),
        },
        "messages": [
            {
                "sendId": send.send_id,
                "provider": "aws_ses",
                "fromEmail": FROM_EMAIL,
                "toEmail": send.recipient,
                "feedbackId": f"send-{send.send_id}",
                "providerMessageId": send.message_id,
                "createdAt": send.created_ms,
            }
        ],
    }
    rows = [_row(send, event) for event in events]
    if form == "docs":
        return answer | {"events": rows}
    return answer | {
        "events": [_envelope(send, event) for event in events],
        "rawEvents": rows,
        "nextCursor": None,
    }


def iso(at_ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC, with three decimals and ``Z``."""
    seconds, milliseconds = divmod(at_ms, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def _row(send: StoredSend, event: PlannedEvent) -> dict[str, Any]:
    row = event.data | {"type": event.type, "ts": event.at_ms}
    # The tracking routes know no provider message: the documented rows of these two carry none.
    return row if event.type in (OPENED, CLICKED) else row | {"providerMessageId": send.message_id}


def _envelope(send: StoredSend, event: PlannedEvent) -> dict[str, Any]:
    return {
        "id": f"{send.send_id}:{event.at_ms}",
        "type": f"email.{event.type}",
        "created": iso(event.at_ms),
        "data": event.data | {"sendId": send.send_id, "providerMessageId": send.message_id},
    }
