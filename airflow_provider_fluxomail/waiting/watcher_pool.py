"""The watchers of a triggerer: each connection is looked up once, and all waits on one key share a watcher.

A triggerer runs its triggers on one event loop; so does Airflow 2, in a thread. What they share is kept per loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
import weakref
from typing import TYPE_CHECKING, Final

from airflow_provider_fluxomail.client.watching.wait import timing
from airflow_provider_fluxomail.client.watching.watcher import Watcher
from airflow_provider_fluxomail.configuration import airflow_cfg, connection

if TYPE_CHECKING:
    from airflow_provider_fluxomail.configuration.connection import FluxomailConnection


class WatcherPool:
    """The watchers of one event loop."""

    _by_loop: Final[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, WatcherPool]] = weakref.WeakKeyDictionary()

    def __init__(self) -> None:
        self._lookups: dict[str, asyncio.Task[Watcher]] = {}
        self._failed_at: dict[str, float] = {}
        self._watchers: list[tuple[FluxomailConnection, Watcher]] = []

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
        """Return the watcher for a connection, which is looked up once for as long as the watcher lives.

        :param instead_of: a watcher whose key was refused: look the connection up again, unless another wait did.
        :param used_before: see :func:`.outages`.
        :param within: seconds after which a lookup that hangs counts as failed.
        """
        lookup = self._lookups.get(conn_id)
        if lookup is None or self._is_stale(lookup, conn_id, instead_of):
            # In a task and a context of its own: the trigger that requests it first may be cancelled.
            lookup = asyncio.get_running_loop().create_task(self._find(conn_id), context=contextvars.Context())
            self._lookups[conn_id] = lookup
        with connection.outages(conn_id, used_before=used_before):
            async with asyncio.timeout(within):
                return await asyncio.shield(lookup)

    def _is_stale(self, lookup: asyncio.Task[Watcher], conn_id: str, instead_of: Watcher | None) -> bool:
        if not lookup.done():
            return False
        if lookup.cancelled() or lookup.exception() is not None:
            return time.monotonic() > self._failed_at.get(conn_id, 0.0) + timing().failed_lookup
        return lookup.result().ended or lookup.result() is instead_of

    async def _find(self, conn_id: str) -> Watcher:
        try:
            found = await connection.read_connection(conn_id)
            for known, watcher in self._watchers:
                if known == found and not watcher.ended:
                    return watcher
            follow = airflow_cfg.follow_events()
            watcher = Watcher(found.settings, share=found.poll_share, follow=follow, on_end=self._forget)
        except Exception:
            self._failed_at[conn_id] = time.monotonic()
            raise
        self._watchers.append((found, watcher))
        return watcher

    def _forget(self, watcher: Watcher) -> None:
        self._watchers = [pair for pair in self._watchers if pair[1] is not watcher]
        for conn_id, lookup in list(self._lookups.items()):
            if lookup.done() and not lookup.cancelled() and not lookup.exception() and lookup.result() is watcher:
                del self._lookups[conn_id]
