"""The asynchronous client, over ``httpx``."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from airflow_provider_fluxomail.client import events, flows, headers, wire
from airflow_provider_fluxomail.client.errors import (
    FluxomailConnectionError,
    FluxomailError,
    FluxomailResponseError,
)
from airflow_provider_fluxomail.client.flows import BaseClient, Call, Flow
from airflow_provider_fluxomail.client.json_text import read_json
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.models import Request, Response, SendResult, Timeline
from airflow_provider_fluxomail.client.sse import FrameReader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

T = TypeVar("T")

#: An upload gets time for at least this many bytes per second.
_LEAST_UPLOAD_RATE: Final = 64 * 1024


class AsyncFluxomailClient(BaseClient):
    """Sends messages, reads timelines and follows events, from one event loop.

    ::

        async with AsyncFluxomailClient(ClientSettings(api_key="...")) as client:
            message = EmailMessage(to="ops@example.org", subject="Nightly load", content="Loaded 20 rows.")
            sent = await client.send(message, idempotency_key="nightly-load-2026-01-01")
            print((await client.get_timeline(sent.send_id)).events)

    .. seealso:: :doc:`/guides/client`

    :param settings: where Fluxomail is and how to talk to it.
    :param sleep: waits this many seconds between attempts.
    :param on_response: called with every response, error responses included.
    :param inline_images: shared by clients that send for the same task, so that it warns once.
    :param on_redirect: called in place of the observer before a message goes to ``redirect_to``.
    """

    _http: httpx.AsyncHTTPTransport | None = None

    async def send(self, message: EmailMessage, *, idempotency_key: str | None = None) -> SendResult:
        """Send one message, see :meth:`.FluxomailClient.send`."""
        return await self.run(self.send_flow(message, idempotency_key=idempotency_key))

    async def get_timeline(
        self, send_id: str, *, max_attempts: int | None = None, within: float | None = None
    ) -> Timeline:
        """Read what happened to a send, see :meth:`.FluxomailClient.get_timeline`."""
        return await self.run(flows.timeline(send_id, within=within), max_attempts=max_attempts)

    async def run(self, flow: Flow[T], *, max_attempts: int | None = None) -> T:
        """Run an API call of one or more requests, see :meth:`.FluxomailClient.run`."""
        with contextlib.closing(flow):
            step: Callable[[], Call] = functools.partial(next, flow)
            while True:
                try:
                    call = step()
                except StopIteration as end:
                    result: T = end.value
                    return result
                try:
                    step = functools.partial(flow.send, await self._make(call, max_attempts))
                except FluxomailError as error:
                    step = functools.partial(flow.throw, error)

    async def list_events(
        self,
        wanted: events.EventFilter,
        *,
        since_ms: int,
        cursor: str | None = None,
        max_attempts: int | None = None,
    ) -> events.EventPage:
        """Read a page of what happened to the organization's messages, newest first.

        https://docs.fluxomail.com/api-reference/fluxomail/events

        :param since_ms: milliseconds since 1970, by Fluxomail's clock.
        :param cursor: of the page before.
        :param max_attempts: replaces that of the settings.
        :raises FluxomailError: see :mod:`.errors`.
        """
        request = events.list_request(wanted, since_ms=since_ms, cursor=cursor)
        return await self.run(flows.call(request, events.read_list), max_attempts=max_attempts)

    @contextlib.asynccontextmanager
    async def stream_events(
        self, wanted: events.EventFilter, *, since: str | None = None, silence: float
    ) -> AsyncIterator[EventStream]:
        """Open the stream of what happens to the organization's messages. Tries once.

        https://docs.fluxomail.com/api-reference/fluxomail/events

        :param since: id of the event to continue after; without it, the stream starts with what happens from now on.
        :param silence: seconds without a byte after which the stream counts as broken.
        :raises FluxomailError: see :mod:`.errors`.
        """
        request = events.stream_request(wanted, since=since)
        with self._transport_errors(request):
            response = await self._begin(request, read_timeout=silence)
        async with contextlib.aclosing(response):
            streams = response.status_code == 200 and headers.is_event_stream(response.headers)
            with self._transport_errors(request):
                body = b"" if streams else await self._body(request, response)
            head = _response(response, body)
            self._received(head)
            if not streams or headers.is_encoded(head.headers):
                wire.read_payload(request, head, self.settings)
                raise wire.response_error(request, head, "the response is no event stream")
            async with contextlib.aclosing(cast("AsyncGenerator[bytes]", response.aiter_raw())) as chunks:
                yield EventStream(
                    chunks,
                    functools.partial(self._transport_errors, request),
                    silence=silence,
                    since=since,
                    opened_at=headers.server_time(head.headers),
                )

    async def close(self) -> None:
        """Close the connections that are kept open."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def __aenter__(self) -> AsyncFluxomailClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _make(self, call: Call, max_attempts: int | None) -> Any:
        from tenacity import AsyncRetrying

        async def attempt() -> Any:
            response = await self._exchange(call.request)
            self._received(response)
            return call.read(call.request, response, self.settings)

        return await AsyncRetrying(**self._retry_options(call, max_attempts))(attempt)

    async def _exchange(self, request: Request) -> Response:
        """Move the bytes of one request and its response."""
        with self._transport_errors(request):
            response = await self._begin(request)
            async with contextlib.aclosing(response):
                body = await self._body(request, response)
                if _sent_more(response):
                    await response.extensions["network_stream"].aclose()
                return _response(response, body)

    async def _begin(self, request: Request, *, read_timeout: float | None = None) -> httpx.Response:
        """Send a request and return its response, of which only the head was read."""
        import httpx

        settings, url = self.settings, self.settings.url(request.path)
        timeouts = httpx.Timeout(settings.timeout, read=read_timeout or settings.timeout)
        try:
            if self._http is None:
                # Reading the certificates takes some 50 ms, too long for a shared event loop.
                verify = await asyncio.to_thread(_tls, settings.trusted)
                proxy = settings.proxy()
                # Not httpx's client, which keeps cookies and reads where a redirect points to.
                self._http = self._http or httpx.AsyncHTTPTransport(
                    verify=verify,
                    trust_env=False,
                    proxy=httpx.Proxy(proxy.url, headers=proxy.headers) if proxy else None,
                )
            prepared = httpx.Request(
                request.method,
                url,
                headers=wire.request_headers(settings, request),
                content=request.content,
                extensions={"timeout": timeouts.as_dict()},
            )
        except httpx.InvalidURL as error:
            raise wire.unusable_connection(error) from None
        # httpx's own timeouts start over with each byte.
        async with asyncio.timeout(2 * settings.timeout + len(request.content or b"") / _LEAST_UPLOAD_RATE):
            return await self._http.handle_async_request(prepared)

    async def _body(self, request: Request, response: httpx.Response) -> bytes:
        body = bytearray()
        async with asyncio.timeout(self.settings.timeout):
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > wire.MAX_RESPONSE_BYTES:
                    raise wire.too_large(request)
        return bytes(body)

    @contextlib.contextmanager
    def _transport_errors(self, request: Request) -> Iterator[None]:
        """Turn errors of the transport into this package's, without their cause, as in :mod:`.sync`."""
        import httpx

        try:
            yield
        except FluxomailError:
            raise
        except (httpx.TransportError, OSError, ValueError) as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                # anyio 4.10 and 4.13 were seen to lose a cancellation that comes when a read times out: the task would
                # never end.
                raise asyncio.CancelledError from None
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
            raise wire.no_response(request, self.settings, error, ambiguous=not unsent) from None


