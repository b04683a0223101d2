"""The blocking client, over ``requests``."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_fluxomail.client import flows, wire
from airflow_provider_fluxomail.client.errors import FluxomailError
from airflow_provider_fluxomail.client.flows import BaseClient, Call, Flow
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.models import Request, Response, SendResult, Timeline

if TYPE_CHECKING:
    import requests

T = TypeVar("T")


class FluxomailClient(BaseClient):
    """Sends messages and reads timelines, from threads that may block.

    ::

        with FluxomailClient(ClientSettings(api_key="...")) as client:
            message = EmailMessage(to="ops@example.org", subject="Nightly load", content="Loaded 20 rows.")
            sent = client.send(message, idempotency_key="nightly-load-2026-01-01")
            print(client.get_timeline(sent.send_id).events)

    Use one per thread; it keeps its connection open between calls.

    .. seealso:: :doc:`/guides/client`

    :param settings: where Fluxomail is and how to talk to it.
    :param sleep: waits this many seconds between attempts.
    :param on_response: called with every response, error responses included.
    :param inline_images: shared by clients that send for the same task, so that it warns once.
    :param on_redirect: called in place of the observer before a message goes to ``redirect_to``.
    """

    def send(self, message: EmailMessage, *, idempotency_key: str | None = None) -> SendResult:
        """Send one message.

        Without a key, nothing is retried after a failure that leaves open whether the email went out.

        :param idempotency_key: identifies the logical message; the same key never sends twice.
        :raises FluxomailError: see :mod:`.errors`.
        """
        return self.run(self.send_flow(message, idempotency_key=idempotency_key))

    def get_timeline(self, send_id: str, *, max_attempts: int | None = None, within: float | None = None) -> Timeline:
        """Read what happened to a send, all pages of it.

        :param max_attempts: for each page; replaces that of the settings.
        :param within: seconds after which no further page is requested; the call fails instead.
        :raises FluxomailError: see :mod:`.errors`.
        """
        return self.run(flows.timeline(send_id, within=within), max_attempts=max_attempts)

    def run(self, flow: Flow[T], *, max_attempts: int | None = None) -> T:
        """Run an API call of one or more requests, see :mod:`.flows`.

        :param max_attempts: for each request; replaces that of the settings.
        :raises FluxomailError: see :mod:`.errors`.
        """
        with contextlib.closing(flow):
            step: Callable[[], Call] = functools.partial(next, flow)
            while True:
                try:
                    call = step()
                except StopIteration as end:
                    result: T = end.value
                    return result
                try:
                    step = functools.partial(flow.send, self._make(call, max_attempts))
                except FluxomailError as error:
                    step = functools.partial(flow.throw, error)

    def close(self) -> None:
        """Close the connections that are kept open."""
        if "_session" in self.__dict__:
            self._session.close()
            del self._session

    def __enter__(self) -> FluxomailClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _make(self, call: Call, max_attempts: int | None) -> Any:
        def attempt() -> Any:
            response = self.exchange(call.request)
            self._received(response)
            return call.read(call.request, response, self.settings)

        try:
            return attempt()
        except FluxomailError as error:
            first = [error]
        # Only now: its bookkeeping for one attempt takes as long as all else that is done here.
        from tenacity import Retrying

        def again() -> Any:
            if first:
                raise first.pop()
            return attempt()

        return Retrying(**self._retry_options(call, max_attempts))(again)

    @functools.cached_property
    def _session(self) -> requests.Session:
        from airflow_provider_fluxomail.client import read_deadline

        session = read_deadline.session(self.settings.proxy())
        session.verify = self.settings.trusted
        return session

    def exchange(self, request: Request) -> Response:
        """Make one request, once, and return the response, whatever its status.

        Errors are raised without their cause: a traceback with local variables would show those of the library, which
        hold the key, the recipient and the body. The text of the cause is in the message.

        :raises FluxomailConnectionError: there was no response.
        """
        # Imported here: importing requests costs a Dag parse some 100 ms, and no Dag parse sends.
        import requests
        import urllib3.exceptions

        from airflow_provider_fluxomail.client import read_deadline

        settings, url = self.settings, self.settings.url(request.path)
        session = self._session
        try:
            prepared = read_deadline.prepared(
                request.method, url, wire.request_headers(settings, request), request.content
            )
            with session.send(prepared, timeout=settings.timeout, allow_redirects=False, stream=True) as response:
                # read1 returns what has arrived: a body that trickles in would hold read() past any timeout.
                chunks = iter(functools.partial(response.raw.read1, 65536, decode_content=False), b"")
                return Response(
                    status=response.status_code,
                    headers={name.lower(): value for name, value in response.raw.headers.items()},
                    content=b"".join(chunks),
                )
        except read_deadline.ResponseTooLargeError:
            raise wire.too_large(request) from None
        except (requests.exceptions.InvalidURL, urllib3.exceptions.LocationValueError) as error:
            raise wire.unusable_connection(error) from None
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            # requests' own errors are OSErrors, and so are a missing CA bundle and a bare socket error. A ValueError
            # is about what the server sent, such as a second Content-Length.
            raise wire.no_response(request, settings, error, ambiguous=not _unsent(error)) from None


def _unsent(error: BaseException) -> bool:
    """Return whether no connection was made, so that the request certainly did not reach the server."""
    import requests
    import urllib3.exceptions

    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
