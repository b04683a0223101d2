"""The asynchronous client, over ``httpx``: :mod:`.sync` for event loops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from airflow_provider_fluxomail.client import events, wire
from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailError,
    FluxomailResponseError,
    FluxomailValidationError,
)
from airflow_provider_fluxomail.client.inline_images import InlineImageWarning
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.pacing import server_time
from airflow_provider_fluxomail.client.retries import Doubt, RetryPolicy
from airflow_provider_fluxomail.client.settings import ClientSettings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    import httpx

    from airflow_provider_fluxomail.client.timeline import Timeline

T = TypeVar("T")

#: An upload is given time for at least so many bytes per second.
_LEAST_UPLOAD_RATE = 64 * 1024


class AsyncFluxomailClient:
    """Talks to Fluxomail from one event loop. Use it as ``async with``, which closes its connections.

    :param settings: where and how.
    :param sleep: waits that many seconds between attempts.
    :param on_answer: is shown every answer, refusals too.
    :param inline_images: shared by clients that send for the same task, so that it warns once.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_answer: Callable[[wire.Response], None] | None = None,
        inline_images: InlineImageWarning | None = None,
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        self._on_answer = on_answer
        self._inline_images = inline_images or InlineImageWarning()
        self._http: httpx.AsyncClient | None = None

    async def send(self, message: EmailMessage, *, idempotency_key: str | None = None) -> wire.SendResult:
        """Send one message, see :meth:`.FluxomailClient.send`."""
        self._inline_images.check(message)
        guarded = self.settings.guard.apply(message, self.settings.observer.redirected)
        request = wire.send_request(guarded, idempotency_key)
        with Doubt(self.settings.observer) as doubt:
            sent = await self._call(request, wire.read_send, failures=doubt.failures)
        return doubt.settle(sent)

    async def get_timeline(self, send_id: str, *, max_attempts: int | None = None) -> Timeline:
        """Read what happened to a send, see :meth:`.FluxomailClient.get_timeline`."""
        pages = wire.TimelineReader(send_id)
        while (request := pages.next_request()) is not None:
            await self._call(request, pages.read, max_attempts)
        return pages.timeline

    async def list_events(
        self,
        wanted: events.EventFilter,
        *,
        since_ms: int,
        cursor: str | None = None,
        max_attempts: int | None = None,
    ) -> events.EventPage:
        """Read a page of what has happened to the organization's messages, newest first.

        https://docs.fluxomail.com/api-reference/fluxomail/events

        :param since_ms: milliseconds since 1970, by Fluxomail's clock.
        :param cursor: of the page before.
        :param max_attempts: other than the settings' own.
        :raises FluxomailError: the subclass says what to do.
        """
        request = events.list_request(wanted, since_ms=since_ms, cursor=cursor)
        return await self._call(request, events.read_list, max_attempts)

    @contextlib.asynccontextmanager
    async def stream_events(
        self, wanted: events.EventFilter, *, since: str | None = None, silence: float
    ) -> AsyncIterator[EventStream]:
        """Open the stream of what happens to the organization's messages. Tries once.

        https://docs.fluxomail.com/api-reference/fluxomail/events

        :param since: id of the event to go on from; what happens from now on without it.
        :param silence: seconds without a byte after which the stream counts as broken.
        :raises FluxomailError: the subclass says what to do.
        """
        request = events.stream_request(wanted, since=since)
        with self._transport_errors(request):
            answer = await self._begin(request, read_timeout=silence)
        async with contextlib.aclosing(answer):
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            streams = answer.status_code == 200 and kind == "text/event-stream"
            with self._transport_errors(request):
                body = b"" if streams else await self._body(request, answer)
            head = wire.Response(status=answer.status_code, headers=dict(answer.headers.items()), content=body)
            self._saw(head)
            if not streams:
                wire.read_payload(request, head, self.settings)
                raise wire.response_error(request, head, "the answer is no event stream")
            async with contextlib.aclosing(cast("AsyncGenerator[bytes]", answer.aiter_bytes())) as chunks:
                yield EventStream(
                    chunks,
                    functools.partial(self._transport_errors, request),
                    silence=silence,
                    since=since,
                    opened_at=server_time(head.headers),
                )

    async def close(self) -> None:
        """Close the connections that are kept open."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def __aenter__(self) -> AsyncFluxomailClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _saw(self, answer: wire.Response) -> None:
        if answer.status == 429:
            self.settings.observer.rate_limited()
        if self._on_answer:
            self._on_answer(answer)

    async def _call(
        self,
        request: wire.Request,
        read: Callable[[wire.Request, wire.Response, ClientSettings], T],
        max_attempts: int | None = None,
        failures: list[FluxomailError] | None = None,
    ) -> T:
        from tenacity import AsyncRetrying

        async def attempt() -> T:
            answer = await self._exchange(request)
            self._saw(answer)
            return read(request, answer, self.settings)

        policy = RetryPolicy.of(self.settings, max_attempts, failures)
        return await AsyncRetrying(sleep=self._sleep, **policy.options(request))(attempt)

    async def _exchange(self, request: wire.Request) -> wire.Response:
        """Move the bytes of one request and its answer."""
        with self._transport_errors(request):
            answer = await self._begin(request)
            async with contextlib.aclosing(answer):
                body = await self._body(request, answer)
                return wire.Response(status=answer.status_code, headers=dict(answer.headers.items()), content=body)

    async def _begin(self, request: wire.Request, *, read_timeout: float | None = None) -> httpx.Response:
        """Send a request and return its answer, of which only the head was read."""
        import httpx

        settings = self.settings
        if self._http is None:
            # Reading the certificates takes some 50 ms, which is too long for an event loop that others use.
            verify = await asyncio.to_thread(_tls, settings.trusted)
            proxy = await asyncio.to_thread(settings.proxy)
            self._http = self._http or _http_client(settings, verify, proxy)
        prepared = self._http.build_request(
            request.method,
            settings.base_url + request.path,
            headers={
                **wire.request_headers(settings, request),
                "Authorization": f"Bearer {settings.api_key}",
            },
            content=request.content,
            timeout=httpx.Timeout(settings.timeout, read=read_timeout or settings.timeout),
        )
        # httpx's own time-outs count from each byte anew.
        async with asyncio.timeout(2 * settings.timeout + len(request.content or b"") / _LEAST_UPLOAD_RATE):
            return await self._http.send(prepared, stream=True)

    async def _body(self, request: wire.Request, answer: httpx.Response) -> bytes:
        body = wire.BoundedBody(request, self.settings.timeout)
        async with asyncio.timeout(self.settings.timeout):
            async for chunk in answer.aiter_bytes():
                body.add(chunk)
        return body.content

    @contextlib.contextmanager
    def _transport_errors(self, request: wire.Request) -> Iterator[None]:
        """Say in this package's errors what went wrong on the way, without its cause, as in :mod:`.sync`."""
        import httpx

        try:
            yield
        except FluxomailError:
            raise
        except httpx.DecodingError:
            raise FluxomailResponseError(
                "the answer's compression is broken: it does not come from Fluxomail",
                idempotency_key=request.idempotency_key,
            ) from None
        except (ValueError, httpx.InvalidURL) as error:
            # A host or proxy that no library can use.
            raise FluxomailValidationError(f"the connection cannot be used: {type(error).__name__}") from None
        except (httpx.TransportError, OSError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # anyio 4.10 and 4.13 were seen to lose a cancellation that comes when a read times out: the task
                # would go on for ever.
                raise asyncio.CancelledError from None
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
            raise wire.no_answer(request, self.settings, error, ambiguous=not unsent) from None


class EventStream:
    """An open stream: iterate over it for the events, as they come.

    Each turn gives those that came together; none at all when there was only a sign of life. It ends when the server
    ends it.

    :param opened_at: Fluxomail's clock when it was opened, epoch seconds.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        errors: Callable[[], contextlib.AbstractContextManager[None]],
        *,
        silence: float,
        since: str | None,
        opened_at: float,
    ) -> None:
        self._chunks = chunks
        self._errors = errors
        self._silence = silence
        self._frames = events.FrameReader()
        self._since = since
        self.opened_at = opened_at

    @property
    def last_id(self) -> str | None:
        """The event to go on from once this stream has ended."""
        return self._frames.last_id or self._since

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> tuple[events.FeedEvent, ...]:
        """Wait for what comes next.

        :raises FluxomailConnectionError: the stream broke, or was silent for too long.
        :raises FluxomailResponseError: what it sends is not Fluxomail's.
        """
        import httpx

        with self._errors():
            try:
                chunk = await anext(self._chunks)
            except httpx.ReadTimeout:
                raise FluxomailConnectionError(f"the event stream was silent for {self._silence:g} s") from None
            try:
                frames = self._frames.feed(chunk)
                return tuple(event for frame in frames if (event := _feed_event(frame)))
            except ValueError as error:
                raise FluxomailResponseError(str(error)) from None


def _feed_event(frame: str) -> events.FeedEvent | None:
    try:
        return events.FeedEvent.parse(json.loads(frame))
    except (ValueError, RecursionError):
        # Not worth the stream: what it told is found on the send's timeline.
        return None


def _http_client(settings: ClientSettings, verify: ssl.SSLContext | bool, proxy: str | None) -> httpx.AsyncClient:
    import httpx

    return httpx.AsyncClient(
        timeout=settings.timeout,
        follow_redirects=False,
        verify=verify,
        trust_env=False,
        proxy=proxy,
    )


@functools.lru_cache(maxsize=8)
def _tls(verify: bool | str) -> ssl.SSLContext | bool:
    """Return what httpx takes as ``verify``; the certificates are read once."""
    import httpx

    if isinstance(verify, str):
        path = Path(verify)
        return ssl.create_default_context(**{"capath" if path.is_dir() else "cafile": str(path)})  # type: ignore[arg-type]
    return httpx.create_ssl_context() if verify else False