class EventStream:
    """An open stream of events.

    ::

        async with client.stream_events(EventFilter(types=("bounced",)), silence=60) as stream:
            async for events in stream:
                print([(event.send_id, event.event.reason) for event in events])

    Each step yields the events that arrived together, or none for a heartbeat. It ends when the server closes it.

    :param opened_at: Fluxomail's clock when the stream was opened, in epoch seconds.
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
        self._frames = FrameReader()
        self._since = since
        self.opened_at = opened_at

    @property
    def last_id(self) -> str | None:
        """The event after which the next stream must continue."""
        return self._frames.last_id or self._since

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> tuple[events.FeedEvent, ...]:
        """Wait for the next events.

        :raises FluxomailConnectionError: the stream broke, or was silent for too long.
        :raises FluxomailResponseError: its data is not Fluxomail's.
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
        return events.FeedEvent.parse(read_json(frame))
    except ValueError:
        # No reason to end the stream: the event is on the send's timeline as well.
        return None


def _response(response: httpx.Response, body: bytes) -> Response:
    return Response(status=response.status_code, headers=dict(response.headers.items()), content=body)


def _sent_more(response: httpx.Response) -> bool:
    """Return whether bytes follow the response: the next request on the connection would take them for its own."""
    # What h11 has received. httpcore has no public name for it; where it has another, only TLS is looked at.
    part: Any = response.stream
    for name in ("_httpcore_stream", "_stream", "_connection", "_h11_state", "trailing_data"):
        part = getattr(part, name, None)
    if isinstance(part, tuple) and part[0]:
        return True
    network: Any = response.extensions.get("network_stream")
    tls: ssl.SSLObject | None = network and network.get_extra_info("ssl_object")
    if tls is None:
        return False
    try:
        # Reads what was received and not decrypted yet, and nothing else.
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except OSError:
        pass
    return True


@functools.lru_cache(maxsize=8)
def _tls(verify: bool | str) -> ssl.SSLContext | bool:
    """Return what httpx takes as ``verify``; the certificates are read only once."""
    import httpx

    if isinstance(verify, str):
        path = Path(verify)
        return ssl.create_default_context(**{"capath" if path.is_dir() else "cafile": str(path)})  # type: ignore[arg-type]
    return httpx.create_ssl_context(trust_env=False) if verify else False
