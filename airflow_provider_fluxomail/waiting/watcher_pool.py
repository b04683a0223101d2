"""The watchers of a triggerer: each connection is looked up once, and all waits on one key share a watcher.

A triggerer runs its triggers on one event loop; so does Airflow 2, in a thread. What they share is kept per loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.watching.wait import now, timing
from airflow_provider_fluxomail.client.watching.watcher import Watcher
from airflow_provider_fluxomail.configuration import airflow_cfg, connection

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.watching.event_load import Availability
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection


class WatcherPool:
    """The watchers of one event loop."""

    _by_loop: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, WatcherPool]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._lookups: dict[str, asyncio.Task[Watcher]] = {}
        # When each lookup ended, monotonic seconds.
        self._looked_up_at: dict[str, float] = {}
        self._watchers: list[tuple[FluxomailConnection, Watcher]] = []
        # Of the event streams that ended watchers found not to be available.
        self._unavailable: list[tuple[FluxomailConnection, Availability]] = []

    @classmethod
    def for_running_loop(cls) -> WatcherPool:
        """Return the pool of the running event loop. The key is the loop itself, because ids are reused."""
        return cls._by_loop.setdefault(asyncio.get_running_loop(), cls())

    async def get(
        self,
        conn_id: str,
        *,
        instead_of: Watcher | None = None,
        used_before: bool = False,
        within: float | None = None,
    ) -> Watcher:
        """Return the watcher for a connection, which is looked up again at most once a minute.

        :param instead_of: a watcher whose key was refused: look the connection up again, unless another wait did.
        :param used_before: see :func:`.outages`.
        :param within: seconds after which a lookup that hangs counts as failed.
        """
        lookup = self._lookups.get(conn_id)
        if lookup is None or self._is_stale(lookup, conn_id, instead_of):
            # In a task and a context of its own: the trigger that requests it first may be cancelled.
            finding = self._find(conn_id, self._known(lookup, instead_of))
            lookup = asyncio.get_running_loop().create_task(finding, context=contextvars.Context())
            self._lookups[conn_id] = lookup
        with connection.outages(conn_id, used_before=used_before):
            async with asyncio.timeout(within):
                return await asyncio.shield(lookup)

    def _is_stale(self, lookup: asyncio.Task[Watcher], conn_id: str, instead_of: Watcher | None) -> bool:
        if not lookup.done():
            return False
        age = time.monotonic() - self._looked_up_at[conn_id]
        if lookup.cancelled() or lookup.exception() is not None:
            return age > timing().failed_lookup
        # Now and then even if it is in use: the key may have been replaced, and the old one still be accepted.
        return age > timing().repeat_lookup or self._known(lookup, instead_of) is None

    @staticmethod
    def _known(lookup: asyncio.Task[Watcher] | None, instead_of: Watcher | None = None) -> Watcher | None:
        """Return the watcher that a lookup has found, if more waits may join it."""
        if lookup is None or not lookup.done() or lookup.cancelled() or lookup.exception() is not None:
            return None
        found = lookup.result()
        return None if found.ended or found is instead_of else found

    async def _find(self, conn_id: str, known: Watcher | None) -> Watcher:
        """Look a connection up and return its watcher, or ``known`` if Airflow cannot return the connection now."""
        try:
            found = await connection.read_connection(conn_id)
            watcher = self._watcher_of(found)
        except Exception as error:
            if known is None or known.ended or isinstance(error, FluxomailError):
                raise
            return known
        finally:
            self._looked_up_at[conn_id] = time.monotonic()
        if known is not None and known is not watcher and not self._is_used(known, but_for=conn_id):
            known.retire()
        return watcher

    def _watcher_of(self, found: FluxomailConnection) -> Watcher:
        for known, watcher in self._watchers:
            if known == found and not watcher.ended:
                return watcher
        self._unavailable = [pair for pair in self._unavailable if pair[1].not_before > now()]
        watcher = Watcher(
            found.settings,
            share=found.poll_share,
            follow=airflow_cfg.follow_events(),
            availability=next((availability for known, availability in self._unavailable if known == found), None),
            on_end=self._forget,
        )
        self._watchers.append((found, watcher))
        return watcher

    def _is_used(self, watcher: Watcher, *, but_for: str) -> bool:
        """Return whether a connection other than ``but_for`` leads to a watcher."""
        return any(self._known(lookup) is watcher for conn_id, lookup in self._lookups.items() if conn_id != but_for)

    def _forget(self, watcher: Watcher) -> None:
        self._unavailable += [(found, one.availability) for found, one in self._watchers if one is watcher]
        self._watchers = [pair for pair in self._watchers if pair[1] is not watcher]
        for conn_id, lookup in list(self._lookups.items()):
            if lookup.done() and not lookup.cancelled() and not lookup.exception() and lookup.result() is watcher:
                del self._lookups[conn_id], self._looked_up_at[conn_id]
