"""The sandbox as a server in a thread of this process, for tests and for the command line."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import threading
from typing import TYPE_CHECKING, Literal, Self

from airflow_provider_fluxomail.sandbox.limits import (
    DEFAULT_API_KEY,
    DEFAULT_EVENT_DELAY,
    DEFAULT_HOST,
    MAX_DELAY_SECONDS,
    Bounds,
)
from airflow_provider_fluxomail.sandbox.prefix import check_root_path

if TYPE_CHECKING:
    from collections.abc import Collection
    from os import PathLike
    from types import TracebackType

    from uvicorn import Server

    from airflow_provider_fluxomail.sandbox.state import Sandbox

logger = logging.getLogger(__name__)

_BACKLOG = 512
_GRACE_SECONDS = 1
"""How long open requests may take once the server stops."""


class SandboxStartError(RuntimeError):
    """The sandbox cannot start; the text is one line that says why and what to do."""


class SandboxServer:
    """A Fluxomail sandbox in a daemon thread with its own event loop.

    ::

        import requests

        from airflow_provider_fluxomail.sandbox import SandboxServer

        with SandboxServer(event_delay=0) as sandbox:
            headers = {"Authorization": f"Bearer {sandbox.api_key}"}
            body = {"to": "ops@example.org", "subject": "Hello", "content": "From the sandbox."}
            requests.post(f"{sandbox.url}/api/v1/emails/send", json=body, headers=headers)
            print(requests.get(f"{sandbox.url}/_sandbox/messages").json()["count"])

    Control calls go to ``{url}/_sandbox/...``, browsers to ``{url}/inbox``.

    :param api_key: the key that exists from the start, with all scopes and no rate limit.
    :param data: a SQLite file that keeps keys, pauses, messages, events and idempotency records across restarts; None
        keeps them in memory.
    :param event_delay: seconds from a send to its outcome event.
    :param host: address or name to listen on.
    :param port: TCP port; 0 picks a free one.
    :param bounds: what is kept at most.
    :param allow_hosts: host names for control calls and the inbox, besides addresses, ``localhost`` and ``host``.
    :param root_path: the path under which a proxy serves the sandbox, such as ``/mail``; requests may have it or not.
    :param http: uvicorn's HTTP implementation; ``auto`` uses the faster one that is installed.
    :param webhook_url: where signed webhooks are sent; the switch of that name.
    :param webhook_secret: what signs them; the switch of that name.
    :raises ValueError: an argument is out of range.
    """

    def __init__(
        self,
        api_key: str = DEFAULT_API_KEY,
        data: str | PathLike[str] | None = None,
        event_delay: float = DEFAULT_EVENT_DELAY,
        host: str = DEFAULT_HOST,
        port: int = 0,
        *,
        bounds: Bounds | None = None,
        allow_hosts: Collection[str] = (),
        root_path: str = "",
        http: Literal["auto", "h11", "httptools"] = "auto",
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
    ) -> None:
        if not api_key or not api_key.isascii() or not api_key.isprintable() or " " in api_key:
            raise ValueError("api_key must be printable ASCII without spaces, and not empty")
        if not 0 <= event_delay <= MAX_DELAY_SECONDS:
            raise ValueError(f"event_delay must be between 0 and {MAX_DELAY_SECONDS:.0f} seconds, not {event_delay}")
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be between 0 and 65535, not {port}")
        for name in allow_hosts:
            if not re.fullmatch(r"[A-Za-z0-9_.-]+", name):
                raise ValueError(f"allow_hosts takes names without a port, not {name!r}")
        self.api_key = api_key
        self.host = host
        self._data = data
        self._event_delay = float(event_delay)
        self._port = port
        self._bounds = bounds or Bounds()
        self._names = (host, *allow_hosts)
        self._root_path = check_root_path(root_path)
        self._http = http
        self._webhooks = {"webhook_url": webhook_url, "webhook_secret": webhook_secret}
        self._address: tuple[str, int] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None
        self._sandbox: Sandbox | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> tuple[str, int]:
        """The address and port the server is bound to.

        :raises RuntimeError: the server is not started.
        """
        if self._address is None:
            raise RuntimeError("the sandbox is not started: call start() or use it in a with statement")
        return self._address

    @property
    def port(self) -> int:
        """The TCP port; with ``port=0``, the one that was picked."""
        return self.address[1]

    @property
    def url(self) -> str:
        """Base URL without a trailing slash: the host of a Fluxomail connection."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def running(self) -> bool:
        """Whether the server thread is alive."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, timeout: float = 10.0) -> Self:
        """Bind, open the data file and serve; return when connections are accepted. Does nothing if running.

        :param timeout: seconds until it must be ready.
        :raises ImportError: the ``sandbox`` extra is not installed.
        :raises SandboxStartError: the address is in use or unknown, or the data file cannot be used.
        """
        if self.running:
            return self
        try:
            import uvicorn  # noqa: F401

            from airflow_provider_fluxomail.sandbox.app import build_app
            from airflow_provider_fluxomail.sandbox.state import Sandbox
            from airflow_provider_fluxomail.sandbox.store.records import StoreError, StoreFullError
            from airflow_provider_fluxomail.sandbox.switches import Switches
        except ImportError as error:
            raise ImportError(
                "The Fluxomail sandbox needs FastAPI, Jinja2 and uvicorn: "
                "pip install 'airflow-provider-fluxomail[sandbox]'"
            ) from error
        webhooks = {name: value for name, value in self._webhooks.items() if value is not None}
        try:
            switches = Switches.model_validate({"event_delay": self._event_delay} | webhooks)
        except ValueError as error:
            raise SandboxStartError("webhook_url must be an http or https URL, webhook_secret not empty") from error
        listener = _listen(self.host, self._port)
        try:
            self._sandbox = Sandbox(
                self.api_key,
                data=self._data,
                switches=switches,
                bounds=self._bounds,
                names=self._names,
                root_path=self._root_path,
            )
        except (StoreError, StoreFullError) as error:
            listener.close()
            raise SandboxStartError(str(error)) from error
        self._address = listener.getsockname()[:2]
        self._failure = None
        self._ready.clear()
        arguments, name = (build_app(self._sandbox), listener), f"fluxomail-sandbox-{self.port}"
        self._thread = threading.Thread(target=self._run, args=arguments, name=name, daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout) or self._failure is not None:
            failure = self._failure
            self.stop()
            raise SandboxStartError(f"the sandbox did not start: {failure or 'not ready in time'}") from failure
        if not ipaddress.ip_address(self._address[0].partition("%")[0]).is_loopback:
            logger.warning(
                "listening on %s: others on the network can read every message and use the control API, which has "
                "no password",
                self.host,
            )
        return self

    def stop(self, timeout: float = 10.0) -> None:
        """Stop accepting, close open connections and the data file. Does nothing if not running.

        :param timeout: seconds to wait for the thread.
        :raises TimeoutError: the thread is still alive then; it is a daemon and ends with the process.
        """
        thread, self._thread = self._thread, None
        self._address = None
        if thread is None:
            return
        loop, server, sandbox = self._loop, self._server, self._sandbox
        if loop is not None and server is not None and sandbox is not None:
            server.should_exit = True
            try:
                # Requests that a delay fault holds back would otherwise keep the server running for that long.
                loop.call_soon_threadsafe(sandbox.stop)
            except RuntimeError:
                pass  # The loop has already ended.
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError(f"the sandbox did not stop within {timeout:g} s")
        self._loop = self._server = self._sandbox = None

    def _run(self, app: object, listener: socket.socket) -> None:
        try:
            from airflow_provider_fluxomail.sandbox.realtime import RealTimeLoop

            with asyncio.Runner(loop_factory=RealTimeLoop) as runner:
                self._loop = runner.get_loop()
                runner.run(self._serve(app, listener))
        except BaseException as error:  # noqa: BLE001  start() raises it in the other thread
            self._failure = error
        finally:
            listener.close()
            if self._sandbox is not None:
                self._sandbox.close()
            self._ready.set()

    async def _serve(self, app: object, listener: socket.socket) -> None:
        import uvicorn

        from airflow_provider_fluxomail.sandbox.intake import RECEIVED_AT_ONCE, protocol_class

        assert self._sandbox is not None
        config = uvicorn.Config(
            app,  # type: ignore[arg-type]
            http=protocol_class(self._http, self._sandbox.intake),
            # Above our own bound, which has a better response.
            h11_max_incomplete_event_size=self._bounds.header_bytes + 2 * RECEIVED_AT_ONCE,
            ws="none",
            lifespan="off",
            interface="asgi3",
            # The process's own logging stays as it is; of uvicorn only errors are logged.
            log_config=None,
            log_level="error",
            access_log=False,
            # The app stamps Date with the sandbox clock: clients compare it with Retry-After dates.
            date_header=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        ready, sandbox, intake = self._ready, self._sandbox, self._sandbox.intake

        class AnnouncedServer(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if sandbox is not None:
                    sandbox.webhooks.apply()
                ready.set()

            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                intake.closed = True
                await super().shutdown(sockets)
                # What is left has a client that does not read.
                for connection in list(self.server_state.connections):
                    connection.transport.abort()

        server = self._server = AnnouncedServer(config)
        await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """Bind in the caller's thread: a port in use is the caller's error, and port 0 becomes a number."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SandboxStartError(f"unknown host {host!r}: {error}") from error
    family, kind, protocol, _, address = found[0]
    # With the protocol: without it, as from socket.create_server, asyncio would leave each response waiting for an ACK.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SandboxStartError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another port, or 0 for a free one"
        ) from error
    return listener
