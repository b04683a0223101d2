"""Sends alerts: drafts the messages, sends them within the time limit, and logs each outcome.

There is one implementation, :func:`_send`, for event loops. :func:`send_alert` runs it in a thread with an event loop
of its own: the caller's thread may run one already, and a thread can be left behind when the time is up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import math
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from airflow_provider_fluxomail.airflow_compat import BaseHook, get_async_connection
from airflow_provider_fluxomail.alerts import TIME_LIMIT
from airflow_provider_fluxomail.alerts.alert import Alert
from airflow_provider_fluxomail.alerts.draft import Draft, Outgoing, format_error
from airflow_provider_fluxomail.client.aio import AsyncFluxomailClient
from airflow_provider_fluxomail.client.errors import FluxomailIdempotencyConflictError
from airflow_provider_fluxomail.client.models import SendResult
from airflow_provider_fluxomail.client.unexpected import unexpected
from airflow_provider_fluxomail.configuration.connection import FluxomailConnection
from airflow_provider_fluxomail.sending.replay import is_foreign
from airflow_provider_fluxomail.sending.send_once import Identity, asend_once

if TYPE_CHECKING:
    from airflow_provider_fluxomail.airflow_compat import Context
    from airflow_provider_fluxomail.client.settings import ClientSettings
    from airflow_provider_fluxomail.notifications import FluxomailNotifier

#: Outcomes by position of the message; those that are missing at the end have timed out.
Results = dict[int, SendResult | Exception]

#: Messages that are sent at the same time.
_CONCURRENCY: Final = 4
#: Seconds after the time limit in which requests are cancelled and connections closed.
_CLOSING: Final = 1.0

_P = ParamSpec("_P")
_T = TypeVar("_T")


def send_alert(notifier: FluxomailNotifier, context: Context) -> None:
    """Send an alert from a callback that is not asynchronous. Never raises.

    Whatever may request something from Airflow (failed tasks, connection, templates) runs in the caller's thread, not
    on the event loop: a blocking request on a loop fails in some places (the triggerer of Airflow 3.0), and a process
    has one channel to its supervisor, for one request at a time. ``time_limit`` cannot cut these requests short.
    """
    until = _until(notifier)
    with _errors_logged(notifier):
        draft = Draft(notifier, context)
        connection = FluxomailConnection.of(BaseHook.get_connection(draft.conn_id))
        messages = draft.messages(connection.idempotency_namespace)
        results: Results = {}
        _run_in_thread(_send(messages, connection.settings, until, results), until + _CLOSING)
        _report(notifier, draft.alert, dict(results), len(messages))


async def asend_alert(notifier: FluxomailNotifier, context: Context) -> None:
    """Send an alert from an event loop, see :func:`send_alert`."""
    until = _until(notifier)
    with _errors_logged(notifier):
        draft = Draft(notifier, context)
        lookup = asyncio.ensure_future(get_async_connection(draft.conn_id))
        # Never cancelled: others on this loop use the same channel to Airflow.
        lookup.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({lookup}, timeout=until - time.monotonic())
        if not lookup.done():
            raise TimeoutError("Airflow did not return the connection within time_limit")
        connection = FluxomailConnection.of(lookup.result())
        messages = draft.messages(connection.idempotency_namespace)
        results: Results = {}
        await _send(messages, connection.settings, until, results)
        _report(notifier, draft.alert, results, len(messages))


async def _send(
    messages: Sequence[Outgoing | Exception], settings: ClientSettings, until: float, results: Results
) -> None:
    """Send messages, a few at a time, until ``time.monotonic()`` is ``until``; fill in the results."""
    turns = asyncio.Semaphore(_CONCURRENCY)

    async def send(client: AsyncFluxomailClient, number: int, outgoing: Outgoing) -> None:
        async with turns:
            try:
                results[number] = await asend_once(outgoing.message, Identity(key=outgoing.key), client)
            except Exception as error:  # noqa: BLE001 - logged with the others
                results[number] = unexpected(error)

    results.update((number, error) for number, error in enumerate(messages) if isinstance(error, Exception))
    async with AsyncFluxomailClient(_limited(settings, until)) as client:
        tasks = [
            asyncio.ensure_future(send(client, number, outgoing))
            for number, outgoing in enumerate(messages)
            if isinstance(outgoing, Outgoing)
        ]
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=max(0.0, until - time.monotonic()))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _limited(settings: ClientSettings, until: float) -> ClientSettings:
    """Return the settings with timeouts one second longer than what is left: then the time limit ends a request."""
    left = max(until - time.monotonic(), 0.0) + 1.0
    return dataclasses.replace(settings, timeout=min(settings.timeout, left), max_wait=min(settings.max_wait, left))


def _run_in_thread(coroutine: Coroutine[Any, Any, None], until: float) -> None:
    """Run a coroutine on an event loop of its own, and return when it is done or the time is up."""
    threads = _DaemonThreads()

    def run() -> None:
        with asyncio.Runner() as runner:
            runner.get_loop().set_default_executor(threads)
            runner.run(coroutine)

    done = threads.submit(contextvars.copy_context().run, run)
    wait([done], timeout=max(0.0, until - time.monotonic()))
    if done.done():
        done.result()


class _DaemonThreads(ThreadPoolExecutor):
    """Runs each call in a daemon thread: sends alerts, and looks up host names for their event loop.

    A lookup has no timeout, and a process waits at its end for the threads of a pool.
    """

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        future: Future[_T] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                future.set_exception(error)

        threading.Thread(target=run, name="fluxomail-alert", daemon=True).start()
        return future


def _until(notifier: FluxomailNotifier) -> float:
    limit = notifier.time_limit
    if not isinstance(limit, int | float) or isinstance(limit, bool) or not (0 < limit < math.inf):
        notifier.log.warning("time_limit must be a number of seconds above 0; using %g.", TIME_LIMIT)
        limit = TIME_LIMIT
    return time.monotonic() + limit


@contextlib.contextmanager
def _errors_logged(notifier: FluxomailNotifier) -> Iterator[None]:
    """Log an error instead of raising it: an alert that fails must not change the state of a task or run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        notifier.log.error("Alert was not sent: %s", format_error(error))  # noqa: TRY400 - a traceback shows values


def _report(notifier: FluxomailNotifier, alert: Alert, results: Results, count: int) -> None:
    """Log the outcome of each message, without its recipient."""
    what = f"{alert.kind} of {alert.name}"
    for number in range(count):
        which = f" to recipient {number + 1} of {count}" if count > 1 else ""
        result = results.get(number)
        if result is None:
            notifier.log.error("Alert (%s)%s timed out after time_limit; it may still have been sent.", what, which)
        elif isinstance(result, FluxomailIdempotencyConflictError):
            notifier.log.info("Alert (%s)%s was already sent: Airflow called the callback twice.", what, which)
        elif isinstance(result, Exception):
            notifier.log.error("Alert (%s)%s was not sent: %s", what, which, format_error(result))
        else:
            how = "had already accepted" if is_foreign(result) else "accepted"
            notifier.log.info("Fluxomail %s the alert (%s)%s as send %s.", how, what, which, result.send_id)
