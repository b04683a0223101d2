"""The blocking client, over ``requests``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_fluxomail.client import wire
from airflow_provider_fluxomail.client.errors import FluxomailError, FluxomailResponseError, FluxomailValidationError
from airflow_provider_fluxomail.client.inline_images import InlineImageWarning
from airflow_provider_fluxomail.client.messages import EmailMessage
from airflow_provider_fluxomail.client.retries import Doubt, RetryPolicy
from airflow_provider_fluxomail.client.settings import ClientSettings

if TYPE_CHECKING:
    from types import TracebackType

    import requests

    from airflow_provider_fluxomail.client.timeline import Timeline

T = TypeVar("T")


class FluxomailClient:
    """Talks to Fluxomail from threads that may block. One per thread; keeps its connection open between calls.

    :param settings: where and how.
    :param sleep: waits that many seconds between attempts.
    :param on_answer: is shown every answer, refusals too.
    :param inline_images: shared by clients that send for the same task, so that it warns once.
    :param on_redirect: called in place of the observer before a message goes to ``redirect_to``.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        sleep: Callable[[float], None] = time.sleep,
        on_answer: Callable[[wire.Response], None] | None = None,
        inline_images: InlineImageWarning | None = None,
        on_redirect: Callable[[], None] | None = None,
    ) -> None:
        self.settings = settings
        self._sleep = sleep
        self._on_answer = on_answer
        self._inline_images = inline_images or InlineImageWarning()
        self._on_redirect = on_redirect or settings.observer.redirected

    def send(self, message: EmailMessage, *, idempotency_key: str | None = None) -> wire.SendResult:
        """Send one message.

        Without a key nothing is tried again after a failure that leaves open whether the mail went out.

        :param idempotency_key: names the logical message; the same key never sends twice.
        :raises FluxomailError: see :mod:`.errors`.
        """
        self._inline_images.check(message)
        request = wire.send_request(self.settings.guard.apply(message, self._on_redirect), idempotency_key)
        with Doubt(self.settings.observer) as doubt:
            sent = self._call(request, wire.read_send, failures=doubt.failures)
        return doubt.settle(sent)

    def get_timeline(self, send_id: str, *, max_attempts: int | None = None) -> Timeline:
        """Read what happened to a send, all pages of it.

        :param max_attempts: other than the settings' ``max_attempts``.
        :raises FluxomailError: see :mod:`.errors`.
        """
        pages = wire.TimelineReader(send_id)
        while (request := pages.next_request()) is not None:
            self._call(request, pages.read, max_attempts)
        return pages.timeline

    def exchange(self, request: wire.Request) -> wire.Response:
        """Make one request, once, and return the response, whatever its status.

        :raises FluxomailConnectionError: there was no response.
        """
        return self._exchange(request)

    def close(self) -> None:
        """Close the connections that are kept open."""
        if "_session" in self.__dict__:
            self._session.close()
            del self._session

    def __enter__(self) -> FluxomailClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(
        self,
        request: wire.Request,
        read: Callable[[wire.Request, wire.Response, ClientSettings], T],
        max_attempts: int | None = None,
        failures: list[FluxomailError] | None = None,
    ) -> T:
        from tenacity import Retrying

        policy = RetryPolicy.of(self.settings, max_attempts, failures)
        retrying = Retrying(sleep=self._sleep, **policy.options(request))

        def attempt() -> T:
            answer = self._exchange(request)
            if answer.status == 429:
                self.settings.observer.rate_limited()
            if self._on_answer:
                self._on_answer(answer)
            return read(request, answer, self.settings)

        # The reading is tried again too: half an answer, or a proxy's, says nothing of what the server did.
        return retrying(attempt)

    @cached_property
    def _session(self) -> requests.Session:
        from airflow_provider_fluxomail.client import read_deadline

        settings = self.settings
        session = read_deadline.session(settings.timeout)
        # Read once, and outranked by the connection: requests would read the environment for each request, which takes
        # it a tenth of the time of a send, and would let it replace the connection's certificates.
        session.trust_env = False
        proxy = settings.proxy()
        session.proxies = {"all": proxy} if proxy else {}
        return session

    def _exchange(self, request: wire.Request) -> wire.Response:
        """Move the bytes of one request and its answer.

        Errors come without their cause: a traceback that shows local variables would show the library's, and these are
        the key, the recipient and the body. What the cause had to say is in the message.
        """
        # Imported here: importing requests costs a Dag parse some 100 ms, and no Dag parse sends.
        import requests
        import urllib3.exceptions

        settings = self.settings

        def authorize(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
            # As auth, not as a header: requests replaces the header by an entry of ~/.netrc for the host.
            prepared.headers["Authorization"] = f"Bearer {settings.api_key}"
            return prepared

        try:
            with self._session.request(
                request.method,
                settings.base_url + request.path,
                headers=wire.request_headers(settings, request),
                data=request.content,
                auth=authorize,
                timeout=settings.timeout,
                allow_redirects=False,
                stream=True,
                verify=settings.trusted,
            ) as answer:
                body = wire.BoundedBody(request, settings.timeout)
                # read1 returns what has arrived: a body that trickles in would hold read() past any timeout.
                while chunk := answer.raw.read1(65536, decode_content=True):
                    body.add(chunk)
                return wire.Response(
                    status=answer.status_code,
                    headers={name.lower(): value for name, value in answer.headers.items()},
                    content=body.content,
                )
        except (requests.exceptions.ContentDecodingError, urllib3.exceptions.DecodeError):
            raise FluxomailResponseError(
                "the answer's compression is broken: it does not come from Fluxomail",
                idempotency_key=request.idempotency_key,
            ) from None
        except FluxomailValidationError:
            raise
        except ValueError as error:
            # A host or proxy that no library can use: requests' InvalidURL and its like.
            raise FluxomailValidationError(f"the connection cannot be used: {type(error).__name__}") from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            # requests' own errors are OSErrors, and so are a missing CA bundle and a bare socket error.
            raise wire.no_answer(request, settings, error, ambiguous=not _unsent(error)) from None


def _unsent(error: BaseException) -> bool:
    """True when the connection was never made, so the request certainly went nowhere."""
    import requests
    import urllib3.exceptions

    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ProxyError):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
