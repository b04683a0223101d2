"""The answer of ``GET /api/v1/sends/{id}`` in its forms. https://docs.fluxomail.com/api-reference/fluxomail/get-send"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_fluxomail.sandbox.api.query import cursor, envelope, page_limit, row
from airflow_provider_fluxomail.sandbox.store.records import Position

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from airflow_provider_fluxomail.sandbox.store.records import StoredEvent, StoredSend
    from airflow_provider_fluxomail.sandbox.switches import Settings

FROM_EMAIL = "no-reply@sandbox.example"
"""The sender: in the service it is the organization's active From identity."""


def timeline(send: StoredSend, events: Sequence[StoredEvent], request: Request, settings: Settings) -> dict[str, Any]:
    """The timeline of a send.

    The documented form has short rows and all events; the other has envelopes, in pages from the newest to the
    oldest.

    :param events: those that have happened, in the order of their time.
    :raises ApiError: 400, ``limit`` or ``cursor`` are wrong.
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
    form = settings.timeline_form
    if form == "by_version":
        form = "spec" if request.headers.get("fluxomail-version") else "docs"
    if form == "docs":
        return answer | {"events": [row(event) for event in events]}
    page, next_cursor = _page(
        events, cursor(request.query_params), page_limit(request.query_params, settings.page_size)
    )
    return answer | {
        "events": [] if form == "raw" else [envelope(event) for event in page],
        "rawEvents": [row(event) for event in page],
        "nextCursor": None if next_cursor is None else str(next_cursor),
    }


def _page(
    events: Sequence[StoredEvent], before: Position | None, limit: int
) -> tuple[Sequence[StoredEvent], Position | None]:
    """Some events, newest first, and where the next page ends."""
    older = [event for event in reversed(events) if before is None or event.position < before]
    page = older[:limit]
    return page, page[-1].position if page and len(older) > limit else None
