"""The trigger of event-driven Dags: an asset that changes when something happens to messages."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from airflow.triggers.base import TriggerEvent

from airflow_provider_fluxomail.airflow_compat import HAS_ASSET_WATCHERS, BaseEventTrigger
from airflow_provider_fluxomail.asset_events.cursor import CursorStore, Follower
from airflow_provider_fluxomail.asset_events.source import EventSource, Mark, Part
from airflow_provider_fluxomail.client.errors import FluxomailValidationError
from airflow_provider_fluxomail.client.events import EventFilter
from airflow_provider_fluxomail.hooks import FluxomailHook

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import SharedStreamProducer
    from airflow_provider_fluxomail.client.events import FeedEvent

#: What can be waited for.
EVENT_TYPES: Final = (
    "sent",
    "delayed",
    "delivered",
    "opened",
    "clicked",
    "bounced",
    "complained",
    "dropped",
    "failed",
)


class FluxomailEventTrigger(BaseEventTrigger):
    """Changes an asset when something happens to messages: a Dag that is scheduled on the asset runs.

    Needs Airflow 3. On Airflow 3.3 all triggers on one connection share a stream, and none loses an event when the
    triggerer is restarted; before, each has a stream of its own, and begins anew with what happens from then on.

    Events that come close together change the asset once. The payload is ``{"events": [...]}``; each of them says
    ``type``, ``send_id``, ``message_id``, ``time``, ``event_id`` and ``reason``, and not who the recipient is:
    :meth:`.FluxomailHook.get_timeline` does.

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
        fluxomail_conn_id: str = FluxomailHook.default_conn_name,
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
        """Return the class path and the arguments that make this trigger anew after a restart."""
        return (
            # Under its public name, wherever the class lies.
            "airflow_provider_fluxomail.triggers.FluxomailEventTrigger",
            {"types": self.types, "domain": self.domain, "fluxomail_conn_id": self.fluxomail_conn_id},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Fire for each event, with a stream of its own and no cursor: where Airflow has no shared streams."""
        source = EventSource(self.fluxomail_conn_id, self.domain)
        async with (
            contextlib.aclosing(source.open_stream()) as stream,
            contextlib.aclosing(self._events(_alone(source, stream), None)) as events,
        ):
            async for event in events:
                yield event

    def shared_stream_key(self) -> Hashable | None:
        """Return what all triggers on one connection and domain share."""
        return ("airflow_provider_fluxomail.events", self.fluxomail_conn_id, self.domain or "")

    @classmethod
    def create_shared_stream_producer(cls, kwargs: dict[str, Any]) -> SharedStreamProducer:
        """Return what follows the events for all of them. It has every type: their ``types`` differ."""
        from airflow_provider_fluxomail.airflow_compat import SharedStreamProducer

        # Not derived from it, as it is needed where Airflow has no such class.
        SharedStreamProducer.register(EventSource)
        return cast("SharedStreamProducer", EventSource(kwargs["fluxomail_conn_id"], kwargs["domain"]))

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Any]) -> AsyncIterator[TriggerEvent]:
        """Fire for each event that this trigger waits for, from its own cursor on."""
        async with contextlib.aclosing(self._events(shared_stream, self.asset_state_store)) as events:
            async for event in events:
                yield event

    async def _events(self, parts: AsyncIterator[Part], stores: Any) -> AsyncGenerator[TriggerEvent]:
        wanted = EventFilter(types=tuple(f"email.{name}" for name in self.types), domain=self.domain)
        identity = [self.fluxomail_conn_id, self.domain, self.types]
        follower = Follower(wanted, CursorStore(stores, identity))
        self.log.info("Following events (%s) of connection %s.", ", ".join(self.types), self.fluxomail_conn_id)
        async for part in parts:
            if events := await follower.take(part):
                yield TriggerEvent({"events": [told(event) for event in events]})


class _Consumed(NamedTuple):
    """In place of Airflow's ``AdvanceItem``."""

    broker_payload: Mark


async def _alone(source: EventSource, stream: AsyncIterator[tuple[Part, Mark]]) -> AsyncGenerator[Part]:
    """Give the parts to one trigger. Nobody tells when its events are stored: they count as such when it goes on."""
    async for part, mark in stream:
        yield part
        await source.advance([_Consumed(mark)])


def told(event: FeedEvent) -> dict[str, str | None]:
    """Return what a Dag is told of an event: nothing of the recipient, for Airflow keeps it and logs it."""
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
    """Return the types in one order, each once: Airflow tells triggers apart by their arguments.

    :raises FluxomailValidationError: there is none, or one that no event has; it lists those that are.
    """
    names = {types} if isinstance(types, str) else set(types)
    if unknown := sorted(str(name) for name in names if name not in EVENT_TYPES):
        raise FluxomailValidationError(f"unknown event type {unknown[0]!r}: use any of {', '.join(EVENT_TYPES)}")
    if not names:
        raise FluxomailValidationError(f"types is empty: use any of {', '.join(EVENT_TYPES)}")
    return [name for name in EVENT_TYPES if name in names]


def check_domain(domain: str | None) -> str | None:
    """Return the domain in small letters.

    :raises FluxomailValidationError: it is none, such as an address.
    """
    if domain is None:
        return None
    name = domain.strip().lower().removeprefix("@")
    if not name or "@" in name or any(character.isspace() for character in name):
        # Not quoted: it may be somebody's address.
        raise FluxomailValidationError("domain is not a domain: give what comes after the @, such as example.org")
    return name
