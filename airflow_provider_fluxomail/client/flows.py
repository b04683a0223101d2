"""API calls of one or more requests, written once as generators that both clients drive.

A flow yields the requests that it needs and receives what their responses mean; errors are raised within it::

    def two_timelines(one: str, other: str) -> Flow[list[Timeline]]:
        return [(yield from timeline(one)), (yield from timeline(other))]


    client.run(two_timelines("sends_1", "sends_2"))  # FluxomailClient
    await client.run(two_timelines("sends_1", "sends_2"))  # AsyncFluxomailClient

The clients only move bytes: what a request is and what a response means is decided here and in :mod:`.wire`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Generator
from typing import Any, Final, TypeAlias, TypeVar

from airflow_provider_fluxomail.client import wire
from airflow_provider_fluxomail.client.errors import FluxomailConnectionError, FluxomailError
from airflow_provider_fluxomail.client.inline_images import InlineImageWarning
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.models import MAX_EVENTS, Request, Response, SendResult, Timeline
from airflow_provider_fluxomail.client.retries import retry_options
from airflow_provider_fluxomail.client.settings import ClientSettings

T = TypeVar("T")

#: Pages of one timeline that are read at most: a server that never stops paging must not hold a task forever.
MAX_TIMELINE_PAGES: Final = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One step of a flow: a request, repeated as its errors allow.

    :param request: what to send.
    :param read: returns what its response means, or raises the error that it stands for. A client calls it within each
        attempt: half a response, or that of a proxy, does not show what the server did, so it is retried.
    :param failures: collects the error of each attempt that failed.
    """

    request: Request
    read: Callable[[Request, Response, ClientSettings], Any]
    failures: list[FluxomailError] = dataclasses.field(default_factory=list)


Flow: TypeAlias = Generator[Call, Any, T]


def call(
    request: Request,
    read: Callable[[Request, Response, ClientSettings], T],
    failures: list[FluxomailError] | None = None,
) -> Flow[T]:
    """Make one request, see :class:`Call`."""
    result: T = yield Call(request=request, read=read, failures=[] if failures is None else failures)
    return result


def timeline(send_id: str, *, within: float | None = None) -> Flow[Timeline]:
    """Read all pages of a send's timeline, until a cursor is repeated: a server may page in circles.

    More than :data:`MAX_TIMELINE_PAGES` pages, or :data:`.MAX_EVENTS` events, are not read.

    :param within: seconds after which no further page is requested.
    """
    until = time.monotonic() + (math.inf if within is None else within)
    read = functools.partial(wire.read_timeline, send_id)
    whole = yield from call(wire.timeline_request(send_id), read)
    cursors: set[str] = set()
    while (cursor := whole.next_cursor) and cursor not in cursors and len(cursors) < MAX_TIMELINE_PAGES:
        if len(whole.events) > MAX_EVENTS:
            break
        cursors.add(cursor)
        if time.monotonic() > until:
            raise FluxomailConnectionError(
                f"the timeline was not complete after {within:.0f} s and {len(cursors)} pages", ambiguous=False
            )
        whole = whole.joined((yield from call(wire.timeline_request(send_id, cursor), read)))
    return whole


class BaseClient:
    """What both clients share: their settings, and the flow of a send."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        sleep: Callable[[float], Any] | None = None,
        on_response: Callable[[Response], None] | None = None,
        inline_images: InlineImageWarning | None = None,
        on_redirect: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        self._on_response = on_response
        self._inline_images = inline_images or InlineImageWarning()
        self._on_redirect = on_redirect or settings.observer.redirected

    def send_flow(self, message: EmailMessage, *, idempotency_key: str | None = None) -> Flow[SendResult]:
        """Send one message, see :meth:`.FluxomailClient.send`; a step of longer flows."""
        self._inline_images.check(message)
        request = wire.send_request(self.settings.guard.apply(message, self._on_redirect), idempotency_key)
        observer, failures = self.settings.observer, list[FluxomailError]()
        try:
            sent = yield from call(request, wire.read_send, failures)
        except FluxomailError as error:
            # The last attempt may have been refused, and an earlier one accepted without a response.
            error.ambiguous = any(failure.ambiguous for failure in [*failures, error])
            observer.not_sent(error)
            raise
        if sent.reused and any(failure.ambiguous for failure in failures):
            sent = dataclasses.replace(sent, own_replay=True)
        observer.sent(sent)
        return sent

    def _retry_options(self, step: Call, max_attempts: int | None) -> dict[str, Any]:
        options = retry_options(
            step.request,
            max_attempts=max_attempts or self.settings.max_attempts,
            max_wait=self.settings.max_wait,
            failures=step.failures,
            observer=self.settings.observer,
        )
        return {**options, "sleep": self._sleep} if self._sleep else options

    def _received(self, response: Response) -> None:
        if response.status == 429:
            self.settings.observer.rate_limited()
        if self._on_response:
            self._on_response(response)
