"""The deliveries of webhooks: what was sent or will be, each with its attempts. In memory: a restart forgets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import BaseModel, Field, PrivateAttr

from airflow_provider_fluxomail.sandbox.limits import Bounds

_MAX_BACKOFF: Final = 3600.0
"""Seconds: the longest wait between two attempts."""
_MAX_BODIES: Final = 32 * 1024 * 1024
"""Bytes of all kept bodies together."""


class Attempt(BaseModel):
    """A request to the endpoint."""

    at: float = Field(description="Seconds since the epoch, by the sandbox clock.")
    status: int | None = Field(description="Of the response; null if there was none.")
    error: str | None = Field(description="Why there was none.")
    seconds: float = Field(description="How long it took, in real time.")


class Delivery(BaseModel):
    """A webhook: one body for the endpoint."""

    id: int
    url: str
    event_ids: list[str]
    types: list[str]
    state: Literal["pending", "delivered", "failed"] = "pending"
    next_at: float | None = Field(description="When the next attempt is due, by the sandbox clock; null for none.")
    attempts: list[Attempt] = Field(default_factory=list, description="Oldest first.")

    _body: bytes = PrivateAttr(default=b"")
    _left: int = PrivateAttr(default=1)
    _running: bool = PrivateAttr(default=False)

    @property
    def body(self) -> bytes:
        return self._body

    def start(self) -> None:
        self._running = True

    def due(self, now: float) -> bool:
        return self.state == "pending" and not self._running and self.next_at is not None and now >= self.next_at

    @property
    def waiting(self) -> bool:
        """Whether an attempt is planned and none is under way."""
        return self.state == "pending" and not self._running

    def finish(self, attempt: Attempt, backoff: float) -> None:
        """Note an attempt, and plan the next one if it failed.

        :param backoff: seconds after the first attempt; doubled after each further one, up to an hour.
        """
        self._running = False
        self.attempts.append(attempt)
        self._left -= 1
        if attempt.status is not None and 200 <= attempt.status < 300:
            self.state, self.next_at = "delivered", None
        elif self._left < 1:
            self.state, self.next_at = "failed", None
        else:
            self.next_at = attempt.at + min(_MAX_BACKOFF, backoff * 2 ** min(len(self.attempts) - 1, 30))

    def interrupt(self) -> None:
        """The attempt that was under way does not count."""
        self._running = False

    def redeliver(self, url: str, now: float) -> None:
        """Plan one more attempt, whatever became of the earlier ones."""
        if not self._running:
            self.url, self.state, self.next_at, self._left = url, "pending", now, 1


class DeliveryLog:
    """The newest deliveries."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._kept: dict[int, Delivery] = {}
        self._bytes = 0
        self._created = 0

    def __iter__(self) -> Iterator[Delivery]:
        """Oldest first."""
        return iter(list(self._kept.values()))

    @property
    def room(self) -> int:
        """How many can be added without dropping one that is pending."""
        return self._bounds.deliveries - sum(delivery.state == "pending" for delivery in self._kept.values())

    def get(self, number: int) -> Delivery | None:
        return self._kept.get(number)

    def add(self, url: str, events: list[tuple[str, str]], body: bytes, *, now: float, attempts: int) -> Delivery:
        """Plan a delivery for now.

        :param events: id and type of each.
        :param attempts: requests at most.
        """
        self._created += 1
        ids, types = [one[0] for one in events], [one[1] for one in events]
        delivery = Delivery(id=self._created, url=url, event_ids=ids, types=types, next_at=now)
        delivery._body, delivery._left = body, attempts
        self._kept[delivery.id] = delivery
        self._bytes += len(body)
        while len(self._kept) > self._bounds.deliveries or (self._bytes > _MAX_BODIES and len(self._kept) > 1):
            # One that is over, if there is one: the others are still to be sent.
            over = (one.id for one in self._kept.values() if one.state != "pending")
            dropped = self._kept.pop(next(over, next(iter(self._kept))))
            self._bytes -= len(dropped.body)
        return delivery

    def clear(self) -> None:
        self._kept.clear()
        self._bytes = self._created = 0
