"""The trigger of event-driven Dags: an asset that changes when something happens to messages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from airflow.triggers.base import TriggerEvent

from airflow_provider_fluxomail.airflow_compat import HAS_ASSET_WATCHERS, BaseEventTrigger
from airflow_provider_fluxomail.asset_events.cursor import CursorStore, TriggerCursor
from airflow_provider_fluxomail.asset_events.source import BatchPosition, EventBatch, EventSource
from airflow_provider_fluxomail.client.addresses import idna_domain, normalised_domain
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.event_types import EVENT_TYPES
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.configuration import airflow_cfg

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import SharedStreamProducer
    from airflow_provider_fluxomail.client.events import FeedEvent


class FluxomailEventTrigger(BaseEventTrigger):
    """Changes an asset when something happens to messages, so that Dags which are scheduled on the asset run.

    >>> bounces = FluxomailEventTrigger(types="bounced")
    >>> Asset("bounces", watchers=[AssetWatcher(name="bounces", trigger=bounces)])  # doctest: +SKIP

    Needs Airflow 3. On Airflow 3.3 all triggers on one connection share a stream, and none loses an event across
    restarts of the triggerer; before, each has a stream of its own, and starts with new events.

    Events close together change the asset once. The payload is ``{"events": [...]}``; each event has ``type``,
    ``send_id``, ``message_id``, ``time``, ``event_id`` and ``reason``, but not the recipient:
    :meth:`.FluxomailHook.get_timeline` has.

    .. seealso:: :doc:`/guides/event-driven`.

    :param types: of the events, such as ``bounced``: any of ``sent``, ``delayed``, ``delivered``, ``opened``,
        ``clicked``, ``bounced``, ``complained``, ``dropped``, ``failed``; one, or several.
    :param domain: only messages to recipients of this domain.
    :param fluxomail_conn_id: id of the connection.
    """

    def __init__(
        self,
        *,
        types: str | Sequence[str],
        domain: str | None = None,
        fluxomail_conn_id: str = airflow_cfg.default_conn_id(),
    ) -> None:
        if not HAS_ASSET_WATCHERS:
            from airflow_provider_fluxomail.airflow_compat import AirflowOptionalProviderFeatureException

            raise AirflowOptionalProviderFeatureException(
                "FluxomailEventTrigger needs Airflow 3: Airflow 2 has no asset watchers"
            )
        super().__init__()
        self.types = check_types(types)
        self.domain = check_domain(domain)
        self.fluxomail_conn_id = fluxomail_conn_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments from which Airflow makes this trigger again after a restart."""
        return (
            # Under its public name, wherever the class is defined.
            "airflow_provider_fluxomail.triggers.FluxomailEventTrigger",
            {"types": self.types, "domain": self.domain, "fluxomail_conn_id": self.fluxomail_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each event, with a stream of its own and no cursor, where Airflow has no shared streams."""
        source = EventSource(self.fluxomail_conn_id, self.domain)
        async with (
            contextlib.aclosing(source.open_stream()) as stream,
            contextlib.aclosing(self._events(_unshared(source, stream), None)) as events,
        ):
            async for event in events:
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Return the key of the stream that all triggers on one connection and domain share."""
        return ("airflow_provider_fluxomail.events", self.fluxomail_conn_id, self.domain or "")

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return the source of their events. It has events of every type, because their ``types`` differ."""
        from airflow_provider_fluxomail.airflow_compat import SharedStreamProducer

        # Registered, not derived: EventSource is needed where Airflow has no such class.
        SharedStreamProducer.register(EventSource)
        return cast("SharedStreamProducer", EventSource(kwargs["fluxomail_conn_id"], kwargs["domain"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire for each event of this trigger's types, from its own cursor on."""
        async with contextlib.aclosing(self._events(shared_stream, self.asset_state_store)) as events:
            async for event in events:
                yield event

    async def _events(self, batches: AsyncIterator[EventBatch], stores: Any) -> AsyncGenerator[TriggerEvent]:
        wanted = EventFilter(types=tuple(self.types), domain=self.domain)
        identity = [self.fluxomail_conn_id, self.domain, self.types]
        cursor = TriggerCursor(wanted, CursorStore(stores, identity))
        self.log.info("Following events (%s) of connection %s.", ", ".join(self.types), self.fluxomail_conn_id)
        async for batch in batches:
            if events := await cursor.on_batch(batch):
                yield TriggerEvent({"events": [payload(event) for event in events]})


async def _unshared(
    source: EventSource, stream: AsyncIterator[tuple[EventBatch, BatchPosition]]
) -> AsyncGenerator[EventBatch]:
    """Yield the batches to one trigger. Its events count as stored when it requests the next batch."""
    async for batch, position in stream:
        yield batch
        source.confirm(position)


def payload(event: FeedEvent) -> dict[str, str | None]:
    """Return an event as Dags get it, without the recipient, because Airflow stores and logs it."""
    own = event.event
    return {
        "type": own.type,
        "send_id": event.send_id,
        "message_id": own.provider_message_id,
        "time": own.time.isoformat() if own.time else None,
        "event_id": own.id,
        "reason": own.reason,
    }


def check_types(types: str | Iterable[str]) -> list[str]:
    """Return the types in one order, each once: Airflow identifies triggers by their arguments."""
    names = {types} if isinstance(types, str) else set(types)
    if unknown := sorted(str(name) for name in names if name not in EVENT_TYPES):
        raise FluxomailValidationError(f"unknown event type {unknown[0]!r}: use any of {', '.join(EVENT_TYPES)}")
    if not names:
        raise FluxomailValidationError(f"types is empty: use any of {', '.join(EVENT_TYPES)}")
    return [name for name in EVENT_TYPES if name in names]


def check_domain(domain: str | None) -> str | None:
    """Return the domain in lower case; an address is an error."""
    if domain is None:
        return None
    name = normalised_domain(domain)
    if not idna_domain(name):
        # Not quoted: it may be an address.
        raise FluxomailValidationError("domain is not a domain: give what comes after the @, such as example.org")
    return name
