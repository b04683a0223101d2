"""The Fluxomail API, v1: metrics of sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from airflow_provider_fluxomail.sandbox.api.access import READ_SCOPE, Access
from airflow_provider_fluxomail.sandbox.api.models import Metrics, MetricsResponse, MetricsScan, MetricsWindow
from airflow_provider_fluxomail.sandbox.api.query_parameters import bad_query, moment
from airflow_provider_fluxomail.sandbox.clock import iso
from airflow_provider_fluxomail.sandbox.exchange import json_response

if TYPE_CHECKING:
    from airflow_provider_fluxomail.sandbox.state import Sandbox

_DAY_MS: Final = 24 * 3600 * 1000
WINDOWS: Final[dict[str, int | None]] = {"24h": _DAY_MS, "7d": 7 * _DAY_MS, "30d": 30 * _DAY_MS, "all": None}
"""Milliseconds of each window; None for no limit."""
_DEFAULT_WINDOW: Final = "7d"


class MetricsApi:
    """The handler."""

    def __init__(self, sandbox: Sandbox, access: Access) -> None:
        self._sandbox = sandbox
        self._access = access

    async def metrics(self, request: Request) -> Response:
        """``GET /api/v1/metrics``: of the newest sends since a moment, with the events that have happened.

        ``since`` wins over ``window``; an empty parameter counts as left out.

        :raises ApiError: 401, 403, 429, or 400 for a parameter.
        """
        organization = self._access.admit(request, READ_SCOPE).organization
        query, now_ms = request.query_params, self._sandbox.clock.now_ms()
        preset, since = query.get("window") or _DEFAULT_WINDOW, query.get("since")
        if preset not in WINDOWS:
            raise bad_query("window", f"one of {', '.join(WINDOWS)}")
        if since:
            since_ms = moment("since", since)
        else:
            length = WINDOWS[preset]
            since_ms = 0 if length is None else max(0, now_ms - length)
        limit = self._sandbox.switches.metrics_scan_limit
        sends, events = self._sandbox.store.event_log.totals(organization, since_ms, now_ms, limit)
        return json_response(
            MetricsResponse(
                window=MetricsWindow.model_validate({"preset": preset, "since": iso(since_ms), "until": iso(now_ms)}),
                scanned=MetricsScan(sends=sends, sendScanLimit=limit),
                metrics=_metrics(events),
            )
        )


def _metrics(counted: dict[str, tuple[int, int]]) -> Metrics:
    """The metrics of events, counted by type: the events, and the messages that have one."""

    def events(kind: str) -> int:
        return counted.get(kind, (0, 0))[0]

    def messages(kind: str) -> int:
        return counted.get(kind, (0, 0))[1]

    sent, delivered = messages("sent"), messages("delivered")
    return Metrics(
        totalSent=sent,
        totalDelivered=delivered,
        deliveryRate=_percent(delivered, sent),
        totalOpened=events("opened"),
        uniqueOpens=messages("opened"),
        avgOpenRate=_percent(messages("opened"), delivered),
        totalClicked=events("clicked"),
        uniqueClicks=messages("clicked"),
        avgClickRate=_percent(messages("clicked"), delivered),
        avgClickToOpenRate=_percent(messages("clicked"), messages("opened")),
        totalBounced=messages("bounced"),
        bounceRate=_percent(messages("bounced"), sent),
        totalComplained=messages("complained"),
        complaintRate=_percent(messages("complained"), delivered),
        totalDelayed=messages("delayed"),
        delayedRate=_percent(messages("delayed"), sent),
        totalDropped=messages("dropped"),
        totalFailed=messages("failed"),
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0
