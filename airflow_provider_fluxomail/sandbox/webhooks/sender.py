"""Sends what happens to messages to the endpoint of ``webhook_url``, and again after a failure.

https://docs.fluxomail.com/guides/webhooks-setup
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_fluxomail.sandbox.api.event_bus import BATCH, BATCH_CHARS, EventBus, Subscriber
from airflow_provider_fluxomail.sandbox.clock import Clock
from airflow_provider_fluxomail.sandbox.limits import DEFAULT_ORGANIZATION, Bounds
from airflow_provider_fluxomail.sandbox.store.database import Store
from airflow_provider_fluxomail.sandbox.store.event_log import Cursor, EventFilter, Moment
from airflow_provider_fluxomail.sandbox.store.records import StoredEvent
from airflow_provider_fluxomail.sandbox.switches import Switches
from airflow_provider_fluxomail.sandbox.webhooks.deliveries import Attempt, Delivery, DeliveryLog
from airflow_provider_fluxomail.sandbox.webhooks.signature import headers

if TYPE_CHECKING:
    import httpx

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 8
"""Requests to the endpoint at the same time."""
_GROUP: Final = 50
"""Most events of a body with more than one."""


class WebhookSender:
    """One task that plans deliveries and starts those that are due; it lives only while there is an endpoint.

    An event is read from the log when it happens by the sandbox clock, which also times the retries: moving the clock
    brings both forward.

    :param switches: returns the switches as they are now.
    """

    def __init__(
        self, store: Store, clock: Clock, event_bus: EventBus, bounds: Bounds, switches: Callable[[], Switches]
    ) -> None:
        self.log = DeliveryLog(bounds)
        self._store = store
        self._clock = clock
        self._event_bus = event_bus
        self._switches = switches
        self._task: asyncio.Task[None] | None = None
        self._requests: set[asyncio.Task[None]] = set()
        self._subscriber: Subscriber | None = None

    def apply(self) -> None:
        """Start or stop, as the switches are now. From within the event loop only."""
        wanted = self._switches().webhook_url is not None
        if wanted and self._task is None:
            # Now, not when the task first runs: the next send is after it.
            start = self._event_bus.now()
            self._task = asyncio.get_running_loop().create_task(self._run(start), name="fluxomail-webhooks")
            self._task.add_done_callback(_log_failure)
        elif not wanted:
            self._stop()

    def reset(self) -> None:
        """Drop everything, and start again if the switches say so. From within the event loop only."""
        self._stop()
        self.log.clear()
        self.apply()

    def redeliver(self, delivery: Delivery) -> None:
        """Make one more attempt now, at the endpoint as it is now."""
        delivery.redeliver(self._switches().webhook_url or delivery.url, self._clock.now())
        self._wake()

    def send_sample(self) -> Delivery | None:
        """Plan a delivery like that of the app's test button; None without an endpoint."""
        url, now_ms = self._switches().webhook_url, self._clock.now_ms()
        if url is None:
            return None
        data = {"to": "test@example.org", "subject": "Test", "messageId": "0100-test-000000"}
        event = self._event(f"evt_test_{now_ms}", "delivered", now_ms, data)
        planned = self._plan([event])[0]
        self._wake()
        return planned

    def _wake(self) -> None:
        if self._subscriber is not None:
            self._subscriber.wake()

    def _stop(self) -> None:
        for task in (self._task, *self._requests):
            if task is not None:
                task.cancel()
        self._task = None

    async def _run(self, cursor: Cursor) -> None:
        import httpx

        # Not a client, which would log each URL at INFO in the process of a test, and use its proxies.
        async with httpx.AsyncHTTPTransport() as transport:
            with self._event_bus.subscribe() as subscriber:
                self._subscriber = subscriber
                while True:
                    subscriber.start_reading()
                    more, room = False, self.log.room
                    # What waits in the store is not lost when the endpoint is slow.
                    if room > 0:
                        events, cursor, more = self._read(cursor, room)
                        self._plan([self._shown(event) for event in events])
                    self._start_due(transport)
                    if more and self.log.room > 0:
                        await asyncio.sleep(0)
                    else:
                        await subscriber.wait(self._next_due())

    def _read(self, cursor: Cursor, room: int) -> tuple[list[StoredEvent], Cursor, bool]:
        moment = Moment(self._clock.now_ms(), self._store.event_log.newest())
        # It may return twice as many.
        limit = min(BATCH, (room + 1) // 2)
        wanted = EventFilter(DEFAULT_ORGANIZATION, tuple(self._switches().webhook_types) or ("",))
        return self._store.event_log.after(cursor, wanted, moment, limit, BATCH_CHARS)

    def _shown(self, event: StoredEvent) -> dict[str, Any]:
        send = self._store.get_send(event.send_id)
        assert send is not None
        number = hashlib.sha256(f"{event.send_id}:{event.number}".encode()).hexdigest()[:24]
        data: dict[str, Any] = {"to": send.recipient, "subject": send.subject, "messageId": event.message_id}
        if self._switches().webhook_send_id:
            data["sendId"] = event.send_id
        return self._event(f"evt_{number}", event.type, event.at_ms, event.data | data)

    def _event(self, event_id: str, kind: str, at_ms: int, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": event_id,
            "type": f"email.{kind}",
            "created": at_ms,
            "organizationId": DEFAULT_ORGANIZATION,
            "data": data,
        }

    def _plan(self, events: Sequence[dict[str, Any]]) -> list[Delivery]:
        """Plan the deliveries of events, in bodies of the form that the switches choose."""
        switches = self._switches()
        if switches.webhook_url is None:
            return []
        size = 1 if switches.webhook_body == "event" else _GROUP
        planned = []
        for start in range(0, len(events), size):
            group = events[start : start + size]
            content: Any = {"event": group[0], "list": group, "events": {"events": group}}[switches.webhook_body]
            body = json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
            names = [(event["id"], event["type"]) for event in group]
            planned.append(
                self.log.add(
                    switches.webhook_url, names, body, now=self._clock.now(), attempts=switches.webhook_attempts
                )
            )
        return planned

    def _start_due(self, transport: httpx.AsyncHTTPTransport) -> None:
        now = self._clock.now()
        for delivery in self.log:
            if len(self._requests) >= _AT_ONCE:
                return
            if delivery.due(now):
                delivery.start()
                task = asyncio.ensure_future(self._request(transport, delivery))
                self._requests.add(task)
                task.add_done_callback(self._requests.discard)
                task.add_done_callback(lambda _: self._wake())

    def _next_due(self) -> float | None:
        """When a delivery becomes due, in the event loop's time; None if another event comes first."""
        times = [one.next_at for one in self.log if one.waiting and one.next_at is not None]
        if not times or len(self._requests) >= _AT_ONCE:
            return None
        return asyncio.get_running_loop().time() + max(0.0, min(times) - self._clock.now())

    async def _request(self, transport: httpx.AsyncHTTPTransport, delivery: Delivery) -> None:
        import httpx

        switches = self._switches()
        began, status, error = time.monotonic(), None, None
        try:
            async with asyncio.timeout(switches.webhook_timeout):
                sent = headers(delivery.body, switches)
                request = httpx.Request("POST", delivery.url, headers=sent, content=delivery.body)
                response = await transport.handle_async_request(request)
                status = response.status_code
                await response.aclose()
        except asyncio.CancelledError:
            # Stopped by a switch: it is sent once there is an endpoint again.
            delivery.interrupt()
            raise
        except TimeoutError:
            error = f"no response within {switches.webhook_timeout:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as failure:
            error = f"{type(failure).__name__}: {failure}"[:500]
        passed = round(time.monotonic() - began, 3)
        attempt = Attempt(at=self._clock.now(), status=status, error=error, seconds=passed)
        delivery.finish(attempt, switches.webhook_backoff)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.error("Webhooks stopped", exc_info=task.exception())
