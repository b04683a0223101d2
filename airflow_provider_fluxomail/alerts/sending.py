"""Sends the mails of one alert within a time, in threads and on event loops."""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import queue
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
    from airflow_provider_fluxomail.client.messages import EmailMessage
    from airflow_provider_fluxomail.client.models import SendResult
    from airflow_provider_fluxomail.client.settings import ClientSettings

    Result = SendResult | BaseException

#: Recipients that are sent to at the same time.
_AT_ONCE: Final = 4


@dataclasses.dataclass(frozen=True, repr=False)
class Mail:
    """One mail, or why there is none."""

    message: EmailMessage | None
    key: str = ""
    error: BaseException | None = None


def send(mails: Sequence[Mail], settings: ClientSettings, until: float) -> dict[int, Result]:
    """Send in threads of their own, which are left behind when the time is up.

    Nothing else bounds a name that is looked up. They end with the process, or soon after: the client's own times were
    cut to what was left.

    :param until: when the time is up, by ``time.monotonic()``.
    :return: what became of each mail, by its place; nothing of those that have taken too long.
    """
    from airflow_provider_fluxomail.client.inline_images import InlineImageWarning
    from airflow_provider_fluxomail.client.sync import FluxomailClient

    settings = _hurried(settings, until)
    inline_images = InlineImageWarning()
    results: dict[int, Result] = {}
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    over = threading.Event()

    def nap(seconds: float) -> None:
        if over.wait(seconds):
            raise TimeoutError

    def work() -> None:
        with FluxomailClient(settings, sleep=nap, inline_images=inline_images) as client:
            while not over.is_set():
                try:
                    number = waiting.get_nowait()
                except queue.Empty:
                    return
                mail = mails[number]
                try:
                    results[number] = client.send(mail.message, idempotency_key=mail.key)  # type: ignore[arg-type]
                except Exception as error:  # noqa: BLE001 - it is told by who waits
                    results[number] = error

    good = [number for number, mail in enumerate(mails) if mail.message is not None]
    for number in good:
        waiting.put(number)
    threads = [
        # Daemons: a process that ends does not wait for them.
        threading.Thread(target=contextvars.copy_context().run, args=(work,), name="fluxomail-alert", daemon=True)
        for _ in range(min(_AT_ONCE, len(good)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    over.set()
    return dict(results)


async def asend(mails: Sequence[Mail], settings: ClientSettings, until: float) -> dict[int, Result]:
    """Send on the event loop, see :func:`send`."""
    from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient

    settings = _hurried(settings, until)
    results: dict[int, Result] = {}
    turns = asyncio.Semaphore(_AT_ONCE)

    async def one(client: AsyncFluxomailClient, number: int, mail: Mail) -> None:
        async with turns:
            try:
                results[number] = await client.send(mail.message, idempotency_key=mail.key)  # type: ignore[arg-type]
            except Exception as error:  # noqa: BLE001 - it is told by who waits
                results[number] = error

    async with AsyncFluxomailClient(settings) as client:
        good = [(number, mail) for number, mail in enumerate(mails) if mail.message is not None]
        tasks = [asyncio.ensure_future(one(client, number, mail)) for number, mail in good]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.0, until - time.monotonic()))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return results


def _hurried(settings: ClientSettings, until: float) -> ClientSettings:
    """Return the settings with no time much longer than what is left.

    A second longer, so that it is the time limit that ends a request, and the log says so.
    """
    left = max(until - time.monotonic(), 0.0) + 1.0
    return dataclasses.replace(settings, timeout=min(settings.timeout, left), max_wait=min(settings.max_wait, left))
