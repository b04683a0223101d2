"""API calls of more than one request, driven by hand; tests/wire/test_client.py has both clients drive them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_fluxomail.client import flows
from airflow_provider_fluxomail.client.errors import FluxomailResponseError
from airflow_provider_fluxomail.client.flows import Flow, T
from airflow_provider_fluxomail.client.models import Response
from airflow_provider_fluxomail.client.settings import ClientSettings

SETTINGS = ClientSettings(api_key="fm_key")


def drive(flow: Flow[T], *payloads: Any) -> tuple[T, list[str]]:
    """Respond to a flow's requests with these payloads; return its result and the ends of the paths."""
    paths: list[str] = []
    responses = iter(payloads)
    try:
        call = next(flow)
        while True:
            paths.append(call.request.path.rpartition("/")[2])
            response = Response(status=200, headers={}, content=json.dumps(next(responses)).encode())
            call = flow.send(call.read(call.request, response, SETTINGS))
    except StopIteration as end:
        return end.value, paths


def test_all_pages_of_a_timeline_are_read_sorted_and_without_repeats() -> None:
    timeline, paths = drive(
        flows.timeline("s1"),
        {"events": [{"type": "opened", "ts": 3}], "nextCursor": "c/1"},
        {"events": [{"type": "delivered", "ts": 2}, {"type": "opened", "ts": 3}], "nextCursor": "c2"},
        {"events": [{"type": "sent", "ts": 1}], "nextCursor": ""},
    )
    assert paths == ["s1", "s1?cursor=c%2F1", "s1?cursor=c2"]
    assert [event.type for event in timeline.events] == ["sent", "delivered", "opened"]


def test_pages_in_a_circle_end() -> None:
    page = {"events": [], "nextCursor": "same"}
    assert drive(flows.timeline("s1"), page, page)[1] == ["s1", "s1?cursor=same"]
    endless = [{"events": [], "nextCursor": str(n)} for n in range(200)]
    assert len(drive(flows.timeline("s1"), *endless)[1]) == flows.MAX_TIMELINE_PAGES + 1


def test_a_timeline_without_events_is_not_fluxomails() -> None:
    with pytest.raises(FluxomailResponseError, match="list of events"):
        drive(flows.timeline("s1"), {"send": {}})
