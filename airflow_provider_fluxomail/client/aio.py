"""The asynchronous client, over ``httpx``: :mod:`.sync` for event loops."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_fluxomail.client import wire
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailResponseError, FluxomailValidationError
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.retries import Doubt, RetryPolicy
from airflow_provider_fluxomail.client.settings import ClientSettings

if TYPE_CHECKING:
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
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_answer: Callable[[wire.Response], None] | None = None,
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        self._on_answer = on_answer
        self._http: httpx.AsyncClient | None = None

    async def send(self, message: EmailMessage, *, idempotency_key: str | None = None) -> wire.SendResult:
        """Send one message, see :meth:`.FluxomailClient.send`."""
        request = wire.send_request(self.settings.guard.apply(message), idempotency_key)
        with Doubt() as doubt:
            sent = await self._call(request, wire.read_send, failures=doubt.failures)
        return dataclasses.replace(sent, own_replay=sent.reused and doubt.there)

    async def get_timeline(self, send_id: str, *, max_attempts: int | None = None) -> Timeline:
        """Read what happened to a send, see :meth:`.FluxomailClient.get_timeline`."""
        pages = wire.TimelineReader(send_id)
        while (request := pages.next_request()) is not None:
            await self._call(request, pages.read, max_attempts)
        return pages.timeline

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
            if self._on_answer:
                self._on_answer(answer)
            return read(request, answer, self.settings)

        policy = RetryPolicy.of(self.settings, max_attempts, failures)
        return await AsyncRetrying(sleep=self._sleep, **policy.options(request))(attempt)

    async def _exchange(self, request: wire.Request) -> wire.Response:
        """Move the bytes of one request and its answer. Errors come without their cause, as in :mod:`.sync`."""
        import httpx

        settings = self.settings
        try:
            if self._http is None:
                self._http = _http_client(settings)
            prepared = self._http.build_request(
                request.method,
                settings.base_url + request.path,
                headers={
                    **wire.request_headers(settings, request),
                    "Authorization": f"Bearer {settings.api_key}",
                },
                content=request.content,
            )
            # httpx's own time-outs count from each byte anew.
            async with asyncio.timeout(2 * settings.timeout + len(request.content or b"") / _LEAST_UPLOAD_RATE):
                answer = await self._http.send(prepared, stream=True)
            async with contextlib.aclosing(answer):
                body = wire.BoundedBody(request, settings.timeout)
                async with asyncio.timeout(settings.timeout):
                    async for chunk in answer.aiter_bytes():
                        body.add(chunk)
                return wire.Response(
                    status=answer.status_code, headers=dict(answer.headers.items()), content=body.content
                )
        except httpx.DecodingError:
            raise FluxomailResponseError(
                "the answer's compression is broken: it does not come from Fluxomail",
                idempotency_key=request.idempotency_key,
            ) from None
        except (ValueError, httpx.InvalidURL) as error:
            # A host or proxy that no library can use.
            raise FluxomailValidationError(f"the connection cannot be used: {type(error).__name__}") from None
        except (httpx.TransportError, OSError) as error:
            unsent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError)
            raise wire.no_answer(request, settings, error, ambiguous=not unsent) from None


def _http_client(settings: ClientSettings) -> httpx.AsyncClient:
    import httpx

    verify = _tls(settings.trusted)
    return httpx.AsyncClient(
        timeout=settings.timeout,
        follow_redirects=False,
        verify=verify,
        # The connection's proxies outrank the environment's, NO_PROXY included, as they do for requests.
        trust_env=not settings.proxies,
        mounts={
            f"{scheme.removesuffix('://')}://": httpx.AsyncHTTPTransport(proxy=proxy, verify=verify)
            for scheme, proxy in settings.proxies.items()
        },
    )


@functools.lru_cache(maxsize=8)
def _tls(verify: bool | str) -> ssl.SSLContext | bool:
    """Return what httpx takes as ``verify``; reading the certificates takes some 20 ms, so they are read once."""
    import httpx

    if isinstance(verify, str):
        path = Path(verify)
        return ssl.create_default_context(**{"capath" if path.is_dir() else "cafile": str(path)})  # type: ignore[arg-type]
    return httpx.create_ssl_context() if verify else False
